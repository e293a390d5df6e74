"""Weights that are kept in codes, decoded where a graph reads them.

In: a capture whose rewrites are done, and a weight that is stored otherwise.  Out: no
node reads the weight itself any more.  A product with it becomes one that keeps only
the codes; every other reader gets the decoded weight.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.stored import CodesMissing
from peftc.rewrite.insert import Inserter
from peftc.rewrite.make_input import make_input, place_of
from peftc.rewrite.print import op_name
from peftc.rewrite.recomputed import Made
from peftc.sites import ops
from peftc.storage.reading import decoded, stored_linear

if TYPE_CHECKING:
    from torch import fx

    from peftc.plan.types import StoredWeight
    from peftc.sites.anchors import Capture

_WORDS = {
    "linear": ("input", "weight", "bias"),
    "addmm": ("bias", "input", "weight"),
}
"""Products by name: what their arguments are."""
_NAMES = {"bias": "input", "input": "mat1", "weight": "mat2"}
"""What `addmm` calls them."""


def read_decoded(capture: Capture, stored: StoredWeight) -> int:
    """Let every reader of a weight read what its codes decode to; how many there were.

    Raises:
        PeftcError: PEFT450 if the codes are no inputs of this graph.
    """
    count = 0
    for node, path in capture.base.items():
        if path == stored.weight:
            while node.users:
                _decode(capture, stored, node, next(iter(node.users)))
                count += 1
    return count


def _decode(
    capture: Capture, stored: StoredWeight, node: fx.Node, reader: fx.Node
) -> None:
    given = capture.tensors.get(stored.weight, {})
    if any(part.name not in given for part in stored.parts):
        raise fail(CodesMissing(weight=stored.weight, reader=op_name(reader)))
    dtype = getattr(torch, stored.dtype)
    parts = tuple(given[part.name] for part in stored.parts)
    kind = (stored.form, stored.coded, dtype, *parts)
    if (place := place_of(reader, node)) is not None:
        run = partial(decoded, stored.form, stored.coded, dtype)
        make_input(reader, Made(place, run, len(parts)), parts)
        return
    at = Inserter(reader, reader.meta.get("peftc.site", ""), reader, stored.origin)
    if (product := _product(node, reader)) is not None:
        new = _marked(at, stored_linear, (*product, *kind))
        reader.replace_all_uses_with(new, propagate_meta=False)
        capture.graph.erase_node(reader)
        return
    new = _marked(at, decoded, kind)
    if stored.transposed:
        new = _marked(at, torch.transpose, (new, -2, -1))
    reader.replace_input_with(node, new)


def _marked(at: Inserter, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """A new node with all marks of the reader: it belongs where that is."""
    new = at.put(target, *args)
    new.meta = {**at.like.meta, **new.meta}
    return new


def _product(node: fx.Node, reader: fx.Node) -> tuple[Any, Any] | None:
    """Activation and bias of a product that reads the weight as its weight only."""
    name = ops.name(reader)
    if name not in _WORDS or reader.op != "call_function":
        return None
    words = _WORDS[name]
    keys = [_NAMES[w] if name == "addmm" else w for w in words]
    named = dict(zip(keys, reader.args, strict=False)) | reader.kwargs
    if set(named) - set(keys):
        return None
    found = {word: named.get(key) for word, key in zip(words, keys, strict=True)}
    alone = found["input"] is not node and found["bias"] is not node
    return (
        (found["input"], found["bias"]) if alone and found["weight"] is node else None
    )
