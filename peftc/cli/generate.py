"""`peftc generate MODEL PROMPT`: how a model, with or without adapter, goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import AnyBase, Json, Model, RandomInit, load_model
from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import BadSetting


@guarded
def command(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="The text to continue.")] = "",
    prompts: Annotated[
        str, typer.Option(help="A file of prompts: JSONL with `prompt`, or lines.")
    ] = "",
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
    as_json: Json = False,
) -> None:
    """Continue a text, or each of a file; an encoder-decoder answers it.

    Example: peftc generate MODEL --prompts questions.jsonl --adapter run --json
    """
    if bool(prompt) == bool(prompts):
        raise fail(BadSetting(problem="give PROMPT or `--prompts FILE`"))

    from peftc.tuning.records import read_prompts

    texts = read_prompts(prompts) if prompts else (prompt,)

    import torch

    from peftc.api import load
    from peftc.tuning.adapted import completed, continued
    from peftc.tuning.codec import codec_for
    from peftc.tuning.subject import Asked

    asked = completed(Asked(model, "", as_bytes, 0, random_init), adapter)
    network: Any = load_model(model, asked.random_init).eval()
    codec = codec_for(model, network, as_bytes=asked.as_bytes)
    if adapter:
        load(network, adapter, any_base=any_base)
    torch.manual_seed(seed)
    options = {"max_new_tokens": tokens, "do_sample": sample}
    made = [(text, continued(network, codec, text, **options)) for text in texts]
    if as_json:
        rows = [{"prompt": text, "completion": new} for text, new in made]
        print(json.dumps({"version": 1, "completions": rows}, indent=2))
        return
    for text, new in made:
        print(text + new)
