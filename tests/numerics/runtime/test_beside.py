"""Models with a prefix beside their fused attentions, against longer keys (`plain`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.rewrite import merged
from tests.models import model, randomise, tokens
from tests.numerics.runtime.test_together import assert_alike, differentiated, second

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "prefix(p=3)"

DROPOUTS = {
    "gpt2": ("resid_pdrop", "attn_pdrop", "embd_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "t5": ("dropout_rate",),
}
"""What drops out in training, by default."""


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short caches too are left where they are."""
    monkeypatch.setattr(merged, "LEAST", 0)


def pair(
    family: str, spec: str, dtype: torch.dtype = torch.double, **changes: Any
) -> tuple[Any, Any]:
    """The same compiled model with longer keys and with rows beside them."""
    made = []
    for backend in ("plain", "eager"):
        one = peftc.compile(
            model(family, **changes).to(dtype), spec, backend=backend
        ).train()
        randomise(one)
        made.append(one)
    return made[0], made[1]


def beside(compiled: Any) -> list[int]:
    """How many attentions have rows beside them, in each graph."""
    texts = compiled.peftc.entries[0].captures.texts
    return [text.count("= merged_attention(") for text in texts]


@pytest.mark.parametrize(
    "spec",
    [
        PREFIX,
        "prefix(p=3, mlp=4) + lora(q, v, r=2)",
        "prefix(p=2) + prefix(p=3)",
        "gate(prefix(p=3))",
    ],
)
def test_a_causal_attention_has_its_rows_beside_it(spec: str) -> None:
    longer, own = pair("llama", spec)
    assert_alike(differentiated(own), differentiated(longer))
    assert beside(longer) == [0]
    assert beside(own) == [0 if "gate" in spec else 2]


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_other_families(family: str) -> None:
    """Encoders and attentions with masks or biases have longer keys, but where rows
    alone learn: in the first layer."""
    changes: dict[str, Any] = dict.fromkeys(DROPOUTS[family], 0.0)
    longer, own = pair(family, PREFIX, **changes)
    given = {"decoder_input_ids": tokens(length=7)} if family == "t5" else {}
    assert_alike(differentiated(own, **given), differentiated(longer, **given))
    assert beside(own)[-1] == {"gpt2": 2, "bert": 1, "t5": 2}[family]


@pytest.mark.parametrize(
    ("spec", "count"), [(PREFIX, 1), ("prefix(p=3) + lora(v, r=2)", 0)]
)
def test_padded_samples(spec: str, count: int) -> None:
    """Longer keys, but where rows alone learn."""
    longer, own = pair("llama", spec)
    seen = torch.ones_like(tokens())
    seen[0, :3] = 0
    given = {"attention_mask": seen}
    assert_alike(differentiated(own, **given), differentiated(longer, **given))
    assert beside(own) == [count]


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_what_is_generated(family: str, backend: str) -> None:
    """With the samples padded at their left, and a cache that holds no rows."""
    ids = tokens()
    seen = torch.ones_like(ids)
    seen[0, :3] = 0
    found = []
    for name in ("plain", backend):
        one = peftc.compile(model(family), PREFIX, backend=name).eval()
        randomise(one)
        given = {"attention_mask": seen, "max_new_tokens": 6, "do_sample": False}
        found.append(
            one.generate(ids, **given, output_scores=True, return_dict_in_generate=True)
        )
    assert sum(beside(one)) > 0
    assert torch.equal(found[0].sequences, found[1].sequences)
    torch.testing.assert_close(found[1].scores, found[0].scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compilers_see_through_it(backend: str) -> None:
    """Inductor rounds norms that the model takes in float32 elsewhere."""
    longer, _ = pair("llama", PREFIX)
    own = peftc.compile(model("llama").double(), PREFIX, backend=backend).train()
    randomise(own)
    assert_alike(differentiated(own), differentiated(longer), near=1e-5)
    assert beside(own) == [2]


@pytest.mark.parametrize(
    ("family", "spec", "changes"),
    [
        ("gpt2", PREFIX, {}),
        ("llama", PREFIX, {"attn_implementation": "eager"}),
    ],
    ids=["dropout", "spelt out"],
)
def test_what_keeps_longer_keys(
    family: str, spec: str, changes: dict[str, Any]
) -> None:
    longer, own = pair(family, spec, **changes)
    assert_alike(differentiated(own), differentiated(longer))
    assert beside(own) == [0]


def test_types_that_round_more_keep_longer_keys() -> None:
    _, own = pair("llama", PREFIX, torch.bfloat16)
    differentiated(own)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = peftc.compile(model("llama"), PREFIX).train()
        wide(input_ids=tokens())
    assert beside(own) == beside(wide) == [0]


def test_gradients_of_gradients() -> None:
    """Where torch's kernel, which has none, is not to be used."""
    longer, own = pair("llama", PREFIX)
    assert_alike(second(own), second(longer), near=1e-5)
    assert beside(own) == [2]
    with pytest.raises(PeftcError, match="PEFT446"):
        twice_with_kernels(own)


def twice_with_kernels(compiled: Any) -> list[Tensor]:
    ids = tokens()
    tensors = [p for p in compiled.parameters() if p.requires_grad]
    loss = compiled(input_ids=ids, labels=ids).loss
    first = torch.autograd.grad(loss, tensors, create_graph=True)
    size = torch.stack([g.square().sum() for g in first]).sum()
    return list(torch.autograd.grad(size, tensors))
