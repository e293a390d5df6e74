"""Which tokens of an activation are there, and which are padding.

In: a captured graph and an activation of a site.  Out: a node [b, t] of ones and zeros
in the activation's type.  It is cut from the mask that the forward was given: arguments
of these names are transformers' public interface, the same for every model; without a
mask all tokens are there.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import MaskNotFlat
from peftc.rewrite.insert import example, length
from peftc.rewrite.print import source_names

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.insert import Inserter
    from peftc.view import Site

MASKS = {"dec": "decoder_attention_mask"}
"""The argument that says which tokens of a stack are there; of others OTHERS."""

OTHERS = "attention_mask"


def real_tokens(site: Site, like: fx.Node, at: Inserter) -> fx.Node:
    """1 for the tokens of `like`, [b, t, _], that are there, 0 for padding.

    Raises:
        PeftcError: if the mask that was given is not [b, tokens].
    """
    mask = _argument(like.graph, MASKS.get(site.stack, OTHERS))
    if mask is None:
        first = at.put(torch.select, like, -1, 0)
        return at.put(torch.ones_like, first)
    if example(mask).dim() != 2:
        rank = example(mask).dim()
        raise fail(MaskNotFlat(site=site.place, rank=rank))
    # With a cache the mask is longer: it ends with the tokens at hand.
    count = length(like, 1, at)
    skipped = at.put(operator.sub, length(mask, 1, at), count)
    mask = at.put(torch.narrow, mask, 1, skipped, count)
    return at.put("to", mask, example(like).dtype)


def _argument(graph: fx.Graph, name: str) -> fx.Node | None:
    """The placeholder of an argument of the forward, if it was given."""
    names = source_names(graph)
    inputs = graph.find_nodes(op="placeholder")
    hits = (n for n in inputs if names.get(n.name, "").rpartition(".")[2] == name)
    return next(hits, None)
