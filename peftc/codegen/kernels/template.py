"""The text of one kernel.

In: a `Kernel` and the formulas of its direction.  Out: its source, and what it is
called with.  All templates are one: a program owns a block of one axis and goes over
another, tokens or features, or a part of it.  What lacks the axis that it goes over is
computed before the loop; what has it is computed in the loop, anew in each; a sum over
it is an accumulator.

Sums are in float32, products of matrices of DT: operands are rounded to it and then
taken as DD, which is DT on a device.  The interpreter multiplies the bits of bfloat16,
so there DD is float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftc.codegen.kernels.formulas import TOKENS
from peftc.codegen.kernels.tiles import (
    MAPS,
    Axis,
    F,
    T,
    Tile,
    at,
    bounds,
    clean_product,
    clean_sum,
    keeps_zero,
    small,
)
from peftc.codegen.torch_writer import variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.codegen.kernels.formulas import Formula, Value
    from peftc.codegen.kernels.parts import Direction, Kernel, Phase
    from peftc.expr.joint_program import Drawn

SEED = "seed"
ADDING = "for one in tl.range(0, P, loop_unroll_factor=4):"
"""Loads of several parts wait together."""


def in_parts(name: str) -> str:
    """The name of a sum over features that is left in parts."""
    return f"{name}_parts"


@dataclass(frozen=True)
class Surroundings:
    """What all kernels of a direction are written from."""

    direction: Direction
    known: Mapping[str, Value]
    masks: Mapping[str, tuple[int, Drawn]]
    """By name, with the number of its stream of random numbers."""
    strided: frozenset[str]
    """Activations that are given, whose rows may lie apart."""


@dataclass
class Writer:
    """Writes the body of one kernel."""

    name: str
    around: Surroundings
    kernel: Kernel
    before: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    pointers: dict[str, str] = field(default_factory=dict)
    strides: dict[str, str] = field(default_factory=dict)
    small: dict[str, Axis] = field(default_factory=dict)
    _fixed: dict[str, Tile] = field(default_factory=dict)
    _moving: dict[str, Tile] = field(default_factory=dict)
    _count: int = 0

    @property
    def loop(self) -> Axis:
        """The axis that a program goes over."""
        return T if self.kernel.template == "column" else F

    # --- values -----------------------------------------------------------------------

    def axes(self, name: str) -> tuple[Axis, ...]:
        """The axes of the block of a value."""
        value, spaces = self.around.known[name], self.around.direction.spaces
        return (T,) * value.tokens + tuple(
            F if spaces.is_wide(space) else self._small(size)
            for space, size in zip(spaces.of(name), value.shape, strict=True)
        )

    def tile(self, name: str) -> Tile:
        """The block of a value: at hand, computed or loaded."""
        kept = self._moving.get(name) or self._fixed.get(name)
        if kept:
            return kept
        direction = self.around.direction
        if direction.kinds.get(name) == "constant":
            formula = direction.by_name[name]
            return Tile(repr(float(formula.step.attrs[0])), (), frozenset())
        if direction.is_inside(name, self.kernel.made):
            return self.compute(name)
        return self._keep(name, self._load(name))

    def compute(self, name: str) -> Tile:
        """The block of a value from those of others."""
        if name in self.around.masks:
            return self._keep(name, self._drawn(name))
        formula = self.around.direction.by_name[name]
        if formula.step.op == "map":
            made = self._map(formula)
        elif formula.step.op in ("ein", "linear"):
            made = self.product(formula)
        else:
            made = self._sum(formula)
        return self._keep(name, self._whole(made, self.axes(name)))

    def _keep(self, name: str, tile: Tile) -> Tile:
        """Give a block a variable, in the loop if it has the axis of the loop."""
        text = f"b{self._count}"
        self._count += 1
        (self.inside if self.loop in tile.axes else self.before).append(
            f"{text} = {tile.text}"
        )
        kept = Tile(text, tile.axes, tile.clean, tile.raw)
        (self._moving if self.loop in tile.axes else self._fixed)[name] = kept
        return kept

    def _small(self, size: int) -> Axis:
        return self.small.setdefault(str(size), small(size))

    def _whole(self, tile: Tile, axes: tuple[Axis, ...]) -> Tile:
        """A block with all axes of its value: numbers fill one."""
        if tile.axes == axes:
            return tile
        lengths = ", ".join(axis.length for axis in axes)
        text = f"tl.broadcast_to({tile.among(axes)}, [{lengths}])"
        return Tile(text, axes, frozenset())

    # --- memory -----------------------------------------------------------------------

    def pointer(self, name: str) -> str:
        """The parameter with the address of a value."""
        return self.pointers.setdefault(name, variable(name))

    def part(self, name: str, number: str) -> tuple[str, str]:
        """An address and how far ahead of it a part of a sum is."""
        size = math.prod(self.around.known[name].shape)
        if self.kernel.template == "column":
            return self.pointer(name), f" + {number} * {size}"
        ahead = f" + {number} * M" + f" * {size}" * (size > 1)
        return self.pointer(in_parts(name)), ahead

    def _load(self, name: str) -> Tile:
        return self._loaded(name, self.axes(name), self.pointer(name))

    def _loaded(self, name: str, axes: tuple[Axis, ...], place: str) -> Tile:
        address, mask = f"{place}{self._offset(name, axes)}", bounds(axes)
        guard = f", mask={mask}, other=0.0" * bool(mask)
        return Tile(f"tl.load({address}{guard})", axes, frozenset(axes), raw=True)

    def _offset(self, name: str, axes: Sequence[Axis], tokens: str = "rl") -> str:
        """` + ` and the distance of each element from the first."""
        value = self.around.known[name]
        steps: list[int | str] = [
            math.prod(value.shape[i + 1 :]) for i in range(len(value.shape))
        ]
        if value.tokens:
            steps.insert(0, self._row_step(name, math.prod(value.shape)))
        parts = []
        for i, (axis, step) in enumerate(zip(axes, steps, strict=True)):
            places = tokens if axis == T else axis.places
            scale = "" if step == 1 else f" * {step}"
            parts.append(f" + {places}{at(i, len(axes))}{scale}")
        return "".join(parts)

    def _row_step(self, name: str, size: int) -> int | str:
        if name not in self.around.strided or not self.around.known[name].shape:
            return size
        return self.strides.setdefault(name, f"{variable(name)}_step")

    def store(self, name: str, tile: Tile, place: tuple[str, str] | None = None) -> str:
        """The line that stores a block, at a place if it is of a part of a value."""
        axes, own = self.axes(name), tile.axes
        text = tile.among(axes)
        if own != axes and set(own) == set(axes):
            text = f"tl.trans({tile.number})"
        pointer, ahead = place or (self.pointer(name), "")
        address, mask = f"{pointer}{ahead}{self._offset(name, axes)}", bounds(axes)
        guard = f", mask={mask}" * bool(mask)
        return f"tl.store({address}, ({text}).to({pointer}.dtype.element_ty){guard})"

    def _drawn(self, name: str) -> Tile:
        """Drawn for the number of each element, in 32 bits: twice as many are twice the
        registers, and masks may repeat after four billion elements."""
        stream, mask = self.around.masks[name]
        axes = self.axes(name)
        places = self._offset(name, axes, "rt").removeprefix(" + ")
        kept = (
            f"tl.rand(tl.load({self.pointer(SEED)}) + {stream}, {places}) >= {mask.p}"
        )
        return Tile(f"tl.where({kept}, {1 / (1 - mask.p)!r}, 0.0)", axes, frozenset())

    # --- formulas ---------------------------------------------------------------------

    def _args(self, formula: Formula) -> list[Tile]:
        return [self.tile(name) for name in formula.step.args]

    def _map(self, formula: Formula) -> Tile:
        (tile,) = self._args(formula)
        clean = tile.clean if keeps_zero(formula.step.fn) else frozenset[Axis]()
        number = tile.number
        return Tile(MAPS[formula.step.fn].format(f"({number})"), tile.axes, clean)

    def _sum(self, formula: Formula) -> Tile:
        tiles, axes = self._args(formula), self.axes(formula.name)
        coefs = formula.step.coefs or (1.0,)
        axes = _union(axes, tiles)
        terms = [
            t.among(axes) if coef == 1 else f"{t.among(axes)} * {coef!r}"
            for t, coef in zip(tiles, coefs, strict=True)
        ]
        return Tile(" + ".join(terms), axes, clean_sum(tiles))

    def product(self, formula: Formula, into: str = "") -> Tile:
        """A product of blocks, summed over what the result lacks, `into` a sum."""
        if not formula.summed:
            return self._pointwise(self._args(formula), self.axes(formula.name))
        if _is_of_matrices(formula):
            return self._matrices(formula, into)
        return self._reduced(formula)

    def _pointwise(self, tiles: Sequence[Tile], axes: Sequence[Axis]) -> Tile:
        axes = _union(axes, tiles)
        text = " * ".join(tile.among(axes) for tile in tiles)
        return Tile(text, axes, clean_product(tiles))

    def _reduced(self, formula: Formula) -> Tile:
        """Blocks of one shape, or parts of it, multiplied and then summed."""
        row = max(formula.rows, key=len)
        place = row.index(formula.summed)
        tiles = self._args(formula)
        axes = next(
            t.axes for t, r in zip(tiles, formula.rows, strict=True) if r == row
        )
        made = self._pointwise(tiles, axes).zeroed(axes[place])
        left = tuple(axis for i, axis in enumerate(axes) if i != place)
        return Tile(f"tl.sum({made.text}, {place})", left, made.clean & {*left})

    def _matrices(self, formula: Formula, into: str) -> Tile:
        """A product of two matrices; a wide side goes first, as few rows are slow."""
        tiles = self._args(formula)
        sides = list(zip(formula.rows, tiles, strict=True))
        first, second = (
            next(side for side in sides if letter in side[0]) for letter in formula.row
        )
        if self._free(second, formula.summed) == F and formula.summed == TOKENS:
            first, second = second, first
        one, left = self._operand(first, formula.summed, 1)
        other, right = self._operand(second, formula.summed, 0)
        tail = f", {into}" * bool(into) + ', input_precision="ieee"'
        axes = (left, right)
        clean = frozenset(
            axis
            for axis, side in ((left, first), (right, second))
            if axis in side[1].clean
        )
        return Tile(f"tl.dot({one}, {other}{tail})", axes, clean)

    def _free(self, side: tuple[str, Tile], summed: str) -> Axis:
        row, tile = side
        return tile.axes[1 - row.index(summed)]

    def _operand(
        self, side: tuple[str, Tile], summed: str, place: int
    ) -> tuple[str, Axis]:
        """A matrix with the axis that is summed at a place, and its other axis."""
        row, tile = side
        own = row.index(summed)
        text = f"{tile.zeroed(tile.axes[own]).text}.to(DT).to(DD)"
        return (text if own == place else f"tl.trans({text})"), tile.axes[1 - own]

    # --- loops ------------------------------------------------------------------------

    def start_phase(self) -> None:
        """Forget what the last loop went over."""
        self.inside.clear()
        self._moving.clear()

    def accumulate(self, name: str) -> str:
        """Sum a value over the loop; the variable of the sum."""
        formula, total = self.around.direction.by_name[name], f"s{self._count}"
        self._count += 1
        made = self.product(formula, total)
        lengths = ", ".join(axis.length for axis in made.axes)
        empty = f"tl.zeros([{lengths}], tl.float32)" if made.axes else "0.0"
        self.before.append(f"{total} = {empty}")
        sign = "=" if _is_of_matrices(formula) else "+="
        self.inside.append(f"{total} {sign} {made.text}")
        self._fixed[name] = Tile(total, made.axes, made.clean)
        return total

    def gather(self, name: str) -> None:
        """Sum the parts of a value over the loop."""
        total, axes = f"s{self._count}", self.axes(name)
        self._count += 1
        lengths = ", ".join(axis.length for axis in axes)
        self.before.append(f"{total} = tl.zeros([{lengths}], tl.float32)")
        made = self._loaded(name, axes, "".join(self.part(name, "one")))
        self.inside.append(f"{total} += {made.text}")
        self._fixed[name] = Tile(total, axes, made.clean)

    def sum_of(self, name: str) -> Tile:
        """A finished sum."""
        return self._fixed[name]


def _is_of_matrices(formula: Formula) -> bool:
    """Whether a product is summed and has two axes left."""
    return bool(formula.summed) and len(formula.row) == 2


def _union(axes: Sequence[Axis], tiles: Sequence[Tile]) -> tuple[Axis, ...]:
    """Those of the axes that any of the blocks has."""
    return tuple(axis for axis in axes if any(axis in tile.axes for tile in tiles))


# --- templates ------------------------------------------------------------------------


def kernel_text(name: str, kernel: Kernel, around: Surroundings) -> tuple[str, Writer]:
    """The source of a kernel, and what wrote it, which knows its arguments."""
    writer = Writer(name, around, kernel)
    body = {"row": _row, "column": _column, "split": _split}[kernel.template](
        writer, kernel
    )
    sizes = [line for axis in writer.small.values() for line in _places(axis)]
    count = ["P"] * (kernel.template == "split")
    takes = [*writer.pointers.values(), *writer.strides.values(), *count, "M"]
    fixed = [f"{one}: tl.constexpr" for one in ("BM", "BF", "DT", "DD")]
    lines = "".join(f"    {line}\n" for line in (*sizes, *body))
    head = f"@triton.jit\ndef {name}({', '.join((*takes, *fixed))}):\n"
    return head + lines, writer


def _places(axis: Axis) -> list[str]:
    places = f"{axis.places} = tl.arange(0, {axis.length})"
    return [places, f"{axis.mask} = {axis.places} < {axis.size}"][: 1 + bool(axis.mask)]


def _tokens(start: str) -> list[str]:
    """64 bits for what is multiplied by the length of a row."""
    places = [f"rt = {start} + tl.arange(0, BM)", "mt = rt < M"]
    return [*places, "rl = rt.to(tl.int64)"]


def _features(start: str, size: int) -> list[str]:
    return [f"rf = {start} + tl.arange(0, BF)", f"mf = rf < {size}"]


def _row(writer: Writer, kernel: Kernel) -> list[str]:
    lines = _tokens("tl.program_id(0) * BM")
    for phase in kernel.phases:
        lines += _row_phase(writer, kernel, phase)
    return lines


def _row_phase(writer: Writer, kernel: Kernel, phase: Phase) -> list[str]:
    _fill(writer, phase)
    lines = [*writer.before, *_feature_loop(writer, kernel, phase)]
    writer.before.clear()
    for name in phase.sums:
        writer.before.append(writer.store(name, writer.sum_of(name)))
    for name in phase.narrow:
        writer.before.append(writer.store(name, writer.compute(name)))
    return [*lines, *writer.before]


def _fill(writer: Writer, phase: Phase) -> None:
    """Write what is ahead of a phase's loop, and what is in it."""
    writer.start_phase()
    writer.before.clear()
    for name in phase.sums:
        writer.accumulate(name)
    for name in phase.stores:
        writer.inside.append(writer.store(name, writer.compute(name)))


