"""A program as nodes of a captured graph.

In: a Program, the nodes of its inputs, and a place to insert.  Out: the node of its
result, in the type of the value it replaces.  Token axes stay as the graph has them.
Steps are computed in the type of the added tensors; where autocast is on, it decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import (
    NoGraphForm,
    TokensNotSeparate,
    TokensOfExperts,
)
from peftc.rewrite.insert import BOTH, Inserter, example
from peftc.rewrite.table import CALLS, CONSTANTS, MAPS
from peftc.rewrite.values import (
    EXPERTS,
    Value,
    aligned,
    common_lead,
    product,
    reshape,
    stacked_spec,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import fx

    from peftc.expr.program import Input, Program, Step
    from peftc.rewrite.several import Stack

BASE_NAMES = frozenset({"W", "bias", "g", "c", "E"})
"""Parameter-space inputs that belong to the base model."""

Values = dict[str, Value]


class Base(Protocol):
    """The site's own linear, applied to another input."""

    def __call__(self, at: Inserter, value: fx.Node, *, bias: bool) -> fx.Node:
        """W value (+ bias), by the operations the graph itself uses."""


def no_base(at: Inserter, value: fx.Node, *, bias: bool) -> fx.Node:
    """The `base` of a program that is not a linear's: it has none."""
    raise AssertionError("only programs of linears apply the base")


@dataclass(frozen=True)
class Source:
    """What a program is emitted from.

    `target` is the value to be replaced; `read` gives the node of an input (inserting
    what is needed for it); `spans` tells for each added tensor the line of the user's
    text it stems from.  Where values are many, `stack` gives the rows what is theirs:
    of a stack of experts, or of several adapters.  `stacked` names the added tensors
    that have this axis.
    """

    program: Program
    target: fx.Node
    read: Callable[[str], fx.Node]
    spans: Mapping[str, str]
    training: bool
    base: Base = no_base
    stack: Stack | None = None
    stacked: frozenset[str] = frozenset()

    @property
    def of_experts(self) -> bool:
        """Whether the base's own values have the axis."""
        return self.stack is not None and self.stack.of_base

    @property
    def lead(self) -> str:
        """The token axes of an activation."""
        return "bt" if self.program.separate_tokens else "*"


def emit(source: Source, at: Inserter, memo: Values) -> fx.Node:
    """As `emit_value`; the node alone, with the target's token axes."""
    value = emit_value(source, at, memo)
    if source.program.target[0] in "yh" and value.lead != source.lead:
        return at.put("expand_as", aligned(value, source.lead, at), source.target)
    return value.node


def emit_value(source: Source, at: Inserter, memo: Values) -> Value:
    """Insert the program's steps; returns the result in the type of its target.

    `memo` carries the parameter-space values from one use of a site to the next: they
    are computed once, before the first use.

    Raises:
        PeftcError: if the program needs separate token axes and there are none, or
            names a function that has no form in the graph.
    """
    if source.program.separate_tokens and source.of_experts:
        raise fail(TokensOfExperts(site=at.site))
    values, dtype = _inputs(source, at, memo)
    if source.program.separate_tokens:
        _check_separate(source.program, values, at)
    for step in source.program.steps:
        if step.out not in values:
            values[step.out] = _step(source, step, values, at, dtype)
        if memo.keys() >= set(step.args):
            memo[step.out] = values[step.out]
    return _finish(source, values[source.program.result], at)


def _inputs(source: Source, at: Inserter, memo: Values) -> tuple[Values, torch.dtype]:
    given = source.program.inputs
    raw = {i.name: source.read(i.name) for i in given if i.name not in memo}
    values = dict(memo)
    for one in given:
        if one.name in raw and not _is_base(one):
            values[one.name] = _given(source, one, raw[one.name])
    dtype = _dtype(source, values)
    for one in given:
        if one.name in raw and _is_base(one):
            values[one.name] = _given(source, one, at.cast(raw[one.name], dtype))
        if not one.tokens:
            memo[one.name] = values[one.name]
    return values, dtype


def _check_separate(program: Program, values: Values, at: Inserter) -> None:
    """Token values must have a sample axis, a token axis, and those of features."""
    for one in program.inputs:
        rank = example(values[one.name].node).dim()
        if one.tokens and rank != 2 + len(one.shape):
            raise fail(TokensNotSeparate(site=at.site, rank=rank))


def _is_base(one: Input) -> bool:
    return one.tokens or one.name in BASE_NAMES


def _given(source: Source, one: Input, node: fx.Node) -> Value:
    is_many = one.name in source.stacked or (
        one.name in BASE_NAMES and source.of_experts
    )
    lead = EXPERTS if is_many else ""
    lead = source.lead if one.tokens else lead
    return Value(node, lead, one.shape, source.spans.get(one.name, ""))


