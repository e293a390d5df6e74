"""The ladder against the same network written out in float64, and its oracles."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.runtime.trial import Trial
from peftc.runtime.verify import CHECKS
from tests.numerics.runtime.tiny import llama, t5

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "ladder(reduction=2)"
IDS = torch.arange(2, 16).view(2, 7)
TOY: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def compiled(spec: str = SPEC, model: Any = None) -> Any:
    """A model with a ladder whose tensors are random."""
    model = llama() if model is None else model
    peftc.compile(model, spec)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".peftc." in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def side(model: Any) -> Any:
    """The network of the ladder."""
    return model.model.peftc.side.ladder


# --- counts --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("ladder(reduction=4)", 8_898),
        ("ladder(reduction=4, gate=none)", 8_896),
        ("ladder(reduction=4, blend=true)", 8_899),
        # Without a layer: its block, its projection and its gate.
        ("ladder(reduction=4) @ layers(1)", 8_898 - 2_336 - (64 * 16 + 16) - 1),
    ],
)
def test_counts(spec: str, count: int) -> None:
    plan = peftc.plan(spec, llama(**TOY).config)
    assert plan.trainable == count


# --- what it computes -----------------------------------------------------------------


def normed(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Llama's, which works in float32 whatever it is given."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return gain * wide.to(x.dtype)


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotate [b, heads, t, h], the halves of a head being the pairs; the angles are in
    float32 in every Llama."""
    half = x.shape[-1] // 2
    waves = 1 / 10000.0 ** (torch.arange(half).float() / half)
    angles = torch.arange(x.shape[-2]).float()[:, None] * waves
    one, two = x[..., :half], x[..., half:]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def narrow_layer(x: torch.Tensor, p: dict[str, torch.Tensor], at: str) -> torch.Tensor:
    """A Llama layer with 4 heads, each two sharing a key."""

    def heads(name: str, count: int) -> torch.Tensor:
        y = n @ p[f"{at}.self_attn.{name}_proj.weight"].T
        return y.view(*n.shape[:2], count, -1).transpose(1, 2)

    n = normed(x, p[f"{at}.input_layernorm.weight"])
    q, k, v = turned(heads("q", 4)), turned(heads("k", 2)), heads("v", 2)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    hidden = torch.ones(x.shape[1], x.shape[1]).tril() == 0
    mixed = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
    joined = mixed.transpose(1, 2).flatten(2)
    x = x + joined @ p[f"{at}.self_attn.o_proj.weight"].T
    n = normed(x, p[f"{at}.post_attention_layernorm.weight"])
    up, gate = (n @ p[f"{at}.mlp.{m}_proj.weight"].T for m in ("up", "gate"))
    return x + (F.silu(gate) * up) @ p[f"{at}.mlp.down_proj.weight"].T


def by_hand(base: Any, p: dict[str, torch.Tensor]) -> torch.Tensor:
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda m, a, y: states.append(y))
        for layer in base.model.layers
    ]
    base(input_ids=IDS)
    for hook in hooks:
        hook.remove()

    def down(index: int, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, p[f"down.{index}.weight"], p[f"down.{index}.bias"])

    g = down(0, base.model.embed_tokens(IDS))
    for index, state in enumerate(states):
        share = torch.sigmoid(p["gates"][index] / 0.1)
        u = share * g + (1 - share) * down(index + 1, state)
        g = narrow_layer(u, p, f"body.layers.{index}")
    n = normed(g, p["body.norm.weight"])
    logits: torch.Tensor = base.lm_head(F.linear(n, p["up.weight"], p["up.bias"]))
    return logits


