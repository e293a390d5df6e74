"""`peftc verify SPEC|ADAPTER MODEL`: are the promises kept, here and on this model?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.options import AnyBase, Dtype, Json, Model, RandomInit, Seed, load_model
from peftc.cli.output import console
from peftc.diagnostics.cli import NotVerified
from peftc.diagnostics.core import fail
from peftc.driver import check, compile_model, read_spec

if TYPE_CHECKING:
    from peftc.runtime.verify import Check


@guarded
def command(
    spec: Annotated[
        str, typer.Argument(help="A .peft file, a spec as text, or an adapter folder.")
    ],
    model: Model,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    random_init: RandomInit = None,
    any_base: AnyBase = False,
    as_json: Json = False,
) -> int:
    """Try what is promised of a compiled model.

    It starts as the base where its equations say so; gradients reach every site; merged
    equals unmerged; cached generation equals full recomputation; padding changes
    nothing.  Exit code 4 if one fails.

    Example: peftc verify 'lora(q, v) + prefix(k, v)' config.json --random-init 0
    """
    if _is_adapter(spec):
        checks = _adapted(spec, load_model(model, random_init), any_base)
    else:
        source = read_spec(spec)
        check(source)
        base = load_model(model, random_init)
        checks = compile_model(base, source, seed=seed, dtype=dtype).verify()
    if as_json:
        record = {"version": 1, "checks": [asdict(one) for one in checks]}
        print(json.dumps(record, indent=2))
    else:
        console().print(_table(checks))
    failed = [one.name for one in checks if one.verdict == "failed"]
    if failed and not as_json:
        raise fail(NotVerified(checks=", ".join(failed)))
    return NotVerified.exit_code if failed else 0


def _is_adapter(spec: str) -> bool:
    """A folder, or a file of tensors; specs are neither."""
    return len(spec) < 4096 and (Path(spec).is_dir() or spec.endswith(".safetensors"))


def _adapted(adapter: str, base: Any, any_base: bool) -> tuple[Check, ...]:
    from peftc.api import load

    checks: tuple[Check, ...] = load(base, adapter, any_base=any_base).peftc.verify()
    return checks


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "verdict", "number", "limit", "of what"):
        table.add_column(column, overflow="fold")
    for one in checks:
        numbers = (_number(one.number), _number(one.limit))
        table.add_row(one.name, one.verdict, *numbers, one.note)
    return table


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.2g}" if number % 1 else f"{number:g}"
