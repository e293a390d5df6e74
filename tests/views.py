"""Model views made by hand, for tests that need no torch.

TOY is a Llama-like decoder of two layers: width 64, feed-forward 128, four query and
two key/value heads of 16, no biases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.view import Kind, ModelView, ParameterFact, Site, Unresolved

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = {
    "self_attn.q_proj:q": (64, 64),
    "self_attn.k_proj:k": (32, 64),
    "self_attn.v_proj:v": (32, 64),
    "self_attn.o_proj:o": (64, 64),
    "mlp.gate_proj:gate": (128, 64),
    "mlp.up_proj:up": (128, 64),
    "mlp.down_proj:down": (64, 128),
}


def linear(path: str, shape: tuple[int, int], layer: int | None) -> Site:
    owner, _, role = path.rpartition(":")
    sizes = (("in", shape[1]), ("out", shape[0]))
    return Site(
        key=path,
        role=role,
        kind="linear",
        owner=owner,
        sizes=sizes,
        dtype="float32",
        layer=layer,
        weight=f"{owner}.weight",
    )


def wide(path: str, kind: Kind, layer: int | None, **more: object) -> Site:
    owner, _, role = path.rpartition(":")
    site = Site(
        key=path,
        role=role,
        kind=kind,
        owner=owner,
        sizes=(("hidden", 64),),
        dtype="float32",
        layer=layer,
        weight=f"{owner}.weight",
        tap=kind == "hidden",
    )
    return replace(site, **more)  # type: ignore[arg-type]


def attention(path: str, layer: int | None, **more: object) -> Site:
    sizes = (("hidden", 64), ("heads", 4), ("kv_heads", 2), ("key", 32), ("value", 32))
    site = wide(path, "attention", layer, sizes=sizes, weight="", tap=True, causal=True)
    return replace(site, **more)  # type: ignore[arg-type]


def tokens(path: str = "model.embed_tokens:input") -> Site:
    sizes = (("hidden", 64), ("vocab", 256))
    return wide(path, "input", None, sizes=sizes, causal=True, in_block=False)


def layer_sites(layer: int) -> Iterator[Site]:
    at = f"model.layers.{layer}."
    yield wide(f"{at}input_layernorm:norm", "norm", layer)
    for path, shape in SHAPES.items():
        yield linear(at + path, shape, layer)
    yield attention(f"{at}self_attn.o_proj:attention", layer)
    yield wide(f"{at}self_attn.o_proj:attn", "hidden", layer)
    yield wide(f"{at}mlp.down_proj:ffn", "hidden", layer)


def toy(layers: int = 2, unresolved: tuple[Unresolved, ...] = ()) -> ModelView:
    sites = [tokens()]
    sites += [site for layer in range(layers) for site in layer_sites(layer)]
    sites.append(wide("model.norm:norm", "norm", None, in_block=False))
    head = linear("lm_head:head", (256, 64), None)
    sites.append(replace(head, in_block=False, tied="model.embed_tokens.weight"))
    parameters = tuple(
        ParameterFact(
            site.weight, tuple(n for _, n in reversed(site.sizes)), site.dtype
        )
        for site in sites
        if site.kind in ("linear", "norm")
    )
    return ModelView("ToyForCausalLM", tuple(sites), parameters, layers, unresolved)


def with_biases(view: ModelView) -> ModelView:
    """The same with a bias at every linear and norm."""
    sites = tuple(
        site
        if site.kind in ("hidden", "attention", "input")
        else replace(site, bias=site.weight.replace("weight", "bias"))
        for site in view.sites
    )
    return replace(view, sites=sites)


def without_taps(view: ModelView) -> ModelView:
    """The same, no input of any sublayer known."""
    sites = tuple(replace(site, tap=False) for site in view.sites)
    return replace(view, sites=sites)


def without_attention(view: ModelView) -> ModelView:
    """The same, its attention calls not found."""
    sites = tuple(site for site in view.sites if site.kind != "attention")
    why = Unresolved("attention of layer 0", "no call was found", ("attention",))
    return replace(view, sites=sites, unresolved=(why,))