def test_it_computes_what_the_paper_says() -> None:
    base = llama().double()
    model = compiled(model=copy.deepcopy(base))
    given = dict(side(model).named_parameters())
    expected = by_hand(base, given)
    actual = model(input_ids=IDS).logits
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    names = sorted(given)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), [given[n] for n in names])
        for y in (actual, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_gate_of_zero_leaves_what_the_layer_gave() -> None:
    model = compiled()
    network = side(model)
    with torch.no_grad():
        network.gates[1] = -100.0
        before = model(input_ids=IDS).logits
        for part in (network.down[0], network.down[1], network.body.layers[0]):
            for parameter in part.parameters():
                parameter.normal_()
        assert torch.equal(model(input_ids=IDS).logits, before)
        network.down[2].weight.normal_()
        assert not torch.equal(model(input_ids=IDS).logits, before)


# --- nothing enters the backbone ------------------------------------------------------


def leaves_of(loss: torch.Tensor) -> set[int]:
    """The tensors that the history of a value ends in."""
    found, seen, stack = set(), set(), [loss.grad_fn]
    while stack:
        node: Any = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found |= {id(node.variable)} if hasattr(node, "variable") else set()
        stack += [one for one, _ in node.next_functions]
    return found


def test_no_gradient_enters_the_backbone() -> None:
    model = compiled().train()
    embedded = model.model.embed_tokens(IDS).requires_grad_()
    loss = model(inputs_embeds=embedded, labels=IDS).loss
    own = {id(p): n for n, p in model.named_parameters() if ".peftc." in n}
    assert leaves_of(loss) == set(own)
    assert not any(p.requires_grad for p in model.parameters() if id(p) not in own)


def test_a_step_keeps_less_than_one_of_lora() -> None:
    config = llama(**TOY).config
    ladder, lora = (
        peftc.plan(spec, config, batch=2, tokens=32).memory
        for spec in ("ladder(reduction=4)", "lora(q, v, r=2)")
    )
    assert ladder is not None
    assert lora is not None
    assert ladder.activations < lora.activations


# --- running --------------------------------------------------------------------------


def test_what_is_promised_is_kept() -> None:
    model = compiled()
    verdicts = {check.name: check.verdict for check in model.peftc.verify()}
    assert verdicts == {
        "identity": "skipped",
        "gradients": "ok",
        "merging": "skipped",
        "generation": "ok",
        "padding": "ok",
    }


def test_it_starts_as_the_base_if_told_to() -> None:
    model = llama()
    base = model(input_ids=IDS).logits
    peftc.compile(model, "ladder(reduction=2, identity_init=true)")
    assert torch.equal(model(input_ids=IDS).logits, base)
    trial = Trial(model.peftc, {})
    with trial.as_it_was():
        assert CHECKS["identity"](trial).verdict == "ok"


def test_beams_behind_padding_are_those_of_running_all_again() -> None:
    model = compiled()
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0
    told = {"attention_mask": mask, "max_new_tokens": 4, "num_beams": 3}
    told |= {"do_sample": False}
    cached = model.generate(IDS, **told)
    assert torch.equal(cached, model.generate(IDS, use_cache=False, **told))


def test_a_backbone_inside_the_base_model() -> None:
    """OPT's head calls the decoder in its base model."""
    config = OPTConfig(
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=64,
    )
    model = compiled(model=OPTForCausalLM(config).eval())
    full = model(input_ids=IDS, use_cache=False).logits
    first = model(input_ids=IDS[:, :-1], use_cache=True)
    last = model(input_ids=IDS[:, -1:], past_key_values=first.past_key_values)
    torch.testing.assert_close(last.logits[:, -1], full[:, -1])


def test_an_encoder_is_pooled_again() -> None:
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        vocab_size=64,
    )
    model = compiled(model=BertForSequenceClassification(config).eval())
    model(input_ids=IDS, labels=torch.tensor([0, 1])).loss.backward()
    (trained,) = model.peftc.parameters_by_method().values()
    assert all(p.grad is not None and p.grad.any() for p in trained.values())


def test_a_few_steps_lower_the_loss() -> None:
    model = llama().train()
    peftc.compile(model, SPEC)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-2)
    losses = []
    for _ in range(15):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


# --- keeping and giving back ----------------------------------------------------------


