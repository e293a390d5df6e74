"""`peftc diff`: what two plans do differently."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peftc.driver import make_plan
from peftc.plan.diff import difference
from peftc.syntax.source import Source
from tests.ecosystem.commands import GOLDEN, lines, ok, peftc, toy_plan
from tests.views import toy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peftc.plan.diff import Change

OLD = "lora(q, v, r=2) + adapter(ffn, d=3) @ layers(0)"
NEW = "lora(q, r=4) + lora(k, r=2) @ layers(0) + dora(v, r=2) + adapter(ffn, d=3)"


def changes(old: str, new: str) -> tuple[Change, ...]:
    one, other = (make_plan(Source("<spec>", s), toy()) for s in (old, new))
    return difference(one, other)


def test_what_a_person_sees(
    tmp_path: Path, golden: Callable[[Path, str], None]
) -> None:
    old, new = toy_plan(OLD, tmp_path, "old.txt"), toy_plan(NEW, tmp_path, "new.txt")
    result = peftc("diff", old, new)
    assert result.exit_code == 1
    golden(GOLDEN / "diff.out", lines(result.stdout))


def test_equal_plans_have_no_difference(tmp_path: Path) -> None:
    """Where a spec was written and how it was laid out do not count."""
    old = toy_plan(OLD, tmp_path, "old.txt")
    new = toy_plan(f"# a comment\n{OLD.replace(' + ', '  +  ')}", tmp_path, "new.txt")
    assert ok("diff", old, old).stdout == ""
    assert ok("diff", old, new).stdout == ""


def test_the_record_of_a_difference(tmp_path: Path) -> None:
    old = toy_plan("lora(q, r=2)", tmp_path, "old.txt")
    new = toy_plan("lora(q, r=4)", tmp_path, "new.txt")
    result = peftc("diff", old, new, "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["version"] == 1
    assert {
        "kind": "changed",
        "site": "q",
        "layer": 1,
        "what": "lora(r)",
        "old": "2",
        "new": "4",
    } in record["changes"]
    same = ok("diff", old, old, "--json").stdout
    assert json.loads(same) == {"version": 1, "changes": []}


@pytest.mark.parametrize(
    ("old", "new", "kind", "what"),
    [
        ("lora(q)", "lora(q) + lora(v)", "added", "lora"),
        ("lora(q) + lora(v)", "lora(q)", "removed", "lora"),
        ("lora(q, r=2)", "lora(q, r=3)", "changed", "lora.B"),
        ("lora(q, r=2)", "lora(q, r=2, dropout=0.5)", "changed", "lora(dropout)"),
        ("lora(ffn) @ layers(0)", "lora(ffn) @ layers(1)", "added", "merge"),
        ("lora(q)", "lora(q) + ia3(q)", "added", "ia3"),
        ("lora(q)", "dora(q)", "removed", "method lora"),
        ("lora(q, r=2)", "lora(q, r=3)", "changed", "trainable"),
        ("lora(q, r=2)", "lora(q, r=3)", "changed", "memory parameters"),
    ],
)
def test_kinds_of_changes(old: str, new: str, kind: str, what: str) -> None:
    if "ffn" in old:
        old, new = old.replace("lora", "adapter"), new.replace("lora", "adapter")
    found = {(change.kind, change.what) for change in changes(old, new)}
    assert (kind, what) in found


def test_a_difference_is_none_of_the_other_way_round() -> None:
    there, back = changes(OLD, NEW), changes(NEW, OLD)
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    assert {
        (opposite[c.kind], c.site, c.layer, c.what, c.new, c.old) for c in there
    } == {(c.kind, c.site, c.layer, c.what, c.old, c.new) for c in back}
