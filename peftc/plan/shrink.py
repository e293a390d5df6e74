"""The plan that is left when places of axes are dropped, at each site others.

In: a plan, and for the vectors of controls that cut (`Signature.cuts`) the places that
are kept.  Out: `Shrinking`: a plan in which the knob that is the axis's size counts
them, and which slices the tensors are.  It must not change what a method computes:
along the axis everything is multiplied by the vector, and no number depends on its
size.  Merge classes and programs are to be made again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import NotCut
from peftc.expr.controls import controls
from peftc.expr.ir import Leaf, walk
from peftc.expr.normal import flatten
from peftc.expr.splits import Mismatch
from peftc.plan.equations import definitions, equation_of
from peftc.plan.types import AddedTensor, Application, Merge, Plan, Rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.expr.equation import Equation
    from peftc.expr.ir import Node
    from peftc.expr.normal import Term
    from peftc.expr.sizes import Size
    from peftc.syntax.ast import Method

    Kept = Mapping[tuple[str, str], Sequence[int]]


@dataclass(frozen=True)
class Vector:
    """A vector whose zeros are cut: a tensor of a site."""

    rewrite: Rewrite
    tensor: AddedTensor

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others of a plan."""
        return self.rewrite.site.key, self.tensor.name


@dataclass(frozen=True)
class Cut:
    """A tensor that loses places of an axis; `axis` counts from the last one."""

    rewrite: Rewrite
    tensor: AddedTensor
    axis: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Shrinking:
    """A plan after cutting, and what was cut from which tensors."""

    plan: Plan
    cuts: tuple[Cut, ...] = ()


def vectors(plan: Plan) -> Iterator[Vector]:
    """The vectors of a plan whose zeros an export cuts."""
    methods = definitions(plan)
    for rewrite in plan.rewrites:
        named = {tensor.name: tensor for tensor in rewrite.tensors}
        for one in rewrite.applications:
            for leaf in _cutting(equation_of(one, rewrite.site, methods)):
                yield Vector(rewrite, named[leaf.name])


def _cutting(equation: Equation) -> Iterator[Leaf]:
    """The first operands of controls that cut, of wrapped methods too."""
    known = controls()
    for control in equation.controls:
        first = control.operands[0] if control.operands else None
        if known[control.name].cuts and isinstance(first, Leaf):
            yield first


def shrink(plan: Plan, kept: Kept) -> Shrinking:
    """Cut axes to the places that are kept.

    Raises:
        PeftcError: PEFT322 where that would change what a method computes.
    """
    if not kept:
        return Shrinking(plan)
    work = _Work(definitions(plan), kept, [])
    rewrites = tuple(map(work.rewrite, plan.rewrites))
    return Shrinking(replace(plan, rewrites=rewrites), tuple(work.cuts))


@dataclass(frozen=True)
class _Work:
    methods: Mapping[str, Method]
    kept: Kept
    cuts: list[Cut]

    def rewrite(self, rewrite: Rewrite) -> Rewrite:
        """A rewrite with its axes cut; programs are to be made."""
        made = tuple(self._cut(rewrite, one) for one in rewrite.applications)
        if made == rewrite.applications:
            return rewrite
        return replace(rewrite, applications=made, merge=Merge(), programs=())

    def _cut(self, rewrite: Rewrite, one: Application) -> Application:
        wraps = tuple(self._cut(rewrite, part) for part in one.wraps)
        one = replace(one, wraps=wraps)
        own = {tensor.name for tensor in one.tensors}
        for leaf in _cutting(equation_of(one, rewrite.site, self.methods)):
            places = self.kept.get((rewrite.site.key, leaf.name))
            if places is not None and leaf.name in own:
                return self._smaller(rewrite, one, leaf, tuple(places))
        return one

    def _smaller(
        self, rewrite: Rewrite, one: Application, leaf: Leaf, kept: tuple[int, ...]
    ) -> Application:
        site, (axis,) = rewrite.site, leaf.axes
        knob = str(axis).removeprefix(f"{one.instance}.")
        knobs = tuple((n, len(kept) if n == knob else v) for n, v in one.knobs)
        new = replace(one, knobs=knobs)
        before = equation_of(one, site, self.methods)
        after = equation_of(new, site, self.methods)
        if problem := _problem(one, leaf, knob, before, after):
            named = {"method": one.method, "site": site.key}
            raise fail(NotCut(span=None, **named, problem=problem))
        axes = {declared.name: declared.axes for declared in before.declarations}
        tensors = []
        for tensor in one.tensors:
            own = axes[tensor.name]
            shape = list(tensor.shape)
            for index in (i - len(own) for i, a in enumerate(own) if a == axis):
                self.cuts.append(Cut(rewrite, tensor, index, kept))
                shape[index] = len(kept)
            tensors.append(replace(tensor, shape=tuple(shape)))
        return replace(new, tensors=tuple(tensors))


def _problem(
    one: Application, leaf: Leaf, knob: str, before: Equation, after: Equation
) -> str:
    """Why the axis of a vector cannot be cut, or nothing."""
    (axis,) = leaf.axes
    if knob not in dict(one.knobs):
        return f"`{axis}` is no knob of its own"
    along = [d for d in before.declarations if axis.symbols & _symbols(d.axes)]
    if any(d.shared or d.kind == "buffer" for d in along):
        return f"a shared or fixed tensor has the axis `{knob}`"
    if any(axis.symbols & _symbols([a]) for d in along for a in d.axes if a != axis):
        return f"another axis depends on `{knob}`"
    for target, node in before.rules.items():
        terms, left = _terms(node), _terms(after.rules[target])
        if terms is None or left is None:
            return f"`{target}'` is no sum of products"
        if [t.coef for t in terms] != [t.coef for t in left]:
            return f"`{target}'` depends on the number `{knob}`"
        if not all(_vanishes(term, leaf, axis) for term in terms):
            return f"not all of `{target}'` along `{knob}` is multiplied by it"
    return ""


def _symbols(axes: Sequence[Size]) -> frozenset[str]:
    return frozenset[str]().union(*(axis.symbols for axis in axes))


def _terms(node: Node) -> list[Term] | None:
    try:
        return flatten(node)
    except Mismatch:
        return None


def _vanishes(term: Term, leaf: Leaf, axis: Size) -> bool:
    """Whether a term is a sum over places of the axis, each times the vector there."""
    zeroed = {labels[0] for factor, labels in term.factors if factor is leaf}
    for factor, labels in term.factors:
        along = {x for x, size in zip(labels, factor.axes, strict=True) if size == axis}
        if along - zeroed:
            return False
        if not isinstance(factor, Leaf) and _inside(factor, axis):
            return False
    return True


def _inside(factor: Node, axis: Size) -> bool:
    """Whether a part that is no product has the axis somewhere inside."""
    return any(
        axis.symbols & _symbols(node.axes)
        for node in walk(factor)
        if isinstance(node, Leaf)
    )
