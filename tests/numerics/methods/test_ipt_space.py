"""The space of intrinsic prompts: its equations by hand, its tasks, who takes it on."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.training import Run, attach
from tests.models import model, randomise, tokens
from tests.numerics.training.test_run import InOrder

if TYPE_CHECKING:
    from pathlib import Path

P, D, M, HIDDEN, ALPHA = 4, 3, 16, 64, 10


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Prompts of two tasks."""
    found = []
    for task in range(2):
        made = peftc.compile(model("llama"), f"prompt(p={P})")
        randomise(made, scale=1.0, seed=task)
        found.append(tmp_path / str(task))
        made.peftc.save(found[-1])
    return found


def space(folders: list[Path], **knobs: Any) -> Any:
    sources = ", ".join(map(str, folders))
    said = {"tasks": len(folders), "p": P, "d": D, "m": M, "alpha": ALPHA, **knobs}
    told = ", ".join(f"{name}={value}" for name, value in said.items())
    made = peftc.compile(model("llama"), f'ipt_space(sources="{sources}", {told})')
    return made.train()


def own(made: Any) -> dict[str, torch.Tensor]:
    """The added tensors by their names in the equations."""
    named = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    return {n.rpartition(".")[2]: t for n, t in named.items() if ".peftc." in n}


def batch(task: int) -> dict[str, Any]:
    return {"input_ids": tokens(), "labels": tokens(), "task": task}


def prompt_of(made: Any, flat: torch.Tensor) -> torch.Tensor:
    """The rows that the equations of the paper make of a prompt [p * hidden]."""
    t = own(made)
    code = t["A1"] @ flat + t["a1"]
    return t["A3"] @ torch.tanh(t["A2"] @ code + t["a2"]) + t["a3"]


def prompted(rows: torch.Tensor) -> Any:
    """A model with these rows [p * hidden] as its prompt."""
    made = peftc.compile(model("llama"), f"prompt(p={P})").train()
    with torch.no_grad():
        own(made)["P"].copy_(rows.view(P, HIDDEN))
    return made


def test_the_count_of_the_paper(folders: list[Path]) -> None:
    flat = P * HIDDEN
    wanted = (flat + 1) * D + (D + 1) * M + (M + 1) * flat
    assert space(folders).peftc.plan.trainable == wanted


def test_each_task_is_learnt_from_its_own_prompt(folders: list[Path]) -> None:
    """L = L_task(P-hat) + alpha mean((P-hat - P*)^2), with gradients of all maps."""
    made = space(folders)
    run = Run(made, steps=2)
    for task, folder in enumerate(folders):
        source = own(peftc.load(model("llama"), folder))["P"].detach().flatten()
        rows = prompt_of(made, source)
        with torch.no_grad():
            due = prompted(rows)(input_ids=tokens(), labels=tokens()).loss
            due = due + ALPHA * (rows - source).square().mean()
        loss = run.loss(batch(task))
        torch.testing.assert_close(loss, due, rtol=1e-5, atol=1e-5)
        loss.backward()
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)


def test_the_error_falls(folders: list[Path]) -> None:
    made = space(folders)
    run = Run(made, steps=40)
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=1e-2))
    losses = []
    for step in range(40):
        losses.append(run.loss(batch(step % 2)))
        losses[-1].backward()
        run.optimize(optimizer)
    assert losses[-2] < 0.7 * losses[0]
    assert losses[-1] < 0.7 * losses[1]


