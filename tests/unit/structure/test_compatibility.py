"""What docs/compatibility.md promises is what there are tests of, and they passed."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from tests.compatibility import DOCUMENT, document, read, rows
from tests.promises import PARAGRAPHS, Row
from tests.unit.structure.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.promise)
def test_a_promise_has_tests(row: Row) -> None:
    for one in row.tests:
        file, _, name = one.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        named = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        assert not name or name in named, one


def test_the_document_has_all_of_it_and_nothing_failed() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for title, found in PARAGRAPHS.items():
        assert f"## {title}\n" in text
        for row in found:
            assert f"| {row.promise} | " in text
    for word in ("failed", "not run"):
        assert word not in text


def test_results_are_read_and_counted(tmp_path: Path) -> None:
    (tmp_path / "results.xml").write_text(
        """<testsuites><testsuite>
        <testcase classname="tests.ecosystem.test_hub" name="test_a[x]"/>
        <testcase classname="tests.ecosystem.test_hub" name="test_b">
          <failure message="m"/></testcase>
        <testcase classname="tests.ecosystem.test_hub" name="test_c">
          <skipped/></testcase>
        <testcase classname="tests.ecosystem.test_hub_more" name="test_d"/>
        </testsuite></testsuites>"""
    )
    results = read(tmp_path / "results.xml")
    whole = Row("all", ("tests/ecosystem/test_hub.py",))
    assert whole.ends(results) == {"passed": 1, "failed": 1, "skipped": 1}
    cases = Row("one", ("tests/ecosystem/test_hub.py::test_a",))
    assert cases.ends(results) == {"passed": 1}
    text = document(results)
    assert "| 1 passed, 1 failed, 1 skipped | [test_hub](../tests/" in text
    assert "| not run |" in text
