"""The formats that a weight can be stored in, as data.

In: nothing.  Out: for each format its options, the tensors it keeps of a weight
[*lead, out, in], and the largest error.  No torch: plans and errors need no more.  The
codes themselves are made by the file that `Format.module` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
OptionValue: TypeAlias = int | bool | str
Options: TypeAlias = Mapping[str, OptionValue]

WIDTHS = {"uint8": 1, "int8": 1, "float32": 4}
"""Bytes of a scalar of every type that formats keep."""

COMPUTE = ("base", "float32", "bfloat16", "float16")
"""The type that a decoded weight is multiplied in; `base` is the one it had."""

SECOND = 256
"""Largest values that are quantised together when they are quantised themselves."""


@dataclass(frozen=True)
class Part:
    """One tensor that a format keeps."""

    name: str
    dtype: str
    shape: Shape

    @property
    def bytes(self) -> int:
        """The memory it takes."""
        return WIDTHS[self.dtype] * prod(self.shape)


@dataclass(frozen=True)
class Format:
    """A format; `options` are names with types: `size`, `flag` or `compute`.

    `error` is the most by which a decoded weight differs, as a part of the largest
    absolute value that is quantised together with it (of `int4` that is not symmetric:
    of the range).  `keep` gives the tensors it keeps of a weight of a shape.
    """

    name: str
    about: str
    module: str
    options: tuple[tuple[str, str], ...]
    error: Callable[[Options], float]
    keep: Callable[[Shape, Options], tuple[Part, ...]]

    @property
    def form(self) -> str:
        """How it is written: `nf4(block, double, compute)`."""
        return f"{self.name}({', '.join(name for name, _ in self.options)})"


def _blocks(shape: Shape, options: Options) -> tuple[Part, ...]:
    """Two codes in a byte; blocks run over the rows without a gap."""
    count = prod(shape)
    blocks = ceil(count / int(options["block"]))
    codes = Part("codes", "uint8", (ceil(count / 2),))
    if not options["double"]:
        return codes, Part("absmax", "float32", (blocks,))
    return (
        codes,
        Part("absmax", "uint8", (blocks,)),
        Part("absmax2", "float32", (ceil(blocks / SECOND),)),
        Part("mean", "float32", ()),
    )


def _rows(shape: Shape, options: Options) -> tuple[Part, ...]:
    """A code in a byte, and the largest value of each row."""
    return Part("codes", "int8", shape), Part("absmax", "float32", shape[:-1])


def _groups(shape: Shape, options: Options) -> tuple[Part, ...]:
    """Two codes in a byte; groups end with their row."""
    groups = (*shape[:-1], ceil(shape[-1] / int(options["group"])))
    codes = Part("codes", "uint8", (ceil(prod(shape) / 2),))
    scale = Part("scale", "float32", groups)
    if options["symmetric"]:
        return codes, scale
    return codes, scale, Part("zero", "uint8", groups)


FLOATING = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a scalar of every type that weights are trained in."""


def _shares(shape: Shape, options: Options) -> tuple[Part, ...]:
    """The bytes of as many scalars as each process has."""
    whole = FLOATING[str(options["type"])] * prod(shape)
    return (Part("part", "uint8", (ceil(whole / int(options["n"])),)),)


_IN = "peftc.storage."
_BLOCKS = (("block", "size"), ("double", "flag"), ("compute", "compute"))
_GROUPS = (("group", "size"), ("symmetric", "flag"), ("compute", "compute"))

FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format(
            "nf4",
            "16 levels, normally distributed, for each block",
            _IN + "nf4",
            _BLOCKS,
            lambda options: 0.1519,
            _blocks,
        ),
        Format(
            "fp4",
            "4 bit floating point for each block",
            _IN + "fp4",
            _BLOCKS,
            lambda options: 1 / 6,
            _blocks,
        ),
        Format(
            "int8",
            "whole numbers to 127 for each row",
            _IN + "int8",
            (("compute", "compute"),),
            lambda options: 1 / 254,
            _rows,
        ),
        Format(
            "int4",
            "whole numbers of 4 bits for each group of a row",
            _IN + "int4",
            _GROUPS,
            lambda options: 1 / 14 if options["symmetric"] else 1 / 30,
            _groups,
        ),
    )
}
"""Every format by name: a new one is one line here and its file."""

SHARDS = Format(
    "shards",
    "a part of the bytes in each of n processes",
    _IN + "shards",
    (("n", "size"), ("type", "type"), ("compute", "compute")),
    lambda options: 0.0,
    _shares,
)
"""No format of the language: how many processes there are is no matter of a method."""
_ALL = {**FORMATS, SHARDS.name: SHARDS}


@dataclass(frozen=True)
class Form:
    """A format with its options; `text` is canonical: `nf4(block=64, double=true)`."""

    format: Format
    options: tuple[tuple[str, OptionValue], ...]

    @property
    def text(self) -> str:
        """What `form_of` reads back."""
        said = ", ".join(f"{name}={_shown(value)}" for name, value in self.options)
        return f"{self.format.name}({said})"

    @property
    def compute(self) -> str:
        """One of COMPUTE."""
        return str(dict(self.options)["compute"])

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        """The tensors it keeps of a weight [*lead, out, in]."""
        return self.format.keep(shape, dict(self.options))

    def bits(self, shape: Shape) -> float:
        """Bits for each weight, all that is kept counted."""
        return 8 * sum(part.bytes for part in self.parts(shape)) / prod(shape)

    @property
    def error(self) -> float:
        """The largest error, as `Format.error` says."""
        return self.format.error(dict(self.options))


def _shown(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_FORM = re.compile(r"(\w+)\((.*)\)")


@lru_cache(maxsize=256)
def form_of(text: str) -> Form:
    """Read what `Form.text` gives.

    >>> form_of("nf4(block=64, double=true, compute=base)").bits((64, 64))
    4.1328125

    Raises:
        ValueError: if it is anything else.
    """
    match = _FORM.fullmatch(text)
    if not match or match[1] not in _ALL:
        raise ValueError(f"`{text}` is no format of stored weights")
    found = _ALL[match[1]]
    pairs = [pair.partition("=") for pair in match[2].split(", ")]
    if [name for name, _, _ in pairs] != [name for name, _ in found.options]:
        raise ValueError(f"`{found.name}` has the options {found.form}")
    types = dict(found.options)
    options = tuple((name, _option(types[name], value)) for name, _, value in pairs)
    return Form(found, options)


def _option(kind: str, text: str) -> OptionValue:
    if kind == "flag" and text in ("true", "false"):
        return text == "true"
    if kind == "compute" and text in COMPUTE:
        return text
    if kind == "type" and text in FLOATING:
        return text
    if kind == "size" and text.isdecimal() and int(text) >= 1:
        return int(text)
    raise ValueError(f"`{text}` is no {kind}")
