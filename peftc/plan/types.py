"""The Plan: which rewrite at which site, with which parameters, merge class and cost.

Immutable; printed by `plan.print`, parsed back by `plan.parse`, hashed over its text.
Made by `plan.build`, refined by the plan passes, read by the rewriter and the runtime.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.storage.table import form_of
from peftc.syntax.ast import Loss, Train

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peftc.expr.program import Program
    from peftc.storage.table import Part
    from peftc.syntax.ast import Method
    from peftc.view import Site

DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
    "complex64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}
DRAWN = re.compile(r"(kaiming|glorot|normal|uniform|orthogonal|signs|permutation)\b")
"""How the initial value of a tensor begins that is drawn."""
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")
"""What the dtype of added tensors can be told to be."""

Knob: TypeAlias = int | float | str | bool

Storage: TypeAlias = tuple[str, str]
"""A share group or a site, and the name of a tensor."""

MergeClass: TypeAlias = Literal["exact", "exact+bias", "none", "unknown"]


@dataclass(frozen=True)
class AddedTensor:
    """A tensor that a rewrite adds to the model.

    `name` is unique at its site (`lora.A`).  `init` is canonical text: `kaiming(5)`,
    `normal(0.02)`, `0`, or an expression over the base (`norm(W, in)`).  A `shared`
    tensor is one storage for all sites with the same `shared` group name.  At a stack
    of experts the first axis of `shape` is the expert's, unless the tensor is shared.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["param", "buffer"]
    init: str
    shared: str = ""

    @property
    def count(self) -> int:
        """Number of scalars."""
        return prod(self.shape)

    @property
    def drawn(self) -> bool:
        """Whether it is fixed and random: drawn again from the seed, never stored."""
        return self.kind == "buffer" and bool(DRAWN.match(self.init))

    @property
    def places(self) -> bool:
        """Whether it holds places of elements, as whole numbers."""
        return self.init.startswith(("permutation", "places"))


@dataclass(frozen=True)
class Application:
    """One method at one site.

    `instance` distinguishes several applications at a site (`lora`, `lora#2`); it
    prefixes the names of the tensors.  `clause` is the index of the method's clause.
    `wraps` are the applications inside a wrapper.  `origin` is `file:line:column`.
    """

    instance: str
    method: str
    clause: int
    knobs: tuple[tuple[str, Knob], ...]
    tensors: tuple[AddedTensor, ...]
    origin: str = ""
    wraps: tuple[Application, ...] = ()
    group: str = ""
    """One for all applications of one call in the spec, if its training is controlled:
    a control sees all its sites together."""

    @property
    def all_tensors(self) -> tuple[AddedTensor, ...]:
        """The tensors of this application and of those it wraps."""
        inner = (t for part in self.wraps for t in part.all_tensors)
        return (*self.tensors, *inner)


@dataclass(frozen=True)
class Merge:
    """Whether the rewrite can go into the weights, and why not."""

    kind: MergeClass = "unknown"
    reason: str = ""


@dataclass(frozen=True)
class Rewrite:
    """All that happens at one site.  `programs` is empty until they are ordered.

    `start` is by how much the methods move the position of the first token.
    """

    site: Site
    applications: tuple[Application, ...]
    merge: Merge = Merge()
    programs: tuple[Program, ...] = ()
    start: int = 0

    @property
    def tensors(self) -> tuple[AddedTensor, ...]:
        """Every added tensor at this site."""
        return tuple(t for a in self.applications for t in a.all_tensors)

    def storage(self, tensor: AddedTensor) -> Storage:
        """What tells the storage of one of its tensors from all others of a plan."""
        return tensor.shared or self.site.key, tensor.name

    @property
    def stacked(self) -> frozenset[str]:
        """The names of the added tensors that have an axis of experts."""
        own = (t.name for t in self.tensors if not t.shared)
        return frozenset(own if self.site.experts else ())


@dataclass(frozen=True)
class StoredWeight:
    """A weight of the base that is kept in codes, and read decoded.

    `shape` is that of the parameter and `dtype` what it decodes to; `transposed` says
    that it is kept [in, out], its codes being those of [out, in].  `form` is
    `storage.table.Form.text`.
    """

    weight: str
    form: str
    shape: tuple[int, ...]
    dtype: str
    transposed: bool = False
    method: str = ""
    origin: str = ""

    @property
    def coded(self) -> tuple[int, ...]:
        """The shape that is encoded, [*lead, out, in]."""
        *lead, rows, columns = self.shape
        return (*lead, columns, rows) if self.transposed else self.shape

    @property
    def parts(self) -> tuple[Part, ...]:
        """The tensors that are kept of it."""
        return form_of(self.form).parts(self.coded)

    @property
    def bytes(self) -> int:
        """The memory they take."""
        return sum(part.bytes for part in self.parts)

    @property
    def dense(self) -> int:
        """The memory that the weight itself takes."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds, at `batch` x `tokens`.

    `base`: its parameters, as they are stored; `parameters`: all added tensors;
    `gradients`: of those that are trained; `optimizer`: AdamW's states of them;
    `activations`: what the forward and the loss keep for the backward; `peak`: the most
    that a step holds at once, all of these included.  A `peak` of 0 says that only the
    plan was there and not the model: `activations` are then those of the added
    operations alone.
    """

    batch: int
    tokens: int
    base: int
    parameters: int
    gradients: int
    optimizer: int
    activations: int
    peak: int = 0

    @property
    def whole(self) -> bool:
        """Whether the base's own activations are counted."""
        return self.peak > 0

    @property
    def lasting(self) -> int:
        """Bytes that stay from step to step."""
        return self.base + self.parameters + self.optimizer


@dataclass(frozen=True)
class ModelFacts:
    """The base a plan was made for; `bytes` are those of its parameters."""

    architecture: str
    config_hash: str
    parameters: int
    layers: int
    bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """A whole plan, in the order of the model's sites."""

    model: ModelFacts
    seed: int
    dtype: str
    """dtype of new tensors, or `auto`: float32 for a base below float32, else its."""
    methods: tuple[Method, ...]
    rewrites: tuple[Rewrite, ...]
    memory: Memory | None = None
    notes: tuple[str, ...] = ()
    whole: tuple[Application, ...] = ()
    """What is applied to the model as a whole: controls of its training."""
    stores: tuple[StoredWeight, ...] = ()
    """Weights that are kept in codes."""

    @property
    def controlled(self) -> bool:
        """Whether a method adds to the loss or has controls: `peftc.training` is then
        needed to train it."""
        clauses = (clause for method in self.methods for clause in method.clauses)
        said = (s for clause in clauses for s in clause.body)
        return any(isinstance(s, Loss | Train) for s in said)

    @property
    def trainable(self) -> int:
        """Unique scalars that receive gradients; shared tensors count once."""
        return sum(t.count for _, t in stored(self.rewrites) if t.kind == "param")


def stored(rewrites: Iterable[Rewrite]) -> Iterator[tuple[Rewrite, AddedTensor]]:
    """Every tensor that is stored, a shared one with the rewrite where it is first."""
    seen: set[Storage] = set()
    for rewrite in rewrites:
        for tensor in rewrite.tensors:
            storage = rewrite.storage(tensor)
            if storage not in seen:
                seen.add(storage)
                yield rewrite, tensor
