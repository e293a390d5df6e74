"""The functions that change which node reads what.

In: a Capture, and an Edit: a value and what replaces it.  Out: the graph edited in
place, and the edit noted in `capture.edits`.  Anchors name nodes of the graph as it was
captured; `now` says what stands for the value of such a node after the edits so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import EdgeLost
from peftc.rewrite.insert import BOTH
from peftc.sites.anchors import Edit

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.anchors import Capture


def now(capture: Capture, value: fx.Node, reader: fx.Node | None = None) -> fx.Node:
    """What is read instead of `value` by `reader` (None: by what reads no edge)."""
    for edit in capture.edits:
        if edit.old is value and edit.reader in (None, reader):
            value = edit.new
    return value


def after(node: fx.Node) -> fx.Node:
    """The node before which one inserts to stand right after `node`."""
    return node.next


def is_own(edit: Edit, reader: fx.Node) -> bool:
    """Whether a node was inserted for one of the edit's sites: it reads the old."""
    return not sites_of(reader).isdisjoint(edit.sites)


def sites_of(node: fx.Node) -> set[str]:
    """The sites that a node was inserted for; empty for a node of the model."""
    return set(node.meta.get("peftc.site", "").split(BOTH))


def settle(capture: Capture, value: fx.Node, written: fx.Node) -> None:
    """Let what reads a value after it was changed in place read the change's result.

    Both are one tensor; the edit has no site.
    """
    if any(edit.new is written for edit in capture.edits):
        return
    value.replace_all_uses_with(written, delete_user_cb=lambda user: user > written)
    capture.edits.append(Edit((), (), value, written))


def replace(capture: Capture, edit: Edit) -> None:
    """Let `edit.reader`, or all readers that are not `is_own`, read the new value.

    Raises:
        PeftcError: if the reader does not read the old value.
    """
    if edit.reader is None:
        edit.old.replace_all_uses_with(
            edit.new, delete_user_cb=lambda user: not is_own(edit, user)
        )
    elif edit.old in edit.reader.all_input_nodes:
        edit.reader.replace_input_with(edit.old, edit.new)
    else:
        raise fail(EdgeLost(site=edit.sites[0]))
    capture.edits.append(edit)
