"""SparseAdapter: masks of exactly so many ones, chosen once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.driver import make_plan
from peftc.syntax.source import Source
from peftc.training import Run
from peftc.training.choice import densities
from tests.numerics.runtime.tiny import llama, logits, refused, tokens
from tests.views import toy

if TYPE_CHECKING:
    from pathlib import Path

IDS = tokens()
BATCH = {"input_ids": IDS, "labels": IDS}
START = "adapter(ffn, d=8, init=bert)"
SIZE = 2 * 8 * 32
"""Weights of one adapter."""


def compiled(spec: str) -> Any:
    model = llama()
    peftc.compile(model, spec)
    return model.train()


def masks(model: Any) -> dict[str, torch.Tensor]:
    return {n: b for n, b in model.named_buffers() if n.endswith(".m")}


def total(model: Any) -> int:
    return int(sum(mask.sum() for mask in masks(model).values()))


def weights(model: Any) -> dict[str, torch.nn.Parameter]:
    named = dict(model.named_parameters())
    paths = {m: m.replace(".sparse.", ".").removesuffix(".m") for m in masks(model)}
    return {mask: named[path] for mask, path in paths.items()}


def test_densities_of_er() -> None:
    found = densities([(64, 768), (768, 64), (768, 3072)], 0.6)
    assert found == pytest.approx([1, 1, 0.58333], abs=1e-5)


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("score", ["random", "magnitude", "er"])
def test_exactly_so_many_are_kept(score: str, scope: str) -> None:
    model = compiled(f"sparse({START}, S=0.25, score={score}, scope={scope})")
    assert total(model) == 4 * SIZE / 2  # before a run all are there
    Run(model)
    assert total(model) == 2 * 0.75 * SIZE
    each = {int(mask.sum()) for mask in masks(model).values()}
    if scope == "local" and score != "er":
        assert each == {0.75 * SIZE / 2}
    if score == "magnitude":
        kept = weights(model)
        parts = [(kept[n].abs(), m.bool()) for n, m in masks(model).items()]
        if scope == "global":
            parts = [
                (
                    torch.cat([v.flatten() for v, _ in parts]),
                    torch.cat([m.flatten() for _, m in parts]),
                )
            ]
        for value, mask in parts:
            assert value[mask].min() >= value[~mask].max()


def by_gradient(score: str) -> dict[str, torch.Tensor]:
    """Scores worked out on the adapter without masks, by torch's own functions."""
    model = compiled(START).eval()
    named = {
        n: p for n, p in model.named_parameters() if n[-1] in "DU" and "peftc" in n
    }

    def loss_of(*values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(named, values, strict=True))
        result = torch.func.functional_call(model, given, (), BATCH).loss
        assert isinstance(result, torch.Tensor)
        return result

    values = tuple(named.values())
    first = torch.autograd.grad(model(**BATCH).loss, values)
    if score == "snip":
        found = [(v * g).abs() for v, g in zip(values, first, strict=True)]
    else:
        step = 1e-3  # H g by differences of gradients
        moved = []
        for sign in (1, -1):
            for v, g in zip(values, first, strict=True):
                v.data.add_(g, alpha=sign * step)
            moved.append(torch.autograd.grad(model(**BATCH).loss, values))
            for v, g in zip(values, first, strict=True):
                v.data.sub_(g, alpha=sign * step)
        product = [(a - b) / (2 * step) for a, b in zip(*moved, strict=True)]
        found = [v * h for v, h in zip(values, product, strict=True)]
    return dict(zip(named, (f.detach() for f in found), strict=True))


@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_scores_by_gradient(score: str) -> None:
    model = compiled(f"sparse({START}, S=0.5, score={score})")
    Run(model, calibration=[BATCH])
    assert total(model) == SIZE
    scores = by_gradient(score)
    flat = torch.cat([s.flatten() for s in scores.values()])
    wanted = torch.zeros_like(flat)
    wanted[flat.topk(SIZE).indices] = 1
    order = {m: m.replace(".sparse.", ".").removesuffix(".m") for m in masks(model)}
    found = {path: masks(model)[name] for name, path in order.items()}
    got = torch.cat([found[path].flatten() for path in scores])
    assert (got == wanted).double().mean() > (0.999 if score == "snip" else 0.95)


def test_masks_and_what_they_cut_stay() -> None:
    model = compiled(f"sparse({START}, S=0.5, score=random)")
    run = Run(model, steps=4)
    before = {n: m.clone() for n, m in masks(model).items()}
    start = {n: w.detach().clone() for n, w in weights(model).items()}
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.05))
    for _ in range(4):
        run.loss(BATCH).backward()
        run.optimize(optimizer)
    run.finalize()
    for name, mask in masks(model).items():
        assert torch.equal(mask, before[name])
        moved = weights(model)[name].detach() != start[name]
        assert torch.equal(moved, mask.bool())


def test_nothing_cut_is_what_is_wrapped() -> None:
    model, plain = compiled(f"sparse({START}, S=0)"), compiled(START)
    Run(model)
    assert torch.equal(logits(model), logits(plain))


def test_large_sparse_has_as_many_weights() -> None:
    for factor, share in ((2, 0.5), (4, 0.75)):
        spec = f"sparse(adapter(ffn, d={8 * factor}), S={share})"
        model = compiled(spec)
        Run(model)
        assert total(model) == 2 * SIZE
        plan = make_plan(Source("<spec>", spec), toy())
        assert plan.trainable == 2 * (2 * 8 * factor * 64 + 8 * factor + 64)


def test_scores_of_zeros_are_not_compared() -> None:
    model = compiled("sparse(lora(q, r=2), score=magnitude)")
    with refused("PEFT355"):
        Run(model)
    model = compiled("sparse(lora(q, r=2), S=0.5, score=magnitude, scope=local)")
    Run(model)
    assert {int(m.sum()) for m in masks(model).values()} == {32}


def test_a_mask_chosen_after_some_steps_is_resumed(tmp_path: Path) -> None:
    spec = "sparse(lora(q, r=2), S=0.5, score=snip, warmup=2)"
    model = compiled(spec)
    run = Run(model, calibration=[BATCH])
    optimizer = torch.optim.SGD(run.parameter_groups(lr=0.1))
    for _ in range(3):
        run.loss(BATCH).backward()
        run.optimize(optimizer)
    chosen = {n: m.clone() for n, m in masks(model).items()}
    assert total(model) == 2 * 64
    model.peftc.save(tmp_path)
    other = compiled(spec)
    again = Run(other, calibration=[BATCH])
    other.peftc.load(tmp_path)
    again.load_state_dict(run.state_dict())
    again.before_forward()
    assert all(torch.equal(m, chosen[n]) for n, m in masks(other).items())


def test_it_merges_and_exports_as_what_it_wraps(tmp_path: Path) -> None:
    model = compiled("sparse(lora(q, v, r=2), S=0.5)")
    Run(model)
    torch.manual_seed(1)
    for parameter in weights(model).values():
        torch.nn.init.normal_(parameter)
    wanted = logits(model.eval())
    model.peftc.export(tmp_path)
    given = llama()
    peftc.load(given, tmp_path)
    torch.testing.assert_close(logits(given), wanted, rtol=1e-5, atol=1e-5)
    assert [m.name for m in given.peftc.plan.methods] == ["lora"]
    model.peftc.merge()
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)
