"""Weights that are kept in codes: the model is the one with the decoded weights.

Every comparison is with a copy of the base whose weights are, by hand, what the codes
decode to; the codes themselves are tested in `tests/numerics/storage`.
"""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from torch import fx

import peftc
from peftc.passes.decode_storage import decode_storage
from peftc.runtime.codes import codes_in, decode
from peftc.sites.anchors import Capture
from peftc.storage.table import form_of
from tests.numerics.matrix import FAMILIES, build, inputs
from tests.numerics.runtime import tiny
from tests.numerics.runtime.tiny import logits, refused, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

FORMS = ("nf4, double=true, block=16", "int8", "int4, group=20")
PLAIN = "quantize(linear, kind=nf4, block=16)"
BOTH = f"{PLAIN} + lora(q, v, r=3)"


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)


def llama(**facts: Any) -> Any:
    """One layer is enough; none of the tests needs two."""
    return tiny.llama(layers=1, **facts)


def decoded_twin(model: Any, base: Any) -> Any:
    """The untouched `base` with the weights that the codes of `model` decode to."""
    stores = model.peftc.plan.stores
    codes = codes_in(model, stores)
    with torch.no_grad():
        for one in stores:
            base.get_parameter(one.weight).copy_(decode(one, codes[one.weight]))
    return base


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if ".peftc." in n}


def noise(model: nn.Module) -> None:
    """Move the added tensors from where they start."""
    torch.manual_seed(5)
    for parameter in trained(model).values():
        torch.nn.init.normal_(parameter, std=0.2)


def pair(spec: str = BOTH, **options: Any) -> tuple[Any, Any]:
    """A compiled model, and the same methods on a model with the decoded weights."""
    model = llama()
    base = copy.deepcopy(model)
    peftc.compile(model, spec, **options)
    dense = decoded_twin(model, base)
    backend = options.get("backend", "eager")
    peftc.compile(dense, spec.partition(" + ")[2], backend=backend)
    noise(model)
    noise(dense)
    return model, dense


# --- the three oracles of QLoRA -------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_model_with_the_decoded_weights(form: str) -> None:
    model, dense = pair(f"quantize(linear, kind={form}) + lora(q, v, r=3)")
    assert torch.equal(logits(model), logits(dense))
    ids = tokens()
    for one in (model, dense):
        one(input_ids=ids, labels=ids).loss.backward()
    for (name, mine), other in zip(
        trained(model).items(), trained(dense).values(), strict=True
    ):
        assert mine.grad is not None
        assert other.grad is not None, name
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-8)


def test_training_changes_no_code() -> None:
    model, _ = pair()
    stores = model.peftc.plan.stores
    codes = codes_in(model, stores)
    before = {w: {n: t.clone() for n, t in parts.items()} for w, parts in codes.items()}
    optimizer = torch.optim.AdamW(trained(model).values(), lr=0.1)
    ids = tokens()
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for weight, parts in codes_in(model, stores).items():
        for name, value in parts.items():
            assert torch.equal(value, before[weight][name])
    assert all(p.grad is None for n, p in model.named_parameters() if "peftc" not in n)


def test_a_method_that_reads_the_weight_reads_the_decoded_one() -> None:
    """DoRA: its magnitudes start as norms of the decoded weight."""
    model, dense = pair(f"{PLAIN} + dora(q, o, r=3)")
    torch.testing.assert_close(logits(model), logits(dense))
    fresh = llama()
    peftc.compile(fresh, f"{PLAIN} + dora(q, r=3)")
    with fresh.peftc.disabled():
        base = logits(fresh)
    torch.testing.assert_close(logits(fresh), base)


# --- memory ---------------------------------------------------------------------------


def test_the_weights_are_gone() -> None:
    model = llama()
    peftc.compile(model, BOTH)
    stores = model.peftc.plan.stores
    assert len(stores) == 7
    for one in stores:
        parameter = model.get_parameter(one.weight)
        assert parameter.shape == torch.Size(one.shape)
        assert parameter.untyped_storage().nbytes() == 4
        assert parameter.isnan().all()
    held = sum(
        t.untyped_storage().nbytes() for n, t in model.named_buffers() if "stored" in n
    )
    assert held == sum(one.bytes for one in stores)
    assert form_of(stores[0].form).bits(stores[0].coded) == 4 + 32 / 16


