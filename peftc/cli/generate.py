"""`peftc generate MODEL PROMPT`: how a model, with or without adapter, goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import AnyBase, Model, RandomInit, load_model
from peftc.diagnostics.cli import NoTokenizer
from peftc.diagnostics.core import fail


@guarded
def command(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    adapter: Annotated[
        Path | None, typer.Option(help="A folder with adapter.safetensors.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="How many to add.", min=1)] = 64,
    sample: Annotated[bool, typer.Option(help="Sample instead of greedy.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.", min=0)] = 0,
    as_bytes: Annotated[
        bool, typer.Option("--bytes", help="The bytes of the text are the tokens.")
    ] = False,
    random_init: RandomInit = None,
    any_base: AnyBase = False,
) -> None:
    """Continue a text."""
    codec = Bytes() if as_bytes else _tokenizer(model)

    import torch

    from peftc.api import load

    network: Any = load_model(model, random_init).eval()
    if adapter:
        load(network, adapter, any_base=any_base)
    torch.manual_seed(seed)
    ids = torch.tensor([codec.encode(prompt)])
    options = {"max_new_tokens": tokens, "do_sample": sample}
    made = network.generate(ids, attention_mask=torch.ones_like(ids), **options)
    print(prompt + codec.decode(made[0, ids.shape[1] :].tolist()))


class Bytes:
    """Texts as their UTF-8 bytes; tokens above 255 are left out."""

    def encode(self, text: str) -> list[int]:
        """Text to tokens."""
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        """Tokens to text; what is no UTF-8 is shown as a mark."""
        return bytes(t for t in tokens if t < 256).decode(errors="replace")


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise fail(NoTokenizer(problem=f"`{model}` has none: {reason}")) from None