def _feature_loop(writer: Writer, kernel: Kernel, phase: Phase) -> list[str]:
    if phase.space is None:
        return []
    size = writer.around.direction.spaces.size(phase.space)
    if kernel.is_flat:
        return [*_features("tl.program_id(1) * BF", size), *writer.inside]
    head = f"for f0 in range(0, {size}, BF):"
    return [head, *_indented([*_features("f0", size), *writer.inside])]


def _column(writer: Writer, kernel: Kernel) -> list[str]:
    """Each program stores its sums over some of the tokens at its own place."""
    (phase,) = kernel.phases
    for name in phase.sums:
        writer.accumulate(name)
    lines = []
    if phase.space:
        size = writer.around.direction.spaces.size(phase.space)
        lines += _features("tl.program_id(0) * BF", size)
    lines += [*writer.before, "part = tl.program_id(1)"]
    lines.append("blocks = tl.cdiv(tl.cdiv(M, BM), tl.num_programs(1))")
    lines.append("for block in range(part * blocks, (part + 1) * blocks):")
    lines += _indented([*_tokens("block * BM"), *writer.inside])
    return [*lines, *_parts(writer, phase)]


def _parts(writer: Writer, phase: Phase) -> list[str]:
    return [
        writer.store(name, writer.sum_of(name), writer.part(name, "part"))
        for name in phase.sums
    ]