def _dtype(source: Source, values: Values) -> torch.dtype:
    """The type to compute in: the added tensors', or without any, the target's."""
    added = [i.name for i in source.program.inputs if not _is_base(i)]
    dtypes = [example(values[name].node).dtype for name in added]
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    return reduce(torch.promote_types, floats or [example(source.target).dtype])


def _finish(source: Source, value: Value, at: Inserter) -> Value:
    if source.stack:
        value = source.stack.finish(value, source.target, at)
    dtype = example(source.target).dtype
    if example(value.node).dtype == dtype:
        return value
    return replace(value, node=at.put("to", value.node, dtype))


# --- steps ------------------------------------------------------------------------


def _step(
    source: Source, step: Step, values: Values, at: Inserter, dtype: torch.dtype
) -> Value:
    args = [values[name] for name in step.args]
    span = BOTH.join(dict.fromkeys(a.span for a in args if a.span))
    at = at.of(span)
    if any(a.lead == EXPERTS for a in args):
        node, lead = _of_many(source, step, args, at)
    elif step.op == "ein" and source.stack and step.tokens:
        node, lead = source.stack.ein(at, step.spec, args)
    elif step.op == "ein":
        node, lead = product(step.spec, args, source.lead, at)
    else:
        lead = common_lead(a.lead for a in args) if step.tokens else ""
        node = _OPS[step.op](source, step, args, at)
    if step.op in ("base", "product"):
        node = at.cast(node, dtype)
    return Value(node, lead, step.shape, span)


def _of_many(
    source: Source, step: Step, args: list[Value], at: Inserter
) -> tuple[fx.Node, str]:
    """A step that reads values with an axis of experts or adapters: the node and its
    lead."""
    stack = source.stack
    assert stack is not None
    if not step.tokens:
        return _stacked(source, step, args, at)
    if step.op == "linear":
        return stack.product(at, args[0], args[1])
    if step.op == "ein":
        return stack.ein(at, step.spec, args)
    seen = [stack.seen(a, at) for a in args]
    lead = common_lead(a.lead for a in seen)
    return _OPS[step.op](source, step, seen, at), lead


def _stacked(
    source: Source, step: Step, args: list[Value], at: Inserter
) -> tuple[fx.Node, str]:
    """A step in parameter space, done for each expert."""
    if step.op == "ein":
        return product(stacked_spec(step.spec, args), args, EXPERTS, at)
    if step.fn in CONSTANTS:
        return _OPS[step.op](source, step, args, at), ""
    if step.op == "call":
        args = together(args, at)
    return _OPS[step.op](source, step, args, at), EXPERTS


def _linear(source: Source, step: Step, args: list[Value], at: Inserter) -> fx.Node:
    value, matrix = args
    return at.put(F.linear, value.node, matrix.node)


def _base(source: Source, step: Step, args: list[Value], at: Inserter) -> fx.Node:
    return source.base(at, args[0].node, bias=step.op == "base")


def _add(source: Source, step: Step, args: list[Value], at: Inserter) -> fx.Node:
    lead = common_lead(a.lead for a in args)
    nodes = [aligned(a, lead, at) for a in args]
    total, first = nodes[0], step.coefs[0]
    if first != 1:
        total = at.put(torch.mul, total, first)
    for node, coef in zip(nodes[1:], step.coefs[1:], strict=True):
        scale = {} if coef == 1 else {"alpha": coef}
        total = at.put(torch.add, total, node, **scale)
    return total


def _map(source: Source, step: Step, args: list[Value], at: Inserter) -> fx.Node:
    if step.fn not in MAPS:
        raise fail(NoGraphForm(site=at.site, step=step.out, fn=step.fn))
    return MAPS[step.fn](at, args[0].node)


def _call(source: Source, step: Step, args: list[Value], at: Inserter) -> fx.Node:
    if step.fn == "drop":
        p = float(step.attrs[0])
        drops = source.training and p > 0
        return at.put(F.dropout, args[0].node, p, True) if drops else args[0].node
    if step.fn == "training":
        return args[0 if source.training else 1].node
    if step.fn not in CALLS:
        raise fail(NoGraphForm(site=at.site, step=step.out, fn=step.fn))
    return CALLS[step.fn](at, step, args)


def _view(source: Source, step: Step, args: list[Value], at: Inserter) -> fx.Node:
    return reshape(args[0], step.shape, at)


_OPS: Mapping[str, Callable[[Source, Step, list[Value], Inserter], fx.Node]] = {
    "linear": _linear,
    "add": _add,
    "map": _map,
    "view": _view,
    "call": _call,
    "base": _base,
    "product": _base,
}
