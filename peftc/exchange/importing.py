"""A folder of another tool as a spec, and as an adapter of ours.

In: a folder and the view of a model.  Out: `Draft`; and, once a plan is made of its
spec, the `Adapter` with its tensors.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from peftc.exchange.adapterhub import reading as adapterhub
from peftc.exchange.folder import is_peft, read_folder
from peftc.exchange.peft import TUNERS, modules_to_save
from peftc.plan.print import plan_hash, plan_text
from peftc.runtime.adapters import expected
from peftc.runtime.fingerprint import fingerprint
from peftc.runtime.state import Adapter, check_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from peftc.exchange.tuner import Draft
    from peftc.plan.types import Plan
    from peftc.view import ModelView


def draft_of(path: Path, view: ModelView) -> Draft:
    """What a folder of PEFT or of AdapterHub means for a model.

    Raises:
        PeftcError: PEFT732 if the folder is damaged, PEFT733 for a setting that is not
            known here.
    """
    if not is_peft(path):
        return adapterhub.read(path, view)
    folder = read_folder(path)
    known = {tuner.type: tuner for tuner in TUNERS}
    if folder.type not in known:
        raise folder.refused("peft_type", f"known are {', '.join(known)}")
    rest, saved = modules_to_save.without(folder)
    return modules_to_save.joined(
        rest, known[folder.type].read(rest, view), saved, view
    )


def adapter_of(path: Path, draft: Draft, plan: Plan, model: nn.Module) -> Adapter:
    """The adapter that a folder is, with the plan of its spec for a model.

    Raises:
        PeftcError: PEFT623 if its tensors are others than the plan's.
    """
    wanted = expected(model, plan)
    given = draft.fill(plan, lambda name: model.get_parameter(name).detach())
    tensors = {
        name: value.to(wanted[name].dtype) if name in wanted else value
        for name, value in given.items()
    }
    adapter = Adapter(
        path,
        spec=draft.spec,
        plan=plan_text(plan),
        plan_hash=plan_hash(plan),
        base=fingerprint(model).text(),
        seed=plan.seed,
        version=version("peftc"),
        any_base=False,
        tensors=tensors,
    )
    check_tensors(adapter, wanted)
    return adapter
