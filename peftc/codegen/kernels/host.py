"""What torch does around the kernels, as lines of text.

In: formulas of host work.  Out: a line for each.  Parameters and all that is computed
from them alone are taken in float32; activations stay in the type that they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.codegen.halves import base_text
from peftc.codegen.kernels.formulas import TOKENS
from peftc.codegen.torch_writer import NoSourceError, base_weight, variable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from peftc.codegen.kernels.formulas import Formula, Value
    from peftc.expr.program import Step

BASE = ("W", "bias")
"""What has the type of the activations; of added tensors it is not known."""


class Host:
    """Writes lines of torch; `like` is an activation, of whose type all others are."""

    def __init__(
        self, known: Mapping[str, Value], like: str, biases: Collection[str]
    ) -> None:
        self.known = known
        self.like = like
        self.biases = biases
        self.made: set[str] = set()
        """What has been computed: what is not is a parameter in its own type."""

    def text(self, formula: Formula) -> str:
        """What computes a value."""
        step = formula.step
        if base_weight(step):
            biases = self.biases if step.op == "base" else ()
            return base_text(variable(step.args[0]), base_weight(step), biases)
        active = step.tokens or any(self.known[name].tokens for name in step.args)
        args = [self._arg(name, active) for name in step.args]
        text = self._text(formula, args)
        if active and not step.tokens:
            text = f"({text}).float()"
        return text

    def is_contiguous(self, formula: Formula) -> bool:
        """Whether what computes a value leaves no gaps: a product of matrices does."""
        step = formula.step
        plain = step.op == "ein" and _matrices(formula, step.args)
        return bool(plain) or step.op in ("linear", "base", "product")

    def _arg(self, name: str, active: bool) -> str:
        value, text = self.known[name], variable(name)
        if not active:
            return text if name in self.made else f"{text}.float()"
        plain = name in BASE or (value.tokens and value.shape)
        return text if plain else f"{text}.to({self.like}.dtype)"

    def _text(self, formula: Formula, args: Sequence[str]) -> str:
        step = formula.step
        if step.op == "linear":
            return f"F.linear({args[0]}, {args[1]})"
        if step.op == "ein":
            return _matrices(formula, args) or _einsum(step, args)
        if step.op == "add" or step.fn == "detach":
            return _sum(args, step.coefs or (1.0,))
        if step.op == "map":
            return f"{step.fn}({args[0]})"
        lead = ("tokens",) * step.tokens
        shape = f"({''.join(f'{size}, ' for size in (*lead, *step.shape))})"
        if step.op == "view":
            return f"{args[0]}.reshape({shape})"
        return self._call(step, args, shape)

    def _call(self, step: Step, args: Sequence[str], shape: str) -> str:
        if step.fn == "count":
            raise NoSourceError("samples and tokens are counted apart")
        if step.fn == "full":
            return f"{args[0]}.new_full({shape}, {float(step.attrs[0])!r})"
        if step.fn == "eye":
            return f"torch.eye({step.shape[0]}, device={self.like}.device)"
        given = "".join(f"{arg}, " for arg in args)
        return f"call({step.fn!r}, ({given}), {step.attrs!r}, {shape})"


def _einsum(step: Step, args: Sequence[str]) -> str:
    spec = step.spec.replace(TOKENS, "Z")
    return f"torch.einsum({spec!r}, {', '.join(args)})"


def _matrices(formula: Formula, args: Sequence[str]) -> str:
    """`a @ b`, if a product is one of two matrices."""
    rows, out, shared = formula.rows, formula.row, formula.summed
    if len(rows) != 2 or len(shared) != 1 or len(out) != 2:
        return ""
    if any(len(set(row)) != 2 or len(row) != 2 or shared not in row for row in rows):
        return ""
    order = [next(i for i in (0, 1) if letter in rows[i]) for letter in out]
    if sorted(order) != [0, 1]:
        return ""
    first, second = order
    left = args[first] + ".t()" * (rows[first][0] == shared)
    right = args[second] + ".t()" * (rows[second][1] == shared)
    return f"{left} @ {right}"


def _sum(args: Sequence[str], coefs: Sequence[float]) -> str:
    terms = [
        arg if coef == 1 else f"{arg} * {coef!r}"
        for arg, coef in zip(args, coefs, strict=True)
    ]
    return " + ".join(terms)
