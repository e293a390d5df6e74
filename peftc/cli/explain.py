"""`peftc explain TOPIC`: the long explanation of a code, or a method's equation."""

from __future__ import annotations

from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.diagnostics.cli import UnknownTopic
from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.explain import all_codes, explain
from peftc.resolve.library import standard_library
from peftc.syntax.print import print_method


@guarded
def command(
    topic: Annotated[str, typer.Argument(help="A code (PEFT201) or a method.")],
) -> None:
    """Explain a diagnostic code, or show a method."""
    library = standard_library()
    if topic.upper().removeprefix("PEFT").isdigit():
        print(_explanation(topic))
    elif topic in library.methods:
        print(print_method(library.methods[topic]), end="")
    elif topic in library.macros:
        print(library.macros[topic].span.text)
    else:
        known = (*all_codes(), *library.methods, *library.macros)
        raise fail(UnknownTopic(topic=topic, hint=suggestion(topic, known)))


def _explanation(code: str) -> str:
    try:
        return explain(code)
    except LookupError as error:
        raise fail(UnknownTopic(topic=code, hint=str(error))) from None
