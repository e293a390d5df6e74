"""P-tuning against prompt tuning, tokens of a table, and Hugging Face PEFT's encoder.

PEFT's LSTM is this one where its width is half of the model's: its two linears then
have the sizes of ours.  Its MLP has three linears and is another function.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import PromptEncoderConfig, get_peft_model

import peftc
from tests.models import model, randomise, relative, tokens
from tests.views import toy

if TYPE_CHECKING:
    from pathlib import Path

CLOSE = 2e-5
COUNTS = {"lstm": 59_136, "mlp": 8_960, "none": 640}


@pytest.mark.parametrize("encoder", COUNTS)
def test_counts_of_the_toy(encoder: str) -> None:
    from peftc.driver import make_plan
    from peftc.syntax.source import Source

    text = f"ptuning(p=10, encoder={encoder})"
    plan = make_plan(Source("<spec>", text), toy())
    assert plan.trainable == COUNTS[encoder]


def added(made: Any) -> dict[str, torch.Tensor]:
    """The trained tensors by their last name."""
    found = made.named_parameters()
    return {n.rpartition(".")[2]: p for n, p in found if p.requires_grad}


def test_without_an_encoder_it_is_prompt_tuning() -> None:
    one, other = model("llama"), model("llama")
    peftc.compile(one, "ptuning(p=4, encoder=none)")
    peftc.compile(other, "prompt(p=4)")
    with torch.no_grad():
        added(one)["Z"].copy_(added(other)["P"])
    ids = tokens()
    assert torch.equal(one(input_ids=ids).logits, other(input_ids=ids).logits)


def test_rows_inserted_are_rows_replaced() -> None:
    """Tokens whose rows of the table are the encoder's stand where rows are put."""
    made = model("llama", tie_word_embeddings=False)
    plain = copy.deepcopy(made)
    peftc.compile(made, 'ptuning(p=5, at="0:3, -1:2")')
    randomise(made)
    names = torch.arange(100, 105)
    with torch.no_grad():
        plain.get_input_embeddings().weight[names] = rows(made)
    ids = tokens() % 90
    before, behind = (n.expand(2, -1) for n in (names[:3], names[3:]))
    wanted = plain(input_ids=torch.cat((before, ids, behind), 1)).logits
    got = made(input_ids=ids).logits
    assert relative(got[:, :-1], wanted[:, 3:-3]) < CLOSE
    assert relative(got[:, -1], wanted[:, -1]) < CLOSE


def rows(made: Any) -> torch.Tensor:
    """What the encoder gives, by torch's own layers."""
    own = added(made)
    width = own["R1"].shape[-1]
    recurrent = torch.nn.LSTM(own["Z"].shape[1], width, 2, bidirectional=True)
    for layer in (0, 1):
        for way, end in enumerate(("", "_reverse")):
            for theirs, ours in (
                ("weight_ih", "A"),
                ("weight_hh", "R"),
                ("bias_ih", "a"),
                ("bias_hh", "r"),
            ):
                parameter = recurrent.get_parameter(f"{theirs}_l{layer}{end}")
                parameter.data.copy_(own[f"{ours}{layer + 1}"][way])
    inner = torch.relu(recurrent(own["Z"])[0] @ own["W1"].T + own["b1"])
    return inner @ own["W2"].T + own["b2"]


@pytest.mark.slow
def test_peft_gives_the_same() -> None:
    config = PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=4,
        encoder_reparameterization_type="LSTM",
        encoder_hidden_size=32,
        encoder_num_layers=2,
        encoder_dropout=0.0,
    )
    theirs = get_peft_model(model("llama"), config).eval()
    ours = model("llama")
    peftc.compile(ours, "ptuning(p=4)")
    own = added(ours)
    given = dict(theirs.get_submodule("prompt_encoder.default").named_parameters())
    pairs = {"W1": "mlp_head.0.weight", "b1": "mlp_head.0.bias"}
    pairs |= {"W2": "mlp_head.2.weight", "b2": "mlp_head.2.bias"}
    with torch.no_grad():
        own["Z"].copy_(given["embedding.weight"])
        for ours_name, name in pairs.items():
            own[ours_name].copy_(given[name])
        for number, kind in (("A", "weight_ih"), ("R", "weight_hh")):
            for layer in (0, 1):
                for way, end in enumerate(("", "_reverse")):
                    name = f"lstm_head.{kind}_l{layer}{end}"
                    bias = name.replace("weight", "bias")
                    own[f"{number}{layer + 1}"][way].copy_(given[name])
                    own[f"{number.lower()}{layer + 1}"][way].copy_(given[bias])
    inputs = {"input_ids": tokens(), "attention_mask": torch.ones(2, 9).long()}
    got, wanted = ours(**inputs).logits, theirs(**inputs).logits[:, 4:]
    assert relative(got, wanted) < CLOSE
    got.square().mean().backward()
    wanted.square().mean().backward()
    for ours_name, name in (*pairs.items(), ("Z", "embedding.weight")):
        mine, other = own[ours_name].grad, given[name].grad
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("spec", ["ptuning(p=4, dropout=0.3)", "ipt(p=4, d=3, m=16)"])
def test_an_export_is_the_rows(spec: str, tmp_path: Path) -> None:
    made = model("llama")
    peftc.compile(made, spec)
    randomise(made)
    wanted = made(input_ids=tokens()).logits
    made.peftc.export(tmp_path)
    other = peftc.load(model("llama"), tmp_path)
    assert other.peftc.plan.trainable == 4 * 64
    (tensor,) = other.peftc.plan.rewrites[0].tensors
    assert tensor.shape == (4, 64)
    assert relative(other(input_ids=tokens()).logits, wanted) < CLOSE


def test_dropout_is_for_training_alone() -> None:
    made = model("llama")
    peftc.compile(made, "ptuning(p=4, dropout=0.5)")
    ids = tokens()
    torch.testing.assert_close(made(input_ids=ids).logits, made(input_ids=ids).logits)
    made.train()
    assert relative(made(input_ids=ids).logits, made(input_ids=ids).logits) > 1e-4