def test_the_plan_counts_what_is_kept() -> None:
    model = llama()
    plan, dense = peftc.plan(BOTH, model), peftc.plan("lora(q, v, r=3)", model)
    saved = sum(one.dense - one.bytes for one in plan.stores)
    assert plan.memory is not None
    assert dense.memory is not None
    assert plan.memory.base == dense.memory.base - saved
    assert plan.memory.activations <= dense.memory.activations
    assert plan.trainable == dense.trainable


@pytest.mark.parametrize("training", [True, False])
def test_no_decoded_weight_is_kept_for_the_backward(training: bool) -> None:
    """What autograd saves has no tensor of a weight's size and type."""
    model, _ = pair(f"{PLAIN} + lora(linear, r=3)")
    model.train(training)
    sizes = {tuple(sorted(one.shape)) for one in model.peftc.plan.stores}
    model(input_ids=tokens())  # captured, so that what is kept is real
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t) or t,  # type: ignore[func-returns-value]
        lambda t: t,
    ):
        model(input_ids=tokens()).logits.sum().backward()
    assert kept
    assert not [t for t in kept if tuple(sorted(t.shape)) in sizes]


def test_a_copy_or_a_move_frees_again() -> None:
    model, _ = pair()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin), logits(model))
        one = twin.peftc.plan.stores[0]
        assert twin.get_parameter(one.weight).untyped_storage().nbytes() == 4


def test_a_change_of_type_leaves_codes_and_scales() -> None:
    model, _ = pair()
    model.to(torch.bfloat16)
    types = {t.dtype for n, t in model.named_buffers() if "stored" in n}
    assert types == {torch.uint8, torch.float32}


# --- the base, disabled, removed and merged -------------------------------------------


def test_disabled_is_the_decoded_base() -> None:
    model = llama()
    base = copy.deepcopy(model)
    peftc.compile(model, BOTH)
    decoded_twin(model, base)
    noise(model)
    with model.peftc.disabled():
        assert torch.equal(logits(model), logits(base))
        with refused("PEFT642"):
            model.model.layers[0].self_attn.q_proj(torch.ones(1, 32))


def test_removing_needs_the_originals_or_a_word() -> None:
    model = llama()
    base = copy.deepcopy(model)
    before = logits(model)
    peftc.compile(model, BOTH)
    with refused("PEFT640"):
        model.peftc.remove()
    decoded_twin(model, base)
    model.peftc.remove(decoded=True)
    assert torch.equal(logits(model), logits(base))
    assert model.state_dict().keys() == base.state_dict().keys()
    assert not torch.equal(logits(model), before)


def test_kept_originals_come_back_bit_for_bit() -> None:
    model = llama()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    names = {n: id(p) for n, p in model.named_parameters()}
    peftc.compile(model, BOTH, keep_base=True)
    noise(model)
    logits(model)
    model.peftc.remove()
    assert {n: id(p) for n, p in model.named_parameters()} == names
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(t, after[n]) for n, t in before.items())


def test_merging_gives_a_dense_model() -> None:
    model, dense = pair()
    apart = logits(model)
    model.peftc.merge()
    dense.peftc.merge()
    assert torch.equal(logits(model), logits(dense))
    torch.testing.assert_close(logits(model), apart, rtol=1e-4, atol=1e-5)
    model.peftc.unmerge()
    assert torch.equal(logits(model), apart)
    assert model.peftc.plan.stores[0].weight not in model.state_dict()


def test_merging_into_codes_says_what_it_loses() -> None:
    model, dense = pair(f"{PLAIN} + lora(linear, r=3)")
    apart = logits(model)
    model.peftc.merge(into_codes=True)
    errors = model.peftc.report()["merge_error"]
    assert len(errors) == 7
    assert all(0 < error < 0.2 for error in errors.values())
    dense.peftc.merge()
    assert torch.equal(logits(model), logits(decoded_twin(model, dense)))
    model.peftc.unmerge()
    assert torch.equal(logits(model), apart)


def test_merging_into_codes_needs_codes() -> None:
    model = llama()
    peftc.compile(model, "quantize(q) + lora(q, v, r=3)")
    with refused("PEFT641"):
        model.peftc.merge(into_codes=True)
    assert not model.peftc.merged


# --- files ----------------------------------------------------------------------------


def test_a_saved_adapter_goes_on_the_original_base(tmp_path: Path) -> None:
    model, _ = pair()
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"adapter.safetensors"}
    again = peftc.load(llama(), tmp_path)
    assert torch.equal(logits(again), logits(model))
    quantised = llama()
    peftc.compile(quantised, BOTH)
    quantised.peftc.load(tmp_path)
    assert torch.equal(logits(quantised), logits(model))
    with refused("PEFT625"):
        peftc.load(llama(seed=1), tmp_path)
    other = llama()
    peftc.compile(other, "lora(q, v, r=3)")
    with refused("PEFT626"):
        other.peftc.load(tmp_path)


