"""Storage statements: `store W ~ nf4(block, double, compute)`.

In: the statement and the scope of its clause.  Out: the tensor and the form it is kept
in, its options checked; while a definition is checked, only their types are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.stores import BadStore, StorageOptions, UnknownFormat
from peftc.expr import terms
from peftc.expr.equation import Stored
from peftc.expr.numbers import TRUTH
from peftc.expr.spots import spot
from peftc.storage.table import COMPUTE, FORMATS, Form, OptionValue
from peftc.syntax import ast

if TYPE_CHECKING:
    from peftc.expr.scope import Scope
    from peftc.storage.table import Format

PLACE, TENSOR = "linear", "W"
"""Where a tensor of the base can be stored otherwise, and which."""

WANTED = {
    "size": "a whole number, 1 or more",
    "flag": "a flag",
    "compute": f"one of {', '.join(COMPUTE)}",
}


def is_store(clause: ast.Clause) -> bool:
    """Whether a clause says how a weight is stored."""
    return any(isinstance(statement, ast.Store) for statement in clause.body)


def check_stores(clause: ast.Clause) -> None:
    """A clause that stores a weight does nothing else, at a linear.

    Raises:
        PeftcError: PEFT285.
    """
    if not is_store(clause):
        return
    others = [s for s in clause.body if not isinstance(s, ast.Store)]
    if clause.place != PLACE:
        problem = f"`on {clause.place}` has no weight that can be stored otherwise"
        where = clause.body[0].span
    elif others:
        problem = "a clause with `store` has nothing else"
        where = others[0].span
    elif len(clause.body) > 1:
        problem = "a weight is stored in one format"
        where = clause.body[1].span
    else:
        return
    raise fail(BadStore(span=where, problem=problem))


def stored(store: ast.Store, scope: Scope) -> Stored:
    """The statement with its options.

    Raises:
        PeftcError: PEFT285 to PEFT287.
    """
    if store.tensor != TENSOR:
        problem = f"`{store.tensor}` is no weight of the base; `{TENSOR}` is"
        raise fail(BadStore(span=spot(store.span, store.tensor), problem=problem))
    name, args = store.value.distribution, store.value.args
    if name not in FORMATS:
        hint = suggestion(name, FORMATS) or f"there are {', '.join(FORMATS)}"
        span = spot(store.value.span, name)
        raise fail(UnknownFormat(span=span, name=name, hint=hint))
    found = FORMATS[name]
    if len(args) != len(found.options):
        problem = f"`{name}` has {len(found.options)} options, not {len(args)}"
        raise fail(
            StorageOptions(span=store.value.span, problem=problem, form=found.form)
        )
    pairs = zip(found.options, args, strict=True)
    values = [(o, _option(kind, arg, found, scope)) for (o, kind), arg in pairs]
    known = tuple((option, v) for option, v in values if v is not None)
    form = Form(found, known).text if len(known) == len(values) else ""
    return Stored(store.tensor, form, store.span)


def _option(
    kind: str, arg: ast.Expr, found: Format, scope: Scope
) -> OptionValue | None:
    """The value of an option; None while it is not known."""
    name = arg.id if isinstance(arg, ast.Name) else ""
    scope.read |= {name} if name else set()
    if kind == "size":
        return _size(arg, name, found, scope)
    known = scope.flags if kind == "flag" else scope.words
    if name in known:
        value = known[name]
    elif kind == "flag" and name in TRUTH:
        value = TRUTH[name]
    else:
        value = name
    fits = isinstance(value, bool) if kind == "flag" else value in COMPUTE
    if value is not None and not fits:
        raise _unfit(kind, arg, found)
    return value


def _size(arg: ast.Expr, name: str, found: Format, scope: Scope) -> OptionValue | None:
    if name in scope.numbers and scope.numbers[name] is None:
        if name not in scope.sizes:
            raise _unfit("size", arg, found)
        return None
    number = terms.evaluate(arg, scope)
    value = number.number
    if not number.constant or (value is not None and not _whole(value)):
        raise _unfit("size", arg, found)
    return None if value is None else int(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _unfit(kind: str, arg: ast.Expr, found: Format) -> Exception:
    problem = f"`{arg.span.text}` is not {WANTED[kind]}"
    return fail(StorageOptions(span=arg.span, problem=problem, form=found.form))
