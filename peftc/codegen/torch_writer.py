"""One direction of a joint program as the text of a function over torch.

In: steps whose token axes are one, and the sizes of the values.  Out: lines of Python.
Products with few columns are computed turned, [columns, tokens], where matrix libraries
are several times faster; products that are added to a fresh value are accumulated into
it.

An activation is [n, ...], n tokens.  Where the base's type is another than that of the
added tensors, its products are computed in the base's, and all else in theirs: a value
`v` of the base's type is read as `v_wide`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftc.expr.grouped import beside

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from peftc.expr.joint_program import Drawn
    from peftc.expr.program import Step

NARROW = 64
"""Columns up to which a product is computed turned."""
BASE = ("x", "y", "dy", "W", "bias", "h", "dh", "u")
"""Names of what is given in the base's type."""
TOKENS = 1 << 20
"""Taken for the number of tokens, where sizes are compared."""


class NoSourceError(Exception):
    """A program has a step that has no form here."""


@dataclass(frozen=True)
class Size:
    """The shape of a value, without its tokens, and whether it has any."""

    shape: tuple[int, ...]
    tokens: bool


def drawn(mask: Drawn) -> str:
    """What is kept of a mask: where it is not zero."""
    return f"{mask.name}_drawn"


def base_weight(step: Step) -> str:
    """The weight that a step of the site's own linear reads; none of other steps."""
    if step.op not in ("base", "product"):
        return ""
    return step.args[1] if len(step.args) > 1 else "W"