def test_the_state_holds_codes_and_no_weights() -> None:
    model, _ = pair()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    assert model.peftc.plan.stores[0].weight not in state
    twin = llama()
    peftc.compile(twin, BOTH)
    twin.load_state_dict(state)
    assert torch.equal(logits(twin), logits(model))


def test_a_merged_model_is_saved_dense(tmp_path: Path) -> None:
    model, _ = pair()
    apart = logits(model)
    model.save_pretrained(tmp_path, merge=True)
    plain = hf.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(plain.eval()), apart, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(model), apart)


# --- weights of other layouts ---------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "t5"])
def test_every_layout_of_weights(family: str) -> None:
    model = build(family, torch.float32)
    base = copy.deepcopy(model)
    spec = "quantize(linear, block=16, double=true)"
    peftc.compile(model, f"{spec} + lora(q, v, r=3)")
    decoded_twin(model, base)
    peftc.compile(base, "lora(q, v, r=3)")
    noise(model)
    noise(base)
    found = [first_of(one(**inputs(family))) for one in (model, base)]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    for value in found:
        value.square().mean().backward()
    for mine, other in zip(
        trained(model).values(), trained(base).values(), strict=True
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-7)
    assert FAMILIES[family].kind != "pair" or model.peftc.plan.stores


def first_of(output: Any) -> torch.Tensor:
    value: torch.Tensor = output.logits
    return value


def test_a_fused_weight_is_stored_as_a_whole() -> None:
    model = build("gpt2", torch.float32)
    plan = peftc.plan("quantize(q, k, v)", model)
    assert [one.weight for one in plan.stores] == ["transformer.h.0.attn.c_attn.weight"]
    assert plan.stores[0].transposed
    with refused("PEFT345"):
        peftc.plan("quantize(q)", model)


def test_a_router_is_never_stored() -> None:
    model = build("mixtral", torch.float32)
    with refused("PEFT347"):
        peftc.plan("quantize(router)", model)
    plan = peftc.plan("quantize(linear)", model)
    assert not [one for one in plan.stores if "router" in one.weight]


def test_a_tied_head_is_not_stored() -> None:
    model = llama(tie_word_embeddings=True)
    with refused("PEFT303"):
        peftc.plan("quantize(head)", model)


# --- running --------------------------------------------------------------------------


def test_checkpointed_layers() -> None:
    """Weights in codes have no planned step, so the other model has none either."""
    model, dense = pair(backend="plain")
    ids = tokens()
    for one in (model, dense):
        one.gradient_checkpointing_enable()
        one.train()(input_ids=ids, labels=ids).loss.backward()
    for mine, other in zip(
        trained(model).values(), trained(dense).values(), strict=True
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-8)


def test_the_other_backend() -> None:
    model, dense = pair(backend="aot_eager")
    ids = tokens()
    losses = [one(input_ids=ids, labels=ids).loss for one in (model, dense)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for mine, other in zip(
        trained(model).values(), trained(dense).values(), strict=True
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_products_in_another_type() -> None:
    """`compute` rounds the weight and the product, and gives back the type of x."""
    model, dense = pair(
        "quantize(linear, compute=bfloat16, block=16) + lora(q, v, r=3)"
    )
    got, wanted = logits(model), logits(dense)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.02)
    assert not torch.equal(got, wanted)


@pytest.mark.slow
def test_it_keeps_its_promises() -> None:
    model = llama()
    peftc.compile(model, BOTH)
    checks = model.peftc.verify()
    assert {c.name for c in checks if c.verdict != "ok"} == set()


def test_the_plan_reads_back() -> None:
    from peftc.plan.parse import parse_plan
    from peftc.plan.print import plan_text

    plan = peftc.plan(f"{BOTH} + quantize(head, kind=int8)", llama())
    assert parse_plan(plan_text(plan)) == plan
    assert plan.stores[-1].form == "int8(compute=base)"


def test_codes_that_a_graph_was_not_given() -> None:
    """A part of a model that reads a weight from elsewhere cannot decode it."""
    plan = peftc.plan("quantize(q)", llama())
    graph = fx.Graph()
    weight = graph.placeholder("weight")
    graph.output((graph.call_function(torch.relu, (weight,)),))
    capture = Capture(graph, {}, {}, {}, {weight: plan.stores[0].weight})
    with refused("PEFT450"):
        decode_storage(capture, plan)