def _split(writer: Writer, kernel: Kernel) -> list[str]:
    """Each program stores its sums over some of the features at its own place."""
    ended, own = kernel.phases
    lines = [*_tokens("tl.program_id(0) * BM"), "part = tl.program_id(1)"]
    lines += _ended(writer, ended)
    if own.space is None:
        return lines
    _fill(writer, own)
    size = writer.around.direction.spaces.size(own.space)
    lines += [*writer.before, f"share = tl.cdiv(tl.cdiv({size}, BF), P) * BF"]
    lines.append("for f0 in range(part * share, (part + 1) * share, BF):")
    lines += _indented([*_features("f0", size), *writer.inside])
    return [*lines, *_parts(writer, own)]


def _ended(writer: Writer, phase: Phase) -> list[str]:
    """What was left in parts, added by each program and stored by those of one part."""
    for name in phase.sums:
        writer.gather(name)
    lines = [*writer.before]
    if writer.inside:
        lines += [ADDING, *_indented(writer.inside)]
    writer.before.clear()
    stores = [writer.store(name, writer.sum_of(name)) for name in phase.sums]
    stores += [writer.store(name, writer.compute(name)) for name in phase.narrow]
    lines += writer.before
    return [*lines, "if part == 0:", *_indented(stores)] if stores else lines


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
