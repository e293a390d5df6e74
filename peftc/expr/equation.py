"""What elaboration makes of the body of one method, and composition takes.

Rules are over the leaves of the site (`peftc.expr.places`) and of the declarations,
whose names carry the prefix of the instance (`lora#2.A`), as do the names of sizes
that are not axes of the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftc.expr.ir import leaf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.controls import Control
    from peftc.expr.ir import Leaf, Node
    from peftc.expr.networks import Network
    from peftc.expr.sizes import Size
    from peftc.syntax.source import Span


@dataclass(frozen=True)
class Initial:
    """Where a tensor starts: `distribution(args)`, or the value `node`.

    `distribution` is empty for a value, which is a scalar or of the tensor's axes.
    """

    distribution: str
    args: tuple[float | str, ...] = ()
    node: Node | None = None
    copies: str = ""
    """The tensor whose initial value this is, once or several times over."""


@dataclass(frozen=True)
class Declaration:
    """One tensor that a method adds."""

    name: str
    kind: Literal["param", "buffer"]
    shared: bool
    axes: tuple[Size, ...]
    init: Initial
    span: Span | None = None
    leading: int = 0
    """How many axes in front of its own a wrapper gave it."""
    of: str = ""
    """The tensor that a wrapper added it for."""

    @property
    def leaf(self) -> Leaf:
        """The tensor as rules read it."""
        return leaf(self.name, self.kind, self.axes)


@dataclass(frozen=True)
class Stored:
    """How a tensor of the base is kept; `form` is `storage.table.Form.text`, empty
    while knobs have no values."""

    tensor: str
    form: str
    span: Span


@dataclass(frozen=True)
class Equation:
    """One application of a method at one kind of site.

    `rules` gives a new value for a target (places.TARGETS); in it, a leaf of the site
    is the value before this method.  `losses` are scalars; `controls` are what its
    `train` statements say; `network` stands beside the backbone.  `origins` tells the
    text a node came from.  An equation with `stores` has nothing else.
    """

    declarations: tuple[Declaration, ...]
    rules: Mapping[str, Node]
    losses: tuple[Node, ...]
    origins: Mapping[Node, Span]
    controls: tuple[Control, ...] = ()
    stores: tuple[Stored, ...] = ()
    network: Network | None = None
