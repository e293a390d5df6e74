"""`peftc methods`: the standard library."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.output import console
from peftc.resolve.library import standard_library
from peftc.syntax import ast
from peftc.syntax.print import print_expr


@guarded
def command(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the methods and specs of the standard library."""
    library = standard_library()
    rows = [_method(m) for m in library.methods.values()]
    rows += [_macro(m) for m in library.macros.values()]
    if as_json:
        print(json.dumps({"version": 1, "methods": rows}, indent=2))
        return
    table = Table("name", "rewrites", "knobs", "about", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["rewrites"], row["knobs"], row["about"])
    console().print(table)


def _method(method: ast.Method) -> dict[str, str]:
    return {
        "name": method.name,
        "rewrites": ", ".join(dict.fromkeys(c.place for c in method.clauses)),
        "knobs": ", ".join(map(_knob, method.params)),
        "about": _about(method.leading),
    }


def _macro(macro: ast.Macro) -> dict[str, str]:
    return {
        "name": macro.name,
        "rewrites": "spec",
        "knobs": ", ".join(map(_knob, macro.params)),
        "about": _about(macro.leading),
    }


def _knob(knob: ast.Parameter) -> str:
    return f"{knob.name}={print_expr(knob.default)}" if knob.default else knob.name


def _about(comments: tuple[str, ...]) -> str:
    return comments[0].lstrip("# ") if comments else ""
