"""Each code has a text that produces it, and the whole rendered output is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.explain import all_codes
from tests.golden.case import ERRORS, HERE, cases, code_of, run_case
from tests.golden.elsewhere import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CASES = cases(ERRORS)
ROOT = HERE.parent.parent


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_error(
    path: Path,
    golden: Callable[[Path, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ERRORS)
    text = run_case(path)
    assert f"error[{code_of(path)}]" in text
    golden(path.with_suffix(".err"), text)


def test_every_code_has_a_case() -> None:
    shown = {code_of(path) for path in CASES} | set(ELSEWHERE)
    assert [code for code in all_codes() if code not in shown] == []


def test_no_case_is_of_a_code_that_does_not_exist() -> None:
    shown = {code_of(path) for path in CASES} | set(ELSEWHERE)
    assert sorted(shown - set(all_codes())) == []


def test_no_output_is_left_behind() -> None:
    stems = {path.stem for path in CASES}
    assert [path for path in ERRORS.glob("*.err") if path.stem not in stems] == []


@pytest.mark.parametrize(("code", "test"), ELSEWHERE.items())
def test_the_other_test_exists_and_names_its_code(code: str, test: str) -> None:
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert f"def {name.partition('[')[0]}(" in text
    assert code in text
