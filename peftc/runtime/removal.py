"""Giving the base back.

In: a handle.  Out: its model as it was before `install`: modules, flags, hooks, forward
and methods of the instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftc.runtime.needed import remove_marks
from peftc.runtime.parameters import detach
from peftc.runtime.resume import remove_check
from peftc.runtime.saving import ABSENT
from peftc.runtime.side import disconnect
from peftc.runtime.tripwire import remove_tripwires

if TYPE_CHECKING:
    from torch import nn

    from peftc.runtime.handle import Handle

INPUT_GRADIENTS = "enable_input_require_grads"


def remove(handle: Handle) -> None:
    """Take the methods out of the model; whoever still holds an entry runs the base."""
    model = handle.model
    handle.switch.off = True
    for entry in handle.entries:
        own = entry.module.__dict__
        if own.get("forward") is entry:
            del own["forward"]
            if entry.previous is not None:
                own["forward"] = entry.previous
    disconnect(model, handle.entries)
    remove_tripwires(model, handle.switch)
    remove_marks(model)
    remove_check(model)
    detach(model, handle.attached)
    for name, value in handle.own.items():
        del model.__dict__[name]
        if value != ABSENT:
            model.__dict__[name] = value


def do_nothing() -> None:
    """Stand for a method that has nothing to do."""


def quiet_input_gradients(model: nn.Module) -> None:
    """Take away the hook by which Transformers makes embeddings require gradients.

    It is for reentrant checkpointing, which needs an input with gradients; ours does
    not, and the hook cannot be captured.  With `do_nothing` in place of
    INPUT_GRADIENTS, none comes later.
    """
    one: Any = model
    if getattr(one, "_require_grads_hooks", None):
        one.disable_input_require_grads()
