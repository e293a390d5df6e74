"""Runs: the loop and the Trainer give the same numbers; a resumed run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.training import Control, Run, attach
from peftc.training.trainer import read_state
from tests.numerics.runtime.tiny import llama

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peftc.training import Batch

SPEC = """
method noisy(r: size = 4, rate: number = 0.1) on linear {
  param A[r, in] ~ kaiming(5), B[out, r] = 0
  buffer e[r] = 1
  W' = W + B @ diag(training(e, 1)) @ A
  loss += rate * norm2(A @ A.T - eye(r))
  train redraw(e, low=0, high=2)
}
noisy(q, v)
"""
STEPS, BATCH, RATE = 6, 2, 0.05


def samples() -> list[dict[str, torch.Tensor]]:
    """As many texts of eight tokens as the steps take."""
    stream = torch.Generator().manual_seed(0)
    texts = torch.randint(3, 60, (STEPS * BATCH, 8), generator=stream)
    return [{"input_ids": text, "labels": text} for text in texts]


def batches() -> list[dict[str, torch.Tensor]]:
    """The samples, two at a time."""
    texts = torch.stack([sample["input_ids"] for sample in samples()])
    return [{"input_ids": ids, "labels": ids} for ids in texts.split(BATCH)]


def looped(steps: int | None = STEPS) -> tuple[Any, list[float]]:
    """A model after a loop, and the losses."""
    model = peftc.compile(llama(), SPEC).train()
    run = Run(model, steps=steps)
    optimizer = torch.optim.SGD(run.parameter_groups(lr=RATE))
    losses = []
    for batch in batches():
        loss = run.loss(batch)
        loss.backward()
        run.optimize(optimizer)
        losses.append(loss.item())
    run.finalize()
    return model, losses


class InOrder(hf.Trainer):
    """A Trainer that takes the samples as they come."""

    def _get_train_sampler(self, *_: Any) -> Any:
        data: Any = self.train_dataset
        return torch.utils.data.SequentialSampler(data)


def trainer(folder: Path, **more: Any) -> Any:
    """A Trainer of a compiled model, not attached yet."""
    said: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0,
        "report_to": [],
        "logging_steps": 1,
        "use_cpu": True,
        "save_steps": 3,
        "disable_tqdm": True,
    }
    arguments = hf.TrainingArguments(**{**said, **more})
    model = peftc.compile(llama(), SPEC)
    return InOrder(model, arguments, train_dataset=samples())


def added(model: Any) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if ".peftc." in n}


def assert_equal(one: Any, other: Any, near: float) -> None:
    pairs = zip(added(one).values(), added(other).values(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=near, atol=near)


def test_the_loop_and_the_trainer_give_the_same(tmp_path: Path) -> None:
    model, losses = looped()
    other = trainer(tmp_path)
    attach(other)
    other.train()
    said = [entry["loss"] for entry in other.state.log_history if "loss" in entry]
    assert said == pytest.approx(losses, rel=1e-5)
    assert_equal(model, other.model, 1e-6)


def test_several_batches_in_a_step(tmp_path: Path) -> None:
    """The loss terms of a step count once, however many batches it has."""
    whole, parts = (trainer(tmp_path / name) for name in ("whole", "parts"))
    parts.args.per_device_train_batch_size = 1
    parts.args.gradient_accumulation_steps = BATCH
    parts._train_batch_size = 1
    for one in (whole, parts):
        attach(one)
        one.train()
    assert_equal(whole.model, parts.model, 1e-6)


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    first = trainer(tmp_path)
    attach(first)
    first.train()
    again = trainer(tmp_path)
    run = attach(again)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert run.step == STEPS
    assert_equal(first.model, again.model, 0)
    assert int(read_state(tmp_path / "checkpoint-3")["step"]) == 3


def test_draws_depend_on_the_step_alone() -> None:
    model = peftc.compile(llama(), SPEC)
    run = Run(model)
    drawn: list[dict[str, torch.Tensor]] = []
    for step in (0, 1, 0):
        run.step, run._begun = step, False
        torch.manual_seed(len(drawn))
        run.before_forward()
        drawn.append({n: t.clone() for n, t in added(model).items() if "noisy.e" in n})
    assert len({tensor.sum().item() for tensor in drawn[0].values()}) == 4
    for name, tensor in drawn[0].items():
        assert torch.equal(tensor, drawn[2][name])
        assert not torch.equal(tensor, drawn[1][name])
        assert bool(((tensor >= 0) & (tensor < 2)).all())


def test_loss_terms_are_those_of_the_equation() -> None:
    model = peftc.compile(llama(), SPEC).train()
    batch = batches()[0]
    run = Run(model)
    with torch.no_grad():
        whole, plain = run.loss(batch), model(**batch).loss
    wanted = torch.zeros(())
    for name, tensor in added(model).items():
        if name.endswith("noisy.A"):
            wanted += 0.1 * (tensor @ tensor.T - torch.eye(4)).square().sum()
    torch.testing.assert_close(whole - plain, wanted, rtol=1e-4, atol=1e-4)


def test_outside_training_the_second_value_is_taken() -> None:
    model = peftc.compile(llama(), SPEC)
    with torch.no_grad():
        for name, tensor in added(model).items():
            if not name.endswith("noisy.e"):
                tensor.normal_()
        ids = batches()[0]["input_ids"]
        model.eval()
        first = model(input_ids=ids).logits
        for name, tensor in added(model).items():
            if name.endswith("noisy.e"):
                tensor.fill_(7)
        torch.testing.assert_close(model(input_ids=ids).logits, first)
        model.peftc.merge()
        merged = model(input_ids=ids).logits
    torch.testing.assert_close(merged, first, rtol=1e-4, atol=1e-4)


def test_a_loop_without_a_run_is_refused() -> None:
    model = peftc.compile(llama(), SPEC)
    with torch.no_grad():
        model.train()(**batches()[0])
    with pytest.raises(PeftcError, match="PEFT694"):
        model(**batches()[0])
    Run(model)
    model(**batches()[0])


def test_the_order_of_a_loop() -> None:
    run = Run(peftc.compile(llama(), SPEC))
    optimizer = torch.optim.SGD(run.parameter_groups(lr=1.0))
    with pytest.raises(PeftcError, match="PEFT693"):
        run.optimize(optimizer)
    with pytest.raises(PeftcError, match="PEFT693"):
        Run(llama())


def test_a_state_of_other_controls_is_refused() -> None:
    run = Run(peftc.compile(llama(), SPEC))
    state = run.state_dict()
    with pytest.raises(PeftcError, match="PEFT692"):
        run.load_state_dict({**state, "mask.score": torch.ones(1)})
    run.load_state_dict({**state, "step": torch.tensor(5)})
    assert run.step == 5


class Hungry(Control):
    """Wants data, the length of the run, and rates of its own."""

    @property
    def needs_data(self) -> bool:
        return True

    def before_training(self, batches: Sequence[Batch]) -> None:
        self.seen = len(batches)
        self.long = self.run.steps(self)

    def group(self, path: str) -> str:
        return "frozen" if path.endswith("A") else "fast"

    def rate(self, group: object) -> float:
        return {"frozen": 0.0, "fast": 2.0}[str(group)]


def hungry(monkeypatch: pytest.MonkeyPatch, **more: Any) -> Run:
    monkeypatch.setattr("peftc.training.load.control_class", lambda _: Hungry)
    return Run(peftc.compile(llama(), SPEC).train(), **more)


def test_a_control_that_needs_data_gets_some(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeftcError, match="PEFT691"):
        hungry(monkeypatch, steps=3)
    control = hungry(monkeypatch, steps=3, calibration=batches()).controls[0]
    assert isinstance(control, Hungry)
    assert (control.seen, control.long) == (STEPS, 3)


def test_how_long_a_run_is_has_to_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeftcError, match="PEFT690"):
        hungry(monkeypatch, calibration=batches())


def test_rates_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    run = hungry(monkeypatch, steps=1, calibration=batches()[:1])
    before = {n: t.clone() for n, t in added(run.model).items()}
    optimizer = torch.optim.SGD(run.parameter_groups(lr=RATE))
    run.loss(batches()[0]).backward()
    pairs = ((n, p.grad) for n, p in run.trained().items())
    gradients = {n: g.clone() for n, g in pairs if g is not None}
    run.optimize(optimizer)
    assert {group["lr"] for group in optimizer.param_groups} == {RATE}
    for name, gradient in gradients.items():
        rate = 0.0 if name.endswith("A") else 2 * RATE
        wanted = before[name] - rate * gradient
        torch.testing.assert_close(added(run.model)[name], wanted)
