"""Rewritten graphs of small Hugging Face models against the same models with hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from peftc.sites.locate import locate
from tests.capturing import (
    Tensors,
    bottleneck,
    given,
    low_rank,
    plan,
    program,
    rewrite,
    rewritten,
    scaling,
    site,
    step,
    token,
)

H, FF, R = 16, 24, 3
EXACT = 1e-10

Hooks: TypeAlias = dict[str, Callable[..., torch.Tensor]]
"""Module path to what its output becomes: (inputs, output) -> output."""


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def draws(**shapes: tuple[int, ...]) -> Any:
    return {
        name: torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }


def low(value: torch.Tensor, t: Any) -> torch.Tensor:
    return 0.5 * F.linear(F.linear(value, t["A"]), t["B"])


def bottled(value: torch.Tensor, t: Any) -> torch.Tensor:
    return F.linear(torch.relu(F.linear(value, t["D"], t["b"])), t["U"])


def edge_tensors() -> Any:
    return draws(D=(R, H), b=(R,), U=(H, R))


def low_tensors(out: int, into: int) -> Any:
    return draws(A=(R, into), B=(out, R))


def hooked(model: nn.Module, hooks: Hooks, **changed: torch.Tensor) -> Any:
    """A function that runs the model with hooks and with other parameter values."""

    def run(**inputs: Any) -> torch.Tensor:
        handles = [
            model.get_submodule(path).register_forward_hook(
                lambda _, inputs, output, hook=hook: hook(inputs, output)
            )
            for path, hook in hooks.items()
        ]
        out = torch.func.functional_call(model, changed, kwargs=inputs)[0]
        for handle in handles:
            handle.remove()
        assert isinstance(out, torch.Tensor)
        return out

    return run


def assert_agree(
    run: Any, reference: Any, tensors: Tensors, inputs: dict[str, Any]
) -> None:
    """Equal outputs and gradients of the added tensors."""
    leaves = [
        t for own in tensors.values() for t in own.values() if t.is_floating_point()
    ]
    values, grads = [], []
    for forward in (run, reference):
        value = forward(**inputs)
        value = value if isinstance(value, torch.Tensor) else value[0]
        weight = torch.linspace(-1, 1, value.numel(), dtype=value.dtype)
        loss = (value * weight.view(value.shape)).sum()
        values.append(value)
        grads.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(*values, rtol=0, atol=EXACT)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)


def ids(batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(3, 50, (batch, tokens))


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=H,
        intermediate_size=FF,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    return transformers.LlamaForCausalLM(config).double().eval()


def gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=50,
        n_embd=H,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config).double().eval()


def bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=H,
        intermediate_size=FF,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return transformers.BertModel(config).double().eval()


# --- edge, low-rank and bias at one linear --------------------------------------------


def low_rank_and_bias(out: int, into: int) -> Any:
    """y' = y + 0.5 B A x + d."""
    return program(
        "y",
        [
            *(token("x", into), token("y", out)),
            *(given("A", R, into), given("B", out, R), given("d", out)),
        ],
        step("%0", "linear", "x A", R),
        step("%1", "linear", "%0 B", out),
        step("%2", "add", "y %1 d", out, coefs=(1.0, 0.5, 1.0)),
    )


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_bert_edge_over_a_rewritten_linear(backend: str) -> None:
    model, path = bert(), "encoder.layer.1.output"
    down = site(f"{path}.dense:down", shape=(H, FF))
    ffn = site(f"{path}.dense:ffn", "hidden", shape=(H,))
    block = site(f"{path}.dense:block", "hidden", shape=(H,))
    tensors = {
        down.key: low_tensors(H, FF) | draws(d=(H,)),
        ffn.key: edge_tensors(),
        block.key: draws(l=(H,)),
    }
    planned = plan(
        rewrite(block, scaling("h", H)),
        rewrite(ffn, bottleneck(H, R)),
        rewrite(down, low_rank_and_bias(H, FF)),
    )
    run = rewritten(model, planned, tensors, locate, backend=backend)
    of = tensors[down.key]
    hooks: Hooks = {
        f"{path}.dense": lambda x, y: y + low(x[0], of) + of["d"],
        f"{path}.dropout": lambda x, y: y + bottled(y, tensors[ffn.key]),
        f"{path}.LayerNorm": lambda x, y: y * tensors[block.key]["l"],
    }
    assert_agree(run.forward, hooked(model, hooks), tensors, {"input_ids": ids(2, 7)})


