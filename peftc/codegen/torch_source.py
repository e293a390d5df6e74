"""A joint program as Python over torch, laid out for a CPU.

In: a `JointProgram` whose token axes are one.  Out: the text of two functions, and the
names of what is passed between them.  Products with few columns are computed turned,
[columns, tokens], where matrix libraries are several times faster; products that are
added to a fresh value are accumulated into it.

Inside, token axes are one: an activation is [n, ...], n tokens.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step

NARROW = 64
"""Columns up to which a product is computed turned."""
TOKENS = 1 << 20
"""Taken for the number of tokens, where sizes are compared."""


class NoSourceError(Exception):
    """A program has a step that has no form here."""


@dataclass(frozen=True)
class Source:
    """Two functions as text, and in which order they take and give values.

    `forward(**inputs)` gives the result and then `kept`; `backward(dy, **saved)` gives
    the `gradients`.
    """

    forward: str
    backward: str
    inputs: tuple[str, ...]
    kept: tuple[str, ...]
    saved: tuple[str, ...]
    gradients: tuple[str, ...]


def torch_source(
    program: JointProgram, wanted: Iterable[str], *, biased: bool
) -> Source:
    """The source of a program for one result, with the gradients that are wanted.

    Raises:
        NoSourceError: if a step has no form.
    """
    if program.separate_tokens or program.masks or len(program.forward.results) != 1:
        raise NoSourceError("tokens are told apart, masked, or several values replaced")
    ((_, result),) = program.forward.results
    every = (*program.forward.steps, *program.backward.steps)
    asked = {name: v for name, v in program.backward.results if name in set(wanted)}
    back = _needed(program.backward.steps, asked.values())
    read = _reads(back, asked.values())
    repeated = [step for step in program.forward.steps if step.out in program.again]
    again = _needed(repeated, read)
    read |= {name for step in again for name in step.args}
    made = {"y"} | {step.out for step in program.forward.steps}
    done = {step.out for step in again}
    kept = tuple(sorted(read & made - done))
    given = [one.name for one in program.inputs if not one.name.startswith("dy")]
    based = "y" in given or any(s.op in ("base", "product") for s in every)
    needs = ("x", "W") + ("bias",) * biased if based else ()
    inputs = tuple(dict.fromkeys(n for n in (*needs, *given) if n != "y"))
    saved = tuple(name for name in (*inputs, *kept) if name in read)
    sizes = _sizes(program)
    front = _Writer(sizes, {result, *kept}, program.forward.steps, biased)
    rear = _Writer(sizes, set(asked.values()), (*again, *back), biased)
    return Source(
        front.function("forward", inputs, (result, *kept), _base(given, biased)),
        rear.function("backward", ("dy", *saved), tuple(asked.values())),
        inputs,
        kept,
        saved,
        tuple(asked),
    )


def _base(given: Sequence[str], biased: bool) -> str:
    """How the base's own output is computed, if it is read."""
    return f"F.linear(x, W{', bias' * biased})" if "y" in given else ""


def _needed(steps: Sequence[Step], results: Iterable[str]) -> list[Step]:
    """Those of the steps that the results depend on, in their order."""
    needed, found = set(results), []
    for step in reversed(steps):
        if step.out in needed:
            found.append(step)
            needed |= set(step.args)
    return found[::-1]


def _reads(steps: Sequence[Step], results: Iterable[str]) -> set[str]:
    own = {step.out for step in steps}
    return ({a for step in steps for a in step.args} | set(results)) - own


@dataclass(frozen=True)
class _Size:
    shape: tuple[int, ...]
    tokens: bool


def _sizes(program: JointProgram) -> Mapping[str, _Size]:
    steps = (*program.forward.steps, *program.backward.steps)
    found = {one.name: _Size(one.shape, one.tokens) for one in program.inputs}
    return found | {step.out: _Size(step.shape, step.tokens) for step in steps}


# --- one function ---------------------------------------------------------------------


