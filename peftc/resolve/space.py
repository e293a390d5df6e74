"""Design spaces: specs that leave something open, and what becomes of a decision.

In: the unit of a text in which `one_of(...)` and `range(...)` stand for several values
or specs.  Out: `Space`: the choices, and the unit that a decision makes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from peftc.diagnostics.core import Diagnostics, fail
from peftc.diagnostics.resolve import NothingToCompile
from peftc.diagnostics.space import BadAlternatives, NothingOpen
from peftc.resolve.files import Unit
from peftc.resolve.library import standard_library
from peftc.resolve.values import CHOICES, ONE_OF, evaluate
from peftc.syntax import ast
from peftc.syntax.print import print_expr, print_spec
from peftc.syntax.walk import children, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peftc.syntax.source import Span

_UNNAMED = (ast.Use, ast.Main)
SPEC_NODES = (ast.Apply, ast.Scoped, ast.Sum)
DIGITS = 4
"""Significant digits of a number that is drawn from a range."""


@dataclass(frozen=True)
class OneOf:
    """Alternatives, by their texts; `nodes` are what they stand for."""

    name: str
    options: tuple[str, ...]
    nodes: tuple[ast.Node, ...] = field(repr=False)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both are.

    With `log`, small values are as likely as large ones.
    """

    name: str
    low: int | float
    high: int | float
    log: bool
    unit: Literal["", "%"]

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Choice: TypeAlias = OneOf | Range
Decide: TypeAlias = "Callable[[Choice], int | float]"
"""A number of a range, or the index of an alternative."""
_Item = TypeVar("_Item")
_Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Space:
    """A unit with choices, each known by where it stands."""

    unit: Unit
    choices: Mapping[_Place, Choice]

    def decided(self, decide: Decide) -> Unit:
        """The unit of one spec; only the choices that it comes to are asked for."""
        made, unit = _Decision(self, decide), self.unit
        lets = {name: made.rebuilt(let) for name, let in unit.lets.items()}
        own = _own(unit.library.macros, standard_library().macros)
        macros = {name: made.rebuilt(macro) for name, macro in own.items()}
        library = replace(unit.library, macros={**unit.library.macros, **macros})
        return Unit(library, lets, made.rebuilt(unit.main))


def first(choice: Choice) -> int | float:
    """The decision for what is written first."""
    return 0 if isinstance(choice, OneOf) else choice.low


def space_of(unit: Unit) -> Space:
    """The choices of a unit.

    Raises:
        PeftcError: PEFT682 for choices that are none, PEFT683 if there are none.
    """
    errors, choices = Diagnostics(), dict[_Place, Choice]()
    names: dict[str, int] = {}
    for node, context in _found(closed(unit)):
        count = names[context] = names.get(context, 0) + 1
        name = context if count == 1 else f"{context}#{count}"
        made = _choice(node, name)
        if isinstance(made, BadAlternatives):
            errors.add(made)
        else:
            choices[_place(node.span)] = made
    errors.check()
    if not choices:
        raise fail(NothingOpen())
    return Space(unit, choices)


def closed(unit: Unit) -> ast.File:
    """One file with all that a text and those it uses define."""
    if unit.main is None:
        raise fail(NothingToCompile())
    library, known = unit.library, standard_library()
    methods = _own(library.methods, known.methods).values()
    macros = _own(library.macros, known.macros).values()
    items: tuple[ast.Item, ...]
    items = (*unit.lets.values(), *methods, *macros, unit.main)
    return ast.File(items, span=unit.main.span)


def trimmed(file: ast.File) -> ast.File:
    """The file without what its spec does not come to: specs that differ in nothing
    else are equal."""
    items = {item.name: item for item in file.items if not isinstance(item, _UNNAMED)}
    (main,) = (item for item in file.items if isinstance(item, ast.Main))
    needed: dict[str, None] = {}
    new = set(_mentioned(main)) & items.keys()
    while new:
        needed |= dict.fromkeys(new)
        new = {n for name in new for n in _mentioned(items[name])} & items.keys()
        new -= needed.keys()
    kept = tuple(item for name, item in items.items() if name in needed)
    return replace(file, items=(*kept, main))


def _mentioned(node: ast.Node) -> Iterator[str]:
    """Every name that stands anywhere in a node."""
    for one, _ in walk((node,)):
        if isinstance(one, ast.Name):
            yield one.id
        elif isinstance(one, ast.Apply):
            yield one.name


def _own(named: Mapping[str, _Item], known: Mapping[str, _Item]) -> dict[str, _Item]:
    """What is not of the standard library."""
    return {name: item for name, item in named.items() if name not in known}


def _place(span: Span) -> _Place:
    return span.source.name, span.start


# --- finding choices -----------------------------------------------------------------


def _found(file: ast.File) -> Iterator[tuple[ast.Apply | ast.Call, str]]:
    """Every choice with the name of where it stands, in the order of the text."""
    for item in file.items:
        if not isinstance(item, ast.Method):
            name = item.name if isinstance(item, ast.Let | ast.Macro) else "spec"
            yield from _below(item, name)


