"""Design spaces: what is a choice, and the spec that a decision makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.driver import check, check_space
from peftc.resolve.space import OneOf, Range, closed, first, trimmed
from peftc.syntax.print import format_file
from peftc.syntax.read import read_source
from peftc.syntax.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.resolve.space import Choice, Decide, Space

TEXT = """
let d = one_of(4, 8)
spec s(r = range(1, 64, log)) = lora(q, r=r) @ layers(0..one_of(1, 2))
one_of(lora(q, v, r=one_of(2, 4)) + adapter(ffn, d=d), ia3(k, v, ffn), s())
  + lora(o, r=range(2, 9), dropout=range(0.0, 0.5))
"""


def space(text: str) -> Space:
    return check_space(Source("<spec>", text))


def spec(text: str, decide: Decide) -> str:
    return format_file(closed(space(text).decided(decide)))


def last(choice: Choice) -> int | float:
    return len(choice.options) - 1 if isinstance(choice, OneOf) else choice.high


def test_choices_are_named_after_where_they_stand() -> None:
    found = space(TEXT).choices.values()
    assert [choice.name for choice in found] == [
        "d",
        "s.r",
        "s.layers",
        "spec",
        "lora.r",
        "lora.r#2",
        "lora.dropout",
    ]
    ranges = [choice for choice in found if isinstance(choice, Range)]
    assert [(r.low, r.high, r.log, r.whole) for r in ranges] == [
        (1, 64, True, True),
        (2, 9, False, True),
        (0.0, 0.5, False, False),
    ]


def test_a_decision_makes_a_spec() -> None:
    assert spec(TEXT, first) == (
        "let d = 4\n\n"
        "spec s(r = 1) = lora(q, r=r) @ layers(0..1)\n\n"
        "lora(q, v, r=2) + adapter(ffn, d=d) + lora(o, r=2, dropout=0.0)\n"
    )
    assert spec(TEXT, last).splitlines()[-1] == "s() + lora(o, r=9, dropout=0.5)"
    assert check(Source("<spec>", spec(TEXT, last)))


def test_choices_that_a_decision_does_not_come_to_are_not_made() -> None:
    asked: list[str] = []

    def decide(choice: Choice) -> int | float:
        asked.append(choice.name)
        return 1 if choice.name == "spec" else first(choice)

    spec(TEXT, decide)
    assert "spec" in asked
    assert "lora.r" not in asked


def test_numbers_are_short_and_within_their_ends() -> None:
    assert spec("lora(q, alpha=range(1.0, 3.0))", lambda _: 2.123456789) == (
        "lora(q, alpha=2.123)\n"
    )
    text = "lora(q, alpha=range(0.1, 0.123456))"
    assert spec(text, lambda _: 0.123456) == "lora(q, alpha=0.123456)\n"
    assert spec("lora(q, dropout=range(1%, 9%))", lambda _: 4) == (
        "lora(q, dropout=4%)\n"
    )


def test_what_a_spec_does_not_come_to_is_left_out() -> None:
    def text(index: int) -> str:
        def decide(choice: Choice) -> int | float:
            return index if choice.name == "spec" else last(choice)

        return format_file(trimmed(closed(space(TEXT).decided(decide))))

    assert text(1) == "ia3(k, v, ffn) + lora(o, r=9, dropout=0.5)\n"
    assert text(0).splitlines()[0] == "let d = 8"
    assert text(2).splitlines()[0].startswith("spec s(r = 64)")


def test_what_a_space_uses_is_in_its_specs(tmp_path: Path) -> None:
    used = (
        "method m(a: number = 1) on linear {\n  param g[out] = 1\n  y' = a * g * y\n}\n"
    )
    (tmp_path / "used.peft").write_text(used + "let a = 1\n")
    text = 'use "used.peft"\nm(q, a=one_of(2, 3)) + m(v, a=a)\n'
    (tmp_path / "space.peft").write_text(text)
    found = check_space(read_source(tmp_path / "space.peft"))
    made = format_file(closed(found.decided(last)))
    assert "use" not in made
    assert made.endswith("m(q, a=3) + m(v, a=a)\n")
    assert len(check(Source("<spec>", made))) == 2


BAD = {
    "lora(q, r=one_of(4))": "PEFT682",
    "lora(q, r=one_of(4, 4))": "PEFT682",
    "lora(q, r=one_of(4, [out]))": "PEFT682",
    "lora(q, r=range(4, 1))": "PEFT682",
    "lora(q, r=range(1, gelu))": "PEFT682",
    "lora(q, r=range(0, 4, log))": "PEFT682",
    "lora(q, r=range(1, 4, 2))": "PEFT682",
    "lora(q, r=range(1, 4, log, log))": "PEFT682",
    "lora(q, r=range(1, 4%))": "PEFT682",
    "lora(one_of(q, v))": "PEFT682",
    "one_of(lora(q), 4)": "PEFT682",
    "one_of(lora(q), r=4)": "PEFT682",
    "range(1, 2)": "PEFT682",
    "lora(q, r=8)": "PEFT683",
    "one_of(lora(q), lra(q))": "PEFT202",
    "lora(q, r=one_of(8, 0))": "PEFT218",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_choice_is_said(text: str) -> None:
    with pytest.raises(PeftcError) as caught:
        space(text)
    assert [d.code for d in caught.value.diagnostics] == [BAD[text]]
