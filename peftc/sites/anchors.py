"""Where the sites of a model are in one captured graph.

In: nothing.  Out: the types that `sites.locate` produces and the rewriter consumes.  A
site that the forward uses several times (shared layers) has one anchor per use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.heads import Heads
    from peftc.view import Site


@dataclass(frozen=True)
class Routing:
    """How the rows of an activation are given to the matrices of a stack.

    `grouped`: the rows [S, in] are in the order of their experts, and `index` [experts]
    tells where the rows of each end.  `picked`: `index` [S] tells the expert of each
    row [S, in].  `each`: every expert has rows of its own, [experts, T, in].
    """

    kind: Literal["grouped", "picked", "each"]
    index: fx.Node | None = None


@dataclass(frozen=True)
class LinearAnchor:
    """One use of a linear.

    `call` is the node of the matrix product, bias included; `x` [*, in] and `y`
    [*, out] are its input and output as the model means them: where the call works on
    a flattened copy (Conv1D: view, addmm, view), `x` is the value before the first
    view and `y` the one after the last.  `weight` and `bias` are placeholders; those of
    a stack have an axis of experts, and `routing` says which row is whose.  Where the
    model adds the bias to `y` in place, `written` is the node that does.
    """

    call: fx.Node
    x: fx.Node
    y: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    routing: Routing | None = None
    written: fx.Node | None = None
    rows: tuple[int, int] | None = None
    """The rows of the weight that `y` is of, where it is split before; None for all."""

    @property
    def first(self) -> int:
        """The row of the weight that the first channel of `y` is of."""
        return self.rows[0] if self.rows else 0


@dataclass(frozen=True)
class HiddenAnchor:
    """One activation edge: `h` as read by `reader`.

    `reader` is the residual add (or, for `block`, None: every reader of `h`).  `u` is
    the sublayer's input.  In a post-LN block `norm` is the node of the norm that is
    the only reader of the add; else None.
    """

    h: fx.Node
    reader: fx.Node | None
    u: fx.Node | None = None
    norm: fx.Node | None = None


@dataclass(frozen=True)
class NormAnchor:
    """The gain and offset of a norm: placeholders; every use of them is rewritten."""

    gain: fx.Node
    offset: fx.Node | None


@dataclass(frozen=True)
class EmbeddingAnchor:
    """One look-up: rows `index` of the placeholder `weight`."""

    call: fx.Node
    index: fx.Node
    weight: fx.Node


@dataclass(frozen=True)
class InputAnchor:
    """One look-up of the tokens that a stack begins with.

    `out` is what the stack goes on with: behind the scale of the embeddings, if there
    is one.
    """

    call: fx.Node
    weight: fx.Node
    out: fx.Node


@dataclass(frozen=True)
class PositionRead:
    """Positions, in whole numbers, and the node that makes other numbers of them."""

    value: fx.Node
    reader: fx.Node


@dataclass(frozen=True)
class AttentionAnchor:
    """One attention, in either spelling; its heads as its products see them (keys that
    are repeated count as often); `u` is the input of its sublayer; `turned` are the
    places where positions enter the rotations of queries and keys."""

    attention: Attention
    heads: Heads
    u: fx.Node | None = None
    turned: tuple[PositionRead, ...] = ()


Anchor: TypeAlias = (
    LinearAnchor
    | HiddenAnchor
    | NormAnchor
    | EmbeddingAnchor
    | InputAnchor
    | AttentionAnchor
)


@dataclass(frozen=True)
class Located:
    """A site and its anchors in a graph.

    `site.rows` and what costs time to find may be missing here: match by `site.key`.
    """

    site: Site
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True)
class Edit:
    """One value of a graph replaced by another, for one reader or (None) for all.

    Only nodes that were inserted for `sites` go on reading `old`.  Several sites that
    are rows of one linear are one edit; `targets` are those of the programs it does.
    """

    sites: tuple[str, ...]
    targets: tuple[str, ...]
    old: fx.Node
    new: fx.Node
    reader: fx.Node | None = None


Steps: TypeAlias = Literal["", "torch", "kernels"]


@dataclass(frozen=True)
class Capture:
    """One captured forward, bound to the model: what fx passes work on.

    `located` by site key; `tensors[site key][tensor name]` are the placeholders of the
    added tensors (`rows` under that name holds the row numbers of a site that is a
    non-contiguous row set; the path of a weight that is kept in codes takes the place
    of a site key for these); `training` is the mode of each site's owner.
    """

    graph: fx.Graph
    located: Mapping[str, Located]
    tensors: Mapping[str, Mapping[str, fx.Node]]
    training: Mapping[str, bool]
    base: Mapping[fx.Node, str] = field(default_factory=dict)
    """The base's parameters: their placeholders and paths."""
    steps: Steps = ""
    """What a site's linear and its program are to be one step of autograd by, if so."""
    recompute: bool = False
    """Whether such steps are to compute again what they read; compilers that see the
    backward decide that themselves."""
    edits: list[Edit] = field(default_factory=list)
    """What `rewrite.edit` did so far, in order: anchors name the nodes of the graph as
    it was captured, and this tells what stands for their values now."""
