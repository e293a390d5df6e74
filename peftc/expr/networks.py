"""Side networks: what a `network` statement may name, and how it is read.

In: a statement and the scope of its clause.  Out: `Network`, whose options have their
types.  What a network computes is code in `peftc.networks`; the table here says what it
takes, so that texts are checked without it.  An installed package adds its own under
the entry point `peftc.networks` (`name = "package.module:SIGNATURE"`, a `Signature`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.networks import UnknownNetwork
from peftc.expr.options import header, read_options, with_offered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.knobs import Knob
    from peftc.expr.scope import Scope
    from peftc.syntax import ast
    from peftc.syntax.source import Span

GROUP = "peftc.networks"
"""Of entry points."""


@dataclass(frozen=True)
class Signature:
    """What a network takes: its options, written as knobs are.

    `code` is where its class is, `module:name`; `neutral` an option with which the
    model starts unchanged, if there is one.
    """

    name: str
    code: str
    options: str = ""
    neutral: str = ""


@dataclass(frozen=True)
class Network:
    """The `network` statement of an application; `options` are empty while the values
    of knobs are not known."""

    builder: str
    options: Mapping[str, Knob]
    span: Span | None = field(default=None, compare=False)


NETWORKS: Mapping[str, Signature] = {
    one.name: one
    for one in (
        Signature(
            "transformer",
            "peftc.networks.transformer:Transformer",
            "reduction: size = 8, gate: learned | none = learned, gate_T: scale = 0.1,"
            " init: random | l1 = random,"
            " blend: flag = false,"
            " identity_init: flag = false",
            neutral="identity_init",
        ),
    )
}
"""peftc's own, one line each."""


@lru_cache
def networks() -> Mapping[str, Signature]:
    """All that are known, those of installed packages too."""
    return with_offered(NETWORKS, GROUP)


def read_network(statement: ast.Network, scope: Scope) -> Network:
    """Read a `network` statement.

    Raises:
        PeftcError: PEFT456 for an unknown network, or what is wrong with an option.
    """
    known = networks()
    if statement.builder not in known:
        hint = suggestion(statement.builder, known) or f"there are {', '.join(known)}"
        name = statement.builder
        raise fail(UnknownNetwork(span=statement.span, name=name, hint=hint))
    signature = known[statement.builder]
    method = header(signature.name, signature.options)
    options = read_options(method, statement.args, scope, statement.span)
    return Network(statement.builder, options, statement.span)


def starts_alike(network: Network) -> bool:
    """Whether the head reads at first what the backbone gives."""
    neutral = networks()[network.builder].neutral
    return bool(neutral and network.options.get(neutral))
