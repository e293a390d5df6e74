"""What a golden case is and how it is run.

A case of `errors/` is a `.peft` file named after the code it must produce; beside it
lies the rendered text.  Lines at its top that begin with `# model:` name a view of
`tests.views`; without one the stages end where a model is needed.  `# without: tap`
takes a property from all sites of that view, `# without: attention` all sites of that
kind.  Files for `use` lie in `errors/used/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from peftc.diagnostics.core import PeftcError
from peftc.diagnostics.render import render_all
from peftc.syntax.parse import parse
from peftc.syntax.read import read_source
from tests import views

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.syntax.source import Source
    from peftc.view import ModelView

HERE = Path(__file__).parent
ERRORS = HERE / "errors"
FORMATS = HERE / "fmt"

HEADER = re.compile(r"^# (model|without): (\w+)$", re.MULTILINE)
VIEWS = {"toy": views.toy, "biased": lambda: views.with_biases(views.toy())}
WITHOUT: dict[str, Callable[[ModelView], ModelView]] = {
    "tap": views.without_taps,
    "attention": views.without_attention,
}


def cases(folder: Path) -> list[Path]:
    """The cases of a folder, by name."""
    return sorted(folder.glob("*.peft"))


def code_of(path: Path) -> str:
    """The code in a case's name."""
    return path.stem.partition("-")[0]


def run_case(path: Path) -> str:
    """The rendered diagnostics of a text, or nothing if no stage finds any.

    The current folder must be the case's own: places are then the same everywhere.
    """
    try:
        source = read_source(Path(path.name))
        parse(source)
        later_stages(source)
    except PeftcError as error:
        return render_all(error.diagnostics) + "\n"
    return ""


def later_stages(source: Source) -> None:
    """All stages as far as the case's view allows."""
    from peftc import driver  # the syntax needs none of it

    view = view_of(source.text)
    if view is None:
        driver.check(source)
    else:
        driver.make_plan(source, view)


def view_of(text: str) -> ModelView | None:
    """The view a case asks for at its top."""
    asked = dict(HEADER.findall(text))
    if "model" not in asked:
        return None
    view = VIEWS[asked["model"]]()
    if "without" in asked:
        view = WITHOUT[asked["without"]](view)
    return view
