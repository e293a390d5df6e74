"""The syntax tree of a `.peft` text, both levels: specs and method definitions.

Every node is frozen and carries the span it came from; spans take no part in equality,
so `parse(print(file)) == file`.  Comments are kept on the items and statements they
stand before or behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from peftc.syntax.source import Span


@dataclass(frozen=True, kw_only=True)
class Node:
    """Anything in the tree."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Commented(Node):
    """A node that lines of comment may precede and one may follow on its line."""

    leading: tuple[str, ...] = ()
    trailing: str = ""


# --- expressions, shared by both levels ------------------------------------------


@dataclass(frozen=True)
class Number(Node):
    """`8`, `0.05`, `1e-4`, `5%`.  `value` is an int if written as one; the unit `%` is
    not applied to it."""

    value: int | float
    unit: Literal["", "%"] = ""


@dataclass(frozen=True)
class Name(Node):
    """A name, possibly dotted (`experts.up`), as written."""

    id: str


@dataclass(frozen=True)
class String(Node):
    """A text in double quotes: a path glob in a selector, a file in `use`."""

    value: str


@dataclass(frozen=True)
class Negate(Node):
    """`-operand`."""

    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    """`left op right`; `@` composes matrices and binds tightest."""

    op: Literal["+", "-", "*", "/", "@"]
    left: Expr
    right: Expr


# --- expressions of equations only -------------------------------------------------


@dataclass(frozen=True)
class Call(Node):
    """`head(args)`: a function, or a matrix applied to an activation."""

    head: Expr
    args: tuple[Expr | Axes, ...]


@dataclass(frozen=True)
class Axes(Node):
    """`[out, in]` as an argument."""

    sizes: tuple[Expr, ...]


@dataclass(frozen=True)
class Transpose(Node):
    """`operand.T`."""

    operand: Expr


@dataclass(frozen=True)
class Index(Node):
    """`operand[k]`: the slice of a tensor at bound indices."""

    operand: Expr
    indices: tuple[Name, ...]


@dataclass(frozen=True)
class Binder(Node):
    """`sum[k: n](body)` and its kin: introduces index names."""

    kind: str
    ranges: tuple[tuple[str, Expr], ...]
    body: Expr


@dataclass(frozen=True)
class Is(Node):
    """`positions is shift`, as an argument of `choose`."""

    name: Name
    word: str


Expr: TypeAlias = (
    Number | Name | String | Negate | Binary | Call | Transpose | Index | Binder | Is
)


# --- method definitions ------------------------------------------------------------


@dataclass(frozen=True)
class Parameter(Node):
    """A knob: `r: size = 8`.  `type` is one of expr.knobs.KNOB_TYPES, or empty if to
    be inferred; `default` is None for a required knob.  `words` are the values of one
    that has no type but a choice: `positions: shift | keep = shift`."""

    name: str
    type: str = ""
    default: Expr | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Random(Node):
    """`~ kaiming(5)`."""

    distribution: str
    args: tuple[Expr, ...] = ()


REST = "..."
"""Among the axes of a tensor: all axes of `p`, in a clause `on param`."""


@dataclass(frozen=True)
class Tensor(Node):
    """`A[r, in] ~ kaiming(5)`, `B[out, r] = 0`; no initial value means zero."""

    name: str
    axes: tuple[Expr, ...]
    init: Random | Expr | None = None


@dataclass(frozen=True)
class Declare(Commented):
    """`shared param A[...] ~ ..., B[...] = 0`."""

    kind: Literal["param", "buffer"]
    tensors: tuple[Tensor, ...]
    shared: bool = False


@dataclass(frozen=True)
class Define(Commented):
    """`V = W + B @ A`: a local name."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Rule(Commented):
    """`W' = ...`; `target` is the unprimed name."""

    target: str
    value: Expr


@dataclass(frozen=True)
class Loss(Commented):
    """`loss += ...`."""

    value: Expr


@dataclass(frozen=True)
class Train(Commented):
    """`train mask(m, W, keep=0.5)`: a control of training, what it works on, and its
    options; those have names."""

    control: str
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class Store(Commented):
    """`store W ~ nf4(block, double)`: how a frozen tensor of the base is kept."""

    tensor: str
    value: Random


@dataclass(frozen=True)
class Network(Commented):
    """`network transformer(reduction=8)`: what stands beside the backbone; its options
    have names."""

    builder: str
    args: tuple[Arg, ...]


Statement: TypeAlias = Declare | Define | Rule | Loss | Train | Store | Network


@dataclass(frozen=True)
class Test(Node):
    """`biased`, or `positions is keep`: what a guard asks of a site or a knob."""

    name: str
    word: str = ""


Guard: TypeAlias = tuple[tuple[Test, ...], ...]
"""The alternatives of `where`, each of tests that must all hold; empty if always."""


@dataclass(frozen=True)
class Clause(Commented):
    """`on linear where biased or create { ... }`.

    `place` is a kind of site (`linear`, `hidden`, `norm`, `attention`, `model`, `side`)
    or a redirection such as `ffn.down`: applied to the site `ffn`, the clause rewrites
    its linear `down`.
    """

    place: str
    body: tuple[Statement, ...]
    guard: Guard = ()
    closing: tuple[str, ...] = ()  # comments before the closing brace


@dataclass(frozen=True)
class Method(Commented):
    """`method lora(r = 8) on linear { ... } on hidden { ... }`."""

    name: str
    params: tuple[Parameter, ...]
    clauses: tuple[Clause, ...]


# --- specs ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Optional(Node):
    """`gate?`: a site that may be missing."""

    target: Name | String


@dataclass(frozen=True)
class Arg(Node):
    """`r=8`, or a positional site or spec (`q`, `"*.c_attn"`, `lora(q)`)."""

    value: Expr | Optional | SpecExpr
    name: str = ""


@dataclass(frozen=True)
class Apply(Node):
    """`lora(q, v, r=8)`: a method, a wrapper or a macro."""

    name: str
    args: tuple[Arg, ...]


@dataclass(frozen=True)
class LayerRange(Node):
    """`0..11` (both ends included) or `5` (then last == first)."""

    first: Expr
    last: Expr


@dataclass(frozen=True)
class Scope(Node):
    """`layers(0..3, 8)`, `enc`, `dec`, `cross`."""

    name: str
    ranges: tuple[LayerRange, ...] = ()


@dataclass(frozen=True)
class Scoped(Node):
    """`body @ scope`."""

    body: SpecExpr
    scope: Scope


@dataclass(frozen=True)
class Sum(Node):
    """`a + b + c`, two terms or more."""

    terms: tuple[SpecExpr, ...]


SpecExpr: TypeAlias = Apply | Scoped | Sum


@dataclass(frozen=True)
class Use(Commented):
    """`use "mine.peft"`: its methods, specs and lets become visible here."""

    path: String


@dataclass(frozen=True)
class Let(Commented):
    """`let r = 8`."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Macro(Commented):
    """`spec mam(r = 8) = lora(q, v, r=r) + adapter(ffn)`."""

    name: str
    params: tuple[Parameter, ...]
    body: SpecExpr


@dataclass(frozen=True)
class Main(Commented):
    """The expression a file is compiled to."""

    body: SpecExpr


Item: TypeAlias = Use | Let | Method | Macro | Main


@dataclass(frozen=True)
class File(Node):
    """A whole text, its items in order; `closing` holds comments after the last."""

    items: tuple[Item, ...]
    closing: tuple[str, ...] = ()