def test_an_intrinsic_prompt_takes_the_decoder(
    folders: list[Path], tmp_path: Path
) -> None:
    """A code that the encoder makes gives the rows that the space gives, and the file
    of the code needs no other file."""
    made = space(folders)
    randomise(made)
    made.peftc.save(tmp_path / "space")
    spec = f'ipt(p={P}, d={D}, m={M}, decoder="{tmp_path / "space"}")'
    tuned = peftc.compile(model("llama"), spec)
    assert tuned.peftc.plan.trainable == D
    source = own(made)["P"][1].flatten()
    with torch.no_grad():
        own(tuned)["c"].copy_(own(made)["A1"] @ source + own(made)["a1"])
        due = prompted(prompt_of(made, source)).eval()(input_ids=tokens()).logits
        found = tuned(input_ids=tokens()).logits
    torch.testing.assert_close(found, due, rtol=1e-5, atol=1e-5)
    tuned.peftc.save(tmp_path / "tuned")
    shutil.rmtree(tmp_path / "space")
    again = peftc.load(model("llama"), tmp_path / "tuned")
    assert torch.equal(again(input_ids=tokens()).logits, found)
    verdicts = {check.verdict for check in again.peftc.verify({"input_ids": tokens()})}
    assert "failed" not in verdicts


def test_what_no_adapter_has_is_refused(folders: list[Path], tmp_path: Path) -> None:
    base = model("llama")
    with pytest.raises(PeftcError, match=r"PEFT348[^$]*none\ of\ the\ name\ `A2`"):
        peftc.compile(base, f'ipt(p={P}, d={D}, m={M}, decoder="{folders[0]}")')
    with pytest.raises(
        PeftcError,
        match=r"PEFT348[^$]*\[2,\ 4,\ 64\]\ there\ and\ \[2,\ 5,\ 64\]\ here",
    ):
        space(folders, p=5)
    with pytest.raises(
        PeftcError,
        match=r"PEFT348[^$]*\[2,\ 4,\ 64\]\ there\ and\ \[3,\ 4,\ 64\]\ here",
    ):
        space(folders, tasks=3)
    with pytest.raises(PeftcError, match=r"PEFT348[^$]*no\ folder\ is\ named"):
        peftc.compile(base, 'ipt_space(sources="", tasks=1)')
    with pytest.raises(PeftcError, match="PEFT620"):
        peftc.compile(base, f'ipt_space(sources="{tmp_path / "none"}", tasks=1)')
    assert not hasattr(base, "peftc")


def test_batches_say_what_they_are_about(folders: list[Path]) -> None:
    run = Run(space(folders), steps=1)
    task: Any
    for task in (torch.tensor([1, 1]), torch.tensor(1), 1):
        run.loss(batch(1) | {"task": task})
    for task in (2, -1, 0.5, torch.tensor([0, 1])):
        with pytest.raises(PeftcError, match="PEFT689"):
            run.loss(batch(0) | {"task": task})
    with pytest.raises(PeftcError, match=r"PEFT689[^$]*no\ such\ entry"):
        run.loss({"input_ids": tokens(), "labels": tokens()})


def test_a_trainer_passes_the_task_on(folders: list[Path], tmp_path: Path) -> None:
    """A loop and a Trainer give the same numbers, also when the Trainer evaluates.

    The first token has no label: the row before it predicts it, but a Trainer does not
    count it among what it divides the loss by.
    """
    labels = tokens(4)
    labels[:, 0] = -100
    rows = [
        {"input_ids": ids, "labels": wanted, "task": task}
        for task in range(2)
        for ids, wanted in zip(tokens(4), labels, strict=True)
    ]
    by_trainer, by_loop = space(folders), space(folders)
    arguments = hf.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = InOrder(by_trainer, arguments, train_dataset=rows, eval_dataset=rows[4:])
    attach(trainer)
    trainer.train()
    told = trainer.evaluate()["eval_loss"]
    run = Run(by_loop, steps=2)
    optimizer = torch.optim.SGD(run.parameter_groups(lr=0.01))
    for task in range(2):
        given = {"input_ids": tokens(4), "labels": labels, "task": task}
        run.loss(given).backward()
        run.optimize(optimizer)
    for name, value in own(by_loop).items():
        torch.testing.assert_close(own(by_trainer)[name], value, rtol=1e-5, atol=1e-6)
    by_loop.eval()
    due = by_loop(input_ids=tokens(4), labels=labels).loss
    assert told == pytest.approx(due.item(), rel=1e-5)
