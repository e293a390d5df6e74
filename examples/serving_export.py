"""Serve a tuned model from a process that has torch and nothing else, in seconds.

In: the example model with a spec (`specs/lora.peft`) in it.  Out: `program.pt2` in the
folder given (a temporary one by default), what a process in which peftc and
transformers cannot be imported continues prompts with, and an exit status that is not 0
if that is not what the model itself says.
Run it as `python examples/serving_export.py [FOLDER]`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

import peftc
from bytes_text import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
BASE = HERE / "tiny_llama"
SPEC = HERE / "specs" / "lora.peft"
PROMPTS = ("The wind blew", "Log o' the")
NEW = 12
"""Bytes that each prompt goes on for."""

SERVER = """
import sys

class OnlyTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("peftc", "transformers"):
            raise ImportError(f"a server has no {name}")

sys.meta_path.insert(0, OnlyTorch())

import torch

torch.set_num_threads(1)
program = torch.export.load(sys.argv[1]).module()
for line in sys.argv[3:]:
    ids = [int(one) for one in line.split(",")]
    for _ in range(int(sys.argv[2])):
        given = torch.tensor([ids])
        with torch.no_grad():
            result = program(input_ids=given, attention_mask=torch.ones_like(given))
        ids.append(int(result["logits"][0, -1].argmax()))
    print(",".join(map(str, ids)))
"""


def main(arguments: Sequence[str] = ()) -> int:
    """Compile, export, serve in another process, compare; the exit status."""
    torch.set_num_threads(1)
    console = Console()
    model = tuned()
    with tempfile.TemporaryDirectory() as temporary:
        file = model.peftc.export(arguments[0] if arguments else temporary, to="pt2")
        size = f"{file.stat().st_size / 2**20:.1f} MiB"
        console.print(f"wrote {file.name}, {size}, for any number of samples and bytes")
        served = serve(file)
    expected = [continued(model, prompt) for prompt in PROMPTS]
    for mine, theirs in zip(expected, served, strict=True):
        verdict = "ok" if mine == theirs else f"DIFFERS from {decode(mine)!r}"
        console.print(f"{decode(theirs)!r} {verdict}", markup=False)
    return 0 if served == expected else 1


def tuned() -> Any:
    """The model with a spec in it, whose parameters are as after training: not zero."""
    model: Any = AutoModelForCausalLM.from_pretrained(BASE)
    peftc.compile(model.eval(), SPEC)
    generator = torch.Generator().manual_seed(0)
    for parameters in model.peftc.parameters_by_method().values():
        for parameter in parameters.values():
            parameter.data.normal_(std=0.1, generator=generator)
    return model


def serve(file: Path) -> list[list[int]]:
    """What a process with torch alone makes of the prompts."""
    prompts = [",".join(map(str, encode(prompt))) for prompt in PROMPTS]
    command = [sys.executable, "-c", SERVER, str(file), str(NEW), *prompts]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [[int(one) for one in line.split(",")] for line in done.stdout.split()]


def continued(model: Any, prompt: str) -> list[int]:
    """What the model itself makes of a prompt, without a cache as the program is."""
    ids = encode(prompt)
    for _ in range(NEW):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
