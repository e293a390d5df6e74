"""The controls of a training plan, made.

In: a `TrainingPlan`.  Out: its controls, of the classes that the table in
`peftc.expr.controls` names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from peftc.expr.controls import controls

if TYPE_CHECKING:
    from peftc.plan.training import TrainingPlan
    from peftc.training.control import Control
    from peftc.training.run import Run


def load_controls(plan: TrainingPlan, run: Run) -> tuple[Control, ...]:
    """The controls of a plan in its order."""
    return tuple(control_class(one.control)(one, run) for one in plan.controls)


def control_class(name: str) -> type[Control]:
    """The class of a control."""
    module, _, attribute = controls()[name].code.partition(":")
    found: type[Control] = getattr(import_module(module), attribute)
    return found
