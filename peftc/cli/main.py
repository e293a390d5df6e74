"""The `peftc` command: its sub-commands, one file each.

In: the process's arguments.  Out: the product on stdout, narration and diagnostics on
stderr, and an exit code: 0 ok, 1 diagnostics, 2 usage, 3 model, 4 drift or parity,
5 run time, 70 internal, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from peftc.cli import (
    bench,
    cache,
    check,
    compile,
    diff,
    doctor,
    evaluate,
    explain,
    export,
    fmt,
    generate,
    importing,
    merge,
    methods,
    opt,
    plan,
    replay,
    search,
    train,
    verify,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "check": check.command,
    "plan": plan.command,
    "compile": compile.command,
    "fmt": fmt.command,
    "methods": methods.command,
    "explain": explain.command,
    "train": train.command,
    "search": search.command,
    "eval": evaluate.command,
    "merge": merge.command,
    "export": export.command,
    "import": importing.command,
    "generate": generate.command,
    "verify": verify.command,
    "opt": opt.command,
    "diff": diff.command,
    "doctor": doctor.command,
    "cache": cache.command,
    "replay": replay.command,
    "bench": bench.command,
}

app = typer.Typer(
    name="peftc",
    help="The compiler for parameter-efficient fine-tuning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
