"""Controls of training: what a `train` statement may name, and how it is read.

In: a statement and the scope of its clause.  Out: `Control`, whose operands are values
of the equation and whose options have their types.  What a control does is code in
`peftc.training.controls`; the table here says what it takes, so that texts are checked
without it.  An installed package adds its own under the entry point `peftc.controls`
(`name = "package.module:SIGNATURE"`, a `Signature`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.training import (
    ControlOperands,
    ControlTensor,
    UnknownControl,
)
from peftc.expr import terms
from peftc.expr.ir import Leaf
from peftc.expr.options import header, read_options, with_offered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.ir import Node
    from peftc.expr.knobs import Knob
    from peftc.expr.scope import Scope
    from peftc.syntax import ast
    from peftc.syntax.source import Span

GROUP = "peftc.controls"
"""Of entry points."""


@dataclass(frozen=True)
class Signature:
    """What a control takes.

    `operands` name what it works on, in order: `buffer` or `param` before the name
    wants such a tensor of the clause, otherwise any expression will do.  A last `...`
    allows any number, one or more, of the one before it.  `options` are written as
    knobs are.  `code` is where its class is.  `whole` says that it may stand in a
    clause `on model`.  `cuts` says that the first operand is a vector along an axis of
    the method's own, and that an export leaves out the places where it is zero.
    """

    name: str
    code: str
    operands: tuple[str, ...] = ()
    options: str = ""
    whole: bool = False
    cuts: bool = False

    @property
    def method(self) -> ast.Method:
        """Its options as the knobs of a definition, so that they are checked alike."""
        return header(self.name, self.options)

    def takes(self, count: int) -> bool:
        """Whether it takes so many operands."""
        named = len([one for one in self.operands if one != "..."])
        return count >= named if "..." in self.operands else count == named

    def kind(self, index: int) -> str:
        """What the operand at an index has to be: `buffer`, `param`, or anything."""
        named = [one for one in self.operands if one != "..."]
        kind, _, name = named[min(index, len(named) - 1)].partition(" ")
        return kind if name else ""

    @property
    def form(self) -> str:
        """How it is written, for people."""
        return f"train {self.name}({', '.join((*self.operands, self.options))})"


@dataclass(frozen=True)
class Control:
    """One `train` statement of an application.

    `operands` are expressions over the leaves of the site and the added tensors;
    `texts` how they were written.
    """

    name: str
    operands: tuple[Node, ...]
    texts: tuple[str, ...]
    options: Mapping[str, Knob]
    span: Span | None = field(default=None, compare=False)


CONTROLS: Mapping[str, Signature] = {
    one.name: one
    for one in (
        Signature(
            "allocate",
            "peftc.training.controls.allocate:Allocate",
            ("param vector", "param matrix", "..."),
            "target: size, tinit: number = 0, tfinal: number = 0, every: size = 1, "
            "beta1: fraction = 0.85, beta2: fraction = 0.85",
            cuts=True,
        ),
        Signature(
            "choose",
            "peftc.training.controls.choose:Choose",
            ("buffer chosen",),
            'by: text = "task"',
        ),
        Signature(
            "distill",
            "peftc.training.controls.distill:Distill",
            options='teacher: text = "base", T: scale = 2, alpha: number = 0.5, '
            "kind: fkl | rkl | jsd | mse = fkl, beta: fraction = 0.5, "
            'hidden: pairs = "", attn: pairs = "", proj: flag = false, '
            "topk: count = 0, vocab: same | common = same",
            whole=True,
        ),
        Signature(
            "optimizer",
            "peftc.training.controls.optimizer:Optimizer",
            options="kind: adamw | adam | sgd = adamw, lr: number = 0, "
            "beta1: fraction = 0.9, beta2: fraction = 0.999, eps: scale = 1e-8, "
            "weight_decay: number = 0, max_norm: number = 0, paged: flag = false",
            whole=True,
        ),
        Signature(
            "rate",
            "peftc.training.controls.rates:Rate",
            ("param tensor", "..."),
            "times: scale",
        ),
        Signature(
            "rates",
            "peftc.training.controls.rates:Rates",
            options="tensors: text, times: scale",
            whole=True,
        ),
        Signature(
            "schedule",
            "peftc.training.controls.schedule:Schedule",
            options="kind: constant | linear | cosine | slanted = constant, "
            "warmup: number = 0, cut: fraction = 0.1, ratio: scale = 32",
            whole=True,
        ),
        Signature(
            "thaw",
            "peftc.training.controls.thaw:Thaw",
            options="decay: scale = 2.6, every: number = 0, first: size = 1",
            whole=True,
        ),
        Signature(
            "redraw",
            "peftc.training.controls.redraw:Redraw",
            ("buffer tensor", "..."),
            "kind: uniform | one = uniform, low: number = 0, high: number = 1",
        ),
        Signature(
            "learners",
            "peftc.training.controls.learners:Learners",
            ("buffer selection", "param rows", "..."),
            "steps: size = 16, rate: scale = 0.001",
        ),
        Signature(
            "project",
            "peftc.training.controls.project:Project",
            ("buffer mask", "buffer flag", "param value", "difference"),
            "keep: fraction = 0.005, at: fraction = 0.5",
        ),
        Signature(
            "select",
            "peftc.training.controls.select:Select",
            ("param values", "buffer places"),
            "keep: fraction = 0.005, score: fisher | magnitude | random = fisher, "
            'size: text = "n"',
        ),
        Signature(
            "mask",
            "peftc.training.controls.mask:Mask",
            ("buffer mask", "tensor"),
            "sparsity: fraction = 0.5, "
            "score: magnitude | random | er | snip | taylor | grasp | wanda | movement"
            " = magnitude, scope: global | local | row = global, of: count = 0, "
            "least: count = 1, until: fraction = 0, every: size = 1, warmup: count = 0",
        ),
        Signature(
            "consistency",
            "peftc.training.controls.consistency:Consistency",
            ("buffer drawn", "..."),
            "weight: number = 1",
        ),
    )
}
"""peftc's own, one line each."""


