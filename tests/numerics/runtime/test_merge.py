"""Merging: equal outputs, one rounding, and the old bits back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from peftc.api import compile
from peftc.diagnostics.core import PeftcError
from tests.numerics.runtime.tiny import (
    added,
    assert_same,
    llama,
    logits,
    refused,
    snapshot,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from pathlib import Path


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=32,
        n_layer=1,
        n_head=4,
        vocab_size=64,
        n_positions=32,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = GPT2LMHeadModel(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model


def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=64,
        max_position_embeddings=32,
    )
    model = BertModel(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model


def said(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out = model(input_ids=tokens())
    found = out.logits if hasattr(out, "logits") else out.last_hidden_state
    assert isinstance(found, torch.Tensor)
    return found


def trained(model: Any, spec: str) -> Any:
    """Compiled, with every added tensor moved away from where it starts."""
    compile(model, spec)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in added(model):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


DOUBLE = """
method tilt() on hidden { param l[hidden] = 1; h' = l * h }
method shift() on hidden { param d[hidden] = 0; h' = h + d }
method stretch() on norm { param s[hidden] = 1; g' = s * g }
method swing() on linear { param r[in] = 1; x' = r * x }
"""

CASES = [
    (llama, "lora(q, v, r=2)"),
    (llama, "ia3(k, v, ffn)"),
    (llama, "lora(q, k, r=2) + ia3(k, v)"),
    (llama, "krona(q, up, a1=4, a2=4)"),
    (llama, f"{DOUBLE} tilt(ffn, attn) + lora(down, o, r=2)"),
    (llama, f"{DOUBLE} stretch(norm) + swing(q)"),
    (gpt2, "lora(q, v, r=2)"),
    (gpt2, "ia3(k, v, ffn) + lora(q, k, v, r=2)"),
    (gpt2, f"{DOUBLE} tilt(ffn, attn) + shift(ffn) + stretch(norm)"),
    (gpt2, "bitfit(linear)"),
    (bert, "lora(q, v, r=2) + ia3(k, v, ffn)"),
    (bert, f"{DOUBLE} tilt(ffn) + shift(attn) + swing(up)"),
]


@pytest.mark.parametrize(("make", "spec"), CASES)
def test_merged_equals_unmerged_and_goes_back(make: Any, spec: str) -> None:
    model = trained(make(), spec)
    plain, tuned = snapshot(model), said(model)
    with model.peftc.disabled():
        assert not torch.allclose(said(model), tuned, atol=1e-3)
    model.peftc.merge()
    assert model.peftc.report()["merged"]
    merged = said(model)
    assert (merged - tuned).abs().max() <= 1e-5 * tuned.abs().max()
    model.peftc.unmerge()
    assert_same(snapshot(model), plain)
    assert torch.equal(said(model), tuned)


def test_it_is_computed_wide_and_rounded_once() -> None:
    model = trained(llama(layers=1).to(torch.bfloat16), "lora(q, r=2, alpha=1)")
    weight = model.model.layers[0].self_attn.q_proj.weight
    slots = {name.rpartition(".")[2]: p.detach() for name, p in added(model)}
    before = weight.detach().clone()
    assert before.dtype == torch.bfloat16
    model.peftc.merge()
    expected = before.float() + 0.5 * slots["B"].float() @ slots["A"].float()
    assert torch.equal(weight, expected.to(torch.bfloat16))
    model.peftc.unmerge()
    assert torch.equal(weight, before)


def test_only_the_rows_of_a_site_change() -> None:
    model = gpt2()
    before = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    trained(model, "lora(k, r=2)").peftc.merge()
    after = model.transformer.h[0].attn.c_attn.weight.detach()
    assert torch.equal(after[:, :32], before[:, :32])
    assert torch.equal(after[:, 64:], before[:, 64:])
    assert not torch.equal(after[:, 32:64], before[:, 32:64])


def test_a_merged_model_runs_as_a_plain_one() -> None:
    model = trained(llama(layers=1), "lora(q, r=2)")
    tuned = logits(model)
    graphs = model.peftc.captures.count
    model.peftc.merge()
    inner = model.model(input_ids=tokens()).last_hidden_state
    torch.testing.assert_close(model.lm_head(inner), tuned, rtol=0, atol=1e-5)
    assert model.peftc.captures.count == graphs
    model.generate(input_ids=tokens(), max_new_tokens=2)
    linear = model.model.layers[0].self_attn.q_proj
    linear(torch.zeros(1, 32))
    model.peftc.unmerge()
    with refused("PEFT601"):
        linear(torch.zeros(1, 32))


def test_a_bias_is_created_and_taken_away(tmp_path: Path) -> None:
    base = llama(layers=1)
    model = trained(twin(base), f"{DOUBLE} shift(ffn)")
    down = model.model.layers[0].mlp.down_proj
    before, tuned = snapshot(model), logits(model)
    assert down.bias is None
    model.peftc.merge()
    assert down.bias is not None
    assert not down.bias.requires_grad
    torch.testing.assert_close(logits(model), tuned, rtol=0, atol=1e-5)
    with refused("PEFT632"):
        model.save_pretrained(tmp_path / "plain", merge=True)
    assert not (tmp_path / "plain").exists()
    model.peftc.unmerge()
    assert_same(snapshot(model), before)


# --- refusals ------------------------------------------------------------------------


def test_what_cannot_merge_is_told_in_full_and_changes_nothing() -> None:
    model = trained(llama(), "lora(q, r=2) + adapter(ffn, attn, d=4) + gate(lora(v))")
    before, tuned = snapshot(model), logits(model)
    with pytest.raises(PeftcError) as caught:
        model.peftc.merge()
    found = caught.value.diagnostics
    assert {d.code for d in found} == {"PEFT630"}
    text = str(caught.value)
    assert "gelu" in text
    assert "sigmoid" in text
    assert "layers.0.ffn" in text
    assert "layers.1.v" in text
    assert "layers.0.q" not in text
    assert all(d.span is not None for d in found)
    assert_same(snapshot(model), before)
    assert torch.equal(logits(model), tuned)
    assert not model.peftc.report()["merged"]


def test_a_gain_without_room_for_an_offset() -> None:
    spec = "method push() on norm { param s[hidden] = 0; c' = c + s } push(norm)"
    model = trained(llama(layers=1), spec)
    before = snapshot(model)
    with refused("PEFT630"):
        model.peftc.merge()
    assert_same(snapshot(model), before)


def test_values_that_overflow_are_refused_and_taken_back() -> None:
    model = trained(llama(layers=1).to(torch.float16), "ia3(k, v)")
    last = next(p for name, p in added(model) if "v_proj" in name)
    with torch.no_grad():
        last.fill_(1e9)
    before = snapshot(model)
    with refused("PEFT624"):
        model.peftc.merge()
    assert_same(snapshot(model), before)


def test_states_in_which_it_is_not_possible(tmp_path: Path) -> None:
    model = trained(llama(layers=1), "lora(q, r=2)")
    model.peftc.save(tmp_path / "a")
    with refused("PEFT631"):
        model.peftc.unmerge()
    model.peftc.merge()
    for action in (
        model.peftc.merge,
        model.peftc.graph if not model.peftc.captures.count else model.peftc.merge,
        lambda: model.peftc.save(tmp_path / "b"),
        lambda: model.peftc.load(tmp_path / "a"),
        lambda: model.save_pretrained(tmp_path / "b"),
    ):
        with refused("PEFT631"):
            action()
    assert not (tmp_path / "b").exists()


def test_a_handle_whose_methods_were_removed(tmp_path: Path) -> None:
    model = trained(llama(layers=1), "lora(q, r=2)")
    handle = model.peftc
    handle.remove()
    for action in (
        handle.remove,
        handle.merge,
        handle.unmerge,
        handle.graph,
        lambda: handle.save(tmp_path),
        lambda: handle.load(tmp_path),
    ):
        with refused("PEFT631"):
            action()


def test_removing_a_merged_model_gives_the_base_back() -> None:
    base = llama(layers=1)
    before = snapshot(base)
    trained(base, "lora(q, r=2)").peftc.merge()
    base.peftc.remove()
    assert_same(snapshot(base), before)


def test_an_initial_value_that_reads_the_base_sees_rows_and_orientation() -> None:
    spec = """
    method scaled() on linear { param m[out] = norm(W, in); y' = m * y }
    scaled(k)
    """
    model = gpt2()
    weight = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    compile(model, spec)
    (magnitude,) = (p for _, p in added(model))
    assert weight.shape == (32, 96)
    torch.testing.assert_close(magnitude.detach(), weight[:, 32:64].norm(dim=0))
