"""Tables, notes and the part of a document that holds figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.bench.markdown import BEGIN, END, markdown, put_into
from peftc.bench.tables import notes, tables
from peftc.diagnostics.core import PeftcError
from tests.unit.bench.made import report, row, stages

if TYPE_CHECKING:
    from pathlib import Path


def test_times_ratios_and_stages_are_in_the_tables() -> None:
    made = report(row(frozen=0.4, eager=0.43, PEFT=0.5))
    made.stages += [stages(2, 0.01), stages(8, 0.02)]
    text = markdown(made)
    assert "|  | frozen | eager | PEFT |" in text
    assert "| C1 lora | 400.0 | 430.0 | 500.0 |" in text
    assert "| C1 lora: eager / PEFT | 0.860 | 0.860 to 0.860 | 0.860 |" in text
    assert "| 8 | 56 | 1.000 | 0.020 | 0.020 | 0.020 | 0.020 | 0.080 | 1.4 |" in text
    assert text.startswith("`peftc bench --suite cpu`: a processor, 2 cores, Linux;")


def test_a_table_has_as_many_columns_everywhere() -> None:
    made = report(row(frozen=0.4, eager=0.43), row("C1 dora", PEFT=0.5))
    for table in tables(made):
        assert {len(line) for line in table.rows} == {len(table.head)}


def test_a_profile_is_shown_with_its_sum() -> None:
    one = row(frozen=1.0, eager=1.0)
    one.operations |= {
        "mm": {"frozen": [3.0, 2.0], "eager": [4.0, 6.0]},
        "add": {"eager": [1.0, 1.0]},
    }
    text = markdown(report(one))
    assert "| add |  | 1.0 x1 |" in text
    assert "| all | 3.0 x2 | 5.0 x7 |" in text


def test_what_is_missing_or_wrong_is_said_by_name() -> None:
    one, other = row(eager=1.0), row("C1 dora", eager=1.0)
    for each in (one, other):
        each.missing["PEFT"] = "the package `peft` is not installed"
    other.problem = "losses differ"
    made = report(one, other)
    one.others, other.others = [0.1], [1.44]
    made.interrupted = True
    refused, missing, busy, interrupted = notes(made)
    assert refused == "C1 dora: losses differ"
    assert missing.startswith("`PEFT` is missing (C1 lora, C1 dora): the package")
    assert busy == "other work used 0.1 to 1.4 cores while rows were timed"
    assert "interrupted" in interrupted


def test_a_quiet_machine_is_not_called_busy() -> None:
    quiet = row(eager=1.0)
    quiet.others = [0.2]
    assert notes(report(quiet)) == ()


def test_figures_are_put_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# Page\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    put_into(path, report(row(frozen=0.4)))
    once = path.read_text()
    assert once.startswith(f"# Page\n\n{BEGIN}\n\n`peftc bench --suite cpu`")
    assert once.endswith(f"{END}\n\nafter\n")
    assert "| C1 lora | 400.0 |" in once
    assert "old" not in once
    put_into(path, report(row(frozen=0.4)))
    assert path.read_text() == once


def test_a_document_without_marks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    for text in ("# Page\n", f"{END}\n{BEGIN}\n"):
        path.write_text(text)
        with pytest.raises(PeftcError, match="PEFT712"):
            put_into(path, report())
        assert path.read_text() == text
    with pytest.raises(PeftcError, match="PEFT712"):
        put_into(tmp_path / "none.md", report())
