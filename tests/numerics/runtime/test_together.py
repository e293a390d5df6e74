"""Sites whose forward and backward are one step of autograd, against `plain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.rewrite import recomputed
from peftc.rewrite.step import twice
from peftc.training import Run
from tests.models import model, randomise, tokens

if TYPE_CHECKING:
    from torch import Tensor

ALL = "lora(linear, r=4)"
SPECS = {
    "lora": (ALL, 8),
    "dora": ("dora(q, down, r=4)", 4),
    "krona": ("krona(k, up)", 4),
    "loha": ("loha(v, gate, r=2)", 4),
    "ia3": ("ia3(k, v, ffn)", 4),
    "stack": ("lora(q, r=2) + ia3(q) + krona(q)", 2),
    "unlike": (
        "lora(q, r=4) + dora(k) + krona(v) + loha(gate, r=2) + lora(up, r=2)",
        4,
    ),
    "beside others": ("lora(q, v, r=4) + prefix(p=3) + adapter(ffn, d=8)", 4),
    "between layers": ("houlsby(d=4)", 4),
    "from what a layer reads": ("adapter(ffn, d=8) + krona_b_res(ffn)", 2),
    "dropout": ("lora(q, r=4, dropout=0.5) + lora(v, r=4)", 2),
    "codes": ("qlora(r=4)", 8),
    "codes without x": ("quantize(q, up, kind=int8) + ia3(q, up, ffn)", 6),
    "masks": ("lora(linear, r=4, dropout=0.3)", 8),
}
"""Specs, and how many nodes their sites are in a llama with two layers: those that read
one activation are one."""


def pair(family: str, spec: str, dtype: torch.dtype = torch.double) -> tuple[Any, Any]:
    """The same compiled model, in the ordinary way and together."""
    made = []
    for backend in ("plain", "eager"):
        base = model(family).to(dtype)
        one = peftc.compile(base, spec, backend=backend).train()
        randomise(one)
        made.append(one)
    return made[0], made[1]


def nodes(compiled: Any) -> int:
    """How many sites the last graph runs as one."""
    texts = compiled.peftc.entries[0].captures.texts
    return int(texts[-1].count("= together("))


def trained(compiled: Any) -> dict[str, Tensor]:
    return {n: p for n, p in compiled.named_parameters() if p.requires_grad}


def differentiated(compiled: Any, **given: Any) -> list[Tensor]:
    """The logits and all gradients after a step; what drops, drops the same."""
    torch.manual_seed(0)
    logits = compiled(input_ids=tokens(), **given).logits
    logits.square().mean().backward()
    gradients = [p.grad for p in trained(compiled).values()]
    return [logits.detach(), *(g for g in gradients if g is not None)]


def assert_alike(one: list[Tensor], other: list[Tensor], near: float = 1e-6) -> None:
    """Equal but for rounding, by the largest element of each: norms are in float32."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        scale = float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=0, atol=near * scale)


@pytest.mark.parametrize("name", SPECS)
def test_the_numbers_are_those_of_the_ordinary_way(name: str) -> None:
    spec, count = SPECS[name]
    ordinary, together = pair("llama", spec)
    assert_alike(differentiated(together), differentiated(ordinary))
    assert nodes(together) == count
    assert nodes(ordinary) == 0


@pytest.mark.parametrize(("family", "count"), [("gpt2", 6), ("bert", 8), ("t5", 22)])
def test_other_families(family: str, count: int) -> None:
    """Also where weights are stored turned."""
    ordinary, together = pair(family, ALL)
    given = {"decoder_input_ids": tokens(length=7)} if family == "t5" else {}
    assert_alike(differentiated(together, **given), differentiated(ordinary, **given))
    assert nodes(together) == count


def test_it_starts_as_the_base_does_to_the_bit() -> None:
    base = model("llama").train()
    with torch.no_grad():
        due = base(input_ids=tokens()).logits
    compiled = peftc.compile(base, ALL)
    found = compiled(input_ids=tokens()).logits
    assert nodes(compiled) == 8
    assert torch.equal(found, due)


def test_less_is_kept_for_the_backward() -> None:
    """Neither what a site adds nor a second copy of what it reads."""
    ordinary, together = pair("llama", "dora(linear, r=4)", torch.float32)
    for one in (ordinary, together):
        differentiated(one)
    assert kept(together) < 0.85 * kept(ordinary)


@pytest.mark.parametrize("family", ["llama", "bert", "gpt2"])
def test_what_is_cheap_to_compute_is_not_kept(family: str) -> None:
    """Norms and activations before a site, which the backward computes again."""
    ordinary, together = pair(family, ALL, torch.float32)
    for one in (ordinary, together):
        differentiated(one)
    assert kept(together) < 0.85 * kept(ordinary)


