"""Initial values that are rows of a model's embeddings.

In: a tensor [rows, hidden] whose `init` is `embedded(vocab)`, `embedded("a text")` or
`embedded("#5 #17")`, and the model.  Out: the rows of tokens that are drawn, that the
text has, or that are named.  Fewer tokens than rows are repeated, more are cut off.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.runtime import NoTokensOfText

if TYPE_CHECKING:
    from torch import nn

    from peftc.plan.types import AddedTensor
    from peftc.view import Site

FREQUENT = 5000
"""Tokens are drawn from the first so many: vocabularies begin with what is frequent."""

NUMBERED = re.compile(r"(#\d+\s*)+")


def embedded(
    model: nn.Module, site: Site, tensor: AddedTensor, stream: torch.Generator
) -> torch.Tensor:
    """Rows of the table of an input site.

    Raises:
        PeftcError: PEFT343 if a text has no tokens in this model.
    """
    said = tensor.init.removeprefix("embedded(").removesuffix(")")
    count, table = tensor.shape[0], model.get_parameter(site.weight).detach()
    if said == "vocab":
        most = min(FREQUENT, table.shape[0])
        numbers = torch.randint(most, (count,), generator=stream)
    else:
        tokens = _tokens(model, said.strip('"'), table.shape[0])
        numbers = torch.tensor((tokens * count)[:count])
    module = model.get_submodule(site.owner)
    # Its own forward, where some models scale what they look up; not our hooks on it.
    made: torch.Tensor = type(module).forward(module, numbers.to(table.device))
    return made


def _tokens(model: Any, text: str, size: int) -> list[int]:
    """The numbers of a text's tokens."""
    found = [int(n) for n in re.findall(r"\d+", text)]
    if not NUMBERED.fullmatch(text.strip()):
        found = _tokenized(model, text)
    if not found or max(found) >= size:
        problem = "it has no tokens" if not found else f"the model has {size} tokens"
        raise fail(NoTokensOfText(text=text, problem=problem))
    return found


def _tokenized(model: Any, text: str) -> list[int]:
    """The tokens of a text by the tokenizer in the model's folder."""
    from transformers import AutoTokenizer

    folder = getattr(model, "name_or_path", "")
    if not folder or not Path(folder).is_dir():
        problem = "the model was not loaded from a folder with a tokenizer"
        raise fail(NoTokensOfText(text=text, problem=problem))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        problem = f"`{folder}` has no tokenizer: {str(error).splitlines()[0]}"
        raise fail(NoTokensOfText(text=text, problem=problem)) from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
