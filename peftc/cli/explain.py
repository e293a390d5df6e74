"""`peftc explain TOPIC`: the long explanation of a code, or a method's equation; with
`--kernels SPEC MODEL` what each site runs on."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.output import console, say
from peftc.codegen.accounts import Account, accounts
from peftc.diagnostics.cli import UnknownTopic
from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.explain import all_codes, explain
from peftc.driver import Step, check, plan_model, read_spec
from peftc.expr.order import MACHINE
from peftc.resolve.library import standard_library
from peftc.syntax.print import print_method

MIB = 2**20
USAGE = 2
COLUMNS = ("sites", "runs as", "forward", "backward", "kept", "why apart")


@guarded
def command(
    topic: Annotated[
        str,
        typer.Argument(help="A code (PEFT201), a method, or with --kernels a spec."),
    ],
    model: Annotated[
        str | None, typer.Argument(help="With --kernels: as of `peftc plan`.")
    ] = None,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="What each kind of site runs on.")
    ] = False,
) -> int:
    """Explain a diagnostic code, show a method, or tell what a spec's sites run on.

    Example: peftc explain --kernels 'lora(q, v, r=8)' config.json
    """
    if kernels != (model is not None):
        say("give a topic alone, or --kernels with a spec and a model")
        return USAGE
    print(_text(topic), end="") if model is None else _show(topic, model)
    return 0


def _text(topic: str) -> str:
    library = standard_library()
    if topic.upper().removeprefix("PEFT").isdigit():
        return f"{_explanation(topic)}\n"
    if topic in library.methods:
        return print_method(library.methods[topic])
    if topic in library.macros:
        return f"{library.macros[topic].span.text}\n"
    known = (*all_codes(), *library.methods, *library.macros)
    raise fail(UnknownTopic(topic=topic, hint=suggestion(topic, known)))


def _explanation(code: str) -> str:
    try:
        return explain(code)
    except LookupError as error:
        raise fail(UnknownTopic(topic=code, hint=str(error))) from None


# --- kernels -------------------------------------------------------------------------


def _show(spec: str, model: str) -> None:
    source = read_spec(spec)
    check(source)
    plan = plan_model(source, model, Step(), seed=0, dtype="auto")
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for account in accounts(plan, MACHINE):
        table.add_row(*_row(account))
    console().print(table)
    m = MACHINE
    console().print(
        f"MiB moved of the least possible, in training with {m.batch} x {m.tokens} "
        f"tokens of {m.element} bytes; of what is apart the forward alone, without the "
        "base's products. Linears of one input are one step together."
    )


def _row(account: Account) -> tuple[str, ...]:
    first, *others = account.sites
    more = f" and {len(others)} more" if others else ""
    form = "operations" if account.why else "one step"
    kept = "-" if account.kept is None else _mib(account.kept)
    pairs = (account.forward, account.backward)
    return first + more, form, *map(_pair, pairs), kept, account.why


def _pair(pair: tuple[int, int] | None) -> str:
    return "-" if pair is None else f"{_mib(pair[0])} of {_mib(pair[1])}"


def _mib(count: int) -> str:
    return f"{count / MIB:.1f}"