# --- parallel modules, norms and rows -----------------------------------------------


def test_gpt2_rows_parallel_edge_and_norms() -> None:
    model, layer = gpt2(), "transformer.h.1"
    fused = f"{layer}.attn.c_attn"
    q, v = (
        site(f"{fused}:{role}", rows=((at, at + H),), transposed=True, shape=(H, H))
        for role, at in (("q", 0), ("v", 2 * H))
    )
    attn = site(f"{layer}.attn.c_proj:attn", "hidden", shape=(H,))
    norm = site(f"{layer}.ln_1:norm", "norm", shape=(H,))
    tensors = {
        **{one.key: low_tensors(H, H) for one in (q, v)},
        attn.key: edge_tensors(),
        norm.key: draws(l=(H,)),
    }
    planned = plan(
        rewrite(norm, scaling("g", H)),
        rewrite(q, low_rank(H, H, R)),
        rewrite(v, low_rank(H, H, R)),
        rewrite(attn, bottleneck(H, R, "u")),
    )
    run = rewritten(model, planned, tensors, locate)
    seen = {}

    def keep(x: Any, y: torch.Tensor) -> torch.Tensor:
        seen["u"] = y
        return y

    def split(x: Any, y: torch.Tensor) -> torch.Tensor:
        parts = list(y.split(H, -1))
        parts[0] = parts[0] + low(x[0], tensors[q.key])
        parts[2] = parts[2] + low(x[0], tensors[v.key])
        return torch.cat(parts, -1)

    hooks: Hooks = {
        f"{layer}.ln_1": keep,
        fused: split,
        f"{layer}.attn.resid_dropout": lambda x, y: (
            y + bottled(seen["u"], tensors[attn.key])
        ),
    }
    gain = model.get_parameter(f"{layer}.ln_1.weight") * tensors[norm.key]["l"]
    reference = hooked(model, hooks, **{f"{layer}.ln_1.weight": gain})
    inputs = {"input_ids": ids(2, 7), "use_cache": False}
    assert_agree(run.forward, reference, tensors, inputs)


def test_llama_with_fixed_and_then_symbolic_sizes() -> None:
    model, layer = llama(), "model.layers.0"
    q = site(f"{layer}.self_attn.q_proj:q", shape=(H, H))
    ffn = site(f"{layer}.mlp.down_proj:ffn", "hidden", shape=(H,))
    block = site(f"{layer}.mlp.down_proj:block", "hidden", shape=(H,))
    norm = site(f"{layer}.post_attention_layernorm:norm", "norm", shape=(H,))
    tensors = {
        q.key: low_tensors(H, H),
        ffn.key: edge_tensors(),
        block.key: draws(l=(H,)),
        norm.key: draws(l=(H,)),
    }
    planned = plan(
        rewrite(q, low_rank(H, H, R)),
        rewrite(block, scaling("h", H)),
        rewrite(ffn, bottleneck(H, R, "u")),
        rewrite(norm, scaling("g", H)),
    )
    run = rewritten(model, planned, tensors, locate)
    seen = {}

    def keep(x: Any, y: torch.Tensor) -> torch.Tensor:
        seen["u"] = y
        return y

    hooks: Hooks = {
        f"{layer}.self_attn.q_proj": lambda x, y: y + low(x[0], tensors[q.key]),
        f"{layer}.post_attention_layernorm": keep,
        f"{layer}.mlp": lambda x, y: y + bottled(seen["u"], tensors[ffn.key]),
        layer: lambda x, y: y * tensors[block.key]["l"],
    }
    name = f"{layer}.post_attention_layernorm.weight"
    for batch, tokens in ((2, 7), (3, 5)):
        gain = model.get_parameter(name) * tensors[norm.key]["l"]
        reference = hooked(model, hooks, **{name: gain})
        inputs = {"input_ids": ids(batch, tokens), "use_cache": False}
        assert_agree(run.forward, reference, tensors, inputs)
    fixed, symbolic = run.texts
    assert "[2, 7, 16] = linear" in fixed
    assert "[s0, s1, 16] = linear" in symbolic
