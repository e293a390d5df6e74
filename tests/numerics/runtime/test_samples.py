"""One batch, an adapter for each row: as if each had run with its own alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import XLNetConfig, XLNetLMHeadModel

import peftc.runtime.several
from peftc.diagnostics.core import PeftcError
from peftc.expr.program import Program
from peftc.rewrite.samples import Samples, check_apart
from tests.capturing import step
from tests.numerics.runtime.test_adapter_slots import several
from tests.numerics.runtime.tiny import llama, refused, t5, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SPEC = "lora(q, v, r=2) + parallel(ffn, d=3)"
SPECS = [
    SPEC,
    "dora(q, o, r=2) + ia3(k, ffn)",
    "gate(lora(q, v, r=2))",
    "loha(v, r=2) + vera(q, o, r=4)",
    "quantize(linear, kind=int8) + dora(q, v, r=2)",
]
MIXED = ("1", "2", None, "1")


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1).double()


@pytest.fixture(scope="module")
def model(base: Any) -> Any:
    return several(base, 1, 2, 3, 4, spec=SPEC)


def alone(model: Any, names: Sequence[str | None], run: Callable[[int], Any]) -> Any:
    """What each row gives by itself, with its own adapter."""
    found = []
    for row, name in enumerate(names):
        with model.peftc.slots.using(name):
            found.append(run(row))
    return torch.cat(found)


def together(model: Any, names: Sequence[str | None], ids: torch.Tensor) -> Any:
    with model.peftc.slots.rows(names):
        return model(input_ids=ids).logits


def check(model: Any, names: Sequence[str | None], **inputs: Any) -> None:
    def row(number: int) -> Any:
        own = {name: value[number : number + 1] for name, value in inputs.items()}
        return model(**own).logits

    with torch.no_grad(), model.peftc.slots.rows(names):
        got = model(**inputs).logits
    with torch.no_grad():
        torch.testing.assert_close(got, alone(model, names, row), rtol=0, atol=1e-12)
        moved = (got - model(**inputs).logits).abs().amax((1, 2)) > 1e-3
    assert moved.tolist() == [name is not None for name in names]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.partition("(")[0])
def test_each_row_is_as_if_alone(base: Any, spec: str) -> None:
    check(several(base, 1, 2, spec=spec), MIXED, input_ids=tokens(4))


def test_a_row_without_an_adapter_has_the_bits_of_the_base(model: Any) -> None:
    ids = tokens(4)
    with torch.no_grad(), model.peftc.disabled():
        expected = model(input_ids=ids).logits
    assert torch.equal(together(model, MIXED, ids)[2], expected[2])
    assert torch.equal(together(model, [None] * 4, ids), expected)


def test_other_rows_are_no_other_graph(model: Any) -> None:
    ids = tokens(4)
    with torch.no_grad():
        together(model, ("1", "2", "1", "2"), ids)
        together(model, ("1", "2", None, "2"), ids)
        captured = model.peftc.captures.count
        for names in (
            ("3", "4", "4", "3"),
            (None, "4", "1", None),
            ("1", "2", "3", "4"),
        ):
            together(model, names, ids)
    assert model.peftc.captures.count == captured


def test_what_is_loaded_and_not_used_costs_nothing(
    base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    stacks = peftc.runtime.several._stacks

    def measured(*args: Any) -> Any:
        made = stacks(*args)
        sizes.append(sum(one.numel() for one in made))
        return made

    monkeypatch.setattr(peftc.runtime.several, "_stacks", measured)
    for loaded in ((1, 2), (1, 2, 3, 4, 5, 6)):
        model = several(base, *loaded)
        with torch.no_grad(), model.peftc.slots.rows(["1", "2"]):
            for _ in range(3):
                model(input_ids=tokens(2))
    few, many = sizes  # once in each block, however often the model runs
    assert few == many > 0


def test_new_values_are_seen_inside_the_block(base: Any) -> None:
    model, ids = several(base, 1), tokens(2)
    with torch.no_grad(), model.peftc.slots.rows(["1", "1"]):
        before = model(input_ids=ids).logits
        for tensor in model.peftc.slots.tensors("1").values():
            tensor.mul_(2)
        after = model(input_ids=ids).logits
    assert not torch.equal(before, after)


def test_each_adapter_learns_from_its_rows(model: Any) -> None:
    ids, names = tokens(4), ("1", "2", "1", None)
    slots = model.peftc.slots

    def gradients(name: str) -> list[torch.Tensor]:
        found = [tensor.grad for tensor in slots.tensors(name).values()]
        for tensor in slots.tensors(name).values():
            tensor.grad = None
        return [g for g in found if g is not None]

    with slots.rows(names):
        model(input_ids=ids).logits.square().sum().backward()
    got = {name: gradients(name) for name in ("1", "2", "3")}
    rows = alone(model, names[:3], lambda i: model(input_ids=ids[i : i + 1]).logits)
    rows.square().sum().backward()
    assert not got["3"]
    for name in ("1", "2"):
        torch.testing.assert_close(got[name], gradients(name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation(model: Any, beams: int) -> None:
    ids, mask = tokens(4), torch.ones(4, 6, dtype=torch.long)
    mask[0, :2] = 0
    how = {"max_new_tokens": 4, "do_sample": False, "num_beams": beams}

    def row(i: int) -> Any:
        given = {"attention_mask": mask[i : i + 1], **how}
        return model.generate(ids[i : i + 1], **given)

    with model.peftc.slots.rows(MIXED):
        got = model.generate(ids, attention_mask=mask, **how)
    assert torch.equal(got, alone(model, MIXED, row))


@pytest.mark.slow
def test_an_encoder_and_its_decoder() -> None:
    model, ids = several(t5().double(), 1, 2, spec="lora(q, v, r=2)"), tokens(4)
    check(model, MIXED, input_ids=ids, decoder_input_ids=tokens(4, 3))
    how = {"max_new_tokens": 4, "do_sample": False}
    with model.peftc.slots.rows(MIXED):
        got = model.generate(ids, **how)
    one = alone(model, MIXED, lambda i: model.generate(ids[i : i + 1], **how))
    assert torch.equal(got, one)


def test_behind_a_compiler(base: Any) -> None:
    check(several(base, 1, 2, backend="aot_eager"), MIXED, input_ids=tokens(4))


# --- refusals -----------------------------------------------------------------------


def run(model: Any, *names: str | None) -> None:
    with model.peftc.slots.rows(names):
        model(input_ids=tokens(2))


def test_what_cannot_be_is_said(model: Any) -> None:
    with refused("PEFT650"):
        run(model, "1", "9")
    with refused("PEFT652"):
        run(model, "1", "2", "1")


def test_what_all_samples_share(base: Any) -> None:
    model = several(base, 1, spec="prefix(p=2) + prompt(p=2)")
    with pytest.raises(PeftcError) as caught:
        run(model, "1", "1")
    assert [d.code for d in caught.value.diagnostics] == ["PEFT653"] * 2
    assert "<spec>:1:1" in str(caught.value)


def samples(number: torch.Tensor) -> Samples:
    return Samples(with_value(number), None, rank=2, separate=True)


def with_value(value: torch.Tensor) -> Any:
    node = torch.fx.Graph().placeholder("value")
    node.meta["example_value"] = value
    return node


def test_values_that_samples_do_not_lead() -> None:
    numbers, turned = torch.zeros(3, dtype=torch.long), torch.zeros(5, 3, 8)
    samples(numbers).check(with_value(turned.transpose(0, 1)), "site")
    with refused("PEFT458"):
        samples(numbers).check(with_value(turned), "site")


def test_equations_that_mix_samples() -> None:
    mean = step("%0", "ein", "x", 8, spec="bti->ti")
    own = step("%0", "ein", "x", 8, spec="bti->bi")
    check_apart(Program("y", (), (own,), "%0"), "site")
    with refused("PEFT459"):
        check_apart(Program("y", (), (mean,), "%0"), "site")


def test_as_many_tokens_as_samples() -> None:
    """XLNet turns tokens and samples round; their sizes may not tell."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {"vocab_size": 64, "d_model": 16, "d_inner": 24}
    turned = XLNetLMHeadModel(XLNetConfig(n_layer=1, n_head=2, **facts)).eval()
    model = several(turned, 1, 2, spec="lora(up, r=2)")
    with refused("PEFT458"), torch.no_grad(), model.peftc.slots.rows(["1", "2", "1"]):
        model(input_ids=tokens(3, 3))


def test_as_many_tokens_as_samples_where_these_lead(model: Any) -> None:
    check(model, MIXED, input_ids=tokens(4, 4))
