"""The check of definitions: what is right passes, all that is wrong is found at once.

The text of each diagnostic is in tests/golden/errors.
"""

from __future__ import annotations

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.expr.check import check_method
from peftc.syntax.parse import parse_method

RIGHT = {
    "orthogonal": """
    method oft(block: size = 8) on linear {
      param Q[in/block, block, block] = 0
      W' = W @ blockdiag[k: in/block](cayley(Q[k]))
    }""",
    "orthogonal, one block for all": """
    method oft(block: size = 8) on linear {
      param Q[block, block] = 0
      W' = W @ reshape(blockdiag[k: in/block](cayley(Q)), [in, in])
    }""",
    "reflections": """
    method hra() on linear {
      param u1[in] ~ normal(1), v[in] ~ normal(1)
      H1 = eye(in) - 2 / norm2(u1) * outer(u1, u1)
      H2 = eye(in) - 2 / norm2(v) * outer(v, v)
      W' = W @ H1 @ H2
    }""",
    "hypercomplex": """
    method phm(n = 4, r = 1) on linear {
      shared param P[n, n, n] ~ normal(0.1)
      param S[n, out/n, r] = 0, T[n, r, in/n] ~ normal(0.02)
      W' = W + sum[k: n](kron(P[k], S[k] @ T[k]))
    }""",
    "tensor blocks": """
    method gra(n = 2, r = 4) on linear {
      param A[n, n, r/n, in/n] ~ kaiming(5), B[n, n, out/n, r/n] = 0
      W' = W + blockgrid[i: n, j: n](B[i, j] @ A[i, j])
    }""",
    "a loss": """
    method adalora(r = 12, alpha = 2 * r, c = 0.5) on linear {
      param P[out, r] ~ normal(0.02), e[r] = 0, Q[r, in] ~ normal(0.02)
      buffer keep[r] = 1
      W' = W + (alpha / r) * P @ diag(e * keep) @ Q
      loss += c * (norm2(P.T @ P - eye(r)) + norm2(Q @ Q.T - eye(r)))
    }""",
    "subspace edit": """
    method loreft(r = 4) on hidden {
      param R[r, hidden] ~ orthogonal, V[r, hidden] ~ normal(0.02), c[r] = 0
      h' = h + R.T(V(h) + c - R(h))
    }""",
    "soft mixture": """
    method molora(e = 4, r = 8) on linear {
      param A[e, r, in] ~ kaiming(5), B[e, out, r] = 0, G[e, in] ~ normal(0.02)
      y' = y + sum[k: e](sigmoid(G[k](x)) * B[k](A[k](x)))
    }""",
    "pooled gate": """
    method gated(r = 8, alpha = 2 * r) on linear {
      param A[r, in] ~ kaiming(5), B[out, r] = 0, w[in] ~ normal(0.02)
      y' = y + (alpha / r) * mean(sigmoid(w(x)), t) * B(A(x))
    }""",
    "numbers of axes": """
    method scaled(s = sqrt(out) / in) on linear {
      param l[out] = 1 / out
      y' = y + s / max(out, in) * l
    }""",
    "guards": """
    method m(create = false) on linear where biased { param l[out]; bias' = bias + l }
    on linear where create { param l[out]; y' = y + l }
    on norm where biased or create { param l[hidden]; c' = c + l }""",
}


def codes(text: str) -> list[str]:
    with pytest.raises(PeftcError) as caught:
        check_method(parse_method(text))
    return [d.code for d in caught.value.diagnostics]


@pytest.mark.parametrize("name", RIGHT)
def test_right(name: str) -> None:
    check_method(parse_method(RIGHT[name]))


def test_errors_of_all_parts_come_at_once() -> None:
    text = """
    method m(r: sise = 8, alpha = 2 * rr, idle = 3) on lineer { y' = y }
    on linear where bias {
      param A[q, in] ~ kaimin(5), l[in] = norm(W, in)
      y' = y + l * gleu(y) + B(A(x))
      W' = A @ A
      loss += W
    }
    on hidden { h' = r * alpha * h @ h; u' = u }"""
    assert codes(text) == [
        "PEFT262",  # sise
        "PEFT257",  # idle
        "PEFT230",  # rr
        "PEFT265",  # lineer
        "PEFT266",  # bias
        "PEFT241",  # q
        "PEFT260",  # kaimin
        "PEFT259",  # norm(W, in)
        "PEFT231",  # gleu
        "PEFT231",  # B
        "PEFT253",  # W' after y'
        "PEFT255",  # loss
        "PEFT235",  # h @ h
        "PEFT250",  # u'
    ]


def test_what_is_broken_is_reported_once() -> None:
    """What reads a broken tensor, and what depends on that, says nothing more."""
    text = """
    method m(r = 8) on linear {
      param A[rr, in] ~ kaiming(5), B[out, r] = 0
      V = B @ A
      Q = V + A
      W' = W + V + Q
      y' = y + A(x)
    }"""
    assert codes(text) == ["PEFT241"]


def test_both_branches_of_a_choice_are_checked() -> None:
    text = """
    method m(wide = false) on linear {
      param l[out]
      y' = choose(wide, l * y, l * yy)
    }"""
    assert codes(text) == ["PEFT230"]


def test_sizes_are_not_the_same_because_numbers_are() -> None:
    """in and out may well be equal in every layer of a model."""
    text = """
    method m() on linear {
      param R[out, out] ~ normal(1)
      x' = R(x)
    }"""
    assert codes(text) == ["PEFT237"]


@pytest.mark.parametrize(
    "expression",
    ["outer(l, l)", "R", "W", "x", "k", "2"],
)
def test_a_rule_keeps_the_axes(expression: str) -> None:
    text = f"""
    method m() on linear {{
      param l[out], k[in], R[out, out], S[in, in]
      y' = {expression}
      loss += norm2(S) + norm2(l) + norm2(k) + norm2(R)
    }}"""
    assert codes(text) == ["PEFT251"]


@pytest.mark.parametrize(
    ("default", "kind"),
    [
        ("0", "size"),
        ("2.5", "size"),
        ("5%", "size"),
        ("gelu", "size"),
        ("1", "fraction"),
        ("true", "scale"),
        ("0", "scale"),
        ("1", "flag"),
        ("gelu", "flag"),
        ("true", "function"),
    ],
)
def test_defaults_that_do_not_fit(default: str, kind: str) -> None:
    use = {
        "size": "norm2(eye(k)) * y",
        "flag": "choose(k, y, l * y)",
        "function": "k(y)",
    }.get(kind, "k * y")
    text = f"""
    method m(k: {kind} = {default}) on linear {{
      param l[out]
      y' = l * {use}
    }}"""
    assert codes(text) == ["PEFT263"]


def test_defaults_are_computed_from_defaults() -> None:
    """A default that no site could save is found in the definition."""
    text = """
    method m(n: size = 20, r: size = n / 8) on linear {
      param A[r, in]
      W' = W @ (A.T @ A)
    }"""
    assert codes(text) == ["PEFT263"]


def test_knobs_of_several_places() -> None:
    text = """
    method m(d: size = hidden / 2) on hidden { param D[d, hidden]; h' = h + D.T(D(h)) }
    on linear { param D[d, in]; W' = W @ (D.T @ D) }"""
    assert codes(text) == ["PEFT269"]


def test_guards_in_any_order_may_overlap() -> None:
    text = """
    method m(a = false, e = false)
    on linear where biased or a { param l[out]; y' = y + l }
    on linear where a or e { param l[out]; y' = y + l }
    on linear { param l[out]; y' = l * y }"""
    check_method(parse_method(text))
