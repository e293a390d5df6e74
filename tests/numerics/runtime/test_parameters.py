"""Attaching parameters: where they live, that errors change nothing, and going back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from peftc.plan.types import AddedTensor, Application, Rewrite
from peftc.runtime.names import attribute
from peftc.runtime.parameters import attach, detach, tensor_dtype
from tests.numerics.runtime.tiny import (
    added,
    assert_same,
    compiled,
    llama,
    logits,
    plan_for,
    refused,
    snapshot,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from peftc.plan.types import Plan

Q = "model.layers.0.self_attn.q_proj"


def with_site(plan: Plan, **changes: Any) -> Plan:
    """The plan with other facts of its first site."""
    first, *rest = plan.rewrites
    changed = replace(first, site=replace(first.site, **changes))
    return replace(plan, rewrites=(changed, *rest))


def with_tensors(plan: Plan, *names: str, **facts: Any) -> Plan:
    """The plan with these tensors at every site."""
    tensors = tuple(AddedTensor(n, (2, 3), "param", "0", **facts) for n in names)
    rewrites = tuple(
        Rewrite(r.site, (Application("m", "m", 0, (), tensors),)) for r in plan.rewrites
    )
    return replace(plan, rewrites=rewrites)


def test_names_shapes_and_flags() -> None:
    model = llama(layers=1)
    base = {name for name, _ in model.named_parameters()}
    attach(model, plan_for(model))
    found = {name: tuple(p.shape) for name, p in added(model)}
    assert found == {
        f"{Q}.peftc.q.low.A": (2, 32),
        f"{Q}.peftc.q.low.B": (32, 2),
        "model.layers.0.self_attn.v_proj.peftc.v.low.A": (2, 32),
        "model.layers.0.self_attn.v_proj.peftc.v.low.B": (16, 2),
    }
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert flags == {name: name in found for name in base | found.keys()}
    assert base | found.keys() == model.state_dict().keys()


def test_detach_gives_the_base_back() -> None:
    model = llama(layers=1)
    model.model.norm.weight.requires_grad_(False)
    before = snapshot(model)
    attached = attach(model, plan_for(model))
    detach(model, attached)
    assert_same(snapshot(model), before)


def test_remove_gives_the_base_back_with_everything_that_compiling_set() -> None:
    model = llama(layers=1)
    before, said = snapshot(model), logits(model)
    handle = compiled(model)
    entry = model.forward
    assert not torch.equal(logits(model), said)
    handle.remove()
    assert_same(snapshot(model), before)
    assert torch.equal(logits(model), said)
    with torch.no_grad():
        assert torch.equal(
            entry(input_ids=tokens()).logits,
            model(input_ids=tokens()).logits,
        )
    compiled(model)
    assert not torch.equal(logits(model), said)


def test_remove_keeps_a_forward_that_the_instance_had() -> None:
    model = llama(layers=1)
    own = model.forward
    model.forward = lambda *args, **kwargs: own(*args, **kwargs)
    mine, said = model.forward, logits(model)
    handle = compiled(model)
    assert not torch.equal(logits(model), said)
    handle.remove()
    assert model.forward is mine


# --- errors leave the model as it was ---------------------------------------------


def check(plan_of: Any, *codes: str, model: Any = None) -> None:
    model = model if model is not None else llama(layers=1)
    before = snapshot(model)
    with refused(*codes):
        compiled(model, plan=plan_of(plan_for(model)))
    assert_same(snapshot(model), before)


def test_all_that_does_not_fit_is_told_at_once() -> None:
    def misfit(plan: Plan) -> Plan:
        one, other = plan.rewrites
        return replace(
            plan,
            rewrites=(
                replace(one, site=replace(one.site, sizes=(("in", 31), ("out", 32)))),
                replace(other, site=replace(other.site, owner="model.no.where")),
            ),
        )

    check(misfit, "PEFT613", "PEFT613")


def test_a_missing_weight() -> None:
    check(lambda p: with_site(p, weight=f"{Q}.kernel"), "PEFT613")


def test_rows_beyond_the_weight() -> None:
    check(lambda p: with_site(p, rows=((0, 16), (20, 40))), "PEFT613")


@pytest.mark.parametrize("owner", ["", "model.layers"])
def test_owners_that_cannot_take_a_child(owner: str) -> None:
    check(lambda p: with_site(p, owner=owner), "PEFT612")


def test_an_owner_with_a_child_of_that_name() -> None:
    model = llama(layers=1)
    model.get_submodule(Q).add_module("peftc", nn.Identity())
    check(lambda p: p, "PEFT612", model=model)


def test_two_names_that_become_one_path() -> None:
    check(lambda p: with_tensors(p, "m#2.A", "m_2.A"), "PEFT612", "PEFT612")


def test_a_model_that_is_compiled_already() -> None:
    model = llama(layers=1)
    handle = compiled(model)
    with refused("PEFT610"):
        compiled(model)
    assert model.peftc is handle
    handle.remove()
    model.compile(backend="eager")
    with refused("PEFT610"):
        compiled(model)
    parts = llama(layers=1)
    parts.model.layers[0] = torch.compile(parts.model.layers[0], backend="eager")
    with refused("PEFT610"):
        compiled(parts)


def test_a_sharded_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftc.runtime.fit.DTensor", nn.Parameter)
    check(lambda p: p, "PEFT611")


def test_an_unknown_backend() -> None:
    model = llama(layers=1)
    before = snapshot(model)
    with refused("PEFT607"):
        compiled(model, backend="inducter")
    assert_same(snapshot(model), before)


def test_an_error_while_values_are_made_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def out_of_memory(*args: Any) -> torch.Tensor:
        raise MemoryError

    model = llama(layers=1)
    before = snapshot(model)
    monkeypatch.setattr("peftc.runtime.parameters.initial_value", out_of_memory)
    with pytest.raises(MemoryError):
        compiled(model)
    assert_same(snapshot(model), before)


# --- kinds of tensors ----------------------------------------------------------------


def test_a_shared_tensor_is_one_parameter_in_each_place() -> None:
    model = llama(layers=1)
    plan = with_tensors(plan_for(model), "m.A", shared="m:1/A/2x3")
    attach(model, plan)
    slots = [
        model.get_parameter(f"{r.site.owner}.peftc.{r.site.role}.m.A")
        for r in plan.rewrites
    ]
    assert slots[0] is slots[1]
    assert len(list(added(model))) == 1
    assert plan.trainable == sum(p.numel() for _, p in added(model)) == 6


def test_a_shared_tensor_on_two_devices_is_refused() -> None:
    model = llama(layers=1)
    model.get_submodule(Q).to("meta")
    plan = with_tensors(plan_for(model), "m.A", shared="m:1/A/2x3")
    with refused("PEFT614"):
        attach(model, plan)


def test_scattered_rows_have_their_numbers_in_a_buffer_that_is_not_saved() -> None:
    model = llama(layers=1)
    sizes = (("in", 32), ("out", 12))
    plan = with_site(plan_for(model), rows=((0, 8), (16, 20)), sizes=sizes)
    attach(model, plan)
    rows = model.get_buffer(f"{Q}.peftc.q.rows")
    assert rows.tolist() == [*range(8), *range(16, 20)]
    assert f"{Q}.peftc.q.rows" not in model.state_dict()


def test_one_range_of_rows_needs_no_numbers() -> None:
    model = llama(layers=1)
    plan = with_site(plan_for(model), rows=((0, 8),), sizes=(("in", 32), ("out", 8)))
    attach(model, plan)
    assert not list(model.get_submodule(Q).peftc.buffers())


def test_a_buffer_gets_no_gradient() -> None:
    model = llama(layers=1)
    plan = plan_for(model)
    first, *rest = plan.rewrites
    tensors = (AddedTensor("m.S", (2, 2), "buffer", "normal(1)"),)
    held = replace(first, applications=(Application("m", "m", 0, (), tensors),))
    attach(model, replace(plan, rewrites=(held, *rest)))
    buffer = model.get_buffer(f"{Q}.peftc.q.m.S")
    assert not isinstance(buffer, nn.Parameter)
    assert f"{Q}.peftc.q.m.S" not in model.state_dict()  # it is drawn again


def test_names_that_torch_uses_itself() -> None:
    model = llama(layers=1)
    attach(model, with_tensors(plan_for(model), "half.train", "rows.A", "m.type"))
    paths = {name.removeprefix(f"{Q}.") for name, _ in added(model) if Q in name}
    assert paths == {"peftc.q.half_.train_", "peftc.q.rows_.A", "peftc.q.m.type_"}
    reserved = [name for name in dir(nn.Module()) if not name.startswith("_")]
    assert [name for name in reserved if attribute(name) == name] == []


@pytest.mark.parametrize(
    ("rule", "base", "expected"),
    [
        ("auto", torch.bfloat16, torch.float32),
        ("auto", torch.float16, torch.float32),
        ("auto", torch.float32, torch.float32),
        ("auto", torch.float64, torch.float64),
        ("auto", torch.int8, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
    ],
)
def test_dtype_of_new_tensors(
    rule: str, base: torch.dtype, expected: torch.dtype
) -> None:
    assert tensor_dtype(rule, base) == expected


def test_on_the_meta_device_nothing_is_allocated() -> None:
    with torch.device("meta"):
        model = llama(layers=1)
    attach(model, plan_for(model))
    assert all(p.is_meta for _, p in added(model))


def test_values_do_not_depend_on_other_sites_or_on_the_device_of_the_default() -> None:
    wide, narrow = llama(layers=1), llama(layers=1)
    attach(wide, plan_for(wide, ("q", "k", "v")))
    with torch.device("meta"):
        attach(narrow, plan_for(narrow, ("q",)))
    name = f"{Q}.peftc.q.low.A"
    assert torch.equal(wide.get_parameter(name), narrow.get_parameter(name))


def test_twins_start_alike() -> None:
    base = llama(layers=1)
    one, other = twin(base), twin(base)
    compiled(one)
    compiled(other)
    for (name, a), (_, b) in zip(added(one), added(other), strict=True):
        assert torch.equal(a, b), name
