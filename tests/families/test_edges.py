"""Edges are where the modules say: a graph edited there equals a model with hooks.

The hooks sit at the places of the field reference: after the dropout, after a norm
that follows the sublayer, on each branch of a parallel block, on the combined output
of experts.  They add a constant and a part of what the sublayer reads.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.sites.anchors import HiddenAnchor, Located
from peftc.sites.locate import locate
from tests.capturing import parameter_names
from tests.families.cases import LAYERS, model, slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

PART = 0.25
"""How much of the tap is added."""

PLACES = {
    ("llama", "attn"): ("model.layers.{i}.self_attn.o_proj", "self_attn.q_proj"),
    ("llama", "ffn"): ("model.layers.{i}.mlp.down_proj", "mlp.up_proj"),
    ("gpt2", "attn"): ("transformer.h.{i}.attn.resid_dropout", "attn.c_attn"),
    ("gpt2", "ffn"): ("transformer.h.{i}.mlp.dropout", "mlp.c_fc"),
    ("bert-classifier", "attn"): (
        "bert.encoder.layer.{i}.attention.output.dropout",
        "attention.self.query",
    ),
    ("bert-classifier", "ffn"): (
        "bert.encoder.layer.{i}.output.dropout",
        "intermediate.dense",
    ),
    ("gemma2", "attn"): (
        "model.layers.{i}.post_attention_layernorm",
        "self_attn.q_proj",
    ),
    ("gemma2", "ffn"): ("model.layers.{i}.post_feedforward_layernorm", "mlp.up_proj"),
    ("gpt-neox", "attn"): (
        "gpt_neox.layers.{i}.post_attention_dropout",
        "attention.query_key_value",
    ),
    ("gpt-neox", "ffn"): ("gpt_neox.layers.{i}.post_mlp_dropout", "mlp.dense_h_to_4h"),
    ("mixtral", "ffn"): ("model.layers.{i}.mlp", "post_attention_layernorm"),
}
"""The module whose output is the edge, and the one in the layer that reads (of the last
family: gives) the tap."""

BLOCKS = {
    "llama": "model.layers.{i}",
    "bert-classifier": "bert.encoder.layer.{i}",
    "gemma2": "model.layers.{i}",
    "gpt-neox": "gpt_neox.layers.{i}",
}


def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 96, (2, 7), generator=generator)


def constant() -> torch.Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(2))


def edited(made: Any, role: str, *, with_tap: bool) -> torch.Tensor:
    """The logits of a graph in which every edge of a role is changed."""

    def compiler(gm: fx.GraphModule, _: object) -> Callable[..., Any]:
        found = locate(gm.graph, parameter_names(gm.graph, made))
        edges = [one for one in found if one.site.role == role]
        assert len(edges) == LAYERS
        gm.register_buffer("constant", constant())
        for edge in edges:
            change(gm.graph, edge, with_tap)
        gm.graph.lint()
        gm.recompile()
        return gm.forward

    return run(made, compiler)


def change(graph: fx.Graph, edge: Located, with_tap: bool) -> None:
    (anchor,) = edge.anchors
    assert isinstance(anchor, HiddenAnchor)
    readers = [anchor.reader] if anchor.reader else list(anchor.h.users)
    with graph.inserting_after(anchor.h):
        given = graph.get_attr("constant")
    with graph.inserting_after(given):
        new = graph.call_function(operator.add, (anchor.h, given))
    if with_tap:
        assert anchor.u is not None
        with graph.inserting_after(new):
            part = graph.call_function(operator.mul, (anchor.u, PART))
        with graph.inserting_after(part):
            new = graph.call_function(operator.add, (new, part))
    for reader in readers:
        reader.replace_input_with(anchor.h, new)


def hooked(made: Any, place: str, tap: str) -> torch.Tensor:
    """The logits of a model with hooks at `place` of each layer."""
    for layer in range(LAYERS):
        seen: list[torch.Tensor] = []
        path = place.format(i=layer)
        if tap:
            root = path.partition(f".{layer}.")[0]
            listen(made.get_submodule(f"{root}.{layer}.{tap}"), seen)
        made.get_submodule(path).register_forward_hook(adding(seen))
    with torch.no_grad():
        result: torch.Tensor = made(input_ids=tokens()).logits
    return result


def run(made: Any, compiler: Any) -> torch.Tensor:
    """The logits of a model whose graph goes through a backend."""
    torch._dynamo.reset()
    with torch.no_grad():
        compiled: Any = torch.compile(made, backend=compiler, fullgraph=True)
        result: torch.Tensor = compiled(input_ids=tokens()).logits
    return result


def listen(module: Any, seen: list[torch.Tensor]) -> None:
    if "norm" in type(module).__name__.lower():
        module.register_forward_hook(lambda _, __, out: seen.append(out))
    else:
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))


def adding(seen: list[torch.Tensor]) -> Callable[..., Any]:
    def hook(_: object, __: object, out: Any) -> Any:
        value = out[0] if isinstance(out, tuple) else out
        value = value + constant()
        if seen:
            value = value + seen[-1] * PART
        return (value, *out[1:]) if isinstance(out, tuple) else value

    return hook


QUICK = ("llama", "bert-classifier", "gemma2")
EDGES = [
    pytest.param(*e, id="-".join(e)) if e[0] in QUICK else slow(*e) for e in PLACES
]


@pytest.mark.parametrize(("family", "role"), EDGES)
def test_a_sublayer_edge_and_its_tap(family: str, role: str) -> None:
    place, tap = PLACES[family, role]
    plain = model(family, device="cpu")
    with torch.no_grad():
        before = plain(input_ids=tokens()).logits
    wanted = hooked(plain, place, tap)
    assert not torch.allclose(before, wanted, rtol=1e-3)
    assert torch.equal(edited(model(family, device="cpu"), role, with_tap=True), wanted)


@pytest.mark.parametrize("family", [f if f in QUICK[:2] else slow(f) for f in BLOCKS])
def test_a_block_edge(family: str) -> None:
    wanted = hooked(model(family, device="cpu"), BLOCKS[family], "")
    made = model(family, device="cpu")
    assert torch.equal(edited(made, "block", with_tap=False), wanted)


def test_the_norm_of_a_post_norm_edge_alone_reads_the_sum() -> None:
    checked: list[bool] = []

    def compiler(gm: fx.GraphModule, _: object) -> Callable[..., Any]:
        for one in locate(gm.graph, parameter_names(gm.graph, made)):
            for anchor in one.anchors:
                if isinstance(anchor, HiddenAnchor) and anchor.reader:
                    assert anchor.norm is not None
                    assert anchor.norm.args[0] is anchor.reader
                    checked.append(list(anchor.reader.users) == [anchor.norm])
        return gm.forward

    made = model("bert-classifier", device="cpu")
    run(made, compiler)
    assert checked == [True] * 2 * LAYERS
