"""What every command does when something goes wrong.

In: a command's function.  Out: the same function, which ends in a rendered diagnostic
and the exit code that belongs to it, never in a traceback.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from peftc.cli.output import colored, say
from peftc.diagnostics.core import PeftcError
from peftc.diagnostics.render import render_all, to_json
from peftc.reproducer import Reproducer

P = ParamSpec("P")

INTERRUPTED = 130


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Decorate a command, which may return an exit code; `as_json=True` among its
    arguments puts errors on stdout."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        crash = Reproducer(str(kwargs.get("spec", "")), str(kwargs.get("model", "")))
        try:
            with crash.around(command.__module__.rpartition(".")[2]):
                code = command(*args, **kwargs)
        except PeftcError as error:
            report(error, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as interrupted:
            say(str(interrupted) or "interrupted; nothing was written")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read the output has seen enough; what is buffered goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        if code:
            raise typer.Exit(code)

    return run


def report(error: PeftcError, *, as_json: bool) -> None:
    """Show all diagnostics of an error, for a person or for a program."""
    if as_json:
        print(json.dumps(to_json(error.diagnostics), indent=2))
        return
    text = render_all(error.diagnostics, color=colored(sys.stderr))
    print(text, file=sys.stderr)