@dataclass
class _Writer:
    """Writes steps as lines; `live` values are results and are not changed."""

    sizes: Mapping[str, _Size]
    live: set[str]
    steps: Sequence[Step]
    biased: bool
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.readers = Counter(a for step in self.steps for a in step.args)
        self.by_name = {step.out: step for step in self.steps}
        self.late = {name for step in self.steps for name in self._late(step)}

    def function(
        self, name: str, takes: Sequence[str], gives: Sequence[str], base: str = ""
    ) -> str:
        """The whole text; `base` computes y."""
        if base:
            self.lines.append(f"y = {base}")
        for step in self.steps:
            if step.out not in self.late:
                self._write(step)
        told = ", ".join(map(variable, takes))
        given = ", ".join(map(variable, gives))
        body = "".join(f"    {line}\n" for line in self.lines)
        return f"def {name}({told}):\n{body}    return {given},\n"

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
            whole = self.sizes[name] == self.sizes[step.out] and coef == 1
            if whole and self._single(name) and self._makes(name):
                return name
        return ""

    def _makes(self, name: str) -> bool:
        step = self.by_name.get(name)
        if name == "y":
            return True
        return step is not None and step.op in ("linear", "ein", "base", "product")

    def _single(self, name: str) -> bool:
        return self.readers[name] == 1 and name not in self.live

    def _is_product(self, name: str) -> bool:
        step = self.by_name.get(name)
        return step is not None and self._factors(step) is not None

    def _add(self, step: Step) -> str:
        into = self._into(step)
        terms = [
            (name, coef)
            for name, coef in zip(step.args, step.coefs, strict=True)
            if name != into
        ]
        if not into:
            return self._plain_sum(terms)
        target = variable(into)
        for name, coef in terms:
            factors = self._factors(self.by_name[name]) if name in self.late else None
            scale = "" if coef == 1 else f", alpha={coef!r}"
            if factors:
                one, other = factors
                self.lines.append(f"{target}.addmm_({one}, {other}{scale})")
            else:
                self.lines.append(f"{target}.add_({variable(name)}{scale})")
        return target

    def _plain_sum(self, terms: Sequence[tuple[str, float]]) -> str:
        (first, coef), *rest = terms
        text = variable(first) if coef == 1 else f"{variable(first)} * {coef!r}"
        for name, coef in rest:
            scale = "" if coef == 1 else f", alpha={coef!r}"
            text = f"torch.add({text}, {variable(name)}{scale})"
        return text

    # --- products ------------------------------------------------------------------

    def _factors(self, step: Step) -> tuple[str, str] | None:
        """The matrices whose product a step is."""
        if step.op == "linear":
            value, matrix = map(variable, step.args)
            plain = len(self.sizes[step.args[0]].shape) == 1
            return (value, f"{matrix}.t()") if plain else None
        if step.op != "ein" or len(step.args) != 2:
            return None
        rows, out = _labels(step.spec)
        shared = [c for c in rows[0] if c in rows[1] and c not in out]
        apart = all(len(set(row)) == len(row) == 2 for row in rows)
        if not apart or len(shared) != 1 or len(out) != 2:
            return None
        (c,) = shared
        left, right = map(variable, step.args)
        left = left if rows[0][1] == c else f"{left}.t()"
        right = right if rows[1][0] == c else f"{right}.t()"
        free = [next(x for x in row if x != c) for row in rows]
        if [*out] == free:
            return left, right
        return _turn(right), _turn(left)

    def _product(self, step: Step) -> str | None:
        factors = self._factors(step)
        if factors is None:
            return None
        left, right = factors
        rows, columns = self._out(step)
        if columns <= NARROW < rows and step.op == "ein":
            return f"({_turn(right)} @ {_turn(left)}).t()"
        return f"{left} @ {right}"

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
        value, matrix = map(variable, step.args)
        return f"F.linear({value}, {matrix})"

    def _base(self, step: Step) -> str:
        offset = ", bias" if step.op == "base" and self.biased else ""
        return f"F.linear({variable(step.args[0])}, W{offset})"

    def _ein(self, step: Step) -> str:
        product = self._product(step)
        return product or _elementwise(step, self.sizes) or _einsum(step)

    def _map(self, step: Step) -> str:
        return f"{step.fn}({variable(step.args[0])})"

    def _view(self, step: Step) -> str:
        lead = "-1, " if step.tokens else ""
        return (
            f"{variable(step.args[0])}.reshape({lead}{', '.join(map(str, step.shape))})"
        )

    def _call(self, step: Step) -> str:
        like, shape = variable(step.args[0]), step.shape
        if step.fn == "full":
            number = repr(float(step.attrs[0]))
            return f"{like}.new_full({shape!r}, {number})"
        if step.fn == "eye":
            return f"torch.eye({shape[0]}, dtype={like}.dtype, device={like}.device)"
        if step.fn == "count":
            raise NoSourceError("samples and tokens are counted apart")
        whole = (-1, *shape) if step.tokens else shape
        args = ", ".join(map(variable, step.args))
        return f"call({step.fn!r}, ({args},), {step.attrs!r}, {whole!r})"


def _turn(text: str) -> str:
    return text.removesuffix(".t()") if text.endswith(".t()") else f"{text}.t()"


def _labels(spec: str) -> tuple[list[str], str]:
    before, _, out = spec.partition("->")
    return before.split(","), out


def _elementwise(step: Step, sizes: Mapping[str, _Size]) -> str:
    """A product without a sum, or with one over the tokens at its end."""
    rows, out = _labels(step.spec)
    if any(len(set(row)) < len(row) for row in rows):
        return ""
    longest = max(rows, key=len)
    fits = all(longest.endswith(row) for row in rows)
    text = " * ".join(map(variable, step.args))
    if fits and longest == out:
        return text
    if fits and longest == f"*{out}":
        return f"({text}).sum(0)" if len(rows) > 1 else f"{text}.sum(0)"
    return ""


def _einsum(step: Step) -> str:
    args = ", ".join(map(variable, step.args))
    return f"torch.einsum({step.spec.replace('*', 'Z')!r}, {args})"


def variable(name: str) -> str:
    """A value's name in the text."""
    return (
        f"v{name[1:]}"
        if name.startswith("%")
        else name.replace(".", "_").replace("#", "_")
    )
