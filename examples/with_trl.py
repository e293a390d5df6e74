"""Train with TRL: first on texts (SFTTrainer), then on preferences (DPOTrainer).

In: the example model with a spec (`specs/lora.peft`) in it.  Out: how much likelier
than plain logs the model finds pirate logs before, between and after, and an exit
status that is not 0 if a stage does not raise that.  The first adapter is merged into
the base of the second, which is the reference of DPO: no weight is in memory twice.
Run it as `python examples/with_trl.py`; it needs `trl`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

import peftc
from bytes_text import BOS, EOS, PAD
from corpus import documents
from evaluation import held_out_loss, windows

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
BASE = HERE / "tiny_llama"
SPEC = HERE / "specs" / "lora.peft"
STEPS, BATCH, LENGTH, EVALUATED = 20, 8, 64, 32


def main(_: Sequence[str] = ()) -> int:
    """Both stages on one model; the exit status."""
    torch.set_num_threads(1)
    model = compiled(BASE)
    likings = [liking(model)]
    with tempfile.TemporaryDirectory() as folder:
        for stage in (texts, preferences):
            stage(model, folder)
            likings.append(liking(model))
            model.save_pretrained(folder, merge=True)
            model = compiled(Path(folder))
    told = zip(("base", "after texts", "after preferences"), likings, strict=True)
    for name, value in told:
        Console().print(f"{name}: pirate logs are {value:+.3f} nats per byte likelier")
    return 0 if likings == sorted(likings) and len(set(likings)) == 3 else 1


def compiled(base: Path) -> Any:
    """A base with the spec's methods in it."""
    return peftc.compile(AutoModelForCausalLM.from_pretrained(base), SPEC)


def liking(model: Any) -> float:
    """How much likelier pirate logs are than plain ones, in nats per byte."""
    plain, pirate = (
        held_out_loss(model, windows(style, 0, EVALUATED, LENGTH, held_out=True))
        for style in ("plain", "pirate")
    )
    return plain - pirate


def tokenizer() -> PreTrainedTokenizerFast:
    """The bytes of the example model as a tokenizer that TRL takes."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    # The letters stand for bytes in an order of their own; this is that of bytes.
    order = sorted(letters, key=lambda one: (ord(one) >= 256, ord(one)))
    special = {"<s>": BOS, "</s>": EOS, "<pad>": PAD}
    made = Tokenizer(models.BPE({**byte_numbers(order), **special}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def byte_numbers(letters: Sequence[str]) -> dict[str, int]:
    """The byte that each letter of the byte-level alphabet stands for."""
    own = [n for n in range(256) if chr(n) in letters]
    others = [n for n in range(256) if n not in own]
    shifted = {chr(256 + place): n for place, n in enumerate(others)}
    return {**{chr(n): n for n in own}, **shifted}


def common(folder: str, **more: Any) -> dict[str, Any]:
    """What both stages are told."""
    return {
        "output_dir": folder,
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 3e-3,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "max_length": LENGTH,
        **more,
    }


def some(style: str, count: int) -> list[str]:
    """Logs of a style."""
    return [text for _, text in zip(range(count), documents(style, 1), strict=False)]


def texts(model: Any, folder: str) -> None:
    """Supervised fine-tuning on pirate logs."""
    data = Dataset.from_dict({"text": some("pirate", STEPS * BATCH)})
    arguments = SFTConfig(**common(folder))
    SFTTrainer(
        model, arguments, train_dataset=data, processing_class=tokenizer()
    ).train()


def preferences(model: Any, folder: str) -> None:
    """Pirate logs are preferred to plain ones."""
    count = STEPS * BATCH
    data = Dataset.from_dict(
        {
            "prompt": ["Log: "] * count,
            "chosen": some("pirate", count),
            "rejected": some("plain", count),
        }
    )
    DPOTrainer(
        model,
        model.peftc.reference(),
        DPOConfig(**common(folder, beta=0.1)),
        train_dataset=data,
        processing_class=tokenizer(),
    ).train()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
