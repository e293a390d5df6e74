"""The controls of a training plan, made.

In: a `TrainingPlan`.  Out: its controls, of the classes that the table in
`peftc.expr.controls` names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.schedules import SeveralOfAKind
from peftc.expr.controls import controls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.plan.training import TrainingPlan
    from peftc.training.control import Control
    from peftc.training.run import Run


def load_controls(plan: TrainingPlan, run: Run) -> tuple[Control, ...]:
    """The controls of a plan in its order."""
    return tuple(control_class(one.control)(one, run) for one in plan.controls)


def check_single(found: Sequence[Control]) -> None:
    """Refuse two controls that set the same thing of the whole run.

    Raises:
        PeftcError: PEFT696.
    """
    for fact, what in (("schedules", "learning rate"), ("optimizes", "optimizer")):
        own = [control.plan.name for control in found if getattr(control, fact)]
        if len(own) > 1:
            raise fail(SeveralOfAKind(one=own[0], other=own[1], what=what))


def control_class(name: str) -> type[Control]:
    """The class of a control."""
    module, _, attribute = controls()[name].code.partition(":")
    found: type[Control] = getattr(import_module(module), attribute)
    return found
