"""A capture knows which values will need gradients.

While a forward is traced, the base is frozen and the methods are not in it yet, so no
value would seem to need a gradient.  Code that asks would then be captured for another
case than ours: above all a custom `torch.autograd.Function`, whose forward is taken for
ordinary operations if nothing needs its backward, and gradients would flow through
those instead.

In: the modules that own added parameters.  Out: a hook on each that says in the trace
that what the module gives needs a gradient; `erase` takes what the hooks said out of
the captured graph again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from peftc.runtime.bind import ran_unadapted
from peftc.runtime.tripwire import ours

if TYPE_CHECKING:
    from collections.abc import Iterable


@torch._dynamo.allow_in_graph  # type: ignore[untyped-decorator]  # torch leaves it so
def needed(value: torch.Tensor) -> torch.Tensor:
    """The value, as one that needs a gradient.

    No leaf and no view of one: the forward may go on to change it in place.

    Raises:
        PeftcError: when run on anything but Dynamo's fake tensors.
    """
    if not isinstance(value, FakeTensor):
        raise ran_unadapted()
    return value.detach().requires_grad_().clone()


class Needed:
    """A forward hook; a class, so that models can be pickled."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Mark what the module gives, in our capture and where gradients are on."""
        if not torch.compiler.is_dynamo_compiling() or not ours():
            return None
        return _marked(output) if torch.is_grad_enabled() else None


def _marked(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return needed(output) if output.is_floating_point() else output
    if type(output) is tuple:
        return tuple(_marked(one) for one in output)
    return output


def add_marks(model: nn.Module, owners: Iterable[str]) -> None:
    """Hook every owner."""
    for owner in owners:
        model.get_submodule(owner).register_forward_hook(Needed())


def remove_marks(model: nn.Module) -> None:
    """Take all hooks back, wherever the modules are now."""
    for module in model.modules():
        hooks = module._forward_hooks
        for key, hook in list(hooks.items()):
            if isinstance(hook, Needed):
                del hooks[key]


def erase(gm: fx.GraphModule) -> None:
    """Take the marks out of a graph and of the bodies in it."""
    for module in gm.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.find_nodes(op="call_function", target=needed):
                node.replace_all_uses_with(node.args[0], propagate_meta=False)
                module.graph.erase_node(node)
            module.recompile()
