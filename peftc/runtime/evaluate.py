"""Values of expressions at a site of a model.

In: a model, a site and IR nodes over its leaves.  Out: tensors, computed in float32 or
wider in the orientation [out, in], whatever dtype and layout the base is stored in.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftc.expr.evaluate import evaluate
from peftc.plan.equations import definitions, environment, initial_nodes
from peftc.runtime.codes import decode
from peftc.runtime.embedded import embedded
from peftc.runtime.names import tensor_path
from peftc.runtime.networks import taken_again
from peftc.runtime.saved import saved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peftc.expr.ir import Node
    from peftc.plan.types import AddedTensor, Plan, Rewrite
    from peftc.runtime.codes import Codes
    from peftc.runtime.initial import Evaluate
    from peftc.syntax.ast import Method
    from peftc.view import Site


NAMES = {"norm": ("g", "c"), "input": ("E", "")}
"""What equations call the weight and the offset of a site, where not W and bias."""

Read: TypeAlias = "Callable[[str], torch.Tensor]"
"""The value of a parameter of the base by its path."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in for a base of `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def row_index(site: Site, device: torch.device) -> torch.Tensor | None:
    """The row numbers of a site; None for a whole weight."""
    if site.rows is None:
        return None
    return torch.cat([torch.arange(a, b, device=device) for a, b in site.rows])


def is_transposed(model: nn.Module, site: Site) -> bool:
    """Whether a site's weight is stored [in, out].

    The site of an edge does not say it of the linear that the edge comes from.
    """
    return site.transposed or isinstance(model.get_submodule(site.owner), Conv1D)


def values_of(
    nodes: Sequence[Node], tensors: Mapping[str, torch.Tensor], sizes: Mapping[str, int]
) -> list[torch.Tensor]:
    """The values of expressions, in the widest dtype of the tensors given."""
    floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, floating, torch.float32)
    with torch.no_grad():
        return evaluate(nodes, tensors, sizes, dtype)


def base_values(model: nn.Module, site: Site, read: Read) -> Mapping[str, torch.Tensor]:
    """The base's parameters of a site under the names that equations use."""
    weight, offset = NAMES.get(site.kind, ("W", "bias"))
    values = {}
    for name, path in ((weight, site.weight), (offset, site.bias)):
        if path:
            value = read(path)
            value = value.mT if name == "W" and is_transposed(model, site) else value
            values[name] = chosen(site, name, value).to(wide(value.dtype))
    return values


def chosen(site: Site, name: str, value: torch.Tensor) -> torch.Tensor:
    """A site's rows of its weight `W` [..., out, in] or its bias [..., out]."""
    rows = row_index(site, value.device)
    if rows is None:
        return value
    return value.index_select(-2 if name == "W" else -1, rows)


def by_expert(
    rewrite: Rewrite, values: Mapping[str, torch.Tensor]
) -> list[Mapping[str, torch.Tensor]]:
    """The values that each expert's equation reads; of a plain site, the values."""
    experts = rewrite.site.experts
    if not experts:
        return [values]
    own = rewrite.stacked | {"W", "bias"}
    return [
        {name: v[i] if name in own else v for name, v in values.items()}
        for i in range(experts)
    ]


def reader(model: nn.Module, plan: Plan, codes: Codes) -> Read:
    """Reads parameters of the base; one that is kept in `codes` is decoded."""
    stores = {s.weight: s for s in plan.stores}

    def read(path: str) -> torch.Tensor:
        if path in stores:
            return decode(stores[path], codes[path])
        return model.get_parameter(path).detach()

    return read


def evaluations(
    model: nn.Module,
    plan: Plan,
    codes: Codes,
    known: Mapping[str, torch.Tensor] | None = None,
) -> Mapping[str, Evaluate]:
    """For each site: what gives the initial values that read the base or adapters.

    A weight that is kept in `codes` is read decoded.  What is among the `known` values
    of added tensors, by path, is not looked for in other adapters.
    """
    methods, read = definitions(plan), reader(model, plan, codes)
    return {
        r.site.key: _evaluation(model, r, methods, read, known or {})
        for r in plan.rewrites
    }


def _evaluation(
    model: nn.Module,
    rewrite: Rewrite,
    methods: Mapping[str, Method],
    read: Read,
    known: Mapping[str, torch.Tensor],
) -> Evaluate:
    def value(tensor: AddedTensor, stream: torch.Generator) -> torch.Tensor:
        if tensor.init.startswith("saved("):
            path = tensor_path(rewrite.site, tensor)
            return known[path] if path in known else saved(tensor, path)
        if tensor.init.startswith("embedded("):
            return embedded(model, rewrite.site, tensor, stream)
        if rewrite.site.kind == "side":
            return taken_again(model, rewrite, tensor)
        node = initial_nodes(rewrite, methods)[tensor.name]
        values = by_expert(rewrite, base_values(model, rewrite.site, read))
        if not rewrite.site.experts or tensor.shared:
            return values_of([node], values[0], environment(rewrite))[0]
        each = [values_of([node], v, environment(rewrite))[0] for v in values]
        return torch.stack([v.expand(tensor.shape[1:]) for v in each])

    return value