@pytest.mark.parametrize("spec", [ALL, "qlora(r=4)"])
def test_what_is_small_is_kept(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer to make again than to keep, and is little."""
    _, together = pair("llama", spec)
    found = differentiated(together)
    less = kept(together)
    monkeypatch.setattr(recomputed, "LEAST", 1 << 20)
    together.zero_grad()
    assert_alike(differentiated(together), found, 1e-12)
    assert kept(together) > less


@pytest.mark.parametrize("spec", [ALL, "qlora(r=4)"])
def test_without_gradients_steps_give_the_same(spec: str) -> None:
    _, together = pair("llama", spec)
    due = together(input_ids=tokens()).logits
    with torch.no_grad():
        found = together(input_ids=tokens()).logits
    assert nodes(together) == 8
    assert torch.equal(found, due.detach())


@pytest.mark.parametrize("method", ["lora(linear, r=2)", "ia3(k, v, ffn)"])
def test_decoded_weights_are_not_kept(method: str) -> None:
    """They would be most of all: the codes are there anyway."""
    ordinary, together = pair("llama", f"quantize(linear) + {method}", torch.float32)
    for one in (ordinary, together):
        differentiated(one)
    weight = together.model.layers[0].mlp.up_proj.weight
    seen = []

    def pack(value: Tensor) -> Tensor:
        seen.append(value.shape)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        together(input_ids=tokens())
    assert nodes(together) > 0
    assert seen
    assert weight.shape not in seen
    assert kept(together) <= kept(ordinary)


def kept(compiled: Any) -> int:
    """Bytes that autograd keeps of activations."""
    own = {p.untyped_storage().data_ptr() for p in compiled.parameters()}
    sizes = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = compiled(input_ids=tokens())
    del out
    return sum(sizes.values())


def test_evaluation_runs_in_the_ordinary_way() -> None:
    ordinary, together = (one.eval() for one in pair("llama", ALL))
    with torch.no_grad():
        due, found = (one(input_ids=tokens()).logits for one in (ordinary, together))
    assert nodes(together) == 0
    assert torch.equal(found, due)
    written = [one.generate(tokens(), max_new_tokens=4) for one in (ordinary, together)]
    assert torch.equal(*written)


@pytest.mark.parametrize("spec", [ALL, "dora(q, r=4)", "krona(q, up)", "ia3(k, ffn)"])
def test_a_base_in_bfloat16_and_tensors_in_float32(spec: str) -> None:
    """No further from what float64 gives than the ordinary way is."""
    ordinary, together = pair("llama", spec, torch.bfloat16)
    exact, _ = pair("llama", spec)
    for one in (ordinary, together):
        for name, value in trained(one).items():
            assert value.dtype == torch.float32
            trained(exact)[name].data.copy_(value)
    exact.load_state_dict(ordinary.state_dict())
    due, found, other = map(differentiated, (exact, together, ordinary))
    assert nodes(together) > 0
    for a, b, c in zip(due, found, other, strict=True):
        assert b.dtype == c.dtype
        assert distance(a, b) <= 1.25 * distance(a, c) + 1e-3


def distance(due: Tensor, found: Tensor) -> float:
    """The norm of the difference, relative to what is due."""
    return float((found.double() - due).norm() / due.norm())


def test_autocast_decides_types_in_the_ordinary_way() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = peftc.compile(model("llama"), ALL).train()
        wide(input_ids=tokens())
    assert nodes(wide) == 0


def test_some_tensors_may_be_frozen() -> None:
    ordinary, together = pair("llama", ALL)
    for one in (ordinary, together):
        for name, parameter in trained(one).items():
            parameter.requires_grad_(name.endswith(".B"))
    assert_alike(differentiated(together), differentiated(ordinary))


@pytest.mark.parametrize("spec", ["lora(q, v, r=4)", "lora(q, v, r=4, dropout=0.3)"])
def test_base_weights_that_learn_too(spec: str) -> None:
    """What the plan takes for frozen and the user lets learn has its gradient."""
    ordinary, together = pair("llama", spec)
    for one in (ordinary, together):
        one.model.layers[1].self_attn.v_proj.weight.requires_grad_()
        one.model.layers[0].self_attn.q_proj.weight.requires_grad_()
    assert_alike(differentiated(together), differentiated(ordinary))
    assert together.model.layers[1].self_attn.v_proj.weight.grad is not None


def test_checkpointed_layers() -> None:
    ordinary, together = pair("llama", ALL)
    for one in (ordinary, together):
        one.gradient_checkpointing_enable()
    assert_alike(differentiated(together), differentiated(ordinary))
    assert nodes(together) > 0


def test_a_run_trains_alike() -> None:
    """Three steps, the masks drawn at the start."""
    spec = "sparse(lora(q, v, r=4), S=0.5, score=er)"
    ordinary, together = pair("llama", spec)
    for one in (ordinary, together):
        run = Run(one, steps=3)
        optimizer = torch.optim.SGD(run.parameter_groups(lr=0.05))
        for seed in range(3):
            ids = tokens(seed=seed)
            run.loss({"input_ids": ids, "labels": ids}).backward()
            run.optimize(optimizer)
        run.finalize()
    assert nodes(together) == 2
    for name, value in trained(ordinary).items():
        torch.testing.assert_close(trained(together)[name], value, rtol=1e-4, atol=1e-6)


def second(compiled: Any) -> list[Tensor]:
    """Gradients of the size of the gradients."""
    ids, tensors = tokens(), list(trained(compiled).values())
    with sdpa_kernel(SDPBackend.MATH):
        loss = compiled(input_ids=ids, labels=ids).loss
        first = torch.autograd.grad(loss, tensors, create_graph=True)
        size = torch.stack([g.square().sum() for g in first]).sum()
        return list(torch.autograd.grad(size, tensors))


def test_gradients_of_gradients() -> None:
    ordinary, together = pair("llama", "lora(q, v, r=4) + krona(up)")
    assert_alike(second(together), second(ordinary))


def test_gradients_of_gradients_need_what_a_site_read() -> None:
    ordinary, together = pair("llama", "ia3(k, v)")
    with pytest.raises(PeftcError, match="PEFT446"):
        second(together)
    with twice():
        found = second(together)
    assert_alike(found, second(ordinary))