# --- one function ---------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    """What both directions know of the program.

    `steps` are those of both; `biases` are the linears' own; `wide` is the type of the
    added tensors, if the base has another.
    """

    sizes: Mapping[str, Size]
    steps: Mapping[str, Step]
    biases: Collection[str]
    wide: str = ""


@dataclass
class Writer:
    """Writes steps as lines; `live` values are given out and are not changed, `results`
    are those of them that the graph reads.

    `like` is an activation that the function takes, of the base's type.
    """

    whole: Whole
    like: str
    steps: Sequence[Step]
    live: Collection[str]
    results: Collection[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.readers = Counter(a for step in self.steps for a in step.args)
        self.by_name = {step.out: step for step in self.steps}
        self.widened: set[str] = set()
        self.late = {name for step in self.steps for name in self._late(step)}
        self.given = self._activations_given()

    def _activations_given(self) -> set[str]:
        """Activations that are results, and what these are added up in: whoever reads
        them sums along their features, which lie side by side."""
        found = {*self.results}
        for step in reversed(self.steps):
            if step.out in found:
                found.add(self._into(step))
        return {name for name in found if name in self.by_name}

    def draw(self, masks: Sequence[Drawn]) -> None:
        """Draw masks, as torch's dropout does."""
        like = variable(self.like)
        for mask in masks:
            rows = (f"{like}.shape[0]",) if mask.tokens else ()
            shape = ", ".join([*rows, *map(str, mask.shape)])
            kind = f"dtype=torch.bool, device={like}.device"
            keep = f"torch.empty([{shape}], {kind}).bernoulli_({1 - mask.p!r})"
            self.lines.append(f"{variable(drawn(mask))} = {keep}")
        self.recall(masks)

    def recall(self, masks: Sequence[Drawn]) -> None:
        """Masks from what was drawn."""
        kind = self.whole.wide or f"{variable(self.like)}.dtype"
        for mask in masks:
            value = f"{variable(drawn(mask))}.to({kind}).mul_({1 / (1 - mask.p)!r})"
            self.lines.append(f"{variable(mask.name)} = {value}")

    def apply(self, results: Sequence[str]) -> None:
        """The bases' own values."""
        for y in results:
            text = self._linear_of("x", beside("W", y), True)
            self.lines.append(f"{variable(y)} = {text}")

    def function(
        self,
        name: str,
        takes: Sequence[str],
        gives: Sequence[tuple[str, str]],
        kept: Sequence[str] = (),
    ) -> str:
        """The whole text; `gives` are names of results and their values."""
        for step in self.steps:
            if step.out not in self.late:
                self._write(step)
        given = [*(self._given(*pair) for pair in gives), *map(variable, kept)]
        told = ", ".join(map(variable, takes))
        body = "".join(f"    {line}\n" for line in self.lines)
        return f"def {name}({told}):\n{body}    return {', '.join(given)},\n"

    # --- types ---------------------------------------------------------------------

    def _of_base(self, name: str) -> bool:
        """Whether a value has the type of the base, and that is another."""
        if not self.whole.wide:
            return False
        step = self.whole.steps.get(name)
        if step is None:
            return name.partition("@")[0] in BASE
        return bool(base_weight(step)) or self._is_back(step)

    def _is_back(self, step: Step) -> bool:
        """Whether a step is an activation's product with a base's weight."""
        factors = self._factors(step) if step.op == "ein" and step.tokens else None
        return factors is not None and factors[1].name.partition("@")[0] == "W"

    def _read(self, name: str) -> str:
        """A value in the type that is computed in."""
        if not self._of_base(name):
            return variable(name)
        wide = f"{variable(name)}_wide"
        if name not in self.widened:
            self.widened.add(name)
            self.lines.append(f"{wide} = {variable(name)}.to({self.whole.wide})")
        return wide

    def _narrow(self, name: str, like: str) -> str:
        """A value in the base's type, which `like` has."""
        plain = not self.whole.wide or self._of_base(name)
        return variable(name) if plain else f"{variable(name)}.to({like}.dtype)"

    def _given(self, result: str, value: str) -> str:
        """A result in the type that it is expected in."""
        if result.partition("@")[0] in BASE:
            return self._narrow(value, variable(self.like))
        return self._read(value)

    # --- sums ----------------------------------------------------------------------

    def _late(self, step: Step) -> Iterator[str]:
        """Products that a sum takes into another of its terms."""
        into = self._into(step)
        for name in step.args if into else ():
            if name != into and self._is_product(name) and self._single(name):
                yield name

    def _into(self, step: Step) -> str:
        """The term of a sum that the others can be added to in place."""
        if step.op != "add" or not step.tokens:
            return ""
        for name, coef in zip(step.args, step.coefs, strict=True):
            whole = self.whole.sizes[name] == self.whole.sizes[step.out] and coef == 1
            if whole and self._single(name) and self._makes(name):
                return name
        return ""

    def _makes(self, name: str) -> bool:
        step = self.by_name.get(name)
        if step is None:
            return name.partition("@")[0] == "y"
        return step.op in ("linear", "ein", "base", "product")

    def _single(self, name: str) -> bool:
        return self.readers[name] == 1 and name not in self.live

    def _is_product(self, name: str) -> bool:
        step = self.by_name.get(name)
        plain = step is not None and not self._of_base(name)
        return plain and step is not None and self._factors(step) is not None

    def _add(self, step: Step) -> str:
        into = self._into(step)
        pairs = zip(step.args, step.coefs, strict=True)
        terms = [(name, coef) for name, coef in pairs if name != into]
        if not into:
            return self._plain_sum(terms)
        target = self._read(into)
        for name, coef in terms:
            scale = "" if coef == 1 else f", alpha={coef!r}"
            factors = self._factors(self.by_name[name]) if name in self.late else None
            if factors:
                one, other = map(self._matrix, factors)
                self.lines.append(f"{target}.addmm_({one}, {other}{scale})")
            else:
                self.lines.append(f"{target}.add_({self._read(name)}{scale})")
        return target

    def _plain_sum(self, terms: Sequence[tuple[str, float]]) -> str:
        (first, coef), *rest = terms
        text = self._read(first) if coef == 1 else f"{self._read(first)} * {coef!r}"
        for name, coef in rest:
            scale = "" if coef == 1 else f", alpha={coef!r}"
            text = f"torch.add({text}, {self._read(name)}{scale})"
        return text

    # --- products ------------------------------------------------------------------

    def _factors(self, step: Step) -> tuple[_Matrix, _Matrix] | None:
        """The matrices whose product a step is."""
        if step.op == "linear":
            value, matrix = step.args
            plain = len(self.whole.sizes[value].shape) == 1
            return (_Matrix(value), _Matrix(matrix, True)) if plain else None
        if step.op != "ein" or len(step.args) != 2:
            return None
        rows, out = _labels(step.spec)
        shared = [c for c in rows[0] if c in rows[1] and c not in out]
        apart = all(len(set(row)) == len(row) == 2 for row in rows)
        if not apart or len(shared) != 1 or len(out) != 2:
            return None
        (c,) = shared
        left = _Matrix(step.args[0], rows[0][1] != c)
        right = _Matrix(step.args[1], rows[1][0] != c)
        free = [next(x for x in row if x != c) for row in rows]
        return (left, right) if [*out] == free else (right.turn(), left.turn())

    def _matrix(self, one: _Matrix) -> str:
        return self._read(one.name) + ".t()" * one.turned

    def _product(self, step: Step) -> str | None:
        factors = self._factors(step)
        if factors is None:
            return None
        left, right = factors
        if self.whole.wide and self._is_back(step):
            weight = self._base_matrix(right)
            return f"{self._narrow(left.name, weight)} @ {weight}"
        rows, columns = self._out(step)
        if columns <= NARROW < rows and not (step.tokens and step.out in self.given):
            return f"({self._matrix(right.turn())} @ {self._matrix(left.turn())}).t()"
        return f"{self._matrix(left)} @ {self._matrix(right)}"

    def _base_matrix(self, one: _Matrix) -> str:
        return variable(one.name) + ".t()" * one.turned

    def _out(self, step: Step) -> tuple[int, int]:
        shape = (*((TOKENS,) if step.tokens else ()), *step.shape)
        return shape[0], shape[1]

    # --- steps ---------------------------------------------------------------------

    def _write(self, step: Step) -> None:
        text = {
            "add": self._add,
            "linear": self._linear,
            "ein": self._ein,
            "map": self._map,
            "view": self._view,
            "call": self._call,
            "base": self._base,
            "product": self._base,
        }[step.op](step)
        if text != variable(step.out):
            self.lines.append(f"{variable(step.out)} = {text}")

    def _linear(self, step: Step) -> str:
        if step.shape[0] <= NARROW and self._factors(step):
            return self._product(step) or ""
        value, matrix = map(self._read, step.args)
        return f"F.linear({value}, {matrix})"

    def _base(self, step: Step) -> str:
        return self._linear_of(step.args[0], base_weight(step), step.op == "base")

    def _linear_of(self, value: str, weight: str, whole: bool) -> str:
        bias = beside("bias", weight)
        offset = f", {variable(bias)}" if whole and bias in self.whole.biases else ""
        matrix = variable(weight)
        return f"F.linear({self._narrow(value, matrix)}, {matrix}{offset})"

    def _ein(self, step: Step) -> str:
        product = self._product(step)
        return product or self._elementwise(step) or self._einsum(step)

    def _elementwise(self, step: Step) -> str:
        """A product without a sum, over the tokens before it, or over its last axis."""
        rows, out = _labels(step.spec)
        longest = max(rows, key=len)
        if not all(_is_part(row, longest) for row in rows):
            return ""
        if len(rows) == 2 and rows[0] == rows[1] == f"{out}{longest[-1:]}":
            return f"torch.linalg.vecdot({', '.join(map(self._read, step.args))})"
        pairs = zip(step.args, rows, strict=True)
        text = " * ".join(
            self._read(name) + _spread(row, longest) for name, row in pairs
        )
        if longest == out:
            return text
        if longest == f"*{out}":
            return f"({text}).sum(0)" if len(rows) > 1 else f"{text}.sum(0)"
        return ""

    def _einsum(self, step: Step) -> str:
        args = ", ".join(map(self._read, step.args))
        return f"torch.einsum({step.spec.replace('*', 'Z')!r}, {args})"

    def _map(self, step: Step) -> str:
        return f"{step.fn}({self._read(step.args[0])})"

    def _view(self, step: Step) -> str:
        shape = ", ".join([*["-1"] * step.tokens, *map(str, step.shape)])
        return f"{self._read(step.args[0])}.reshape({shape})"

    def _call(self, step: Step) -> str:
        like, shape = self._read(step.args[0]), step.shape
        if step.fn == "full":
            number = repr(float(step.attrs[0]))
            return f"{like}.new_full({shape!r}, {number})"
        if step.fn == "eye":
            return f"torch.eye({shape[0]}, dtype={like}.dtype, device={like}.device)"
        if step.fn == "count":
            raise NoSourceError("samples and tokens are counted apart")
        whole = (-1, *shape) if step.tokens else shape
        args = ", ".join(map(self._read, step.args))
        return f"call({step.fn!r}, ({args},), {step.attrs!r}, {whole!r})"


@dataclass(frozen=True)
class _Matrix:
    """A value with two axes, or the same turned."""

    name: str
    turned: bool = False

    def turn(self) -> _Matrix:
        return _Matrix(self.name, not self.turned)


def _labels(spec: str) -> tuple[list[str], str]:
    before, _, out = spec.partition("->")
    return before.split(","), out


def _is_part(row: str, whole: str) -> bool:
    """Whether these axes are some of the whole's, each once and in its order."""
    once = len(set(whole)) == len(whole)
    return once and row == "".join(c for c in whole if c in row)


def _spread(row: str, whole: str) -> str:
    """What to write behind a value for its axes to stand under those of the whole."""
    if whole.endswith(row):
        return ""
    return f"[{', '.join(':' if c in row else 'None' for c in whole)}]"


def variable(name: str) -> str:
    """A value's name in the text."""
    if name.startswith("%"):
        return f"v{name[1:]}"
    return "".join("_" if c in ".#@" else c for c in name)