def _below(node: ast.Node, context: str) -> Iterator[tuple[ast.Apply | ast.Call, str]]:
    if is_choice(node):
        assert isinstance(node, ast.Apply | ast.Call)
        yield node, context
    for child in children(node):
        yield from _below(child, _context(node, child, context))


def _context(node: ast.Node, child: ast.Node, context: str) -> str:
    """`lora.r` for what is given to a knob; else where the node stands."""
    if isinstance(node, ast.Apply) and node.name not in CHOICES:
        named = child.name if isinstance(child, ast.Arg) else ""
        return f"{node.name}.{named}" if named else context
    part = child.name if isinstance(child, ast.Parameter | ast.Scope) else ""
    return f"{context}.{part}" if part else context


def is_choice(node: ast.Node) -> bool:
    """Whether a node is `one_of(...)` or `range(...)`."""
    if isinstance(node, ast.Call):
        return isinstance(node.head, ast.Name) and node.head.id in CHOICES
    return isinstance(node, ast.Apply) and node.name in CHOICES


def _choice(node: ast.Apply | ast.Call, name: str) -> Choice | BadAlternatives:
    problem = ""
    if isinstance(node, ast.Apply):
        problem = _spec_problem(node)
        parts: tuple[Any, ...] = tuple(arg.value for arg in node.args)
    else:
        parts = node.args
        head = node.head.id if isinstance(node.head, ast.Name) else ""
        if head != ONE_OF:
            return _range(node, name)
        if any(isinstance(part, ast.Axes | ast.Is) for part in parts):
            problem = "its alternatives are values"
    if problem:
        return BadAlternatives(span=node.span, problem=problem)
    texts = tuple(map(_text, parts))
    if len(texts) < 2 or len(set(texts)) < len(texts):
        problem = "it takes two alternatives or more, none of them twice"
        return BadAlternatives(span=node.span, problem=problem)
    return OneOf(name, texts, parts)


def _spec_problem(node: ast.Apply) -> str:
    """What is wrong with a choice that stands where a spec does."""
    if node.name != ONE_OF:
        return "a range is of numbers, and a spec stands here"
    if any(arg.name for arg in node.args):
        return "its alternatives have no names"
    if not all(isinstance(arg.value, SPEC_NODES) for arg in node.args):
        return "here its alternatives are specs, each with its sites"
    return ""


def _text(node: Any) -> str:
    return print_spec(node) if isinstance(node, SPEC_NODES) else print_expr(node)


def _range(node: ast.Call, name: str) -> Choice | BadAlternatives:
    words = [part.id for part in node.args[2:] if isinstance(part, ast.Name)]
    ends = [part for part in node.args[:2] if not isinstance(part, ast.Axes)]
    shaped = len(ends) == 2 and node.args[2:] in ((), node.args[2:3])
    if not shaped or words != ["log"] * len(node.args[2:]):
        problem = "it is `range(low, high)` or `range(low, high, log)`"
        return BadAlternatives(span=node.span, problem=problem)
    low, high = (evaluate(end, {}) for end in ends)
    values = (low.value, high.value)
    numbers = [n for n in values if isinstance(n, int | float) and type(n) is not bool]
    if len(numbers) != 2 or low.unit != high.unit or not numbers[0] < numbers[1]:
        problem = "its ends are two numbers, the lower first"
        return BadAlternatives(span=node.span, problem=problem)
    if words and not numbers[0] > 0:
        problem = "with `log` both ends are above 0"
        return BadAlternatives(span=node.span, problem=problem)
    unit: Literal["", "%"] = "%" if low.unit else ""
    return Range(name, numbers[0], numbers[1], bool(words), unit)


# --- deciding ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decision:
    """The walk that puts what was decided where a choice stands."""

    space: Space
    decide: Decide

    def rebuilt(self, node: Any) -> Any:
        """A node, or a tuple of them, without choices."""
        if isinstance(node, tuple):
            return tuple(map(self.rebuilt, node))
        if not isinstance(node, ast.Node) or isinstance(node, ast.Method):
            return node
        choice = self.space.choices.get(_place(node.span)) if is_choice(node) else None
        if choice:
            return self.rebuilt(self._chosen(choice, node.span))
        names = (f.name for f in fields(node) if f.name != "span")
        return _flat(
            replace(node, **{n: self.rebuilt(getattr(node, n)) for n in names})
        )

    def _chosen(self, choice: Choice, span: Span) -> ast.Node:
        decided = self.decide(choice)
        if isinstance(choice, OneOf):
            return choice.nodes[int(decided)]
        value = int(decided) if choice.whole else _rounded(choice, float(decided))
        number = ast.Number(abs(value), choice.unit, span=span)
        return ast.Negate(number, span=span) if value < 0 else number


def _rounded(choice: Range, value: float) -> float:
    return min(max(float(f"{value:.{DIGITS}g}"), choice.low), choice.high)


def _flat(node: ast.Node) -> ast.Node:
    """A sum in which a sum was chosen is one sum."""
    if not isinstance(node, ast.Sum):
        return node
    terms: list[ast.SpecExpr] = []
    for term in node.terms:
        terms += term.terms if isinstance(term, ast.Sum) else (term,)
    return replace(node, terms=tuple(terms))
