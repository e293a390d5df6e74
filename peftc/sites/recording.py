"""Hidden states and attentions that Transformers records by hooks.

In: a model.  Out: the same, with its hooks.  Transformers hooks the layers when a
forward first records; it takes a lock for that, which cannot be traced, so it is done
before.  Some models record for their own use (a decoder of images reads every stage).
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_MODULE = "transformers.utils.output_capturing"
_INSTALLED = "_output_capturing_hooks_installed"


def lacks_hooks(error: BaseException) -> bool:
    """Whether a trace broke where Transformers would hook the layers."""
    place = f"{_MODULE.rpartition('.')[2]}.py"
    return place in str(error) and "maybe_install_capturing_hooks" in str(error)


def install_output_hooks(model: nn.Module) -> None:
    """Let Transformers hook the layers now.

    Only for calls that need the hooks: a model with them cannot be pickled.
    """
    if find_spec(_MODULE) is None:
        return
    from transformers import PreTrainedModel
    from transformers.utils.output_capturing import maybe_install_capturing_hooks

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            if not getattr(module, _INSTALLED, False):
                _take_hooks(module)
            maybe_install_capturing_hooks(module)


@contextmanager
def recording_inside(model: nn.Module) -> Iterator[None]:
    """Around the call of a layer that is captured alone, in a model that may record.

    Its hooks ask a context variable where to put what they see, which cannot be traced;
    where Transformers knows that a forward is traced they ask a global one.  It finds
    that out for a model that is traced as a whole only, so here it is told.
    """
    if not getattr(model, _INSTALLED, False):
        yield
        return
    from transformers.utils import output_capturing

    active: Any = output_capturing._active_collector
    before = active.compiling, active.global_var
    active.global_var, active.compiling = active.get(), True
    try:
        yield
    finally:
        active.compiling, active.global_var = before


def _take_hooks(model: nn.Module) -> None:
    """Take the hooks that a part has, from an earlier forward: the whole would hook it
    once more, and record everything twice."""
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "") == _MODULE:
                del module._forward_hooks[key]
