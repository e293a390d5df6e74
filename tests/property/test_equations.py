"""Any equation is refused with a diagnostic in its text, or means what its axes say."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peftc.diagnostics.core import PeftcError
from peftc.expr.check import check_method
from peftc.expr.elaborate import elaborate
from peftc.expr.evaluate import evaluate
from peftc.syntax.parse import parse_method

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.diagnostics.core import Diagnostic
    from peftc.expr.equation import Equation
    from peftc.syntax import ast

KNOBS: dict[str, int | float | str | bool] = {
    "n": 2,
    "r": 3,
    "s": 0.5,
    "wide": True,
    "act": "tanh",
}
SIZES = {"in": 4, "out": 6}
ENV = {**SIZES, "b": 2, "t": 5, "n": 2, "r": 3}
HEADER = """method m(n: size, r: size, s: scale, wide: flag, act: function) on linear {
  param A[r, in] ~ normal(1), B[out, r] ~ normal(1), R[r, r] ~ normal(1)
  param P[n, out, in] ~ normal(1), l[out] ~ normal(1), k[in] ~ normal(1)
  param c[] ~ normal(1)
"""

names = st.sampled_from(
    [*"WxyABRPlkc", "bias", "s", "n", "in", "out", "2", "0.5", "wide", "act", "q", "h"]
)
axes = st.sampled_from(["in", "out", "n", "r", "t", "out*in", "in/n", "2", "s", "z"])


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions of the parts given, most of them wrong."""
    pairs = st.tuples(inner, inner)
    functions = st.sampled_from(
        ["act", "gelu", "diag", "sqrt", "detach", "cayley", "norm", "mean", "gleu"]
    )
    twofold = st.sampled_from(["kron", "outer", "max", "solve", "drop", "gelu"])
    reductions = st.sampled_from(["sum", "mean", "norm", "norm2"])
    binders = st.sampled_from(["sum", "mean", "blockdiag", "concat", "concat_cols"])
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*/@"), inner).map(" ".join).map(bracketed),
        inner.map(lambda e: f"{bracketed(e)}.T"),
        inner.map(lambda e: f"(-{bracketed(e)})"),
        pairs.map(lambda e: f"{bracketed(e[0])}({e[1]})"),
        st.tuples(functions, inner).map(lambda e: f"{e[0]}({e[1]})"),
        st.tuples(twofold, inner, inner).map(lambda e: f"{e[0]}({e[1]}, {e[2]})"),
        st.tuples(reductions, inner, axes).map(lambda e: f"{e[0]}({e[1]}, {e[2]})"),
        st.tuples(inner, axes, axes).map(
            lambda e: f"reshape({e[0]}, [{e[1]}, {e[2]}])"
        ),
        st.tuples(binders, axes, inner).map(lambda e: f"{e[0]}[i: {e[1]}]({e[2]})"),
        inner.map(lambda e: f"sum[i: n](P[i] * {bracketed(e)})"),
        pairs.map(lambda e: f"choose(wide, {e[0]}, {e[1]})"),
    )


def bracketed(text: str) -> str:
    return f"({text})"


expressions = st.recursive(names, combined, max_leaves=6)


def method_of(text: str, uses: str = "") -> ast.Method:
    return parse_method(f"{HEADER}  value = {text}\n  y' = y + norm2(value){uses}\n}}")


def everything_used() -> str:
    """Terms that read all that the header declares."""
    norms = " + ".join(f"norm2({name})" for name in "ABRPlkc")
    return f" + 0 * ({norms}) * norm2(choose(wide, s * act(y), y))"


def errors_of(step: Callable[[], object]) -> tuple[Diagnostic, ...]:
    """The diagnostics a step ends with; anything else it raises fails the test."""
    try:
        step()
    except PeftcError as error:
        found = error.diagnostics
    else:
        return ()
    assert found
    return found


def drawn(equation: Equation) -> dict[str, torch.Tensor]:
    shapes = {"W": (6, 4), "bias": (6,), "x": (2, 5, 4), "y": (2, 5, 6)}
    for declared in equation.declarations:
        shapes[declared.name] = tuple(axis.value(ENV) for axis in declared.axes)
    generator = torch.Generator().manual_seed(1)  # a matrix of ones has no inverse
    return {n: torch.randn(shape, generator=generator) for n, shape in shapes.items()}


@settings(max_examples=200, deadline=None)
@given(expressions)
def test_refused_in_the_text_or_of_the_axes_it_says(text: str) -> None:
    method = method_of(text, everything_used())
    found = errors_of(partial(check_method, method))
    for error in found:
        assert error.span
        assert 0 <= error.span.start <= error.span.end <= len(method.span.text)
    if found:
        return
    late = errors_of(partial(elaborate, method.clauses[0], KNOBS, SIZES))
    if late:  # what only numbers tell: a probability of 2, a division by zero
        assert {error.code for error in late} <= {"PEFT245", "PEFT246"}
        return
    equation = elaborate(method.clauses[0], KNOBS, SIZES)
    (value,) = evaluate([equation.rules["y"]], drawn(equation), ENV, torch.float32)
    assert value.shape == (2, 5, 6)
