"""Any expression over the leaves of a linear becomes a program that computes it."""

from __future__ import annotations

import random

import pytest
import torch

from peftc.codegen.text import parse_program, program_text
from peftc.expr import ir
from peftc.expr.compose import Composed
from peftc.expr.evaluate import evaluate, run
from peftc.expr.order import order
from peftc.expr.places import LINEAR, TOKEN_AXES, linear_product
from peftc.expr.sizes import Size

B, T = TOKEN_AXES
ENV = {"out": 6, "in": 4, "r": 2, "k": 3, "b": 2, "t": 5}
NAMES = ("out", "in", "r", "k")
SIX = tuple(map(Size.of, ("r", "k")))
Axes = tuple[Size, ...]


class Maker:
    """Makes expressions of given axes, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.count = 0

    def make(self, axes: Axes, depth: int) -> ir.Node:
        """An expression with these axes."""
        if depth == 0 or self.choice.random() < 0.15:
            return self.given(axes)
        kinds = (self.sum, self.product, self.product, self.product, self.function)
        node = self.choice.choice((*kinds, self.view, self.shared))(axes, depth - 1)
        assert node.axes == axes
        return node

    def given(self, axes: Axes) -> ir.Node:
        """A leaf, a constant, or the least that has token axes."""
        tokens = [axis for axis in axes if axis in TOKEN_AXES]
        if axes in (LINEAR["x"].axes, LINEAR["W"].axes, LINEAR["bias"].axes):
            return next(v for v in LINEAR.values() if v.axes == axes)
        if len(axes) == 2 and axes[0] == axes[1] and not tokens:
            return ir.eye(axes[0])
        if self.choice.random() < 0.1:
            return ir.literal(self.choice.choice((0.5, 1.0, -2.0)), axes)
        if not tokens:
            return self.leaf(axes)
        features = tuple(axis for axis in axes if axis not in TOKEN_AXES)
        weight = self.leaf((*features, Size.of("in")))
        names = {B: "b", T: "t"}
        rows = [names.get(axis, i) for i, axis in enumerate(axes)]
        inner = [row for row in rows if isinstance(row, int)]
        return ir.ein((LINEAR["x"], weight), (("b", "t", "i"), (*inner, "i")), rows)

    def leaf(self, axes: Axes) -> ir.Node:
        """A new added tensor."""
        self.count += 1
        kinds: tuple[ir.LeafKind, ...] = ("param", "param", "buffer")
        return ir.leaf(f"m.p{self.count}", self.choice.choice(kinds), axes)

    def sum(self, axes: Axes, depth: int) -> ir.Node:
        parts = [
            self.make(axes, depth) for _ in range(self.choice.choice((1, 2, 2, 3)))
        ]
        return ir.add(parts, [self.choice.choice((1, -1, 0.5, 2)) for _ in parts])

    def function(self, axes: Axes, depth: int) -> ir.Node:
        operand = self.make(axes, depth)
        fn = self.choice.choice(("tanh", "sigmoid", "relu", "detach", "drop"))
        if fn in ("detach", "drop"):
            return ir.call(fn, (operand,), (0.0,) * (fn == "drop"), axes)
        return ir.apply_map(fn, operand)

    def shared(self, axes: Axes, depth: int) -> ir.Node:
        """The same value twice."""
        one = self.make(axes, depth)
        labels = range(len(axes))
        return ir.add((one, ir.ein((one, one), (labels, labels), labels)), (1, 0.5))

    def product(self, axes: Axes, depth: int) -> ir.Node:
        bound = [
            Size.of(self.choice.choice(NAMES))
            for _ in range(self.choice.choice((0, 1, 1)))
        ]
        labels = list(enumerate((*axes, *bound)))
        rows: tuple[list[int], list[int]] = ([], [])
        for label, axis in labels:
            where = self.choice.choice((0, 1, 2)) if axis not in TOKEN_AXES else 0
            where = 2 if axis in TOKEN_AXES and self.choice.random() < 0.3 else where
            for side in (0, 1) if where == 2 else (where,):
                rows[side].append(label)
        size = dict(labels)
        operands = [self.make(tuple(size[n] for n in row), depth) for row in rows]
        return ir.ein(operands, rows, range(len(axes)))

    def view(self, axes: Axes, depth: int) -> ir.Node:
        """r k as one axis, and one axis as r k."""
        for i in range(len(axes) - 1):
            if axes[i : i + 2] == SIX:
                whole = (*axes[:i], SIX[0] * SIX[1], *axes[i + 2 :])
                return ir.view(self.make(whole, depth), axes)
        if Size.of("out") in axes and self.choice.random() < 0.7:
            i = axes.index(Size.of("out"))
            fine = (*axes[:i], Size.of("r"), Size.of("out") / "r", *axes[i + 1 :])
            return ir.view(self.make(fine, depth), axes)
        return self.sum(axes, depth)


def tensors_of(root: ir.Node) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for leaf in (*LINEAR.values(), *ir.walk(root)):
        if isinstance(leaf, ir.Leaf) and leaf.name not in found:
            shape = [axis.value(ENV) for axis in leaf.axes]
            found[leaf.name] = torch.randn(
                shape, generator=generator, dtype=torch.float64
            )
    found["y"] = found["x"] @ found["W"].T + found["bias"]
    return found


def any_rule(seed: int) -> ir.Node:
    """Some y' = W x + bias + ..., the same for the same seed."""
    base = linear_product(LINEAR["W"], LINEAR["x"], LINEAR["bias"])
    return ir.add((Maker(seed).make(LINEAR["y"].axes, 5), base))


def check(seed: int) -> None:
    root = any_rule(seed)
    tensors = tensors_of(root)
    (expected,) = evaluate([root], tensors, ENV)
    program = order(Composed("linear", {"y": root}, (), (), {}), "y", ENV, True)
    result = run(program, tensors).expand_as(expected)
    scale = expected.abs().max().clamp(min=1)
    assert (result - expected).abs().max() <= 1e-10 * scale
    assert parse_program(program_text(program)) == program


@pytest.mark.parametrize("seed", range(60))
def test_program_of_any_expression(seed: int) -> None:
    check(seed)
