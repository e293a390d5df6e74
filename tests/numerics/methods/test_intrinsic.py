"""SAID and DID: one vector moves every weight through fixed random projections."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.driver import make_plan
from peftc.expr.evaluate import evaluate
from peftc.plan.equations import composed, definitions, environment
from peftc.runtime.initial import initial_value
from peftc.syntax.source import Source
from tests.numerics.runtime.tiny import llama, logits, refused
from tests.views import toy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from peftc.plan.types import Plan, Rewrite

OUT, IN = 12, 10
N = 128  # the power of two from 120


def planned(spec: str, out: int = OUT, into: int = IN) -> tuple[Plan, Rewrite]:
    """The plan for a single linear of odd sizes."""
    (site,) = (s for s in toy().sites if s.role == "q" and s.layer == 0)
    resized = {**vars(site), "sizes": (("in", into), ("out", out))}
    view = toy()
    alone = type(view)(**{**vars(view), "sites": (type(site)(**resized),)})
    plan = make_plan(Source("<spec>", spec), alone, dtype="float64")
    return plan, plan.rewrites[0]


def drawn(plan: Plan, rewrite: Rewrite) -> dict[str, Tensor]:
    """The tensors of a rewrite as they start, and no base."""
    site = rewrite.site
    return {
        t.name: initial_value(t, plan.seed, site.key, torch.float64)
        for t in rewrite.tensors
    }


def delta_of(plan: Plan, rewrite: Rewrite) -> Callable[[Tensor], Tensor]:
    """The change of the weight as a function of theta: columns of W' for x = eye."""
    root = composed(rewrite, definitions(plan)).outputs["y"]
    given = drawn(plan, rewrite)
    sizes = environment(rewrite)
    out, into = sizes["out"], sizes["in"]
    given["W"] = torch.zeros(out, into, dtype=torch.float64)
    given["x"] = torch.eye(into, dtype=torch.float64)[None]

    def delta(theta: Tensor) -> Tensor:
        tensors = given | {"intrinsic.theta": theta}
        (y,) = evaluate([root], tensors, sizes | {"b": 1, "t": into})
        return y[0].T

    return delta


def hadamard(size: int) -> Tensor:
    """Unnormalised, by Kronecker products."""
    two, found = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double(), torch.ones(1, 1)
    while len(found) < size:
        found = torch.kron(found.double(), two)
    return found


def dense(plan: Plan, rewrite: Rewrite, count: int, chunk: int = 0) -> Tensor:
    """H G Pi H B, cut to `count` rows and scaled: a matrix of count x N."""
    start = drawn(plan, rewrite)
    signs, places, gauss = (start[f"intrinsic.{n}"][chunk].double() for n in "SPG")
    size = len(signs)
    turned = torch.eye(size).double()[places.long()]
    h = hadamard(size)
    whole = h @ torch.diag(gauss) @ turned @ h @ torch.diag(signs)
    scale = math.sqrt(size * float(gauss.square().sum())) * math.sqrt(count / size)
    return whole[:count] / scale


def test_fastfood_is_the_dense_product() -> None:
    plan, rewrite = planned("intrinsic(q, d=30, said=false)")
    matrix = dense(plan, rewrite, OUT * IN)[:, :30]
    theta = torch.randn(30, dtype=torch.float64)
    got = delta_of(plan, rewrite)(theta)
    torch.testing.assert_close(got.flatten(), matrix @ theta, rtol=1e-12, atol=1e-12)


def test_columns_have_about_unit_norm() -> None:
    plan, rewrite = planned("intrinsic(q, d=128, said=false)", out=32, into=32)
    norms = dense(plan, rewrite, 1024).norm(dim=0)
    assert norms.sub(1).abs().max() < 1e-9  # of whole powers of two exactly
    plan, rewrite = planned("intrinsic(q, d=128, said=false)")
    assert dense(plan, rewrite, OUT * IN).norm(dim=0).sub(1).abs().max() < 0.15


def test_a_vector_longer_than_a_weight_is_split() -> None:
    plan, rewrite = planned("intrinsic(q, d=300, said=false)")
    assert dict(rewrite.applications[0].knobs)["chunks"] == 3
    theta = torch.randn(300, dtype=torch.float64)
    pieces = torch.nn.functional.pad(theta, (0, 84)).view(3, N)
    parts = [dense(plan, rewrite, OUT * IN, k) @ pieces[k] for k in range(3)]
    got = delta_of(plan, rewrite)(theta).flatten()
    torch.testing.assert_close(got, sum(parts), rtol=1e-12, atol=1e-12)


def test_gradients() -> None:
    plan, rewrite = planned("intrinsic(q, d=20)", out=4, into=4)
    theta = torch.randn(19, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(delta_of(plan, rewrite), (theta,))


def test_the_changes_span_no_more_than_d_dimensions() -> None:
    plan, rewrite = planned("intrinsic(q, d=7, said=false)")
    delta = delta_of(plan, rewrite)
    rows = [delta(torch.randn(7).double()).flatten() for _ in range(12)]
    assert torch.linalg.matrix_rank(torch.stack(rows)) == 7


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("intrinsic(linear, d=500)", 500),
        ("intrinsic(q, v, d=5000)", 5000),
        ("intrinsic(linear, d=77, said=false)", 77),
        ("intrinsic(q, d=40) + intrinsic(v, d=60)", 100),
        ("gate(intrinsic(q, d=40))", 40 + 2 * 65),
    ],
)
def test_the_count_is_the_budget(spec: str, count: int) -> None:
    assert make_plan(Source("<spec>", spec), toy()).trainable == count


def test_a_budget_that_the_numbers_use_up_is_refused() -> None:
    with refused("PEFT218"):
        make_plan(Source("<spec>", "intrinsic(linear, d=14)"), toy())


def moved(seed: int = 0) -> Any:
    model = llama()
    peftc.compile(model, "intrinsic(linear, d=60)", seed=seed)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".peftc." in name:
            torch.nn.init.normal_(parameter)
    return model


def test_what_is_drawn_is_not_stored_and_is_drawn_again(tmp_path: Path) -> None:
    model = moved()
    path = model.peftc.save(tmp_path)
    assert path.stat().st_size < 120_000  # plan and spec; the buffers alone are 500 kB
    other = llama()
    peftc.load(other, tmp_path)
    assert torch.equal(logits(other), logits(model))
    assert not any("peftc" in n and n.endswith(".P") for n in model.state_dict())


def test_another_seed_is_another_projection(tmp_path: Path) -> None:
    moved().peftc.save(tmp_path)
    other = moved(seed=3)
    with refused("PEFT626"):
        other.peftc.load(tmp_path)


def test_merged_is_unmerged() -> None:
    model = moved()
    before = logits(model)
    model.peftc.merge()
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
