"""AdaLoRA: the budget and who gets it, by hand and against Hugging Face PEFT."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch

import peftc
from peftc.driver import make_plan
from peftc.syntax.source import Source
from peftc.training import Run
from peftc.training.controls.allocate import Allocate, Budget
from tests.numerics.runtime.tiny import llama, logits, refused, tokens
from tests.views import toy

if TYPE_CHECKING:
    from pathlib import Path

STEPS, R, TARGET = 10, 4, 2
KNOBS = f"init_r={R}, target_r={TARGET}, tinit=2, tfinal=3"
SPEC = f"adalora(q, v, {KNOBS})"
SITES = 2


def batch(step: int) -> dict[str, torch.Tensor]:
    ids = tokens(2, 8, seed=step)
    return {"input_ids": ids, "labels": ids}


def started(spec: str = SPEC, **options: Any) -> tuple[Any, Run, Any]:
    model = peftc.compile(llama(layers=1), spec).train()
    run = Run(model, steps=options.pop("steps", STEPS))
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.02))
    return model, run, optimizer


def step(run: Run, optimizer: Any) -> None:
    run.loss(batch(run.step)).backward()
    run.optimize(optimizer)


def vectors(model: Any) -> list[torch.Tensor]:
    return [p for n, p in model.named_parameters() if n.endswith("adalora.l")]


def living(model: Any) -> int:
    return sum(int((vector != 0).sum()) for vector in vectors(model))


# --- counts and the budget ------------------------------------------------------------


def test_counts() -> None:
    plan = make_plan(Source("<spec>", "adalora(linear)"), toy())
    assert plan.trainable == 24_744


def test_the_budget_of_the_paper() -> None:
    budget = Budget(144, 96, start=100, end=300, steps=1000)
    at = [budget.at(step) for step in (100, 101, 300, 500, 700)]
    assert at == [144, 143, 110, 97, 96]
    whole = [budget.at(step) for step in range(1, 1001)]
    assert whole == sorted(whole, reverse=True)
    assert (whole[0], whole[-1]) == (144, 96)


def test_as_many_live_as_the_budget_says() -> None:
    model, run, optimizer = started()
    (control,) = run.controls
    assert isinstance(control, Allocate)
    assert control.budget == Budget(R * SITES, TARGET * SITES, 2, 3, STEPS)
    for number in range(1, STEPS + 1):
        step(run, optimizer)
        assert living(model) == control.budget.at(number)
    run.finalize()
    assert living(model) == TARGET * SITES
    assert model.peftc.captures.count == 1


def test_phases_that_do_not_fit_are_refused() -> None:
    _, run, _ = started(steps=5)
    with refused("PEFT695"):
        run.loss(batch(0))
    _, run, _ = started(steps=None)
    with refused("PEFT690"):
        run.loss(batch(0))


# --- against the paper's formula and PEFT ---------------------------------------------


def by_hand(model: Any) -> torch.Tensor:
    """gamma times the squared distances from orthogonality, at all sites."""
    total = torch.zeros((), dtype=torch.float64)
    for name, tensor in model.named_parameters():
        if name.endswith(("adalora.P", "adalora.Q")):
            wide = tensor.double()
            square = wide.T @ wide if name.endswith("P") else wide @ wide.T
            total += (square - torch.eye(len(square))).square().sum()
    return 0.1 * total


def test_the_loss_pulls_towards_orthogonality() -> None:
    model, run, _ = started()
    whole, plain = run.loss(batch(0)), model(**batch(0)).loss
    torch.testing.assert_close(
        (whole - plain).double(), by_hand(model), rtol=1e-5, atol=1e-5
    )
    model, run, _ = started(f"adalora(q, v, {KNOBS}, gamma=5)", steps=200)
    optimizer = torch.optim.SGD(run.parameter_groups(lr=0.01))
    first = by_hand(model)
    for _ in range(60):
        loss = run.values.losses()
        assert loss is not None
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert by_hand(model) < 1e-3 * first


def twin(model: Any) -> Any:
    """PEFT's AdaLoRA with the tensors of a compiled model.

    It divides by the rank and 1e-5.
    """
    config = peft.AdaLoraConfig(
        init_r=R,
        target_r=TARGET,
        tinit=2,
        tfinal=3,
        deltaT=1,
        total_step=STEPS,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        orth_reg_weight=0.0,
        lora_dropout=0.0,
    )
    other: Any = peft.get_peft_model(llama(layers=1), config)
    hand_over(model, other)
    return other


ROLES = {"lora_A": "Q", "lora_B": "P", "lora_E": "l"}


def hand_over(model: Any, other: Any) -> None:
    with torch.no_grad():
        for name, tensor in theirs(other):
            tensor.copy_(ours(model, name).view(tensor.shape))


def theirs(other: Any) -> list[tuple[str, torch.Tensor]]:
    named = other.base_model.model.named_parameters()
    return [(n, p) for n, p in named if p.requires_grad]


def ours(model: Any, name: str) -> torch.Tensor:
    """The tensor that goes by a name of PEFT's."""
    owner, role, _ = name.rsplit(".", 2)
    slot = model.get_submodule(owner).peftc
    (found,) = (m for n, m in slot.named_modules() if n.endswith("adalora"))
    tensor: torch.Tensor = getattr(found, ROLES[role])
    return tensor


