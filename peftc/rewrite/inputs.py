"""Rows of methods among the embedded tokens.

In: a use of an input, and the numbers [b, t] that say which row stands at a token's
place, or a number below zero where a token stands.  Out: the graph in which the stack
goes on with the rows at their places.  Places were made by whoever gave the forward its
tokens: what is looked up there is not read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from peftc.rewrite.edit import after, now, replace
from peftc.rewrite.emit import emit_value
from peftc.rewrite.insert import example
from peftc.sites.anchors import Edit

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import InputAnchor

NUMBERS = "numbers"
"""The key in `Capture.tensors` of the numbers of rows."""


def insert_rows(use: Use[InputAnchor]) -> None:
    """Let the readers of the embedded tokens read rows where rows stand."""
    out = now(use.capture, use.anchor.out)
    at = use.inserter(after(out), use.anchor.out)
    found = []
    for program in use.rewrite.programs:
        source = use.source(program, out, partial(_read, use))
        found.append(emit_value(source, at, use.memo(program)).node)
    rows = found[0] if len(found) == 1 else at.put(torch.cat, found)
    numbers = use.tensor(NUMBERS)
    chosen = at.put(F.embedding, at.put(torch.clamp, numbers, min=0), rows)
    is_row = at.put(torch.unsqueeze, at.put(torch.ge, numbers, 0), -1)
    chosen = at.cast(chosen, example(out).dtype)
    new = at.put(torch.where, is_row, chosen, out)
    replace(use.capture, Edit((use.key,), use.targets, out, new))


def _read(use: Use[InputAnchor], name: str) -> fx.Node:
    return use.anchor.weight if name == "E" else use.tensor(name)
