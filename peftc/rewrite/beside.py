"""A fused attention that stays as it is, with rows beside it.

In: a use of an attention site that is one fused call, and its rows.  Out: one node
that is the call and the attention to the rows, or None where the call has to be put on
longer keys: it drops out, types differ, rows are not the same for all samples, or it is
of a kind that was not measured to be as fast so.

    %o = attention(%q, %k, %v)  ->  %o = merged_attention(%q, %k, %v, rows, values)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.rewrite.insert import example
from peftc.rewrite.merged import Merged
from peftc.rewrite.slots import SHARED, by_heads, lead_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from peftc.rewrite.fused import Call
    from peftc.rewrite.insert import Inserter
    from peftc.rewrite.slots import Rows
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import AttentionAnchor

MEASURED = ("cpu",)
"""Devices where the times of both forms are known."""

TYPES = (torch.float32, torch.float64)
"""Types in which products beside the kernel round no more than those in it."""


def emit_beside(
    use: Use[AttentionAnchor], call: Call, rows: Sequence[Rows], at: Inserter
) -> fx.Node | None:
    """The call and an attention to the site's rows, merged."""
    is_able = _is_plain(call) and _is_shared(rows, call, at)
    if not (use.capture.steps and is_able and _pays(use, call)):
        return None
    made = [by_heads(use, one, use.anchor.heads.shared, at) for one in rows]
    keys = _one_after_another([one.keys for one in made], at)
    values = _one_after_another([one.values for one in made], at)
    function = Merged(call.scale, bool(call.options["is_causal"]))
    masks = () if call.mask is None else (call.mask,)
    return at.put(function, call.query, call.key, call.value, keys, values, *masks)


def _pays(use: Use[AttentionAnchor], call: Call) -> bool:
    """Whether the call is of a kind that is no slower so, where that was measured.

    A causal call needs no more queries; one query, which reads a cache, no copy of it;
    and where rows alone learn, as in a first layer, the call needs no backward.
    """
    query = example(call.query)
    is_training = use.capture.training.get(use.key, False)
    is_quick = bool(call.options["is_causal"]) or query.shape[-2] == 1
    is_measured = query.device.type in MEASURED
    return is_measured and (is_quick or (is_training and _is_fixed(call)))


def _is_fixed(call: Call) -> bool:
    """Whether nothing that learns leads to the call's own inputs.

    Parameters tell: captured values in between are not reliable after operations that
    write in place.
    """
    seen: set[fx.Node] = set()
    open_ends = [call.query, call.key, call.value]
    while open_ends:
        node = open_ends.pop()
        if node not in seen:
            seen.add(node)
            open_ends += node.all_input_nodes
    inputs = (n.meta["example_value"] for n in seen if n.op == "placeholder")
    return not any(getattr(one, "requires_grad", False) for one in inputs)


def _is_plain(call: Call) -> bool:
    """Whether the kernel that tells its log-sum-exp runs such a call."""
    query, key, value = map(example, (call.query, call.key, call.value))
    return (
        not call.options["dropout_p"]
        and isinstance(call.scale, float | int)
        and query.dim() == 4
        and query.shape[0] == key.shape[0]
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and _is_known(call.mask, query.dtype)
    )


def _is_known(mask: fx.Node | None, dtype: torch.dtype) -> bool:
    if mask is None:
        return True
    value = example(mask)
    return value.dim() == 4 and value.dtype in (torch.bool, dtype)


def _is_shared(rows: Sequence[Rows], call: Call, at: Inserter) -> bool:
    """Whether rows are the same for all samples, and all is of one type."""
    nodes = [call.query, call.key, call.value, *(v.node for one in rows for v in one)]
    types = {example(node).dtype for node in nodes}
    device = example(call.query).device.type
    is_one_type = len(types) == 1 and types.issubset(TYPES)
    is_shared = all(lead_of(one) == SHARED for one in rows)
    return is_one_type and is_shared and not at.is_autocast(device)


def _one_after_another(rows: list[fx.Node], at: Inserter) -> fx.Node:
    return rows[0] if len(rows) == 1 else at.put(torch.cat, rows, -2)
