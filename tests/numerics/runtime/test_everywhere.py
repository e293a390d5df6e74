"""A compiled model runs wherever its base runs, and says what hooks make it say."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import peftc
from tests.numerics.runtime.tiny import (
    added,
    bart,
    compiled,
    hooked,
    llama,
    logits,
    t5,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def small() -> Any:
    return llama(layers=1)


MAKERS: dict[str, Callable[[], Any]] = {"llama": small, "t5": t5, "bart": bart}
FAMILIES = [
    "llama",
    pytest.param("t5", marks=pytest.mark.slow),
    pytest.param("bart", marks=pytest.mark.slow),
]


def inputs(model: Any, rows: int = 2, columns: int = 6) -> dict[str, torch.Tensor]:
    given = {"input_ids": tokens(rows, columns)}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = tokens(rows, columns + 1)
    return given


def tensors(output: Any) -> list[torch.Tensor]:
    """All tensors of an output, in order."""
    parts = output.to_tuple() if hasattr(output, "to_tuple") else output
    return [leaf for leaf in tree_leaves(parts) if isinstance(leaf, torch.Tensor)]


def agree(model: Any, reference: Any, call: Callable[[Any], Any]) -> None:
    with torch.no_grad():
        mine, expected = tensors(call(model)), tensors(call(reference))
    assert len(mine) == len(expected) > 0
    for one, other in zip(mine, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def mask(*hidden: int) -> torch.Tensor:
    """A mask of two rows of six, the first without the tokens at `hidden`."""
    found = torch.ones(2, 6, dtype=torch.long)
    found[0, list(hidden)] = 0
    return found


def causal(dtype: torch.dtype) -> torch.Tensor:
    """A causal mask over all heads, in which a token also misses the one before it."""
    seen = torch.ones(6, 6).tril().bool() & ~torch.diag(torch.ones(5), -1).bool()
    if dtype == torch.bool:
        return seen.expand(2, 1, 6, 6)
    return torch.zeros(2, 1, 6, 6).masked_fill(~seen, torch.finfo(dtype).min)


CALLS: dict[str, dict[str, Any]] = {
    "left padding": {"attention_mask": mask(0, 1)},
    "right padding": {"attention_mask": mask(4, 5)},
    "states": {"output_hidden_states": True},
    "tuple": {"return_dict": False},
    "cache": {"use_cache": True},
}
DECODER_CALLS: dict[str, dict[str, Any]] = {
    "additive mask": {"attention_mask": causal(torch.float32)},
    "boolean mask": {"attention_mask": causal(torch.bool)},
    "positions": {"position_ids": torch.arange(6)[None] + 3},
    "positions of each row": {"position_ids": torch.arange(12).view(2, 6)},
    "last logits": {"logits_to_keep": 1},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_calls(family: str) -> None:
    base = MAKERS[family]()
    model = twin(base)
    compiled(model)
    reference = hooked(twin(base), model)
    for options in (CALLS | (DECODER_CALLS if family == "llama" else {})).values():
        agree(model, reference, lambda m: m(**inputs(m), **options))  # noqa: B023
    agree(model, reference, lambda m: m(input_ids=tokens(), labels=tokens()))
    for one in (model, reference):
        one.set_attn_implementation("eager")
    agree(model, reference, lambda m: m(**inputs(m), output_attentions=True))


PARTS: dict[str, Callable[[Any], Any]] = {
    "encoder": lambda model: model.get_encoder(),
    "decoder": lambda model: model.get_decoder(),
    "base": lambda model: model.base_model,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_parts(family: str) -> None:
    base = MAKERS[family]()
    model = twin(base)
    compiled(model)
    reference = hooked(twin(base), model)
    for part in PARTS.values():
        given = inputs(model) if part(model).config.is_encoder_decoder else {}
        if part(model) in (model.get_encoder(), model.get_decoder()):
            given = {"input_ids": tokens()}
        agree(model, reference, lambda m: part(m)(**given))  # noqa: B023


def test_a_hook_that_gives_out_a_value_hides_no_linear() -> None:
    """With the last states as an output, the head looks like a pooler."""
    model = small()
    peftc.compile(model, "lora(head, r=2)")
    with torch.no_grad():
        for _, parameter in added(model):
            parameter.add_(0.5)
    said = logits(model)
    states = []
    model.model.norm.register_forward_hook(lambda *given: states.append(given[2]))
    assert torch.equal(logits(model), said)
    assert states[0].shape == (2, 6, 32)


# --- dtypes, gradients, modes --------------------------------------------------------


def gradients(model: Any, like: Any) -> dict[str, torch.Tensor | None]:
    """The gradients of the adapters of `like` after one step of `model`."""
    like.zero_grad()
    torch.manual_seed(7)
    model(**inputs(model), labels=inputs(model).popitem()[1]).loss.backward()
    found = {name: parameter.grad for name, parameter in added(like)}
    like.zero_grad()
    return found


def same_gradients(model: Any, reference: Any, rtol: float, atol: float) -> None:
    mine, expected = gradients(model, model), gradients(reference, model)
    for name, one in mine.items():
        other = expected[name]
        assert (one is None) == (other is None), name
        if one is not None and other is not None:
            assert torch.any(one != 0)
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("saving", [False, True], ids=["plain", "checkpointed"])
def test_gradients_reach_every_adapter_in_mixed_precision(
    family: str, saving: bool
) -> None:
    base = MAKERS[family]().train()
    model = twin(base)
    compiled(model, roles=("q", "k", "v"))
    reference = hooked(twin(base).requires_grad_(False), model)
    if saving:
        model.activation_checkpointing_enable()
    same_gradients(model, reference, rtol=0, atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        same_gradients(model, reference, rtol=0.05, atol=2e-3)
    model.to(torch.bfloat16)
    reference.to(torch.bfloat16)
    same_gradients(model, reference, rtol=0.05, atol=2e-3)


def test_flags_of_adapters_are_followed_both_ways() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    reference = hooked(twin(base).requires_grad_(False), model)
    names = [name for name, _ in added(model)]
    for frozen in ((), names[:2], names[2:], ()):
        for name, parameter in added(model):
            parameter.requires_grad_(name not in frozen)
        same_gradients(model, reference, rtol=0, atol=0)


def test_dtypes_and_back() -> None:
    model = small()
    handle = compiled(model)
    first = logits(model)
    assert logits(model.to(torch.float64)).dtype == torch.float64
    assert torch.equal(logits(model.to(torch.float32)), first)
    assert handle.captures.count == 2
    model.to("meta")
    # Dynamo makes the empty cache of Transformers no fake tensor on this device.
    found = logits(model, tokens().to("meta"), use_cache=False)
    assert found.is_meta
    assert found.shape == first.shape
    assert handle.captures.count == 3


# --- how many graphs ---------------------------------------------------------------


def counts(model: Any, shapes: Sequence[tuple[int, int]]) -> list[int]:
    """How many graphs there are after each call."""
    found = []
    for shape in shapes:
        with torch.no_grad():
            model(**inputs(model, *shape))
        found.append(model.peftc.captures.count)
    return found


@pytest.mark.parametrize("family", FAMILIES[:2])
def test_a_shape_is_captured_once_for_any_size_and_once_for_one(family: str) -> None:
    model = MAKERS[family]()
    compiled(model)
    assert counts(model, [(2, 6), (3, 6), (3, 9)]) == [1, 2, 3]
    assert counts(model, [(4, 7), (5, 12), (7, 30), (2, 6)]) == [3] * 4
    assert counts(model, [(1, 6), (1, 11), (6, 13)]) == [4] * 3


def test_what_varies_in_one_model_does_not_in_another() -> None:
    for _ in range(2):
        model = small()
        compiled(model)
        assert counts(model, [(2, 6), (3, 9), (4, 12)]) == [1, 2, 2]


@pytest.mark.parametrize("family", FAMILIES[:2])
def test_a_mode_is_captured_once(family: str) -> None:
    model = MAKERS[family]()
    handle = compiled(model)
    for _ in range(2):
        for train in (True, False):
            model.train(train)
            for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
                with mode():
                    model(**inputs(model))
        assert handle.captures.count == 6
    for dtype in (torch.float64, torch.float32, torch.float64):
        counts(model.to(dtype), [(2, 6)])
    assert handle.captures.count == 7


# --- many models, threads, copies ----------------------------------------------------


@pytest.mark.slow
def test_twenty_models_are_themselves() -> None:
    base = small()
    models = [twin(base) for _ in range(20)]
    for index, model in enumerate(models):
        compiled(model)
        with torch.no_grad():
            for _, parameter in added(model):
                parameter.mul_(1 + index / 20)
    said = [logits(model) for model in models]
    for model, one in zip(models, said, strict=True):
        assert torch.equal(one, logits(hooked(twin(base), model)))
        assert torch.equal(one, logits(model))
        assert model.peftc.captures.count == 1
    assert len({one.sum().item() for one in said}) == 20


def in_threads(work: Sequence[Callable[[], None]]) -> None:
    """Run all at once; an error of any of them is raised here."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:  # raised below, in the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_four_models_train_in_four_threads() -> None:
    base = small()
    models = [twin(base) for _ in range(4)]
    for model in models:
        compiled(model)
    references = [hooked(twin(base).requires_grad_(False), m) for m in models]
    mine: dict[int, Any] = {}

    def train(index: int) -> None:
        mine[index] = gradients(models[index], models[index])

    in_threads([lambda i=i: train(i) for i in range(4)])  # type: ignore[misc]
    for index, model in enumerate(models):
        for name, expected in gradients(references[index], model).items():
            assert expected is not None
            assert torch.equal(mine[index][name], expected)


def test_one_model_speaks_in_four_threads() -> None:
    base = small()
    model = twin(base)
    compiled(model)
    expected = logits(hooked(twin(base), model))
    found: list[torch.Tensor] = []
    in_threads([lambda: found.append(logits(model))] * 4)
    assert len(found) == 4
    assert all(torch.equal(one, expected) for one in found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "remade", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_and_their_parts(family: str, remade: Callable[[Any], Any]) -> None:
    base = MAKERS[family]()
    model = twin(base)
    compiled(model)
    other = remade(model)
    with torch.no_grad():
        for _, parameter in added(other):
            parameter.mul_(-1)
    for one in (model, other):
        reference = hooked(twin(base), one)
        agree(one, reference, lambda m: m(**inputs(m)))
        given = {"input_ids": tokens()}
        agree(one, reference, lambda m: m.get_encoder()(**given))  # noqa: B023
