"""Hidden states and attentions that Transformers records by hooks.

In: a model.  Out: the same, with its hooks.  Transformers hooks the layers when a
forward first records; it takes a lock for that, which cannot be traced, so it is done
before.  Some models record for their own use (a decoder of images reads every stage).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def _take_hooks(model: nn.Module) -> None:
    """Take the hooks that a part has, from an earlier forward: the whole would hook it
    once more, and record everything twice."""
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", "") == _MODULE:
                del module._forward_hooks[key]
