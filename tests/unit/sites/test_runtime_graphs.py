"""Graphs that a running model captures hold the sites of its view, under equal keys:
with dynamic sizes, labels, masks and caches.  Finding them adds no guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.sites.capture import ties
from peftc.sites.locate import locate
from peftc.sites.view import model_view
from tests.capturing import parameter_names
from tests.families.cases import model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

pytestmark = pytest.mark.slow


def guards(graph: fx.Graph) -> int:
    """How many guards on sizes there are."""
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta["example_value"]
        if isinstance(value, torch.SymInt):
            return len(value.node.shape_env.guards)
    raise AssertionError("no dynamic size")


class Running:
    """A compiled model that notes the sites of each graph it captures."""

    def __init__(self, made: Any) -> None:
        self.made = made
        self.keys: list[set[str]] = []
        torch._dynamo.reset()
        self.run: Any = torch.compile(
            made, backend=self.backend, fullgraph=True, dynamic=True
        )

    def backend(self, gm: fx.GraphModule, _: object) -> Callable[..., Any]:
        before = guards(gm.graph)
        names = parameter_names(gm.graph, self.made)
        found = locate(gm.graph, names, ties(self.made))
        assert guards(gm.graph) == before
        self.keys.append({one.site.key for one in found})
        return gm.forward


def tokens(length: int = 9) -> torch.Tensor:
    return torch.randint(3, 96, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "phi3", "cohere", "falcon-alibi"]
)
def test_training_prefill_and_decoding(family: str) -> None:
    made = model(family, device="cpu")
    wanted = {site.key for site in model_view(made).sites}
    running = Running(made)
    ids = tokens()
    running.run(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    with torch.no_grad():
        cache = running.run(input_ids=ids, use_cache=True).past_key_values
        running.run(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
    assert running.keys == [wanted] * 3


def test_decoding_over_a_cached_encoder_holds_what_it_computes() -> None:
    made = model("t5", device="cpu")
    sites = model_view(made).sites
    running = Running(made)
    ids = tokens()
    with torch.no_grad():
        states = made.get_encoder()(ids)
        first = running.run(
            encoder_outputs=states, decoder_input_ids=ids[:, :4], use_cache=True
        )
        running.run(
            encoder_outputs=states,
            decoder_input_ids=ids[:, :1],
            past_key_values=first.past_key_values,
            use_cache=True,
        )
    mine = {s.key for s in sites if s.stack == "dec"}
    cached = {s.key for s in sites if s.cross and s.role in ("k", "v")}
    prefill, step = running.keys
    assert mine <= prefill
    assert mine - step == cached


def test_a_classifier_with_labels_and_every_input() -> None:
    made = model("bert-classifier", device="cpu")
    wanted = {s.key for s in model_view(made).sites if s.kind != "embedding"}
    running = Running(made)
    ids = tokens()
    running.run(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        labels=torch.tensor([0, 1]),
    )
    assert wanted <= running.keys[0]
