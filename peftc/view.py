"""ModelView: all that the front end knows of a model.

Plain data made by `peftc.sites` from one captured forward; no torch in here, so specs
resolve and plans build from a view that was read from a file as well as from a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind: TypeAlias = Literal[
    "linear",
    "hidden",
    "norm",
    "embedding",
    "attention",
    "input",
    "model",
    "param",
    "side",
]
"""What a method can rewrite: `linear` y = W x + bias over axes (in, out); `hidden` an
activation edge over axis (hidden); `norm` gain g and offset c over (hidden);
`attention` the keys and values of one attention call, over axes (hidden, key, value)
and with the numbers `heads` and `kv_heads`; `input` the embedded tokens of a stack,
over axes (hidden, vocab); `model` the whole, which has no equation and whose training
is controlled; `side` a network beside the backbone; `param`, which no site is, a tensor
that a wrapped method trains."""

ROLES = (
    *("q", "k", "v", "attention", "o", "up", "gate", "down"),
    *("attn", "ffn", "block", "norm", "emb", "input", "pos", "head", "router"),
    *("experts.up", "experts.gate", "experts.down"),
)
"""Every role a site can have; "" is a linear whose role nothing in the graph tells."""

GROUPS = ("linear",)
"""Selectors that stand for many roles: `linear` is every linear inside blocks, experts
included, routers not."""

SCOPES = ("layers", "spindle", "enc", "dec", "self", "cross")

Rows: TypeAlias = tuple[tuple[int, int], ...]
"""Half-open, increasing ranges of output rows of a weight in [out, in] orientation."""


@dataclass(frozen=True)
class Site:
    """One place a method can be applied to.

    `key` is unique and stable: the path of the module that owns the weight, and the
    role (`model.layers.0.self_attn.q_proj:q`, `transformer.h.3.attn.c_attn:k`,
    `model.layers.0.mlp.down_proj:ffn`).  `sizes` gives the numbers of the kind's axes;
    for a site of some rows, `out` is the number of those rows.
    """

    key: str
    role: str
    kind: Kind
    owner: str
    sizes: tuple[tuple[str, int], ...]
    dtype: str
    layer: int | None = None
    stack: Literal["", "enc", "dec"] = ""
    cross: bool = False
    in_block: bool = True
    weight: str = ""
    """Parameter path of the base weight (of a norm: the gain); for a hidden site, of
    the linear whose output the edge is, or "" if something lies between."""
    bias: str = ""
    rows: Rows | None = None
    """The rows of a fused weight that this site is; None means all of them."""
    fused: bool = False
    """A whole weight that other sites hold rows of: selected by path only."""
    transposed: bool = False
    """The weight is stored [in, out]."""
    post_norm: bool = False
    """Hidden: the residual sum after the edge goes through a norm only (post-LN)."""
    tap: bool = False
    """Hidden, attention: the input of the sublayer was found, so equations may read
    `u`."""
    causal: bool = False
    """A token here sees no later token."""
    experts: int = 0
    """Linear: the weight is a stack of this many matrices [experts, out, in], one for
    each expert, and equations hold for each of them; 0 for a plain matrix."""
    tied: str = ""
    """Path of another parameter that shares this weight's storage."""
    taps: tuple[str, ...] = ()
    """Side: the modules of the layers whose outputs the network reads, in order."""
    calls: int = 1
    """How often the forward uses the weight (more than once: shared layers)."""

    def size(self, axis: str) -> int:
        """The number of an axis of this kind."""
        return dict(self.sizes)[axis]

    @property
    def place(self) -> str:
        """The site for people: `layers.3.q`, `dec.layers.0.cross.k`, `head`."""
        layer = () if self.layer is None else ("layers", str(self.layer))
        cross = ("cross",) if self.cross else ()
        stack = (self.stack,) if self.stack else ()
        return ".".join((*stack, *layer, *cross, self.role or self.owner))


MODEL = Site(
    key="model",
    role="model",
    kind="model",
    owner="",
    sizes=(),
    dtype="",
    in_block=False,
)
"""The model as a whole: where methods stand that have no equation."""


class NetworkTensors(Protocol):
    """Tells the tensors of a network beside a model, whose values are not needed."""

    def __call__(
        self, site: Site, builder: str, options: Mapping[str, Any]
    ) -> Sequence[tuple[str, tuple[int, ...], str]]:
        """The name, shape and initial value of each tensor of a network at a site."""


@dataclass(frozen=True)
class ParameterFact:
    """A base parameter: its path, shape and dtype (`float32`)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Unresolved:
    """Something the dataflow did not tell, said rather than guessed.

    `what` names it (`experts of layer 0`), `why` gives the reason, `roles` the roles
    that would have been there.
    """

    what: str
    why: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelView:
    """A model as the front end sees it: its sites and its parameters, in order."""

    architecture: str
    sites: tuple[Site, ...]
    parameters: tuple[ParameterFact, ...]
    layers: int
    unresolved: tuple[Unresolved, ...] = ()
    sides: tuple[Site, ...] = ()
    """Where a network can stand beside: one for each stack, with all its layers."""
    networks: NetworkTensors | None = field(default=None, compare=False, repr=False)
    config_hash: str = field(default="")
    """SHA-256 of the configuration, as hex: part of the base's fingerprint."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles this model has, in the order of ROLES."""
        present = {site.role for site in self.sites}
        return tuple(role for role in ROLES if role in present)
