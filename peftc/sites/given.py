"""Where the tokens that a forward is given enter a graph.

In: a look-up.  Out: whether its index is the argument `input_ids`, which is called so
by all of transformers and is its public interface; and the value behind the scale that
some models put on their embeddings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peftc.sites import ops
from peftc.sites.flow import strip

if TYPE_CHECKING:
    from torch import fx

TOKENS = "input_ids"
ARGUMENT = "peftc.argument"
"""Under this name a captured placeholder keeps which argument it is."""


def given_tokens(index: fx.Node) -> bool:
    """Whether an index is the tokens of the forward, as they are or viewed."""
    node = strip(index, ops.VIEWS | ops.CASTS | ops.PIECES)
    return node.op == "placeholder" and argument_name(node) == TOKENS


def argument_name(node: fx.Node) -> str:
    """The name of the argument that a placeholder stands for; "" if it is none."""
    argument = node.meta.get("grapharg")
    if argument is None:
        return str(node.meta.get(ARGUMENT, ""))
    words: list[str] = re.findall(r"\w+", str(argument.source.name))
    return words[-1] if words else ""


def scaled(call: fx.Node) -> fx.Node:
    """What is read of a look-up: itself, or it times a number."""
    users = [user for user in call.users if ops.name(user) in ("mul", *ops.CASTS)]
    if len(users) != len(call.users) or len(users) != 1:
        return call
    others = [n for n in ops.inputs(users[0]) if n is not call]
    return scaled(users[0]) if all(_is_number(n) for n in others) else call


def _is_number(node: fx.Node) -> bool:
    shape = ops.shape(node)
    return shape is not None and all(size == 1 for size in shape)
