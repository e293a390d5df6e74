"""Plans read back from their text.

In: what `plan.print` wrote.  Out: an equal `Plan`, or PEFT306 at the line that does not
fit.  A text may come from a stranger: it is data, and its sizes are only numbers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from textwrap import dedent
from typing import TYPE_CHECKING, Any, cast, get_args

from peftc.codegen.text import parse_program
from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.plan import UnreadablePlan
from peftc.plan.print import HEADER, PLAIN
from peftc.plan.types import (
    DTYPE_BYTES,
    DTYPES,
    AddedTensor,
    Application,
    Knob,
    Memory,
    Merge,
    MergeClass,
    ModelFacts,
    Plan,
    Rewrite,
    StoredWeight,
)
from peftc.storage.table import form_of
from peftc.syntax.ast import Method
from peftc.syntax.parse import parse, parse_expr
from peftc.syntax.source import Source, Span
from peftc.view import Kind, Rows, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAIR = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S+)')
APPLY = re.compile(r"apply (\S+) (.*?) with(.*)")
TENSOR = re.compile(r"(param|buffer) (\S+) \[([\d, ]*)\](.*?) ~ (.+)")
STORE = re.compile(r'store ("(?:[^"\\]|\\.)*"|\S+) \[([\d, ]+)\] ~ (.+) is (.*)')
PARTS = ("apply", "start", "merge", "program")
LARGEST = 64 * 1024 * 1024  # characters


@dataclass
class _Block:
    """A line and the lines indented under it."""

    text: str
    start: int
    children: list[_Block] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return self.text.split(" ", 1)[0]

    @property
    def rest(self) -> str:
        return self.text.partition(" ")[2]


def parse_plan(text: str, name: str = "<plan>") -> Plan:
    """Read a plan.

    Raises:
        PeftcError: PEFT306 if the text is no plan of this version.
    """
    source = Source(name, text)
    if len(text) > LARGEST or not text.startswith(HEADER + "\n"):
        raise _unreadable(source, 0, f"a plan begins with `{HEADER}`")
    at = 0
    try:
        plan = Plan(ModelFacts("", "", 0, 0), 0, "auto", (), ())
        for block in _blocks(source, len(HEADER) + 1):
            at = block.start
            plan = _take(plan, block)
    except PeftcError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _unreadable(source, at, f"this does not fit: {error}") from None
    return plan


def _unreadable(source: Source, start: int, problem: str) -> PeftcError:
    end = source.text.find("\n", start)
    span = Span(source, start, end if end >= 0 else len(source.text))
    return fail(UnreadablePlan(span=span, problem=problem))


def _blocks(source: Source, start: int) -> Iterator[_Block]:
    """Blocks of the outermost level, their children nested by indentation."""
    open_blocks: list[tuple[int, _Block]] = []
    top: list[_Block] = []
    for line in source.text[start:].split("\n"):
        body = line.lstrip(" ")
        depth = len(line) - len(body)
        if open_blocks and (depth or not body):
            open_blocks[0][1].raw.append(line)
        if body:
            _nest(_Block(body, start), depth, open_blocks, top)
        start += len(line) + 1
    yield from top


def _nest(
    block: _Block,
    depth: int,
    open_blocks: list[tuple[int, _Block]],
    top: list[_Block],
) -> None:
    while open_blocks and open_blocks[-1][0] >= depth:
        open_blocks.pop()
    (open_blocks[-1][1].children if open_blocks else top).append(block)
    open_blocks.append((depth, block))


def _take(plan: Plan, block: _Block) -> Plan:
    """The plan with one more block of its text read."""
    readers: dict[str, Callable[[], Plan]] = {
        "model": lambda: replace(plan, model=_model(block.rest)),
        "seed": lambda: replace(plan, seed=int(block.rest)),
        "dtype": lambda: replace(plan, dtype=_dtype(block.rest)),
        "memory": lambda: replace(plan, memory=_memory(block.rest)),
        "note": lambda: replace(plan, notes=(*plan.notes, json.loads(block.rest))),
        "methods": lambda: replace(plan, methods=_methods(block)),
        "apply": lambda: replace(plan, whole=(*plan.whole, _application(block))),
        "site": lambda: replace(plan, rewrites=(*plan.rewrites, _rewrite(block))),
        "store": lambda: replace(plan, stores=(*plan.stores, _store(block))),
    }
    return readers[block.head]()


def _store(block: _Block) -> StoredWeight:
    match = STORE.fullmatch(block.text)
    if not match:
        raise ValueError("a stored weight is `store NAME [sizes] ~ form is ...`")
    name, shape, form, facts = match.groups()
    said = _pairs(facts)
    dtype = _unquote(said["dtype"])
    if dtype not in DTYPE_BYTES:
        raise ValueError(f"`{dtype}` is no dtype")
    return StoredWeight(
        _unquote(name),
        form_of(form).text,
        tuple(int(n) for n in shape.split(",")),
        dtype,
        said["transposed"] == "true",
        _unquote(said["by"]),
        _unquote(said["from"]),
    )


def _model(text: str) -> ModelFacts:
    name, _, rest = text.partition(" ")
    facts = _pairs(rest)
    return ModelFacts(
        _unquote(name),
        _unquote(facts["config"]),
        int(facts["parameters"]),
        int(facts["layers"]),
        int(facts["bytes"]),
    )


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise ValueError(f"`{text}` is no dtype of added tensors")
    return text


def _memory(text: str) -> Memory:
    return Memory(**{name: int(value) for name, value in _pairs(text).items()})


def _methods(block: _Block) -> tuple[Method, ...]:
    file = parse(Source("<plan methods>", dedent("\n".join(block.raw))))
    return tuple(item for item in file.items if isinstance(item, Method))


def _rewrite(block: _Block) -> Rewrite:
    facts, *rest = block.children
    if unknown := [b.head for b in rest if b.head not in PARTS]:
        raise ValueError(f"`{unknown[0]}` is no part of a site")
    applications = tuple(_application(b) for b in rest if b.head == "apply")
    merge = next(_merge(b.rest) for b in rest if b.head == "merge")
    programs = tuple(
        parse_program(_flat(b.children)) for b in rest if b.text == "program"
    )
    start = next((int(b.rest) for b in rest if b.head == "start"), 0)
    return Rewrite(_site(block.rest, facts.text), applications, merge, programs, start)


def _flat(blocks: list[_Block]) -> str:
    """Text of blocks, with the indentation below them put back."""
    lines = []
    for block in blocks:
        lines.append(block.text)
        nested = _flat(block.children) if block.children else ""
        lines += [f"  {line}" for line in nested.splitlines()]
    return "\n".join(lines) + "\n"


def _merge(text: str) -> Merge:
    kind, _, reason = text.partition(" ")
    if kind not in get_args(MergeClass):
        raise ValueError(f"`{kind}` is no merge class")
    return Merge(cast("MergeClass", kind), json.loads(reason) if reason else "")


def _site(key: str, text: str) -> Site:
    sizes, _, facts = text.removeprefix("sizes ").partition(" is ")
    numbers = tuple((axis, int(n)) for axis, n in _pairs(sizes).items())
    said = {name: _fact(name, value) for name, value in _pairs(facts).items()}
    if said["kind"] not in get_args(Kind):
        raise ValueError(f"`{said['kind']}` is no kind of site")
    return Site(key=_unquote(key), sizes=numbers, **said)


def _fact(name: str, value: str) -> Any:
    if name == "rows":
        return _rows(_unquote(value))
    if name == "taps":
        return tuple(_unquote(value).split(","))
    if name in {"layer", "calls", "experts"}:
        return int(value)
    return {"true": True, "false": False}.get(value, _unquote(value))


def _rows(text: str) -> Rows:
    ranges = (part.split(":") for part in text.split(","))
    return tuple((int(start), int(stop)) for start, stop in ranges)


def _application(block: _Block) -> Application:
    match = APPLY.fullmatch(block.text)
    if not match:
        raise ValueError("an application is `apply NAME method=... with ...`")
    instance, facts, knobs = match.groups()
    said = _pairs(facts)
    return Application(
        instance,
        said["method"],
        int(said["clause"]),
        tuple((name, _knob(value)) for name, value in _pairs(knobs).items()),
        tuple(_tensor(b.text) for b in block.children if b.head != "apply"),
        _unquote(said["from"]),
        tuple(_application(b) for b in block.children if b.head == "apply"),
        _unquote(said.get("group", '""')),
    )


def _knob(text: str) -> Knob:
    value = json.loads(text)
    if not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"`{text}` is no value of a knob")
    return value


def _tensor(text: str) -> AddedTensor:
    match = TENSOR.fullmatch(text)
    if not match:
        raise ValueError("a tensor is `param NAME [sizes] ~ init`")
    kind, name, shape, shared, init = match.groups()
    parse_expr(init)
    sizes = tuple(int(n) for n in shape.split(",") if n.strip())
    group = _unquote(_pairs(shared).get("shared", '""'))
    return AddedTensor(
        name, sizes, "param" if kind == "param" else "buffer", init, group
    )


def _pairs(text: str) -> dict[str, str]:
    """`a=1 b="c d"`; nothing else may stand between."""
    if rest := PAIR.sub("", text).strip():
        raise ValueError(f"`{rest}` is no name with a value")
    return dict(PAIR.findall(text))


def _unquote(text: str) -> str:
    if not text.startswith('"') and not PLAIN.fullmatch(text):
        raise ValueError(f"{text!r} is no word")
    return str(json.loads(text)) if text.startswith('"') else text
