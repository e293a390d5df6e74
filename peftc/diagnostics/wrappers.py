"""Errors of wrappers over the tensors of what they wrap (291 to 294, 312 to 316).

In: nothing.  Out: the diagnostic classes that `peftc.expr` and `peftc.plan` raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class ParamElsewhere(Diagnostic):
    """A clause `on param` stands in a method that wraps nothing, or beside others.

    `param` is the place of the tensors that a wrapped method trains: the clause holds
    for each of them, and `p'` is what the wrapped equations read instead of `p`.  So
    the method has a knob of the type `method`, and all of its clauses are `on param`.

    Wrong:

        method halved() on param { p' = 0.5 * p }

    Right:

        method halved(inner: method) on param { p' = 0.5 * p }
    """

    code: ClassVar[str] = "PEFT291"
    title: ClassVar[str] = "no tensors of a wrapped method here"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "a wrapper has a knob `inner: method`, and no other places"
    problem: str


@dataclass(frozen=True, kw_only=True)
class RestMisplaced(Diagnostic):
    """`...` stands where it has no meaning.

    In a clause `on param` a tensor can have all axes of `p`, whatever they are, behind
    axes of its own: `buffer m[...] = 1`, `param P[E, ...] = p`.

    Wrong:

        method m(inner: method, E: size = 2) on param {
          param P[..., E] = p
          p' = sum[k: E](P[k])
        }

    Right:

        method m(inner: method, E: size = 2) on param {
          param P[E, ...] = p
          p' = sum[k: E](P[k])
        }
    """

    code: ClassVar[str] = "PEFT292"
    title: ClassVar[str] = "`...` is not understood here"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class NoTensorFits(Diagnostic):
    """A wrapper changes none of the tensors of what it wraps.

    A clause `on param` may ask for facts of a tensor: `matrix` (two axes or more), `up`
    (its first axis is what the site gives) and `down` (it is not).  Tensors for which
    no clause asks the right thing stay as they are; a wrapper that changes nothing at
    all would be a silent mistake.

    Wrong, because scales are no matrices:

        sparse(ia3(k, v, ffn), S=0.5)

    Right:

        sparse(lora(k, v), S=0.5) + ia3(ffn)
    """

    code: ClassVar[str] = "PEFT312"
    title: ClassVar[str] = "a wrapper without effect"
    label: ClassVar[str] = "`{method}` changes no tensor of what it wraps"
    notes: ClassVar[tuple[str, ...]] = ("it is for tensors where {guard}",)
    method: str
    guard: str


@dataclass(frozen=True, kw_only=True)
class ControlledTensor(Diagnostic):
    """A wrapper would take a tensor away that the training of the method works on.

    A `train` statement of a wrapped method may change one of its tensors between steps.
    A wrapper with other tensors in the place of that one, such as copies of it, leaves
    the statement without its tensor.  Wrap the other way round, if the wrappers allow.

    Wrong, because the mask is chosen for tensors that are no longer there:

        adamix(sparse(lora(q, v)))

    Right:

        sparse(adamix(lora(q, v)))
    """

    code: ClassVar[str] = "PEFT313"
    title: ClassVar[str] = "a tensor that training works on would be gone"
    label: ClassVar[str] = (
        "`{wrapper}` replaces `{tensor}`, which `train {control}` works on"
    )
    help: ClassVar[str] = "put the wrapper inside the other one"
    wrapper: str
    tensor: str
    control: str


@dataclass(frozen=True, kw_only=True)
class TooFewLayers(Diagnostic):
    """A model has too few layers for the groups of a spindle.

    `@ spindle(1)` to `@ spindle(4)` are the four groups that S4 puts the layers of each
    stack into: few at both ends, many in between.  Each has one layer at least.

    Fix: name the layers, `@ layers(0..1)`.
    """

    code: ClassVar[str] = "PEFT314"
    title: ClassVar[str] = "too few layers for four groups"
    label: ClassVar[str] = "a stack of this model has {layers}"
    help: ClassVar[str] = "name the layers: `@ layers(0..1)`"
    layers: int
