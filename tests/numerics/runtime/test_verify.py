"""The promises that `verify` tries: kept by what peftc makes, seen where they break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.runtime import verify as verifying
from peftc.runtime.trial import Trial
from tests.models import bert, gpt2, llama
from tests.numerics.runtime.test_memory import t5
from tests.numerics.runtime.tiny import refused, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.runtime.verify import Check


def checked(model: Any, spec: str, *names: str) -> dict[str, Check]:
    """The outcome of some checks on a model in evaluation mode."""
    peftc.compile(model.eval(), spec)
    return outcome(model, *names)


def outcome(model: Any, *names: str) -> dict[str, Check]:
    """The outcome of some checks on a compiled model."""
    chosen = {n: c for n, c in verifying.CHECKS.items() if not names or n in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verifying, "CHECKS", chosen)
        return {check.name: check for check in model.peftc.verify()}


MADE = [
    (llama, "lora(q, v, r=2) + ia3(ffn)", ""),
    (gpt2, "lora(q, v, r=2) + adapter(ffn, d=4)", "merging"),
    (bert, "lora(q, r=2) + bitfit(v)", "generation"),
    (t5, "lora(q, v, r=2)", ""),
    (llama, "prefix(k, v, p=3)", "identity merging"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "spec", "skipped"), MADE)
def test_what_peftc_makes_keeps_its_promises(
    make: Callable[[], Any], spec: str, skipped: str
) -> None:
    checks = checked(make(), spec)
    assert list(checks) == list(verifying.CHECKS)
    wanted = {n: "skipped" if n in skipped.split() else "ok" for n in checks}
    assert {n: c.verdict for n, c in checks.items()} == wanted, checks


@pytest.mark.slow
def test_a_verified_model_is_as_it_was() -> None:
    model = peftc.compile(llama(), "lora(q, r=2)")
    before, modes = snapshot(model), [m.training for m in model.modules()]
    assert all(modes)
    checks = model.peftc.verify()
    assert {c.verdict for c in checks} == {"ok"}
    after = snapshot(model)
    for name, value in before["state"].items():
        assert torch.equal(value, after["state"][name]), name
    assert before["flags"] == after["flags"]
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_a_start_that_is_not_the_base_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(trial: Trial) -> dict[str, torch.Tensor]:
        return {path: torch.ones_like(p) for path, p in trial.trained().items()}

    monkeypatch.setattr(Trial, "first_values", ones)
    check = checked(llama(), "lora(q, r=2)", "identity")["identity"]
    assert check.verdict == "failed"
    assert check.number is not None
    assert check.number > 1e-3


def test_no_identity_is_claimed_where_the_equation_has_none() -> None:
    check = checked(llama(), "lora(q, r=2) + dora(v, r=2)", "identity")["identity"]
    assert check.verdict == "skipped"
    assert "layers.0.v" in check.note


def test_a_tensor_without_a_gradient_is_seen() -> None:
    model = llama()
    peftc.compile(model, "lora(q, v, r=2)")
    lost = "model.layers.1.self_attn.v_proj.peftc.v.lora.B"
    model.get_parameter(lost).requires_grad_(False)
    check = outcome(model, "gradients")["gradients"]
    assert check.verdict == "failed"
    assert (check.number, check.limit) == (7, 8)
    assert lost in check.note


def test_a_merge_that_says_something_else_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from peftc.runtime import merge

    real = merge.merge

    def wrong(model: Any, plan: Any) -> Any:
        kept = real(model, plan)
        with torch.no_grad():
            model.model.layers[0].self_attn.q_proj.weight.mul_(1.5)
        return kept

    monkeypatch.setattr("peftc.runtime.handle.merge.merge", wrong)
    assert checked(llama(), "lora(q, r=2)", "merging")["merging"].verdict == "failed"


@pytest.mark.slow
def test_a_cache_that_says_something_else_is_seen() -> None:
    model = llama()
    model.lm_head.register_forward_hook(lambda m, args, y: y + y.shape[1])
    check = checked(model, "lora(q, r=2)", "generation")["generation"]
    assert check.verdict == "failed"


def test_a_merged_model_is_not_verified() -> None:
    model = peftc.compile(llama(), "lora(q, r=2)")
    model.peftc.merge()
    with refused("PEFT631"):
        model.peftc.verify()
