"""What each construct of the equation language computes, against torch.

Expressions are read as rules of a method on small linears; every name that is not a
value of the site is a tensor given here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from peftc.expr.check import check_method
from peftc.expr.elaborate import elaborate
from peftc.expr.evaluate import evaluate
from peftc.syntax.parse import parse_method

Tensors: TypeAlias = Mapping[str, Tensor]
Formula: TypeAlias = Callable[[Tensors], Tensor]

SIZES = {"in": 6, "out": 4}
ENV = {**SIZES, "b": 2, "t": 3, "n": 2, "k": 3, "r": 5}
KNOBS = {"n": 2, "k": 3, "r": 5, "a": 1.5}
AXES = {
    "A": "r, in",
    "B": "out, r",
    "C": "in/n, in/n",
    "D": "out, in",
    "G": "n, k, out/n, in/k",
    "M": "n, k",
    "P": "n, out/n, in/n",
    "Q": "n, in/n, in/n",
    "S": "k, out, in",
    "l": "out",
    "v": "in",
    "z": "out*in",
    "q": "",
}


def skew(matrix: Tensor) -> Tensor:
    return (matrix - matrix.mT) / 2


def cayley(matrix: Tensor) -> Tensor:
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    inverse: Tensor = torch.linalg.inv(one + skew(matrix))
    return inverse @ (one - skew(matrix))


def per_column(value: Tensor) -> Tensor:
    return value[None, :]


WEIGHTS: dict[str, Formula] = {
    "W + B @ A": lambda t: t["W"] + t["B"] @ t["A"],
    "W - 2 * B @ A / 4": lambda t: t["W"] - t["B"] @ t["A"] / 2,
    "-(l * W)": lambda t: -t["l"][:, None] * t["W"],
    "v * W": lambda t: per_column(t["v"]) * t["W"],
    "W * v / l": lambda t: t["W"] * per_column(t["v"]) / t["l"][:, None],
    "W + 1": lambda t: t["W"] + 1,
    "q * W + D": lambda t: t["q"] * t["W"] + t["D"],
    "(A.T @ B.T).T": lambda t: t["B"] @ t["A"],
    "diag(l) @ W @ diag(v)": lambda t: t["l"].diag() @ t["W"] @ t["v"].diag(),
    "W @ eye(in)": lambda t: t["W"],
    "outer(l, v)": lambda t: torch.outer(t["l"], t["v"]),
    "sum[i: n](sum[j: k](kron(M, G[i, j])))": lambda t: torch.kron(
        t["M"], t["G"].sum((0, 1))
    ),
    "mean[i: k](S[i])": lambda t: t["S"].mean(0),
    "sum[i: n](sum[j: k](M[i, j] * S[j]))": lambda t: torch.einsum(
        "ij,joc->oc", t["M"], t["S"]
    ),
    "blockdiag[i: n](P[i])": lambda t: torch.block_diag(*t["P"]),
    "blockgrid[i: n, j: k](G[i, j])": lambda t: torch.cat(
        [torch.cat(list(row), dim=1) for row in t["G"]], dim=0
    ),
    "concat[i: n](reshape(P[i], [out/n, in/n]) @ concat_cols[j: n](eye(in/n)))": (
        lambda t: torch.cat([torch.cat([p, p], dim=1) for p in t["P"]])
    ),
    "W @ blockdiag[i: n](cayley(Q[i]))": lambda t: (
        t["W"] @ torch.block_diag(*(cayley(q) for q in t["Q"]))
    ),
    "W @ blockdiag[i: n](cayley(C))": lambda t: (
        t["W"] @ torch.block_diag(cayley(t["C"]), cayley(t["C"]))
    ),
    "W @ blockdiag[i: n](solve(C, Q[i]))": lambda t: (
        t["W"] @ torch.block_diag(*torch.linalg.solve(t["C"], t["Q"]))
    ),
    "norm(W, in) * W": lambda t: t["W"].norm(dim=1, keepdim=True) * t["W"],
    "norm2(W, out) * W": lambda t: t["W"].square().sum(0) * t["W"],
    "norm2(W) * W": lambda t: t["W"].square().sum() * t["W"],
    "mean(W, out, in) * W": lambda t: t["W"].mean() * t["W"],
    "sum(W, in) * W": lambda t: t["W"].sum(1, keepdim=True) * t["W"],
    "reshape(z, [out, in])": lambda t: t["z"].reshape(4, 6),
    "ifft2(D)": lambda t: torch.fft.ifft2(t["D"]).real,
    "detach(D) + W": lambda t: t["D"] + t["W"],
    "drop(D, 0.5)": lambda t: t["D"],
    "topmask(D, 5) * W": lambda t: (
        t["W"] * (t["D"] >= t["D"].flatten().topk(5).values.min())
    ),
    "exp(D) + sqrt(abs(D)) * tanh(W)": lambda t: (
        t["D"].exp() + t["D"].abs().sqrt() * t["W"].tanh()
    ),
    "sqrt(a * r) / in * W": lambda t: (1.5 * 5) ** 0.5 / 6 * t["W"],
    "choose(true, W, D)": lambda t: t["W"],
    "max(min(a, r), 1) * W": lambda t: 1.5 * t["W"],
    "near_sqrt(in * out) * W": lambda t: 4 * t["W"],
}

OUTPUTS: dict[str, Formula] = {
    "B(A(x))": lambda t: t["x"] @ t["A"].T @ t["B"].T,
    "y + v(x)": lambda t: t["y"] + (t["x"] @ t["v"])[..., None],
    "l * y + W(x)": lambda t: t["l"] * t["y"] + t["x"] @ t["W"].T,
    "mean(sigmoid(v(x)), t) * y": lambda t: (
        torch.sigmoid(t["x"] @ t["v"]).mean(1, keepdim=True)[..., None] * t["y"]
    ),
    "sum(y, b, t) * y": lambda t: t["y"].sum((0, 1)) * t["y"],
}


def method_of(target: str, expression: str) -> str:
    """A method with one rule and all the tensors that its expression reads."""
    used = sorted(set(re.findall(r"\w+", expression)) & set(AXES))
    params = ", ".join(f"{name}[{AXES[name]}] ~ normal(1)" for name in used)
    declare = f"param {params}" if used else ""
    knobs = "n: size, k: size, r: size, a: scale"
    return f"method m({knobs}) on linear {{ {declare}\n{target}' = {expression} }}"


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "W": (4, 6),
        "bias": (4,),
        "x": (2, 3, 6),
        "A": (5, 6),
        "B": (4, 5),
        "C": (3, 3),
        "D": (4, 6),
        "G": (2, 3, 2, 2),
        "M": (2, 3),
        "P": (2, 2, 3),
        "Q": (2, 3, 3),
        "S": (3, 4, 6),
        "l": (4,),
        "v": (6,),
        "z": (24,),
        "q": (),
    }
    found = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    found["y"] = found["x"] @ found["W"].T + found["bias"]
    return found


def value_of(target: str, expression: str) -> Tensor:
    method = parse_method(method_of(target, expression))
    equation = elaborate(method.clauses[0], KNOBS, SIZES)
    (value,) = evaluate([equation.rules[target]], tensors(), ENV)
    return value


@pytest.mark.parametrize("expression", WEIGHTS)
def test_weights(expression: str) -> None:
    expected = WEIGHTS[expression](tensors())
    value = value_of("W", expression)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("expression", OUTPUTS)
def test_outputs(expression: str) -> None:
    expected = OUTPUTS[expression](tensors())
    value = value_of("y", expression)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_sparse_and_transforms() -> None:
    """Functions that need an index or a power of two."""
    text = """
    method m(n: size, k: size) on linear {
      buffer places[n, k] = 0
      param e[n, k] ~ normal(1), w[k*k*k] ~ normal(1), D[out, in] ~ normal(1)
      W' = W + scatter(e, places, [out, in]) + sum(gather(D, places)) + norm2(fwht(w))
    }
    """
    method = parse_method(text)
    check_method(method)
    equation = elaborate(method.clauses[0], {"n": 2, "k": 2}, SIZES)
    given = tensors()
    given |= {
        "places": torch.tensor([[0.0, 7.0], [7.0, 23.0]], dtype=torch.float64),
        "e": given["M"][:, :2],
        "w": torch.arange(8, dtype=torch.float64),
    }
    (value,) = evaluate([equation.rules["W"]], given, {**ENV, "k": 2})
    spread = torch.zeros(24, dtype=torch.float64)
    for place, one in zip((0, 7, 7, 23), given["e"].flatten(), strict=True):
        spread[place] += one
    flat = given["D"].flatten()
    gathered = flat[0] + 2 * flat[7] + flat[23]
    kept = given["w"].square().sum()  # the transform is orthogonal
    expected = given["W"] + spread.view(4, 6) + gathered + kept
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_y_after_rules_is_what_they_give() -> None:
    text = """
    method m() on linear {
      param l[out] ~ normal(1), v[in] ~ normal(1), D[out, in] ~ normal(1)
      W' = W + D
      bias' = bias + l
      x' = v * x
      y' = l * y
    }
    """
    method = parse_method(text)
    check_method(method)
    equation = elaborate(method.clauses[0], {}, SIZES)
    assert set(equation.rules) == {"y"}
    t = tensors()
    (value,) = evaluate([equation.rules["y"]], t, ENV)
    y = (t["v"] * t["x"]) @ (t["W"] + t["D"]).T + t["bias"] + t["l"]
    torch.testing.assert_close(value, t["l"] * y, rtol=1e-12, atol=1e-12)