@lru_cache
def controls() -> Mapping[str, Signature]:
    """All that are known, those of installed packages too."""
    return with_offered(CONTROLS, GROUP)


def read_control(statement: ast.Train, scope: Scope) -> Control:
    """Read a `train` statement.

    Raises:
        PeftcError: PEFT295 for an unknown control, PEFT296 for operands that it does
            not take, or what is wrong with an option.
    """
    known = controls()
    if statement.control not in known:
        hint = suggestion(statement.control, known) or f"there are {', '.join(known)}"
        raise fail(
            UnknownControl(span=statement.span, name=statement.control, hint=hint)
        )
    signature = known[statement.control]
    given = [arg.value for arg in statement.args if not arg.name]
    if not signature.takes(len(given)):
        problem = f"`{signature.name}` takes other tensors than these {len(given)}"
        text = {"problem": problem, "form": signature.form}
        raise fail(ControlOperands(span=statement.span, **text))
    values = terms.each(given, scope)  # type: ignore[arg-type]  # the grammar's operands
    for index, value in enumerate(values):
        _check_kind(signature, index, given[index], value.node)
    return Control(
        signature.name,
        tuple(value.node for value in values),
        tuple(expr.span.text for expr in given),
        read_options(signature.method, statement.args, scope, statement.span),
        statement.span,
    )


def _check_kind(
    signature: Signature, index: int, written: ast.Node, node: Node
) -> None:
    """Refuse a value where a control wants a tensor of the clause."""
    wanted = signature.kind(index)
    if not wanted or (isinstance(node, Leaf) and node.kind == wanted):
        return
    problem = f"it must be a `{wanted}` of this clause"
    named = {"control": signature.name, "text": written.span.text}
    raise fail(ControlTensor(span=written.span, **named, problem=problem))