def test_it_is_saved_loaded_copied_and_removed(tmp_path: Path) -> None:
    model, base = llama(), llama()
    wanted = base(input_ids=IDS).logits
    compiled(model=model)
    said = model(input_ids=IDS).logits
    model.peftc.save(tmp_path)
    peftc.load(base, tmp_path)
    assert torch.equal(base(input_ids=IDS).logits, said)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        side(model).up.weight.zero_()
    assert torch.equal(twin(input_ids=IDS).logits, said)
    with model.peftc.disabled():
        assert torch.equal(model(input_ids=IDS).logits, wanted)
    model.peftc.remove()
    assert torch.equal(model(input_ids=IDS).logits, wanted)
    assert not any("peftc" in name for name in model.state_dict())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("ladder(reduction=3)", "PEFT350"),
        ("ladder(reduction=8)", "PEFT351"),
        ("ladder(reduction=2) + lora(q)", "PEFT352"),
        ("ladder(reduction=2) + ladder(reduction=4)", "PEFT353"),
        ("ladder(reduction=2, blend=true, identity_init=true)", "PEFT354"),
        ("ladder(reduction=2, gate=none, gate_T=0.5)", "PEFT354"),
    ],
)
def test_what_would_have_no_effect_or_no_size(spec: str, code: str) -> None:
    with pytest.raises(PeftcError) as caught:
        peftc.plan(spec, llama().config)
    assert {one.code for one in caught.value.diagnostics} == {code}
    assert all(one.span for one in caught.value.diagnostics)


def test_models_that_have_none() -> None:
    with pytest.raises(PeftcError) as caught:
        peftc.plan(SPEC, t5().config)
    assert [one.code for one in caught.value.diagnostics] == ["PEFT455"]


def test_a_method_at_the_head_is_trained_beside_it() -> None:
    model = compiled(f"{SPEC} + lora(head, r=2)")
    model(input_ids=IDS, labels=IDS).loss.backward()
    trained = model.peftc.parameters_by_method()
    assert {name: len(group) for name, group in trained.items()} == {
        "ladder": 28,
        "lora": 2,
    }
    for group in trained.values():
        assert all(p.grad is not None and p.grad.any() for p in group.values())


# --- starting from the backbone -------------------------------------------------------


def test_it_starts_from_what_weighs_most() -> None:
    """Rows and columns of channels, neurons and pairs that were made large."""
    model = llama(num_attention_heads=2, num_key_value_heads=1)
    channels, neurons = torch.arange(1, 32, 2), torch.arange(0, 48, 2)
    dims = torch.tensor([1, 2, 4, 7, 9, 10, 12, 15])  # of 16 in halves, i and i + 8
    with torch.no_grad():
        for layer in model.model.layers:
            for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                linear.weight.view(-1, 16, 32)[:, dims] *= 50
            for linear in (layer.mlp.up_proj, layer.mlp.gate_proj):
                linear.weight[neurons] *= 50
                linear.weight[:, channels] *= 50
    peftc.compile(model, "ladder(reduction=2, init=l1)")
    for narrow, wide in zip(side(model).body.layers, model.model.layers, strict=True):
        rows = torch.cat([dims, dims + 16])
        q = wide.self_attn.q_proj.weight[rows][:, channels]
        assert torch.equal(narrow.self_attn.q_proj.weight, q)
        k = wide.self_attn.k_proj.weight[dims][:, channels]
        assert torch.equal(narrow.self_attn.k_proj.weight, k)
        up = wide.mlp.up_proj.weight[neurons][:, channels]
        assert torch.equal(narrow.mlp.up_proj.weight, up)
        down = wide.mlp.down_proj.weight[channels][:, neurons]
        assert torch.equal(narrow.mlp.down_proj.weight, down)
        v, o = narrow.self_attn.v_proj.weight, narrow.self_attn.o_proj.weight
        assert (v.shape, o.shape) == ((8, 16), (16, 16))
