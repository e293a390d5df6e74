"""Wrappers over tensors in a plan: what they add, and what is no longer there.

In: an application of such a wrapper without its tensors, around others with theirs.
Out: the application with its tensors, or None where it changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.wrappers import ControlledTensor
from peftc.expr.ir import Leaf, walk
from peftc.plan.equations import equations_of, knob_sizes, wrapper_of
from peftc.plan.types import DRAWN, AddedTensor, Application

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.expr.equation import Declaration
    from peftc.expr.sizes import Size
    from peftc.syntax.ast import Method
    from peftc.view import Site

    Number = Callable[[Size, Mapping[str, int], Declaration], int]
    Text = Callable[[Declaration], str]


def changes(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> bool:
    """Whether a wrapper over tensors has a clause for any tensor at a site."""
    wrapper = wrapper_of(application, site, methods[application.method])
    every = (equations_of(part, site, methods) for part in application.wraps)
    return any(
        wrapper.clause_for(declared) is not None
        for equations in every
        for equation in equations
        for declared in equation.declarations
    )


def with_tensors(
    bare: Application,
    site: Site,
    methods: Mapping[str, Method],
    number: Number,
    text: Text,
) -> Application:
    """The application with its tensors; what it wraps keeps those that are still read.

    Args:
        number: of an axis with these sizes, for a tensor.
        text: of an initial value that copies none.
    """
    declared = [
        one
        for equation in equations_of(bare, site, methods)
        for one in equation.declarations
    ]
    known = {tensor.name: tensor for tensor in bare.all_tensors}
    sizes = {**dict(site.sizes), **knob_sizes(bare)}
    new = []
    for one in declared:
        if one.name in known:
            continue
        shape = tuple(number(axis, sizes, one) for axis in one.axes)
        made = _tensor(one, shape, known, site)
        init = made.init or text(one)
        known[one.name] = replace(made, init=init)
        new.append(known[one.name])
    kept = {one.name for one in declared}
    _check_controls(bare, site, methods, kept)
    wraps = tuple(_kept(part, kept) for part in bare.wraps)
    return replace(bare, tensors=tuple(new), wraps=wraps)


def _check_controls(
    bare: Application, site: Site, methods: Mapping[str, Method], kept: set[str]
) -> None:
    """Refuse to take a tensor away that training works on."""
    for part in bare.wraps:
        for equation in equations_of(part, site, methods):
            for control in equation.controls:
                leaves = (n for n in walk(*control.operands) if isinstance(n, Leaf))
                added = [n for n in leaves if n.kind in ("param", "buffer")]
                for gone in (n.name for n in added if n.name not in kept):
                    text = {"wrapper": bare.method, "control": control.name}
                    raise fail(ControlledTensor(span=control.span, **text, tensor=gone))


def _tensor(
    declared: Declaration,
    shape: tuple[int, ...],
    known: Mapping[str, AddedTensor],
    site: Site,
) -> AddedTensor:
    """A tensor for another: shared as that is, with an axis of experts as that has."""
    of = known[declared.of]
    shared = f"{of.shared}/{declared.name}" if of.shared else ""
    experts = (site.experts,) if site.experts and not shared else ()
    init = ""
    if declared.init.copies:
        init = _copied(known[declared.init.copies], len(experts), (*experts, *shape))
    return AddedTensor(declared.name, (*experts, *shape), declared.kind, init, shared)


def _copied(of: AddedTensor, first: int, shape: tuple[int, ...]) -> str:
    """The text of an initial value that is another tensor's, along more axes."""
    if not DRAWN.match(of.init) and not of.init.startswith("copies("):
        return of.init
    name = f"{of.name}@{of.shared}" if of.shared else of.name
    return f'copies("{name}", {first}, {len(shape) - len(of.shape)}, {of.init})'


def _kept(application: Application, names: set[str]) -> Application:
    tensors = tuple(t for t in application.tensors if t.name in names)
    wraps = tuple(_kept(part, names) for part in application.wraps)
    return replace(application, tensors=tensors, wraps=wraps)
