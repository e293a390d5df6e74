"""Nothing is kept and nothing runs backward below the lowest site that is trained.

What autograd keeps is counted by hooks, what runs backward by the nodes of its graph;
both must not depend on how many layers lie below.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftc
from tests.numerics.runtime.tiny import llama, tokens


def backward_nodes(loss: torch.Tensor) -> int:
    """How many nodes a backward visits."""
    assert loss.grad_fn is not None
    seen, todo = {loss.grad_fn}, [loss.grad_fn]
    while todo:
        for node, _ in todo.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                todo.append(node)
    return len(seen)


def step(model: Any, **more: Any) -> tuple[int, int, Any]:
    """Bytes that are kept for the backward beside parameters, its nodes, the result.

    A first run is not looked at, because it captures.
    """
    fixed = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = tokens(4, 16)
    model(input_ids=ids, labels=ids, use_cache=False, **more)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = model(input_ids=ids, labels=ids, use_cache=False, **more)
    nodes = backward_nodes(result.loss)
    result.loss.backward()
    return sum(kept.values()), nodes, result


LAST = {
    "lora(q, up, r=2) @ layers({last})": ("eager", "plain", "aot_eager"),
    "prefix(k, v, p=2) @ layers({last})": ("eager",),
    "adapter(ffn, d=4) @ layers({last})": ("eager",),
    "lora(head, r=2)": ("plain",),
}


@pytest.mark.parametrize(
    ("spec", "backend"), [(spec, one) for spec, names in LAST.items() for one in names]
)
def test_layers_below_cost_nothing(spec: str, backend: str) -> None:
    shallow, deep = (costs(spec, backend, layers) for layers in (2, 4))
    assert deep == shallow


def costs(spec: str, backend: str, layers: int) -> tuple[int, int]:
    model = llama(layers=layers).train()
    peftc.compile(model, spec.format(last=layers - 1), backend=backend)
    return step(model)[:2]


def test_what_is_counted_grows_with_layers_that_are_trained() -> None:
    shallow, deep = (costs("lora(q, up, r=2)", "eager", layers) for layers in (2, 4))
    assert deep[0] > 1.5 * shallow[0]
    assert deep[1] > 1.5 * shallow[1]


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize(
    ("spec", "lowest"),
    [
        ("lora(q, r=2) @ layers(1)", 2),
        ("prefix(k, v, p=2) @ layers(1)", 2),
        ("prompt(p=2)", 0),
    ],
)
def test_hidden_states_need_gradients_from_the_lowest_site_on(
    spec: str, lowest: int, every: int
) -> None:
    model = llama(layers=3).train()
    peftc.compile(model, spec, checkpoint_every=every)
    *_, result = step(model, output_hidden_states=True)
    needs = [state.grad_fn is not None for state in result.hidden_states]
    assert needs == [False] * lowest + [True] * (4 - lowest)


def test_given_embeddings_get_gradients_only_if_they_ask() -> None:
    model = llama(layers=2).train()
    peftc.compile(model, "lora(q, r=2) @ layers(1)")
    embedded = model.get_input_embeddings()(tokens()).detach()
    given: Any = {"labels": tokens(), "output_hidden_states": True}
    result = model(inputs_embeds=embedded, **given)
    assert [state.requires_grad for state in result.hidden_states] == [
        *(False, False, True)
    ]
    asking = embedded.clone().requires_grad_(True)
    model(inputs_embeds=asking, **given).loss.backward()
    assert asking.grad is not None
    assert (asking.grad[:, :-1] != 0).all()  # the last token has no label


def test_asking_for_gradients_of_the_input_keeps_nothing_below() -> None:
    """`enable_input_require_grads` is for reentrant checkpointing; none is used."""
    model = llama(layers=2).train()
    peftc.compile(model, "lora(q, up, r=2) @ layers(1)")
    before = step(model)[:2]
    model.enable_input_require_grads()
    assert step(model)[:2] == before
