"""Values of a program in a graph: their axes, products over labelled axes, and views.

In: values (a node with its leading axes and its trailing sizes) and einsum-like specs
over feature labels and `*` (the token axes) or `b` and `t`.  Out: inserted nodes.
Token axes are never read, so that symbolic sizes stay symbolic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from peftc.rewrite.insert import length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import fx

    from peftc.rewrite.insert import Inserter


EXPERTS = "E"
"""The axis of experts, or of adapters, where there are several: no label of a program,
whose labels are small letters."""


@dataclass(frozen=True)
class Value:
    """A node whose axes are `lead` and then those of sizes `shape`.

    `lead` holds the token axes: `*` for all that the activation has, or, in programs
    that separate them, those of `bt` that the value has; or, of a parameter-space value
    at a stack, the axis of experts.  `span` is the origin.
    """

    node: fx.Node
    lead: str
    shape: tuple[int, ...]
    span: str = ""


def common_lead(leads: Iterable[str]) -> str:
    """The leading axes of what is computed from values with these."""
    found = "".join(leads)
    return "".join(axis for axis in ("*", "b", "t", EXPERTS) if axis in found)


def stacked_spec(spec: str, args: list[Value]) -> str:
    """The spec of a product in parameter space, with the axis of experts it has."""
    before, _, out = spec.partition("->")
    rows = [a.lead + row for a, row in zip(args, before.split(","), strict=True)]
    return f"{','.join(rows)}->{common_lead(a.lead for a in args)}{out}"


def aligned(value: Value, lead: str, at: Inserter) -> fx.Node:
    """The node, so that it broadcasts to token axes `lead` (its trailing axes stay)."""
    if value.lead == "b" and lead == "bt":
        return at.put(torch.unsqueeze, value.node, -len(value.shape) - 1)
    return value.node


def together(args: list[Value], at: Inserter) -> list[Value]:
    """Values in parameter space, all with the axis of experts that one has."""
    (count, *_) = (length(a.node, 0, at) for a in args if a.lead == EXPERTS)
    return [a if a.lead == EXPERTS else _for_each(a, count, at) for a in args]


def _for_each(value: Value, count: int | fx.Node, at: Inserter) -> Value:
    kept = (-1,) * len(value.shape)
    node = at.put("expand", at.put(torch.unsqueeze, value.node, 0), (count, *kept))
    return Value(node, EXPERTS, value.shape, value.span)


# --- products ---------------------------------------------------------------------


def product(
    spec: str, args: list[Value], tokens: str, at: Inserter
) -> tuple[fx.Node, str]:
    """The product of `args` by `spec`, and which of the axes `tokens` it has.

    Where nothing is summed and no axis moves it is a chain of multiplications, so that
    a factor of one changes no bit; else a `torch.einsum`.
    """
    operands, out = _parse(spec)
    lead = "".join(label for label in out if label in tokens)
    nodes = [a.node for a in args]
    if _elementwise(operands, out):
        spread = [
            _spread(node, labels, out, at)
            for node, labels in zip(nodes, operands, strict=True)
        ]
        total = spread[0]
        for node in spread[1:]:
            total = at.put(torch.mul, total, node)
        return total, lead
    return at.put(torch.einsum, spec.replace("*", "..."), *nodes), lead


def _parse(spec: str) -> tuple[list[str], str]:
    before, _, out = spec.partition("->")
    return before.split(","), out


def _elementwise(operands: list[str], out: str) -> bool:
    """Whether each operand has axes of the result only, in the result's order."""
    covered = set("".join(operands)) == set(out)
    return covered and all(_subsequence(labels, out) for labels in operands)


def _subsequence(labels: str, out: str) -> bool:
    rest = iter(out)
    return all(label in rest for label in labels)


def _spread(node: fx.Node, labels: str, out: str, at: Inserter) -> fx.Node:
    """Add axes of size one where `out` has labels that are missing among `labels`.

    Missing labels before the first one need none: broadcasting adds those.
    """
    if not labels:
        return node
    first = out.index(labels[0])
    for place in range(len(out) - 1, first, -1):
        if out[place] not in labels:
            node = at.put(torch.unsqueeze, node, place - len(out))
    return node


# --- views ------------------------------------------------------------------------


def reshape(value: Value, want: tuple[int, ...], at: Inserter) -> fx.Node:
    """Split or merge the trailing axes of a value to sizes `want`.

    Axes at either end that keep their size are left alone.
    """
    have, node = value.shape, value.node
    if have == want:
        return node
    prefix = _shared(have, want)
    have, want = have[prefix:], want[prefix:]
    suffix = _shared(have[::-1], want[::-1])
    old, new = (sizes[: len(sizes) - suffix] for sizes in (have, want))
    last = -suffix - 1
    if not old:
        node = at.put(torch.unsqueeze, node, last)
    elif len(old) > 1:
        node = at.put(torch.flatten, node, last - len(old) + 1, last)
    if not new:
        return at.put(torch.squeeze, node, last)
    return at.put("unflatten", node, last, new) if len(new) > 1 else node


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many leading sizes are equal."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
