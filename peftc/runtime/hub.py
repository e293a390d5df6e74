"""An adapter on the Hugging Face Hub.

In: a handle and the name of a repository.  Out: the adapter file there, and a model
card that says what it is: the spec, what it adds to the base, how to use it, results.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftc.files import write_atomically
from peftc.markdown import table
from peftc.plan.summary import COLUMNS, rows, totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.runtime.handle import Handle

CARD = "README.md"


class PushToHub:
    """Set on the instance of a compiled model as its `push_to_hub`."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def __call__(
        self,
        repo_id: str,
        *,
        results: Mapping[str, float] | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        **options: Any,
    ) -> str:
        """Upload the adapter and its card; returns the address of the commit.

        The repository is made if there is none.  `results` are written into the card;
        `options` are those of `huggingface_hub.HfApi.upload_folder`, such as
        `commit_message`, `revision` and `create_pr`.

        Raises:
            PeftcError: as `Handle.save`; nothing is uploaded then.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.handle.save(folder)
            text = self.handle.card(results)
            write_atomically(Path(folder) / CARD, text.encode())
            made = api.create_repo(repo_id, private=private, exist_ok=True)
            options = {"commit_message": "Upload an adapter of peftc", **options}
            for unknown in (
                "max_shard_size",
                "tags",
            ):  # a whole model's, not one file's
                options.pop(unknown, None)
            done = api.upload_folder(
                repo_id=made.repo_id, folder_path=folder, **options
            )
        return str(done)


def card(handle: Handle, results: Mapping[str, float]) -> str:
    """The model card of an adapter, with its metadata for the Hub."""
    from huggingface_hub import ModelCardData

    base = str(getattr(handle.model.config, "_name_or_path", "") or "")
    on_hub = base.count("/") <= 1 and not Path(base).exists()
    data = ModelCardData(
        library_name="peftc",
        base_model=base if base and on_hub else None,
        tags=["peftc", "adapter"],
    )
    parts = (
        f"---\n{data.to_yaml()}\n---",
        f"# An adapter for {handle.plan.model.architecture}",
        f"Made with peftc {version('peftc')} from the spec",
        f"```\n{handle.spec.strip()}\n```",
        "## Use",
        _use(handle, base),
        "## What it adds",
        table(COLUMNS, (tuple(map(_cell, row)) for row in rows(handle.plan))),
        "\n".join(f"- {line}" for line in totals(handle.plan)),
        *_results(results),
    )
    return "\n\n".join(parts) + "\n"


def _use(handle: Handle, base: str) -> str:
    name = type(handle.model).__name__
    return "\n".join(
        (
            "```python",
            "import peftc",
            f"from transformers import {name}",
            "",
            f'model = {name}.from_pretrained("{base or "BASE"}")',
            'peftc.load(model, "FOLDER")  # where this repository was downloaded to',
            "```",
        )
    )


def _results(results: Mapping[str, float]) -> Iterator[str]:
    if results:
        yield "## Results"
        told = [(_cell(name), f"{value:g}") for name, value in results.items()]
        yield table(("measure", "value"), told)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
