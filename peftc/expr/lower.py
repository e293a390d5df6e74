"""An ordered expression as a straight-line program.

In: an expression whose products are pairwise and in order.  Out: a `Program`.  Token
axes lead every value; ones that only broadcast over them vanish; equal steps are one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftc.expr import ir
from peftc.expr.cost import has_tokens
from peftc.expr.ir import Add, Axes, Call, Ein, Eye, Leaf, Literal, Map, Node, View
from peftc.expr.places import REAL, ROW_TARGETS, TOKEN_AXES
from peftc.expr.products import (
    LETTERS,
    Labelled,
    Value,
    feature_sizes,
    separates,
    token_axes,
)
from peftc.expr.program import Input, Op, Program, Step
from peftc.expr.tally import tally

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from peftc.expr.ir import Labels


def lower_program(root: Node, target: str, element: int) -> Program:
    """The program that computes `root`; a scalar has `element` bytes."""
    lowering = Lowering(target, ir.walk(root))
    result = lowering.run(root)
    inputs = lowering.given
    flops, moved = tally(inputs, lowering.steps, element)
    return Program(
        target=target,
        inputs=inputs,
        steps=tuple(lowering.steps),
        result=result.name,
        separate_tokens=lowering.separate,
        flops=flops,
        bytes=moved,
    )


def _by_use(one: Input) -> tuple[bool, bool, str]:
    """Activations first, then the base's tensors, then added ones."""
    return (not one.tokens, "." in one.name, one.name)


