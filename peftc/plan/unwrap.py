"""A plan without its wrappers over tensors: each wrapped tensor holds its `p'`.

In: a plan.  Out: the same plan with what these wrappers wrap in their place, and for
each tensor that they changed its value, over the tensors of its site before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.wrap import over_tensors
from peftc.plan.equations import (
    definitions,
    environment,
    equation_of,
    equations_of,
    wrapper_of,
)
from peftc.plan.types import AddedTensor, Application, Merge, Plan, Rewrite, stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.ir import Node
    from peftc.syntax.ast import Method

    Values = dict[Node, Node]


@dataclass(frozen=True)
class Part:
    """What a new tensor holds: an expression over the tensors of its site before."""

    rewrite: Rewrite
    tensor: AddedTensor
    node: Node
    sizes: Mapping[str, int]
    leaf: Node | None = None
    """The tensor as equations read it, where they did before."""

    @property
    def like(self) -> str:
        """One of the tensors it is made of."""
        leaves = (n for n in ir.walk(self.node) if isinstance(n, ir.Leaf))
        return next(leaf.name for leaf in leaves if leaf.kind == "param")


def unwrap(plan: Plan) -> tuple[Plan, tuple[Part, ...]]:
    """The plan without wrappers over tensors, unless that is larger."""
    methods = definitions(plan)
    if not any(map(over_tensors, methods.values())):
        return plan, ()
    found = [_rewrite(rewrite, methods) for rewrite in plan.rewrites]
    rewrites = tuple(rewrite for rewrite, _ in found)
    if _scalars(rewrites) > _scalars(plan.rewrites):
        return plan, ()
    left = tuple(m for m in plan.methods if not over_tensors(m))
    parts = tuple(part for _, parts in found for part in parts)
    return replace(plan, methods=left, rewrites=rewrites), parts


def _scalars(rewrites: Sequence[Rewrite]) -> int:
    return sum(tensor.count for _, tensor in stored(rewrites) if not tensor.drawn)


def _rewrite(
    rewrite: Rewrite, methods: Mapping[str, Method]
) -> tuple[Rewrite, list[Part]]:
    found = [_unwrapped(a, rewrite, methods) for a in rewrite.applications]
    values = {leaf: node for _, some in found for leaf, node in some.items()}
    if not values:
        return rewrite, []
    known = {tensor.name: tensor for tensor in rewrite.tensors}
    restored = {
        leaf.name: known.get(leaf.name) or _restored(leaf, node, rewrite, known)
        for leaf, node in values.items()
        if isinstance(leaf, ir.Leaf)
    }
    applications = tuple(
        _with_tensors(one, rewrite, methods, {**known, **restored})
        for some, _ in found
        for one in some
    )
    new = replace(rewrite, applications=applications, merge=Merge(), programs=())
    sizes, left = environment(rewrite), {tensor.name for tensor in new.tensors}
    parts = [
        Part(rewrite, restored[leaf.name], node, sizes, leaf)
        for leaf, node in values.items()
        if isinstance(leaf, ir.Leaf) and leaf.name in left
    ]
    return new, parts


def _unwrapped(
    application: Application, rewrite: Rewrite, methods: Mapping[str, Method]
) -> tuple[tuple[Application, ...], Values]:
    """What is left of an application, and the values of tensors that were changed."""
    inner = [_unwrapped(part, rewrite, methods) for part in application.wraps]
    wraps = tuple(one for some, _ in inner for one in some)
    values = {leaf: node for _, some in inner for leaf, node in some.items()}
    method = methods[application.method]
    if not over_tensors(method):
        return (replace(application, wraps=wraps),), values
    wrapper = wrapper_of(application, rewrite.site, method)
    own: Values = {}
    for part in application.wraps:
        for equation in equations_of(part, rewrite.site, methods):
            own |= wrapper.values(equation)
    changed = {leaf: ir.replace([node], own)[0] for leaf, node in values.items()}
    return wraps, {**own, **changed}


def _restored(
    leaf: ir.Leaf, node: Node, rewrite: Rewrite, known: Mapping[str, AddedTensor]
) -> AddedTensor:
    """A tensor that a wrapper had replaced; shared as what replaced it."""
    shape = tuple(axis.value(environment(rewrite)) for axis in leaf.axes)
    shared = ""
    for part in ir.walk(node):
        of = known.get(part.name) if isinstance(part, ir.Leaf) else None
        shared = of.shared.removesuffix(f"/{of.name}") if of and of.shared else shared
    experts = rewrite.site.experts if not shared else 0
    shape = (experts, *shape) if experts else shape
    return AddedTensor(leaf.name, shape, "param", "0", shared)


def _with_tensors(
    application: Application,
    rewrite: Rewrite,
    methods: Mapping[str, Method],
    known: Mapping[str, AddedTensor],
) -> Application:
    """An application and what it wraps with all tensors that their clauses declare."""
    wraps = tuple(
        _with_tensors(part, rewrite, methods, known) for part in application.wraps
    )
    bare = replace(application, wraps=())
    declared = equation_of(bare, rewrite.site, methods).declarations
    tensors = tuple(known[one.name] for one in declared)
    return replace(application, tensors=tensors, wraps=wraps)
