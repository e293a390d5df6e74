"""Ordered outputs and gradients as a `JointProgram`: what runs when, what is kept.

In: ordered expressions by name.  Out: the steps of both directions.  A step is of the
forward if a result needs it.  The backward does again what is one pass over values that
it reads anyway; all else that it reads of the forward is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from peftc.expr import ir
from peftc.expr.joint_program import Direction, Drawn, JointProgram, Kept
from peftc.expr.lower import Lowering
from peftc.expr.places import TOKEN_AXES
from peftc.expr.products import Value, feature_sizes, token_axes
from peftc.expr.tally import tally

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from peftc.expr.cost import Machine
    from peftc.expr.dropout import Mask
    from peftc.expr.ir import Axes, Node
    from peftc.expr.program import Input, Step

Results: TypeAlias = "tuple[tuple[str, str], ...]"


def lower_joint(
    outputs: Mapping[str, Node],
    gradients: Mapping[str, Node],
    masks: Sequence[Mask],
    chosen: tuple[str, float],
    machine: Machine,
) -> JointProgram:
    """The program of ordered expressions; `chosen` are its seeds and its seconds."""
    element = machine.element
    every = ir.walk(*outputs.values(), *gradients.values())
    lowering = Lowering(next(iter(outputs)), every)
    lowering.separate = any(map(_tells_tokens_apart, every))
    lowering.nodes = ir.walk(*outputs.values())  # no constant is like an adjoint
    results = _run(lowering, outputs)
    count = len(lowering.steps)
    lowering.nodes = every
    found = _run(lowering, gradients)
    forward, backward = lowering.steps[:count], lowering.steps[count:]
    drawn = {mask.leaf.name: _drawn(mask) for mask in masks}
    own = {f"d{name}" for name in outputs} | drawn.keys()
    kept, again = _carried(lowering.given, forward, _read(backward, found), own)
    seeds, seconds = chosen
    return JointProgram(
        tuple(one for one in lowering.given if one.name not in drawn),
        tuple(drawn.values()),
        _direction(lowering.given, (), forward, results, element),
        _direction(lowering.given, forward, backward, found, element),
        tuple(_kept(lowering, name, element) for name in kept),
        tuple(again),
        lowering.separate,
        seeds,
        round(seconds * 1e6, 1),
        machine,
    )


def _drawn(mask: Mask) -> Drawn:
    axes = mask.leaf.axes
    return Drawn(mask.leaf.name, feature_sizes(axes), token_axes(axes), mask.p)


def _run(lowering: Lowering, roots: Mapping[str, Node]) -> Results:
    return tuple((name, lowering.run(node).name) for name, node in roots.items())


def _direction(
    inputs: Iterable[Input],
    before: Sequence[Step],
    steps: Sequence[Step],
    results: Results,
    element: int,
) -> Direction:
    flops, moved = tally(inputs, steps, element, before)
    return Direction(tuple(steps), results, flops, moved)


# --- token axes -------------------------------------------------------------------


def _tells_tokens_apart(node: Node) -> bool:
    """Whether a node treats samples and tokens differently.

    A sum over both together does not: `*i,*j->ij`.
    """
    if not isinstance(node, ir.Ein):
        return bool(_token_labels(node.axes, tuple(range(len(node.axes))))) and (
            not _is_pair(node.axes)
        )
    rows = [
        (operand.axes, row)
        for operand, row in zip(node.operands, node.labels, strict=True)
    ]
    rows.append((node.axes, node.out))
    used = [(axes, _token_labels(axes, row)) for axes, row in rows]
    having = [(axes, labels) for axes, labels in used if labels]
    return not all(_is_pair(axes) for axes, _ in having) or (
        len({labels for _, labels in having}) > 1
    )


def _token_labels(axes: Axes, row: ir.Labels) -> ir.Labels:
    return tuple(n for n, axis in zip(row, axes, strict=True) if axis in TOKEN_AXES)


def _is_pair(axes: Axes) -> bool:
    """The token axes once, in order, side by side."""
    places = [i for i, axis in enumerate(axes) if axis in TOKEN_AXES]
    if len(places) != 2 or places[1] != places[0] + 1:
        return False
    return axes[places[0] : places[1] + 1] == TOKEN_AXES


# --- from forward to backward -------------------------------------------------------


def _read(steps: Sequence[Step], results: Results) -> set[str]:
    return {name for step in steps for name in step.args} | {v for _, v in results}


def _carried(
    inputs: Sequence[Input],
    forward: Sequence[Step],
    read: Collection[str],
    own: Collection[str],
) -> tuple[list[str], list[str]]:
    """What is kept, and which steps are done again; `own` are at hand in any case."""
    needed, again = set(read), []
    at_hand = {one.name for one in inputs if not one.tokens or one.name in own}
    active = {one.name for one in inputs} - at_hand
    for step in reversed(forward):
        fresh = set(step.args) - needed - at_hand
        if step.out in needed and _is_repeated(step, fresh, active):
            again.append(step.out)
            needed = (needed - {step.out}) | set(step.args)
    every = [*(one.name for one in inputs), *(step.out for step in forward)]
    kept = [name for name in every if name in needed - at_hand]
    return kept, again[::-1]


def _is_repeated(step: Step, fresh: set[str], active: set[str]) -> bool:
    """Whether the backward does a step once more, instead of keeping its value.

    It may take `fresh` values to do it: one activation of the site's instead of the
    value, as others are likely to keep that too.
    """
    if step.op == "view" or (step.op == "call" and step.fn in ("eye", "full", "count")):
        return True
    if step.op == "ein":
        before, _, out = step.spec.partition("->")
        cheap = set(before) <= {*out, ","}
    else:
        cheap = step.op in ("add", "map")
    return cheap and len(fresh) < 2 and fresh <= active


def _kept(lowering: Lowering, name: str, element: int) -> Kept:
    made = {value.name: value for value in lowering.made.values()}
    given = lowering.inputs.get(name)
    value = Value(name, "bt", given.shape) if given else made[name]
    return Kept(name, value.shape, value.tokens, element * math.prod(value.shape))
