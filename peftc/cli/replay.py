"""`peftc replay FOLDER`: does a crash still happen?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.output import say
from peftc.diagnostics.cli import FailsAgain, FailsDifferently
from peftc.diagnostics.core import fail
from peftc.replay import replay


@guarded
def command(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder peftc-reproducer-..., as a crash leaves it."),
    ],
) -> None:
    """Run the stage that crashed again.

    Exit code 70 if it fails as before, 4 if it fails differently, 0 if it does not.
    No weights are needed.

    Example: peftc replay peftc-reproducer-1f2e3d4c5b
    """
    seen = replay(folder)
    if seen.outcome == "same":
        raise fail(FailsAgain(what=f"{seen.stage}: {seen.now}"))
    if seen.outcome == "other":
        what = f"{seen.stage}: {seen.now}"
        raise fail(FailsDifferently(what=what, before=seen.before))
    say(f"{seen.stage} does not fail any more; before: {seen.before}")
