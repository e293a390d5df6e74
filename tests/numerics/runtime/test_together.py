"""The backend `together`: sites whose forward and backward are one step of autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.training import Run
from tests.models import model, randomise, tokens

if TYPE_CHECKING:
    from torch import Tensor

ALL = "lora(linear, r=4)"
SPECS = {
    "lora": (ALL, 14),
    "dora": ("dora(q, down, r=4)", 4),
    "krona": ("krona(k, up)", 4),
    "loha": ("loha(v, gate, r=2)", 4),
    "ia3": ("ia3(k, v, ffn)", 6),
    "stack": ("lora(q, r=2) + ia3(q) + krona(q)", 2),
    "beside others": ("lora(q, v, r=4) + prefix(p=3) + adapter(ffn, d=8)", 4),
    "dropout": ("lora(q, r=4, dropout=0.5) + lora(v, r=4)", 2),
}
"""Specs, and how many sites of a llama with two layers run as one."""


def pair(family: str, spec: str, **changes: Any) -> tuple[Any, Any]:
    """The same compiled model, in the ordinary way and together."""
    made = []
    for backend in ("eager", "together"):
        one = peftc.compile(model(family, **changes), spec, backend=backend).train()
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


def assert_alike(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("name", SPECS)
def test_the_numbers_are_those_of_the_ordinary_way(name: str) -> None:
    spec, count = SPECS[name]
    ordinary, together = pair("llama", spec)
    assert_alike(differentiated(together), differentiated(ordinary))
    assert nodes(together) == count
    assert nodes(ordinary) == 0


@pytest.mark.parametrize(("family", "count"), [("gpt2", 0), ("bert", 12), ("t5", 32)])
def test_other_families(family: str, count: int) -> None:
    """Weights that are stored turned are computed in the ordinary way."""
    ordinary, together = pair(family, ALL)
    given = {"decoder_input_ids": tokens(length=7)} if family == "t5" else {}
    assert_alike(differentiated(together, **given), differentiated(ordinary, **given))
    assert nodes(together) == count


def test_it_starts_as_the_base_does_to_the_bit() -> None:
    base = model("llama").train()
    with torch.no_grad():
        due = base(input_ids=tokens()).logits
    compiled = peftc.compile(base, ALL, backend="together")
    found = compiled(input_ids=tokens()).logits
    assert nodes(compiled) == 14
    assert torch.equal(found, due)


def test_less_is_kept_for_the_backward() -> None:
    """Neither what a site adds nor a second copy of what it reads."""
    ordinary, together = pair("llama", "dora(linear, r=4)")
    for one in (ordinary, together):
        differentiated(one)
    assert kept(together) < 0.8 * kept(ordinary)


def kept(compiled: Any) -> int:
    """Bytes that autograd keeps of activations."""
    sizes = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            storage = value.untyped_storage()
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


def test_types_that_differ_are_computed_in_the_ordinary_way() -> None:
    compiled = peftc.compile(model("llama").bfloat16(), ALL, backend="together").train()
    compiled(input_ids=tokens())
    assert nodes(compiled) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = peftc.compile(model("llama"), ALL, backend="together").train()
        wide(input_ids=tokens())
    assert nodes(wide) == 0


def test_some_tensors_may_be_frozen() -> None:
    ordinary, together = pair("llama", ALL)
    for one in (ordinary, together):
        for name, parameter in trained(one).items():
            parameter.requires_grad_(name.endswith(".B"))
    assert_alike(differentiated(together), differentiated(ordinary))


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
    assert nodes(together) == 4
    for name, value in trained(ordinary).items():
        torch.testing.assert_close(trained(together)[name], value, rtol=1e-4, atol=1e-6)


def test_gradients_of_gradients_are_refused() -> None:
    _, together = pair("llama", ALL)
    ids = tokens()
    loss = together(input_ids=ids, labels=ids).loss
    first = torch.autograd.grad(
        loss, list(trained(together).values()), create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first[0].square().sum().backward()
