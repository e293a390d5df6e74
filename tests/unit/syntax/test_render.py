"""What a diagnostic looks like, whatever the line it points into."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.explain import MODULES, all_codes, explain
from peftc.diagnostics.render import render, render_all, to_json
from peftc.diagnostics.resolve import __file__ as resolve_file
from peftc.diagnostics.syntax import (
    DuplicateArgument,
    NotText,
    UnclosedBracket,
    UnopenedBracket,
)
from peftc.syntax.source import Source, Span

if TYPE_CHECKING:
    from peftc.diagnostics.core import Diagnostic


def at(text: str, part: str, name: str = "x.peft") -> Span:
    start = text.index(part)
    return Span(Source(name, text), start, start + len(part))


def twice(span: Span | None) -> Diagnostic:
    return DuplicateArgument(span=span, name="r")


def test_one_line() -> None:
    assert render(twice(at("lora(q, r=8, r=9)", "r=9"))) == (
        "error[PEFT110]: `r` is given twice\n"
        "x.peft:1:14\n"
        "1 | lora(q, r=8, r=9)\n"
        "  |              ^^^ `r` has a value already\n"
        "help: keep one of them"
    )


def test_a_note_that_says_nothing_is_left_out() -> None:
    error = UnclosedBracket(span=at("a(", "("), opening="(", closing=")")
    assert "note" not in render(error)
    error = UnclosedBracket(span=error.span, opening="(", closing=")", instead="`]`")
    assert "note: `]`\nhelp: add a `)`" in render(error)


def test_several_lines() -> None:
    text = "\n" * 8 + "  first(\n  second,\n  third)  \n"
    assert render(twice(at(text, text.strip()))) == (
        "error[PEFT110]: `r` is given twice\n"
        "x.peft:9:3\n"
        " 9 |   first(\n"
        "   |   ^^^^^^\n"
        "...\n"
        "11 |   third)\n"
        "   |   ^^^^^^ `r` has a value already\n"
        "help: keep one of them"
    )


def test_two_lines_have_nothing_between_them() -> None:
    assert "..." not in render(twice(at("a(\nb)", "a(\nb)")))


@pytest.mark.parametrize(
    ("text", "shown", "carets"),
    [
        ("\tlet X", "    let X", "        ^"),
        ("ab\tX", "ab  X", "    ^"),
        ("\N{CJK UNIFIED IDEOGRAPH-4E2D}X", "\N{CJK UNIFIED IDEOGRAPH-4E2D}X", "  ^"),
        ("e\N{COMBINING ACUTE ACCENT}X", "e\N{COMBINING ACUTE ACCENT}X", " ^"),
        ("\x1b[31mX", "\N{SYMBOL FOR ESCAPE}[31mX", "     ^"),
        ("a\rX", "a\N{SYMBOL FOR CARRIAGE RETURN}X", "  ^"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}X", "\N{REPLACEMENT CHARACTER}X", " ^"),
        ("\ud800X", "\N{REPLACEMENT CHARACTER}X", " ^"),
        ("a\x0bb\x85\N{LINE SEPARATOR}X", None, "     ^"),
        ("X\r\n", "X", "^"),
    ],
)
def test_carets_stand_below(text: str, shown: str | None, carets: str) -> None:
    lines = render(twice(at(text, "X"))).split("\n")
    if shown is not None:
        assert lines[2] == f"1 | {shown}"
    assert lines[3] == f"  | {carets} `r` has a value already"


@pytest.mark.parametrize("where", [0, 50, 5000, 99_999])
def test_long_lines_are_cut_around_the_span(where: int) -> None:
    text = "a" * where + "X" + "a" * (100_000 - where)
    lines = render(twice(at(text, "X"))).split("\n")
    assert len(lines[2]) < 120
    assert lines[2][lines[3].index("^")] == "X"


def test_a_span_longer_than_the_window() -> None:
    text = "b" * 50 + "a" * 1000
    lines = render(twice(at(text, "a" * 1000))).split("\n")
    assert len(lines[2]) < 120
    assert lines[3].count("^") < 110


def test_the_end_of_a_text_is_a_place() -> None:
    for text in ("lora(q)\n", "lora(q)"):
        end = Span(Source("x.peft", text), len(text), len(text))
        lines = render(twice(end)).split("\n")
        assert lines[3].endswith("^ `r` has a value already")


def test_no_place_and_no_text() -> None:
    assert render(twice(None)).split("\n")[1] == "`r` has a value already"
    nowhere = Span(Source("x.peft", ""), 0, 0)
    lines = render(NotText(span=nowhere, problem="not UTF-8")).split("\n")
    assert lines[1:3] == ["x.peft:1:1", "not UTF-8"]


def test_colours_are_only_put_around() -> None:
    import re

    error = twice(at("lora(q, r=8, r=9)", "r=9"))
    painted = render(error, color=True)
    assert painted != render(error)
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render(error)


def test_braces_in_a_text_are_no_templates() -> None:
    span = at("{r}", "{r}")
    assert "`{r}` closes" in render(UnopenedBracket(span=span, closing="{r}"))


def test_several_diagnostics_are_apart() -> None:
    error = twice(None)
    assert render_all([error, error]) == f"{render(error)}\n\n{render(error)}"


def test_json() -> None:
    text = "lora(q,\n  r=8, r=9)"
    data = to_json([twice(at(text, "r=9")), twice(None)])
    assert data == json.loads(json.dumps(data))
    first, second = data["diagnostics"]
    assert data["version"] == 1
    assert first == {
        "code": "PEFT110",
        "title": "`r` is given twice",
        "message": "x.peft:2:8: [PEFT110] `r` is given twice: `r` has a value already",
        "label": "`r` has a value already",
        "notes": [],
        "help": "keep one of them",
        "file": "x.peft",
        "line": 2,
        "column": 8,
        "end_line": 2,
        "end_column": 11,
    }
    assert second["file"] is second["line"] is second["end_column"] is None


def test_explanations() -> None:
    text = explain("PEFT104")
    assert text.startswith("PEFT104: unclosed `...`\n\nA `(`, `[` or `{` that is")
    assert "\n    lora(q, v, r=8\n" in text
    assert explain("peft104") == explain("104") == text
    with pytest.raises(LookupError, match=r"did you mean `PEFT\d+`"):
        explain("PEFT10")


@pytest.mark.parametrize("code", [c for c in all_codes() if c < "PEFT200"])
def test_an_explanation_has_a_cause_an_example_and_a_fix(code: str) -> None:
    text = explain(code)
    assert [w for w in ("Cause:", "Fails:", "Fix:") if w not in text] == []


def test_every_explanation_says_more_than_the_message() -> None:
    assert [code for code in all_codes() if explain(code).count("\n\n") < 2] == []


def test_all_modules_with_diagnostics_are_listed() -> None:
    from pathlib import Path

    folder = Path(resolve_file).parent
    files = {p.stem for p in folder.glob("*.py") if "(Diagnostic)" in p.read_text()}
    assert files == set(MODULES)