@dataclass
class Lowering:
    """The steps made so far; `nodes` is what is lowered, and where a constant finds a
    value to take its type from."""

    target: str
    nodes: Sequence[Node]
    steps: list[Step] = field(default_factory=list)
    inputs: dict[str, Input] = field(default_factory=dict)
    values: dict[Node, Value] = field(default_factory=dict)
    made: dict[Hashable, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.separate = any(map(separates, self.nodes)) or self._is_varying_rows()
        self.names = _least_names(self.nodes)
        self.based = _based(self.nodes, self.target)

    def _is_varying_rows(self) -> bool:
        """Whether rows of an attention vary: over what, the reader has to know."""
        if self.target.partition("#")[0] not in ROW_TARGETS:
            return False
        return any(isinstance(n, Leaf) and has_tokens(n) for n in self.nodes)

    @property
    def given(self) -> tuple[Input, ...]:
        """The inputs that were read."""
        return tuple(sorted(self.inputs.values(), key=_by_use))

    def run(self, root: Node) -> Value:
        """Lower everything below `root`, in the order it is used."""
        stack = [root]
        while stack:
            missing = [o for o in self._needed(stack[-1]) if o not in self.values]
            if missing:
                stack.extend(reversed(missing))
                continue
            node = stack.pop()
            if node not in self.values:
                self.values[node] = self._value(node)
        return self.values[root]

    def _needed(self, node: Node) -> list[Node]:
        """The operands that become values, in order."""
        operands = self._arranged(node)
        plain = isinstance(node, (Add, Ein))
        return [o for o in operands if not (plain and isinstance(o, Literal))]

    def _arranged(self, node: Node) -> list[Node]:
        """The operands in the order they are computed and written."""
        if isinstance(node, (Add, Ein)):
            return sorted(node.operands, key=self._place)
        return list(node.operands)

    def _place(self, node: Node) -> tuple[object, ...]:
        """What holds the base's value first, then activations, then parameters."""
        given = isinstance(node, Leaf)
        based = node in self.based
        return (not based, not _varies(node), not given, self.names[node], node.key)

    def _value(self, node: Node) -> Value:
        if isinstance(node, Leaf):
            return self._input(node)
        if isinstance(node, Literal):
            return self._full(node.value, node.axes)
        if isinstance(node, Eye):
            return self._constant("eye", (), node.axes)
        if isinstance(node, Ein):
            return self._product(node)
        if isinstance(node, Add):
            return self._sum(node)
        return self._function(node)

    def _step(
        self,
        op: Op,
        args: Sequence[Value],
        shape: tuple[int, ...],
        tokens: str,
        **rest: Any,
    ) -> Value:
        """The value of a step, made unless an equal one was."""
        key = (op, tuple(args), shape, tokens, tuple(rest.items()))
        known = self.made.get(key)
        if known is None:
            known = self.made[key] = Value(f"%{len(self.steps)}", tokens, shape)
            names = tuple(arg.name for arg in args)
            self.steps.append(Step(known.name, op, names, shape, bool(tokens), **rest))
        return known

    # --- given values and constants -----------------------------------------------

    def _input(self, leaf: Leaf) -> Value:
        tokens, shape = token_axes(leaf.axes), feature_sizes(leaf.axes)
        self.inputs[leaf.name] = Input(leaf.name, shape, bool(tokens))
        return Value(leaf.name, tokens, shape)

    def _like(self, tokens: bool) -> Value:
        """An input for a constant to take its type from, and perhaps its tokens."""
        leaves = [n for n in self.nodes if isinstance(n, Leaf)]
        leaves.sort(key=lambda n: (has_tokens(n) != tokens, n.kind != "param", n.name))
        if leaves and has_tokens(leaves[0]) >= tokens:
            return self._input(leaves[0])
        rows = self.target.partition("#")[0] in ROW_TARGETS
        return self._input(REAL if rows else ir.leaf(self.target, "input", TOKEN_AXES))

    def _constant(self, fn: str, attrs: tuple[float | str, ...], axes: Axes) -> Value:
        like, shape = self._like(tokens=False), feature_sizes(axes)
        return self._step("call", (like,), shape, "", fn=fn, attrs=attrs)

    def _full(self, value: float, axes: Axes) -> Value:
        """A constant over the features; over tokens it broadcasts by itself."""
        return self._constant("full", (value,), axes)

    def _count(self, tokens: str) -> Value:
        """The number of samples (b), tokens of each (t), or both, as a scalar."""
        like = self._like(tokens=True)
        return self._step("call", (like,), (), "", fn="count", attrs=(tokens,))

    def _spread(self, value: Value, tokens: str) -> Value:
        """A value with the token axes it lacks."""
        if set(tokens) <= set(value.tokens):
            return value
        every = "".join(n for n in "bt" if n in tokens + value.tokens)
        zero = self._zeros(value.shape, every)
        coefs = (1.0, 1.0)
        return self._step("add", (zero, value), value.shape, every, coefs=coefs)

    def _zeros(self, shape: tuple[int, ...], tokens: str) -> Value:
        like = self._like(tokens=True)
        zero = self._step("call", (like,), shape, "bt", fn="full", attrs=(0.0,))
        if tokens == "bt":
            return zero
        row = LETTERS[: len(shape)]
        spec = f"bt{row}->{tokens}{row}"
        return self._step("ein", (zero,), shape, tokens, spec=spec)

    # --- sums, functions, views ---------------------------------------------------

    def _sum(self, node: Add) -> Value:
        coef = dict(zip(node.operands, node.coefs, strict=True))
        operands = self._arranged(node)
        args = [
            self._full(o.value, ()) if isinstance(o, Literal) else self.values[o]
            for o in operands  # a scalar broadcasts by itself
        ]
        coefs = tuple(coef[operand] for operand in operands)
        shape = feature_sizes(node.axes)
        return self._step("add", args, shape, _tokens_of(args), coefs=coefs)

    def _function(self, node: Node) -> Value:
        shape = feature_sizes(node.axes)
        args = [self.values[operand] for operand in node.operands]
        if isinstance(node, View):
            (arg,) = args
            same = arg.shape == shape
            return arg if same else self._step("view", args, shape, arg.tokens)
        if isinstance(node, Map):
            return self._step("map", args, shape, args[0].tokens, fn=node.fn)
        assert isinstance(node, Call)
        if node.fn in ("base", "product"):
            op: Op = "base" if node.fn == "base" else "product"
            return self._step(op, [self._spread(args[0], "bt")], shape, "bt")
        if node.fn == "drop":  # every token has zeros of its own
            args = [self._spread(args[0], token_axes(node.axes))]
        if node.fn == "training":  # the result may be either
            args = [self._spread(arg, token_axes(node.axes)) for arg in args]
        tokens = _tokens_of(args)
        return self._step("call", args, shape, tokens, fn=node.fn, attrs=node.attrs)

    # --- products -----------------------------------------------------------------

    def _product(self, node: Ein) -> Value:
        labelled = Labelled.of(node)
        args, rows = self._arguments(node, labelled)
        out = labelled.result(rows)
        shape = labelled.numbers(labelled.features(out))
        tokens = "".join(map(labelled.token_name, labelled.tokens(out)))
        if len(rows) == 1 and rows[0] == out:
            return args[0]
        if labelled.is_linear(rows, out):
            if args[1].name == "W":
                return self._step("product", args[:1], shape, tokens)
            return self._step("linear", args, shape, tokens)
        spec = labelled.spec(rows, out, self.separate)
        return self._step("ein", args, shape, tokens, spec=spec)

    def _arguments(
        self, node: Ein, labelled: Labelled
    ) -> tuple[list[Value], list[Labels]]:
        """The values that are multiplied, with their labels."""
        args: list[Value] = []
        rows: list[Labels] = []
        for value, row in self._operands(node):
            summed = [n for n in labelled.tokens(row) if n not in node.out]
            value = self._spread(value, "".join(map(labelled.token_name, summed)))
            args.append(value)
            rows.append(labelled.stored(row, value))
        every = [row for _, row in self._operands(node)]
        missing = labelled.missing(every)
        ones = tuple(n for n in labelled.features(missing) if n in node.out)
        if ones or not (args or set(missing) - set(node.out)):
            args.append(self._full(1.0, tuple(labelled.size[n] for n in ones)))
            rows.append(ones)
        counted = [n for n in labelled.tokens(missing) if n not in node.out]
        if counted:
            args.append(self._count("".join(map(labelled.token_name, counted))))
            rows.append(())
        return args, rows

    def _operands(self, node: Ein) -> list[tuple[Value, Labels]]:
        """The operands but for literals, arranged; equal ones with their own labels."""
        pairs = [
            (operand, row)
            for operand, row in zip(node.operands, node.labels, strict=True)
            if not isinstance(operand, Literal)
        ]
        pairs.sort(key=lambda pair: self._place(pair[0]))
        return [(self.values[operand], row) for operand, row in pairs]


def _based(nodes: Sequence[Node], target: str) -> set[Node]:
    """The nodes that are, or are made of, the value to be replaced."""
    based: set[Node] = set()
    for node in nodes:
        own = isinstance(node, Leaf) and node.name == target
        base = isinstance(node, Call) and node.fn in ("base", "product")
        if own or base or not based.isdisjoint(node.operands):
            based.add(node)
    return based


def _varies(node: Node) -> bool:
    """Whether a value differs from token to token, rather than only broadcasting."""
    if not isinstance(node, Ein):
        return has_tokens(node)
    return any(has_tokens(o) for o in node.operands if not isinstance(o, Literal))


def _tokens_of(args: Sequence[Value]) -> str:
    return "".join(n for n in "bt" if any(n in arg.tokens for arg in args))


def _least_names(nodes: Sequence[Node]) -> dict[Node, str]:
    """For each node the first, by name, of the added tensors in it."""
    names: dict[Node, str] = {}
    for node in nodes:
        inner = [names[operand] for operand in node.operands if names[operand]]
        added = isinstance(node, Leaf) and node.kind in ("param", "buffer")
        names[node] = (
            node.name if isinstance(node, Leaf) and added else min(inner, default="")
        )
    return names