def test_forward_and_ranks_of_peft() -> None:
    """With the same tensors and gradients both keep the same ranks."""
    model, run, optimizer = started(f"adalora(q, v, {KNOBS}, gamma=0)")
    with torch.no_grad():
        for vector in vectors(model):
            vector.normal_()
    other = twin(model).train()
    torch.testing.assert_close(logits(other), logits(model), rtol=1e-4, atol=1e-4)
    allocator = other.base_model.rankallocator
    (control,) = run.controls
    assert isinstance(control, Allocate)
    assert allocator.init_bgt == control.budget.first
    for number in range(1, STEPS - 3):
        run.loss(batch(number)).backward()
        hand_over(model, other)
        for name, tensor in theirs(other):
            gradient = ours(model, name).grad
            assert gradient is not None
            tensor.grad = gradient.view(tensor.shape).clone()
        run.optimize(optimizer)
        budget, pattern = allocator.update_and_allocate(other, number)
        assert budget == control.budget.at(number)
        for name, kept in (pattern or {}).items():
            path = name.removeprefix("base_model.model.")
            assert (ours(model, path) != 0).tolist() == kept


# --- checkpoints and exports ----------------------------------------------------------


def test_a_resumed_run_has_the_same_bits() -> None:
    model, run, optimizer = started()
    for _ in range(5):
        step(run, optimizer)
    saved = {n: t.clone() for n, t in model.state_dict().items()}
    state = {n: t.clone() for n, t in run.state_dict().items()}
    other, again, second = started()
    other.load_state_dict(saved)
    again.load_state_dict(state)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(5):
        step(run, optimizer)
        step(again, second)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def trained() -> Any:
    model, run, optimizer = started()
    for _ in range(STEPS):
        step(run, optimizer)
    run.finalize()
    return model.eval()


def test_an_export_has_the_ranks_that_are_left(tmp_path: Path) -> None:
    model = trained()
    expected = logits(model)
    model.peftc.export(tmp_path)
    loaded = peftc.load(llama(layers=1), tmp_path)
    ranks = [dict(r.applications[0].knobs)["r"] for r in loaded.peftc.plan.rewrites]
    assert ranks == [max(1, int((v != 0).sum())) for v in vectors(model)]
    assert loaded.peftc.plan.trainable < model.peftc.plan.trainable
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-5)
    loaded.peftc.merge()
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)


SCALED = """
method scaled(r: size = 4) on linear {
  param P[out, r] ~ normal(1), l[r] = 1, Q[r, in] ~ normal(1)
  W' = W + RULE
  train allocate(l, P, Q, target=2)
}
scaled(q)
"""


@pytest.mark.parametrize(
    "rule",
    ["1 / r * P @ diag(l) @ Q", "P @ Q + P @ diag(l) @ Q", "P @ diag(exp(l)) @ Q"],
)
def test_what_zeros_do_not_drop_is_not_cut(rule: str, tmp_path: Path) -> None:
    model = peftc.compile(llama(layers=1), SCALED.replace("RULE", rule))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("scaled.l"):
                tensor[1] = 0
    with refused("PEFT322"):
        model.peftc.export(tmp_path)
