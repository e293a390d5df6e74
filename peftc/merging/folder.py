"""A base's folder and adapters, to the folder of a plain model.

In: adapters that were read, the folder of their base, and how several are added up.
Out: a folder that Transformers reads without peftc.  It is read and written tensor by
tensor, so that the model may be larger than memory.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.merging.change import Choices, Merging, Part, Told
from peftc.merging.checkpoint import (
    Checkpoint,
    Entry,
    copy_rest,
    write_file,
    write_index,
)
from peftc.sites.load import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peftc.merging.combine import Sum
    from peftc.runtime.state import Adapter


def merge_folder(
    adapters: Sequence[Adapter],
    source: Path,
    target: Path,
    how: Sum,
    choices: Choices | None = None,
) -> Told:
    """Write a merged model into an empty folder.

    Raises:
        PeftcError: PEFT741 if the files cannot be read tensor by tensor, PEFT625 if
            the base is another, PEFT630 if something does not merge, PEFT740, PEFT632.
    """
    chosen = choices or Choices()
    model = load(source, meta=True).model
    checkpoint = Checkpoint(source, model)
    parts = [Part(adapter, model) for adapter in adapters]
    merging = Merging(model, checkpoint, parts, how, chosen)
    merging.check()
    copy_rest(source, target)
    _write(merging, checkpoint, target, untie=chosen.untie)
    return merging.told


def _write(
    merging: Merging, checkpoint: Checkpoint, target: Path, *, untie: bool
) -> None:
    """Write all files of weights; what is new goes into the last."""
    files = {name: [*entries] for name, entries in checkpoint.files.items()}
    last = files[[*files][-1]]
    last += [
        _new(merging, checkpoint, path)
        for path in merging.groups
        if path not in checkpoint
    ]
    if untie:
        last += [checkpoint.like(path, own) for path, own in _tied(merging)]
        _untie(target)

    for name, entries in files.items():
        write_file(target / name, entries, lambda entry: merging.value(entry.path))
    write_index(target, files)


def _new(merging: Merging, checkpoint: Checkpoint, path: str) -> Entry:
    """A bias that the base has no values of."""
    like = checkpoint.like(path, merging.groups[path])
    return replace(like, shape=merging.shapes[path])


def _tied(merging: Merging) -> list[tuple[str, str]]:
    """Names that files leave out, as another has their values, and that other."""
    groups = dict.fromkeys(merging.ties.values())
    pairs = ((path, merging.source(path)) for group in groups for path in group)
    return [(path, own) for path, own in pairs if path != own]


def _untie(folder: Path) -> None:
    """Let a configuration say that nothing is tied."""
    path = folder / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["tie_word_embeddings"] = False
    path.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")
