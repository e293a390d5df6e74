"""AdaMix: copies, one drawn each step, that become one adapter."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import peftc
from peftc.driver import make_plan
from peftc.syntax.source import Source
from peftc.training import Run
from tests.numerics.runtime.tiny import llama, logits, tokens
from tests.views import toy

if TYPE_CHECKING:
    from pathlib import Path

IDS = tokens()
BATCH = {"input_ids": IDS, "labels": IDS}
SPEC = "adamix(adapter(ffn, d=4), E=3)"


def named(model: Any) -> dict[str, Any]:
    return {n: p for n, p in model.named_parameters() if ".peftc." in n}


def randomised(spec: str) -> Any:
    model = llama()
    peftc.compile(model, spec)
    torch.manual_seed(1)
    for parameter in named(model).values():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("adamix(adapter(ffn, d=8))", 5_312),
        ("adamix(adapter(ffn, d=8), share=none)", 4 * 2_192),
        ("adamix(adapter(ffn, d=8), E=1)", 2_192),
        (
            "adamix(lora(q, v, r=4), E=8, share=up)",
            2 * (2 * 8 * 4 * 64 + 4 * (64 + 32)),
        ),
    ],
)
def test_counts_of_the_toy(spec: str, count: int) -> None:
    assert make_plan(Source("<spec>", spec), toy()).trainable == count


def test_one_copy_is_the_plain_module() -> None:
    plain, alone = llama(), llama()
    peftc.compile(plain, "adapter(ffn, d=4, init=bert)")
    peftc.compile(alone, "adamix(adapter(ffn, d=4, init=bert), E=1, consistency=0)")
    assert torch.equal(logits(alone), logits(plain))
    run = Run(alone.train())
    loss = run.loss(BATCH)
    torch.testing.assert_close(loss, plain.train()(**BATCH).loss, rtol=1e-6, atol=1e-6)


def test_the_mean_is_what_is_run_and_given_away(tmp_path: Path) -> None:
    """A plain adapter of mean tensors, in evaluation and as an export."""
    model = randomised("adamix(adapter(ffn, d=4), E=3, share=none)")
    plain = llama()
    peftc.compile(plain, "adapter(ffn, d=4)")
    with torch.no_grad():
        for path, parameter in named(plain).items():
            owner, _, rest = path.partition(".adapter.")
            parameter.copy_(named(model)[f"{owner}.adamix.adapter.{rest}.P"].mean(0))
    wanted = logits(plain)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-5)
    model.peftc.export(tmp_path)
    given = llama()
    peftc.load(given, tmp_path)
    torch.testing.assert_close(logits(given), wanted, rtol=1e-5, atol=1e-5)
    assert [m.name for m in given.peftc.plan.methods] == ["adapter"]
    assert named(given).keys() == named(plain).keys()


def test_a_low_rank_update_merges_into_the_mean_of_its_factors() -> None:
    model = randomised("adamix(lora(q, v, r=2), E=2, share=none)")
    wanted = logits(model)
    model.peftc.merge()
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)


def drawn(model: Any) -> dict[str, int]:
    return {
        name: int(value.argmax())
        for name, value in model.named_buffers()
        if ".peftc." in name
    }


def test_only_what_was_drawn_gets_gradients() -> None:
    model = randomised("adamix(adapter(ffn, d=4), E=3, share=none, consistency=0)")
    run = Run(model.train())
    run.loss(BATCH).backward()
    which = drawn(model)
    assert len(which) == 4  # down and up at two sites
    for path, parameter in named(model).items():
        owner = path.partition(".adamix.")[0]
        side = "adamix.1.e" if ".U." in path or ".bu." in path else "adamix.e"
        chosen = which[f"{owner}.{side}"]
        moved = [bool(g.any()) for g in parameter.grad]
        assert moved == [index == chosen for index in range(3)]


def test_draws_are_uniform_apart_and_replayable() -> None:
    runs = []
    for _ in range(2):
        model = randomised(SPEC)
        run = Run(model.train())
        seen = []
        for _ in range(300):
            run.before_forward()
            seen.append(tuple(drawn(model).values()))
            run.step, run._begun = run.step + 1, False
        runs.append(seen)
    first = torch.tensor(runs[0])
    assert runs[0] == runs[1]
    for column in first.T:
        counts = torch.bincount(column, minlength=3).double()
        assert (counts / 300 - 1 / 3).abs().max() < 0.09
    same = (first[:, 0] == first[:, 1]).double().mean()
    assert abs(same - 1 / 3) < 0.09


def test_the_consistency_term() -> None:
    """Both forwards again, with the drawn copies put in by hand."""
    model = randomised("adamix(adapter(ffn, d=4), E=3, share=none, consistency=2)")
    run = Run(model.train())
    total = run.loss(BATCH)
    found = []
    for key in ((), ("apart",)):
        plain = llama()
        peftc.compile(plain, "adapter(ffn, d=4)")
        chosen: dict[str, int] = {}
        for control in run.controls:
            if control.plan.control == "redraw":
                values = control.values(*key)  # type: ignore[attr-defined]
                chosen |= {n: int(v.argmax()) for n, v in values.items()}
        with torch.no_grad():
            for path, parameter in named(plain).items():
                owner, _, rest = path.partition(".adapter.")
                side = "adamix.1.e" if rest in ("U", "bu") else "adamix.e"
                source = named(model)[f"{owner}.adamix.adapter.{rest}.P"]
                parameter.copy_(source[chosen[f"{owner}.{side}"]])
        found.append(plain.train()(**BATCH))
    p, q = (F.log_softmax(out.logits[:, :-1].flatten(0, 1), -1) for out in found)
    there = (q.exp() * (q - p)).sum(-1).mean()
    back = (p.exp() * (p - q)).sum(-1).mean()
    wanted = found[0].loss + 2 * (there + back) / 2
    torch.testing.assert_close(total, wanted, rtol=1e-4, atol=1e-4)
    total.backward()  # the first forward still has its own draws
    assert all(p.grad is not None for p in named(model).values())


def test_saved_and_read_back(tmp_path: Path) -> None:
    model = randomised(SPEC)
    model.peftc.save(tmp_path)
    other = copy.deepcopy(llama())
    peftc.load(other, tmp_path)
    assert torch.equal(logits(other), logits(model))
