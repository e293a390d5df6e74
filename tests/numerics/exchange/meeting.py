"""An adapter goes to Hugging Face PEFT and comes back, and says the same everywhere.

All is in float64, so that nothing but the meaning of the files can make a difference.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Phi3Config, Phi3ForCausalLM

import peftc
from tests.models import model, prepared, randomise, relative, tokens

if TYPE_CHECKING:
    from pathlib import Path

EXACT = 1e-12


def phi3() -> Any:
    """Queries, keys and values are rows of one weight; so are gate and up."""
    config = Phi3Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Phi3ForCausalLM(config)


@cache
def _made(family: str) -> Any:
    made = prepared(phi3) if family == "phi3" else model(family)
    return made.double()


def base(family: str) -> Any:
    """A base in float64 with the same weights each time."""
    return copy.deepcopy(_made(family))


def inputs(family: str) -> dict[str, torch.Tensor]:
    """A batch whose second sample is padded on the right."""
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    found = {"input_ids": tokens(), "attention_mask": mask}
    if family == "t5":
        found["decoder_input_ids"] = tokens(length=7, seed=4)
    return found


def logits(network: Any, family: str) -> torch.Tensor:
    """What a network says."""
    given = inputs(family)
    with torch.no_grad():
        found = network.eval()(**given).logits
    assert isinstance(found, torch.Tensor)
    told = given.get("decoder_input_ids", given["input_ids"])
    return found[:, -told.shape[1] :]  # PEFT's are of the rows of a prompt, too


def trained(family: str, spec: str, **options: Any) -> Any:
    """A compiled model in which nothing is as it started."""
    compiled = peftc.compile(base(family), spec, **options)
    randomise(compiled, scale=0.2)
    return compiled


def theirs(family: str, folder: Path) -> Any:
    """A folder as PEFT loads it; it makes the rows of prompts in float32 at first."""
    loaded = PeftModel.from_pretrained(base(family), str(folder)).double()
    tensors = load_file(folder / "adapter_model.safetensors")
    set_peft_model_state_dict(loaded, tensors)
    return loaded


def meet(family: str, spec: str, folder: Path, to: str = "peft") -> Any:
    """Ours, written, read by PEFT, written by PEFT and read by us, says the same.

    Returns PEFT's model.
    """
    ours = trained(family, spec)
    ours.peftc.export(folder / "ours", to=to)
    his = theirs(family, folder / "ours")
    his.save_pretrained(str(folder / "his"))
    back = peftc.load(base(family), folder / "his")
    wanted = logits(ours, family)
    assert relative(logits(base(family), family), wanted) > 1e-3
    far = relative(logits(his, family), wanted)
    assert far < EXACT
    assert relative(logits(back, family), wanted) < EXACT
    return his
