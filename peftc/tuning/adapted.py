"""A model to be measured or to write, with or without an adapter.

In: the MODEL argument and an adapter's folder.  Out: the model; and what the run that
made the adapter says of how it reads, so that it is not told again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftc.api import load
from peftc.tuning.examples import Collate, examples
from peftc.tuning.folder import read_run
from peftc.tuning.measure import Measures, measure
from peftc.tuning.records import read_data
from peftc.tuning.subject import Asked, subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peftc.tuning.settings import Settings


def completed(asked: Asked, adapter: Path | None) -> Asked:
    """What is asked for, completed by what the adapter's run was begun with."""
    said = read_run(adapter) if adapter else {}
    start = asked.random_init
    return replace(
        asked,
        task=asked.task or said.get("task", ""),
        as_bytes=asked.as_bytes or said.get("codec") == "bytes",
        classes=asked.classes or tuple(said.get("classes", ())),
        random_init=said.get("random_init") if start is None else start,
    )


def evaluate(
    asked: Asked,
    data: str,
    settings: Settings,
    note: Callable[[str], None],
    *,
    adapter: Path | None = None,
    any_base: bool = False,
) -> tuple[Measures, str]:
    """Measure a model on data; and the task it was measured for.

    Raises:
        PeftcError: with diagnostics.
    """
    settings.check()
    found = read_data(data, split="test")
    whole = subject(completed(asked, adapter), found, settings, note)
    reading = whole.reading
    if adapter:
        load(whole.model, adapter, any_base=any_base)
    collate = Collate(reading.task, reading.codec.pad)
    made = examples(found, reading)
    return measure(whole.model, made, collate, settings.batch), reading.task


def continued(network: Any, codec: Any, prompt: str, **options: Any) -> str:
    """What a model writes after a prompt, or as the answer to it.

    `options` are those of `generate`.
    """
    import torch

    answers = network.config.is_encoder_decoder
    around = codec.end if answers else ()
    ids = torch.tensor([[*codec.begin, *codec.tokens(prompt), *around]])
    ids = ids.to(network.device)
    made = network.generate(ids, attention_mask=torch.ones_like(ids), **options)
    new = made[0, 1 if answers else ids.shape[1] :].tolist()
    return str(codec.text(new))
