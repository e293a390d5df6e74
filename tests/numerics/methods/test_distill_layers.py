"""Distillation of layers, of part of the classes, and from the base without codes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf

import peftc
from peftc.training import Run, attach
from peftc.training.controls.distill import Distill
from peftc.training.divergence import Divergence
from tests.numerics.runtime.tiny import llama, refused, t5
from tests.numerics.training.both import (
    assert_equal,
    by_trainer,
    descent,
    looped,
)
from tests.numerics.training.test_run import BATCH, InOrder, batches, samples

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

IDS = torch.arange(2, 18).view(2, 8)
WIDE = 'lora(q, v, r=2) + distill(teacher="big", hidden="-1:-1*0.5, 1:2", proj={})'


def big(**changes: Any) -> Any:
    facts = {"hidden_size": 48, "num_attention_heads": 4, **changes}
    return llama(seed=1, layers=3, **facts)


def batch() -> dict[str, Tensor]:
    """Some positions have no label, and some are padding."""
    labels, mask = IDS.clone(), torch.ones_like(IDS)
    labels[0, :4] = -100
    labels[1, 5:] = -100
    mask[1, 5:] = 0
    return {"input_ids": IDS, "labels": labels, "attention_mask": mask}


def started(spec: str, model: Any = None, **options: Any) -> tuple[Any, Run, Distill]:
    model = peftc.compile(model or llama(layers=2), spec).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    run = Run(model, steps=6, **options)
    (control,) = run.controls
    assert isinstance(control, Distill)
    return model, run, control


# --- hidden states --------------------------------------------------------------------


def test_hidden_states_by_hand() -> None:
    """w MSE(H_S M^T, H_T) over the positions whose predictions have a label."""
    teacher = big()
    spec = WIDE.format("false").replace("distill(", "distill(alpha=0, ")
    model, run, control = started(spec, teachers={"big": teacher})
    first, second = control.parameters.values()
    assert first.shape == second.shape == (48, 32)
    with torch.no_grad():
        one = model(**batch(), output_hidden_states=True)
        other = teacher(**batch(), output_hidden_states=True)
        wanted = one.loss
        for weight, projection, mine, its in (
            (0.5, first, one.hidden_states[2], other.hidden_states[3]),
            (1.0, second, one.hidden_states[1], other.hidden_states[2]),
        ):
            total, count = torch.zeros(()), 0
            for row in range(2):
                for place in range(7):
                    if batch()["labels"][row, place + 1] != -100:
                        apart = projection @ mine[row, place] - its[row, place]
                        total, count = total + apart.square().sum(), count + 48
            wanted = wanted + weight * total / count
    loss = run.loss(batch())
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert first.grad is not None
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_states_are_recorded_once_whoever_ran_first() -> None:
    model = peftc.compile(llama(layers=2), "lora(q, r=2)")
    with torch.no_grad():
        with model.peftc.disabled():
            wanted = model(input_ids=IDS, output_hidden_states=True).hidden_states
        found = model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert len(found) == 3
    assert all(map(torch.equal, found, wanted))


def test_projections_where_widths_differ_or_they_are_asked_for() -> None:
    same = {"hidden_size": 32}
    for said, facts, count in (("false", same, 0), ("true", same, 2), ("false", {}, 2)):
        _, run, control = started(WIDE.format(said), teachers={"big": big(**facts)})
        assert len(control.parameters) == count
        assert len(run.beside) == count
    bound = 32**-0.5
    _, other, _ = started(WIDE.format("true"), teachers={"big": big()})
    for name, value in run.beside.items():
        assert torch.equal(value, other.beside[name])
        assert 0.5 * bound < value.abs().max() <= bound


def test_a_student_that_is_its_teacher_learns_nothing_of_layers() -> None:
    spec = 'lora(q, r=2) + distill(alpha=1, hidden="-1:-1, 1:1", attn="-1:-1, 1:1")'
    model = llama(layers=2, attn_implementation="eager")
    model = peftc.compile(model, spec).train()
    loss = Run(model, steps=1).loss(batch())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(g.abs().max() < 1e-6 for g in grads)


def test_targets_of_an_encoder_decoder_are_compared_in_the_decoder() -> None:
    spec = 'lora(q, r=2) + distill(alpha=0, hidden="-1:-1")'
    model, run, control = started(spec, t5())
    model.eval()  # its dropout is not 0
    given = {"input_ids": IDS, "labels": batch()["labels"][:, :6].clone()}
    with torch.no_grad():
        out = model(**given, output_hidden_states=True)
        said = control.teacher.outputs(given, control.asks)
        pair = (o.decoder_hidden_states[-1] for o in (out, said))
        known = given["labels"] != -100
        wanted = out.loss + F.mse_loss(*(h[known] for h in pair))
        torch.testing.assert_close(run.loss(given), wanted)


# --- projections are trained ----------------------------------------------------------


def trainer_of(folder: Path) -> Any:
    said: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "report_to": [],
        "use_cpu": True,
        "save_steps": 3,
        "disable_tqdm": True,
    }
    model = peftc.compile(llama(), WIDE.format("false"))
    arguments = hf.TrainingArguments(**said)
    return InOrder(model, arguments, train_dataset=samples())


def test_projections_in_both_executors(tmp_path: Path) -> None:
    kept: list[dict[str, Tensor]] = []

    def keep(run: Run, _: Any) -> None:
        kept.append({n: p.detach().clone() for n, p in run.beside.items()})

    spec = WIDE.format("false")
    model = looped(spec, keep, teachers={"big": big()})
    assert all(not torch.equal(v, kept[-1][n]) for n, v in kept[0].items())
    other = by_trainer(
        spec, tmp_path, {"big": big()}, save_strategy="steps", save_steps=6
    )
    assert_equal(model, other)
    from peftc.training.trainer import read_state

    state = read_state(tmp_path / "checkpoint-6")
    for name, value in kept[-1].items():
        saved = state[name.replace("distill.", "distill.trained.")]
        torch.testing.assert_close(saved, value, rtol=1e-5, atol=1e-6)


def test_resumed_to_the_same_bits_and_in_no_export(tmp_path: Path) -> None:
    first, again = trainer_of(tmp_path), trainer_of(tmp_path)
    run = attach(first, teachers={"big": big()})
    names = set(run.beside)
    first.train()
    assert names
    assert not run.beside
    resumed = attach(again, teachers={"big": big()})
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert not resumed.beside
    pairs = zip(first.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    from safetensors.torch import load_file

    for file in (
        first.model.peftc.save(tmp_path / "saved"),
        first.model.peftc.export(tmp_path / "exported"),
        tmp_path / "checkpoint-6" / "adapter.safetensors",
    ):
        tensors = [name for name in load_file(file) if not name.startswith("peftc")]
        assert all(".lora." in name for name in tensors)


def test_a_loop_goes_on_with_the_same_bits() -> None:
    spec = WIDE.format("false")

    def begun() -> tuple[Any, Run, Any]:
        model = peftc.compile(llama(), spec).train()
        run = Run(model, steps=6, teachers={"big": big()})
        return model, run, run.make_optimizer(0.01)

    def go(run: Run, optimizer: Any, data: Any) -> None:
        for one in data:
            run.loss(one).backward()
            run.optimize(optimizer)

    model, run, optimizer = begun()
    go(run, optimizer, batches()[:3])
    states = (model.state_dict(), run.state_dict(), optimizer.state_dict())
    states = copy.deepcopy(states)
    go(run, optimizer, batches()[3:])
    other, later, another = begun()
    for part, state in zip((other, later, another), states, strict=True):
        part.load_state_dict(state)
    go(later, another, batches()[3:])
    pairs = zip(run.trained().values(), later.trained().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with refused("PEFT692"):
        later.load_state_dict({"step": torch.tensor(1)})


def test_gradients_are_clipped_with_those_of_projections(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    run = attach(trainer, teachers={"big": big()})
    trainer.create_optimizer()
    for parameter in run.trained().values():
        parameter.grad = torch.ones_like(parameter)
    count = sum(p.numel() for p in run.trained().values())
    norm = trainer._clip_grad_norm(trainer.model)
    assert float(norm) == pytest.approx(count**0.5)
    run.before_forward()
    run.before_optimizer(trainer.optimizer)
    run.after_optimizer(trainer.optimizer)
    assert all(p.grad is None for p in run.beside.values())


def test_rates_and_groups_know_projections() -> None:
    spec = f"{WIDE.format('false')} + loraplus() + thaw(every=1)"
    method = "method thaw(every: number = 0) on model { train thaw(every=every) } "
    model = peftc.compile(llama(), method + spec).train()
    run = Run(model, steps=6, teachers={"big": big()})
    optimizer = descent(run)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in run.trained().values()}
    run.loss(batch()).backward()
    run.before_optimizer(optimizer)
    moving = {n for n, p in run.trained().items() if p.grad is not None}
    assert moving > run.beside.keys()
    assert all("layers.1." in name for name in moving - run.beside.keys())


# --- attention ------------------------------------------------------------------------


def test_attention_by_hand() -> None:
    facts: dict[str, Any] = {"attn_implementation": "eager"}
    spec = 'lora(q, k, r=2) + distill(alpha=0, teacher="big", attn="-1:2*0.5")'
    teacher = big(**facts)
    model, run, _ = started(spec, llama(layers=2, **facts), teachers={"big": teacher})
    with torch.no_grad():
        one = model(**batch(), output_attentions=True)
        other = teacher(**batch(), output_attentions=True)
    wanted, rows = torch.zeros(()), 0
    for row in range(2):
        for place in range(7):
            if batch()["labels"][row, place + 1] == -100:
                continue
            for head in range(4):
                p = other.attentions[1][row, head, place, : place + 1]
                q = one.attentions[1][row, head, place, : place + 1]
                wanted, rows = wanted + (p * (p / q).log()).sum(), rows + 1
    loss = run.loss(batch())
    torch.testing.assert_close(loss, one.loss + 0.5 * wanted / rows)
    loss.backward()
    assert all(
        p.grad is not None and bool(p.grad.isfinite().all())
        for p in run.trained().values()
    )


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ('attn="-1:-1"', {"attn_implementation": "sdpa"}),
        ('hidden="3:1"', {}),
        ('hidden="1:-4"', {}),
        ('attn="0:1"', {"attn_implementation": "eager"}),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(
    said: str, facts: dict[str, Any]
) -> None:
    """PEFT686, before training."""
    with refused("PEFT686"):
        started(f"lora(q, r=2) + distill({said})", llama(layers=2, **facts))


def test_attention_with_dropout_or_other_heads_is_refused() -> None:
    eager: dict[str, Any] = {"attn_implementation": "eager"}
    spec = 'lora(q, r=2) + distill({}attn="-1:-1")'
    facts: dict[str, Any] = {"attention_dropout": 0.5, **eager}
    _, run, _ = started(spec.format(""), llama(layers=2, **facts))
    with refused("PEFT686"):
        run.loss(batch())
    teacher = big(num_attention_heads=8, num_key_value_heads=2, **eager)
    _, run, _ = started(
        spec.format('teacher="big", '),
        llama(layers=2, **eager),
        teachers={"big": teacher},
    )
    with refused("PEFT686"):
        run.loss(batch())


def test_pairs_that_are_none_are_refused() -> None:
    for text in ("1", "1:2*", "1:2*-1", "a:b", "1:2 2:3"):
        with refused("PEFT217"):
            peftc.compile(llama(), f'lora(q) + distill(hidden="{text}")')


# --- predictions ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fkl", "rkl", "jsd"])
def test_the_likeliest_classes_and_the_rest_as_one(kind: str) -> None:
    student, teacher = torch.randn(5, 9), torch.randn(5, 9)
    whole = Divergence(kind, 2.0, topk=9).mean(student, teacher)
    torch.testing.assert_close(whole, Divergence(kind, 2.0).mean(student, teacher))
    found = Divergence(kind, 2.0, topk=3).mean(student, teacher)
    p, q = (F.softmax(z / 2, -1) for z in (teacher, student))
    best = p.topk(3).indices
    lumps = [v.gather(-1, best) for v in (p, q)]
    p, q = (torch.cat([v, 1 - v.sum(-1, keepdim=True)], -1) for v in lumps)
    m = (p + q) / 2
    kl = {
        "fkl": p * (p / q).log(),
        "rkl": q * (q / p).log(),
        "jsd": (p * (p / m).log() + q * (q / m).log()) / 2,
    }[kind]
    torch.testing.assert_close(found, 4 * kl.sum(-1).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["fkl", "rkl", "jsd", "mse"])
@pytest.mark.parametrize("topk", [0, 3])
def test_in_parts_as_at_once(kind: str, topk: int) -> None:
    student, teacher = torch.randn(7, 9), torch.randn(7, 9)
    found = []
    for at_once in (18, 2**20):
        given = student.clone().requires_grad_()
        measure = Divergence(kind, 2.0, topk=topk, at_once=at_once)
        value = measure.mean(given, teacher)
        value.backward()
        found.append((value.detach(), given.grad))
    torch.testing.assert_close(*found)


def test_predictions_that_are_certain_are_compared() -> None:
    student = torch.tensor([[300.0, -300.0, -300.0]], requires_grad=True)
    for kind in ("fkl", "rkl", "jsd"):
        for topk in (0, 1):
            value = Divergence(kind, 1.0, topk=topk).mean(student, student.flip(-1))
            value.backward()
            assert value.isfinite()
            assert student.grad is not None
            assert student.grad.isfinite().all()
    nothing = Divergence("fkl", 1.0).mean(student[:0], student[:0])
    assert float(nothing.detach()) == 0


def test_a_vocabulary_that_is_longer() -> None:
    teacher = llama(seed=1, vocab_size=70)
    spec = 'lora(q, r=2) + distill(alpha=1, teacher="big", vocab=common)'
    model, run, _ = started(spec, teachers={"big": teacher})
    with torch.no_grad():
        one, other = model(**batch()).logits, teacher(**batch()).logits[..., :64]
        known = batch()["labels"][:, 1:] != -100
        one, other = (F.log_softmax(z[:, :-1][known] / 2, -1) for z in (one, other))
        wanted = 4 * F.kl_div(one, other, reduction="batchmean", log_target=True)
        torch.testing.assert_close(run.loss(batch()), wanted)


def test_numbers_and_logits_have_no_probabilities() -> None:
    with refused("PEFT699"):
        started("lora(q, r=2) + distill(kind=mse, topk=2)")
    _, _, control = started("lora(q, r=2) + distill()")
    with refused("PEFT699"):
        control.divergence(
            {"labels": torch.ones(2)}, torch.ones(2, 1), torch.ones(2, 1)
        )


# --- the base without codes -----------------------------------------------------------

STORED = 'qlora(r=2) + distill(teacher="base_fp", alpha=1)'


def test_the_base_without_codes() -> None:
    base = llama(layers=2)
    with torch.no_grad():
        expected = base(**batch()).logits
    model = peftc.compile(base, STORED, keep_base=True).train()
    run = Run(model, steps=1)
    (control,) = run.controls
    assert isinstance(control, Distill)
    assert torch.equal(control.teacher.outputs(batch()).logits, expected)
    with model.peftc.disabled():
        assert not torch.equal(model.eval()(**batch()).logits, expected)
    model.train()
    run.loss(batch()).backward()
    graphs = model.peftc.captures.count
    run.optimize(descent(run))
    run.loss(batch()).backward()
    assert model.peftc.captures.count == graphs
    stored = {one.weight for one in model.peftc.plan.stores}
    assert all(bool(model.get_parameter(path).isnan().all()) for path in stored)


def test_floats_that_are_gone() -> None:
    """PEFT643; without codes it is the base."""
    model = peftc.compile(llama(layers=2), STORED)
    with refused("PEFT643"):
        Run(model, steps=1)
    with refused("PEFT643"), model.peftc.original():
        pass
    _, _, control = started('lora(q, r=2) + distill(teacher="base_fp")')
    _, _, other = started("lora(q, r=2) + distill()")
    one, two = (c.teacher.outputs(batch()).logits for c in (control, other))
    assert torch.equal(one, two)
