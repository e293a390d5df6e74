"""The memory a plan tells against that of a real training step of the same model."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import peftc
from peftc.runtime.meter import Meter
from tests.models import bert, gpt2, llama
from tests.numerics.runtime.tiny import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peftc.plan.types import Memory


def t5() -> Any:
    facts: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0}
    facts |= {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(vocab_size=128, **facts))


def mixtral() -> Any:
    facts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
    facts |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    facts |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128}
    return MixtralForCausalLM(MixtralConfig(**facts))


def bfloat16_llama() -> Any:
    return llama().to(torch.bfloat16)


def float64_llama() -> Any:
    return llama().double()


@dataclass(frozen=True)
class Measured:
    """What a real step of AdamW held."""

    base: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int


def nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum({t.untyped_storage()._cdata: t.nbytes for t in tensors}.values())


def step_inputs(model: Any, batch: int, tokens: int) -> dict[str, torch.Tensor]:
    """A batch as a data collator makes it."""
    ids = torch.randint(3, 128, (batch, tokens))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids.clone()
    single = "Classification" in type(model).__name__
    inputs["labels"] = torch.ones(batch, dtype=torch.long) if single else ids.clone()
    return inputs


def measure(model: Any, spec: str, batch: int, tokens: int) -> Measured:
    """Compile a model and train it for a step, counting what autograd saves."""
    base = nbytes(model.parameters())
    peftc.compile(model, spec)
    model.train()
    held = (*model.named_parameters(), *model.named_buffers())  # files hold less
    added = [tensor for name, tensor in held if ".peftc." in name]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    inputs = step_inputs(model, batch, tokens)
    for _ in range(2):  # captures; a classifier notes its kind of labels, and again
        model(**inputs, **no_cache(model))
    there = {t.untyped_storage()._cdata for t in inputs.values()}
    there |= {t.untyped_storage()._cdata for t in model.parameters()}
    there |= {t.untyped_storage()._cdata for t in model.buffers()}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in there:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**inputs, **no_cache(model)).loss
    activations = sum(storage.nbytes() for storage in saved.values())
    loss.backward()
    optimizer.step()
    states = [v for s in optimizer.state.values() for v in s.values()]
    gradients = [p.grad for p in trained if p.grad is not None]
    lasting = nbytes(added), nbytes(gradients), nbytes(states)
    return Measured(base, *lasting, activations)


def no_cache(model: Any) -> dict[str, bool]:
    return {} if type(model).__name__.startswith("Bert") else {"use_cache": False}


def parts(memory: Memory | Measured) -> dict[str, int]:
    names = ("base", "parameters", "gradients", "optimizer", "activations")
    return {name: getattr(memory, name) for name in names}


FAST = [(llama, "lora(q, v, r=4) + adapter(ffn, d=8)", 3, 24)]
SLOW = [
    (llama, "ia3(k, v, ffn)", 1, 40),
    (bfloat16_llama, "lora(linear, r=4, dropout=0.1)", 2, 32),
    (float64_llama, "lora(q, r=2)", 2, 16),
    (gpt2, "lora(q, v, r=4)", 2, 32),
    (gpt2, "houlsby(d=8)", 4, 16),
    (bert, "lora(q, v, r=4)", 2, 48),
    (bert, "adapter(ffn, d=8)", 6, 16),
    (t5, "lora(q, v, r=4)", 2, 24),
    (llama, "prefix(k, v, p=5)", 2, 24),
    (bert, "unipelt()", 2, 24),
    (mixtral, "lora(experts.up, r=2)", 2, 16),
    (t5, "vera(q, v, r=4) + ia3(k, v, ffn)", 4, 32),
]
CASES = [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.mark.parametrize(("make", "spec", "batch", "tokens"), CASES)
def test_what_is_told_is_what_a_step_holds(
    make: Callable[[], Any], spec: str, batch: int, tokens: int
) -> None:
    memory = peftc.plan(spec, make(), batch=batch, tokens=tokens).memory
    assert memory is not None
    assert memory.whole
    measured = measure(make(), spec, batch, tokens)
    told, real = parts(memory), parts(measured)
    assert told == {
        name: pytest.approx(n, rel=0.01, abs=64) for name, n in real.items()
    }
    assert sum(told.values()) == pytest.approx(sum(real.values()), rel=0.01)
    assert memory.peak > sum(told.values()) - told["gradients"]


def test_a_model_is_not_touched_and_not_kept() -> None:
    model = llama()
    before = dict(model.named_parameters())
    ref = weakref.ref(model)
    peftc.plan("lora(q, r=2)", model, batch=1, tokens=8)
    assert dict(model.named_parameters()) == before
    assert all(p.requires_grad for p in before.values())
    assert model.training
    del model, before
    gc.collect()
    assert ref() is None


@pytest.mark.slow
def test_a_larger_batch_holds_more() -> None:
    config = llama().config
    small, large = (
        peftc.plan("lora(q, r=2)", config, batch=n, tokens=16).memory for n in (1, 4)
    )
    assert small is not None
    assert large is not None
    assert large.activations == pytest.approx(4 * small.activations, rel=0.02)
    assert (large.batch, large.tokens) == (4, 16)


@pytest.mark.slow
def test_checkpointed_layers_hold_less() -> None:
    plain, checkpointed = llama().eval(), llama().eval()
    checkpointed.gradient_checkpointing_enable()
    more, less = (
        peftc.plan("lora(q, r=2)", m, batch=2, tokens=32).memory
        for m in (plain, checkpointed)
    )
    assert more is not None
    assert less is not None
    assert less.activations < 0.7 * more.activations
    assert len(checkpointed._require_grads_hooks) == 1
    assert checkpointed.get_input_embeddings()._forward_hooks


def test_as_many_tokens_as_there_are_positions() -> None:
    memory = peftc.plan("lora(q, r=2)", gpt2().config).memory
    assert memory is not None
    assert (memory.batch, memory.tokens) == (8, 64)


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"tokens": -1}, {"batch": 2.5}])
def test_a_step_has_whole_sizes(sizes: dict[str, Any]) -> None:
    with refused("PEFT311"):
        peftc.plan("lora(q)", llama(), **sizes)


def test_what_cannot_be_captured_in_training_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan is made all the same: without the base's activations."""
    model = llama()
    forward = type(model.model).forward

    def breaks(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training:
            torch._dynamo.graph_break()
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", breaks)
    plan = peftc.plan("lora(q, r=2)", model.eval())
    assert plan.memory is not None
    assert not plan.memory.whole
    assert any("PEFT" in note for note in plan.notes)


def test_a_meter_counts_what_is_held_and_the_most() -> None:
    outside = torch.zeros(100)
    meter = Meter()
    with meter:
        meter.ignore([outside])
        kept = outside[:10] + 1
        view = kept[:5]
        gone = torch.ones(1000)
        del gone
    assert meter.held == 40
    assert meter.peak == 4040
    del kept
    assert meter.held == 40
    del view
    assert meter.held == 0
