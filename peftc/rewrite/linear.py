"""A linear's weight as equations mean it, and its product applied to other inputs.

In: a use of a linear site, whole or some rows of a fused one.  Out: inserted nodes.
Programs see the weight as [out, in] however it is stored, and of the site's rows only.
"""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import NotRepeatable, TokensOfExperts
from peftc.rewrite.edit import now, settle
from peftc.rewrite.emit import emit
from peftc.rewrite.insert import Inserter, example, replay
from peftc.rewrite.real import real_tokens
from peftc.sites import ops

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.experts import Experts
    from peftc.rewrite.insert import Repeat
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import LinearAnchor

PURE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    "add_": "add",
    "mul_": "mul",
}
"""In-place functions and methods of graphs, and what gives their value alone."""

Given: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
"""The arguments of a call."""


def output(use: Use[LinearAnchor]) -> fx.Node:
    """The linear's output so far.

    One that the model completes in place is read from the node that does, from now on.
    """
    anchor = use.anchor
    if anchor.written is not None:
        settle(use.capture, anchor.y, anchor.written)
    return now(use.capture, anchor.y)


def emit_linear(use: Use[LinearAnchor], y: fx.Node, at: Inserter) -> fx.Node:
    """The site's program on `y`, its output so far (of a row site, its rows of it)."""
    (program,) = use.rewrite.programs
    read = partial(_read, use, at, y)
    return emit(
        use.source(program, y, read, partial(apply_base, use)), at, use.memo(program)
    )


def _read(use: Use[LinearAnchor], at: Inserter, y: fx.Node, name: str) -> fx.Node:
    match name:
        case "x":
            return now(use.capture, use.anchor.x)
        case "y":
            return y
        case "W":
            return weight(use, at)
        case "bias":
            return bias(use, at)
        case "real" if use.experts:
            raise fail(TokensOfExperts(site=use.key))
        case "real":
            return real_tokens(use.rewrite.site, y, at)
    return use.tensor(name)


def is_slice(use: Use[LinearAnchor]) -> bool:
    """Whether the site's rows are one range, so that a slice picks them."""
    return use.rewrite.site.rows is not None and len(use.rewrite.site.rows) == 1


def take_rows(
    use: Use[LinearAnchor], value: fx.Node, axis: int, at: Inserter, first: int = 0
) -> fx.Node:
    """The site's rows of `value` along `axis`, which begins with row `first`; all of it
    for a whole linear."""
    rows = use.rewrite.site.rows
    if rows is None:
        return value
    if is_slice(use):
        ((start, stop),) = rows
        return at.put(torch.narrow, value, axis, start - first, stop - start)
    return at.put(torch.index_select, value, axis, row_numbers(use, at, first))


def row_numbers(use: Use[LinearAnchor], at: Inserter, first: int) -> fx.Node:
    """The numbers of the site's rows, counted from row `first`."""
    numbers = use.tensor("rows")
    return at.put(torch.sub, numbers, first) if first else numbers


def weight(use: Use[LinearAnchor], at: Inserter) -> fx.Node:
    """The base weight [out, in] of the site, or the stack of them."""
    node, is_stack = use.anchor.weight, use.anchor.routing is not None
    if use.rewrite.site.transposed:
        turned = (torch.transpose, node, -2, -1) if is_stack else (torch.t, node)
        node = at.put(*turned)
    return take_rows(use, node, int(is_stack), at)


def bias(use: Use[LinearAnchor], at: Inserter) -> fx.Node:
    """The base bias [out] of the site, or the stack of them."""
    node, is_stack = use.given("bias", use.anchor.bias), use.anchor.routing is not None
    return take_rows(use, node, int(is_stack), at)


def apply_base(
    use: Use[LinearAnchor], at: Inserter, value: fx.Node, *, bias: bool
) -> fx.Node:
    """The site's base linear on another input, in the type it has in the model."""
    x = now(use.capture, use.anchor.x)
    value = at.cast(value, example(x).dtype)
    if use.experts is not None:
        return _apply_experts(use, use.experts, at, value, bias)
    many = example(value).dim() > example(x).dim()  # one value for each adapter
    if use.rewrite.site.rows is not None or many:
        return _apply_rows(use, at, value, bias)
    repeat = _repeat_linear(use, at, bias)
    return replay(use.anchor.y, {x: value}, (use.anchor.x, at.before), repeat)


def _apply_rows(
    use: Use[LinearAnchor], at: Inserter, value: fx.Node, with_bias: bool
) -> fx.Node:
    offset = bias(use, at) if with_bias and use.anchor.bias else None
    return at.put(F.linear, value, weight(use, at), offset)


def _apply_experts(
    use: Use[LinearAnchor],
    experts: Experts,
    at: Inserter,
    value: fx.Node,
    with_bias: bool,
) -> fx.Node:
    product = experts.rows(at, value, weight(use, at))
    if not with_bias or use.anchor.bias is None:
        return product
    return at.put(torch.add, product, experts.spread(at, bias(use, at)))


def _repeat_linear(use: Use[LinearAnchor], at: Inserter, bias: bool) -> Repeat:
    offset = None if bias else use.anchor.bias

    def repeat(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        if offset is not None and offset in node.all_input_nodes:
            return _without(offset, node, (args, kwargs), at)
        return repeated(at, node, args, kwargs)

    return repeat


def _without(offset: fx.Node, node: fx.Node, given: Given, at: Inserter) -> fx.Node:
    """The call `node` with these arguments, without its bias `offset`."""
    match ops.name(node):
        case "linear":
            x, matrix, _ = _in_order(given, "input", "weight", "bias")
            return at.put(F.linear, x, matrix)
        case "addmm":
            _, x, matrix = _in_order(given, "input", "mat1", "mat2")
            return at.put(torch.mm, x, matrix)
        case "add":
            one, other = _in_order(given, "input", "other")
            product: fx.Node = one if other is offset else other
            return product
    raise fail(NotRepeatable(site=at.site, op=str(node.target)))


def _in_order(given: Given, *words: str) -> tuple[Any, ...]:
    args, kwargs = given
    return (*args, *(kwargs[word] for word in words[len(args) :]))


def repeated(
    at: Inserter, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> fx.Node:
    """The call `node` once more with other arguments, without side effects.

    Raises:
        PeftcError: if it draws random numbers or changes an operand.
    """
    target: Any = node.target
    target = PURE.get(target, target)
    if isinstance(target, str) and target.endswith("_"):
        raise fail(NotRepeatable(site=at.site, op=target))
    if target is F.dropout and (*args, True, True, True)[2]:
        raise fail(NotRepeatable(site=at.site, op="dropout"))
    return at.put(target, *args, **kwargs)
