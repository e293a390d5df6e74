"""Which planned rewrites are in a captured graph, once for each use of their site.

In: a Capture and a Plan.  Out: uses in plan order, those of one site in the order of
the graph; a use knows its tensors, its origin in the user's text, and where to insert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import InputMissing
from peftc.rewrite.emit import Base, Source, Values, no_base
from peftc.rewrite.experts import Experts
from peftc.rewrite.insert import BOTH, Inserter
from peftc.rewrite.several import SEVERAL, stack_of
from peftc.sites.anchors import (
    AttentionAnchor,
    EmbeddingAnchor,
    HiddenAnchor,
    InputAnchor,
    LinearAnchor,
    NormAnchor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx

    from peftc.expr.program import Program
    from peftc.plan.types import Application, Plan, Rewrite
    from peftc.rewrite.several import Stack
    from peftc.sites.anchors import Anchor, Capture

A = TypeVar("A", LinearAnchor, HiddenAnchor, NormAnchor, AttentionAnchor, InputAnchor)


@dataclass(frozen=True)
class Use(Generic[A]):
    """One use of a planned site.  `memos` is shared by all uses of the site."""

    capture: Capture
    rewrite: Rewrite
    anchor: A
    memos: dict[str, Values]

    @property
    def key(self) -> str:
        """The site's key."""
        return self.rewrite.site.key

    @property
    def targets(self) -> tuple[str, ...]:
        """What the site's programs replace."""
        return tuple(program.target for program in self.rewrite.programs)

    def memo(self, program: Program) -> Values:
        """What uses of the site have computed of a program; steps are named anew in
        each."""
        return self.memos.setdefault(program.target, {})

    def tensor(self, name: str) -> fx.Node:
        """The placeholder of an added tensor (or of `rows`)."""
        return self.given(name, self.capture.tensors.get(self.key, {}).get(name))

    def given(self, name: str, node: fx.Node | None) -> fx.Node:
        """`node`, which is the input `name` of a program.

        Raises:
            PeftcError: if there is none.
        """
        if node is None:
            raise fail(InputMissing(site=self.key, name=name))
        return node

    def inserter(self, before: fx.Node, like: fx.Node) -> Inserter:
        """Puts nodes of this site before `before`, in the module of `like`."""
        origins = (a.origin for a in self.rewrite.applications if a.origin)
        return Inserter(before, self.key, like, BOTH.join(dict.fromkeys(origins)))

    def source(
        self,
        program: Program,
        target: fx.Node,
        read: Callable[[str], fx.Node],
        base: Base = no_base,
    ) -> Source:
        """What `program` is emitted from here."""
        spans = dict(_spans(self.rewrite.applications))
        training = self.capture.training.get(self.key, False)
        many = self._stack(program, target)
        return Source(program, target, read, spans, training, base, *many)

    def _stack(
        self, program: Program, target: fx.Node
    ) -> tuple[Stack | None, frozenset[str]]:
        """What gives the rows of an activation what is theirs, and of which tensors."""
        said = self.capture.tensors.get(SEVERAL)
        if said is None:
            return self.experts, self.rewrite.stacked
        own = frozenset(t.name for t in self.rewrite.tensors if not t.drawn)
        return stack_of(said, program, target, self.key), own

    @property
    def experts(self) -> Experts | None:
        """What gives its rows the values of a stack; None at any other site."""
        anchor = self.anchor
        if isinstance(anchor, LinearAnchor) and anchor.routing is not None:
            return Experts(anchor, anchor.routing)
        return None


def _spans(applications: tuple[Application, ...]) -> Iterator[tuple[str, str]]:
    for one in applications:
        yield from _spans(one.wraps)
        yield from ((tensor.name, one.origin) for tensor in one.tensors)


def uses(capture: Capture, plan: Plan, kind: type[A]) -> Iterator[Use[A]]:
    """The uses, with anchors of this kind, of every rewrite that has programs."""
    for rewrite in plan.rewrites:
        memos: dict[str, Values] = {}
        for anchor in anchors(capture, rewrite):
            if rewrite.programs and isinstance(anchor, kind):
                yield Use(capture, rewrite, anchor, memos)


def anchors(capture: Capture, rewrite: Rewrite) -> list[Anchor]:
    """The distinct anchors of a rewrite's site, in the order of the graph.

    All uses of a norm's gain are rewritten at once, so they are one.
    """
    located = capture.located.get(rewrite.site.key)
    found = located.anchors if located else ()
    distinct = {a.gain if isinstance(a, NormAnchor) else a: a for a in found}
    return sorted(distinct.values(), key=_position)


def _position(anchor: Anchor) -> fx.Node:
    if isinstance(anchor, LinearAnchor | EmbeddingAnchor | InputAnchor):
        return anchor.call
    if isinstance(anchor, AttentionAnchor):
        return anchor.attention.out
    return anchor.h if isinstance(anchor, HiddenAnchor) else anchor.gain
