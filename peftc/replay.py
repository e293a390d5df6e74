"""A crash seen again, from the folder it left.

In: a `peftc-reproducer-...` folder.  Out: `Replayed`: whether the stage that crashed
still does, and as before.  The plan passes need the plan's text alone; what needs the
model runs on one without weights, made from the configuration in the folder.  A folder
may come from a stranger: it is data, and nothing in it is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from peftc.diagnostics.cli import UnreadableFile
from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.plan import UnreadablePlan
from peftc.driver import plan_again, refine_again, rewrite_again
from peftc.passes import GRAPH_PIPELINE, PLAN_PIPELINE
from peftc.plan.parse import parse_plan
from peftc.reproducer import error_text, raising
from peftc.syntax.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.plan.types import Plan


@dataclass(frozen=True)
class Replayed:
    """How a replay ended: `same` or `other` failure, or `gone`; what failed, twice."""

    outcome: Literal["same", "other", "gone"]
    stage: str
    before: str
    now: str = ""


def replay(folder: Path) -> Replayed:
    """Run the stage of a reproducer again.

    Raises:
        PeftcError: PEFT667 if the folder is not one, or its stage cannot be replayed.
    """
    stage, before = _facts(folder)
    try:
        with raising():
            _run(folder, stage)
    except PeftcError as error:
        if any(
            isinstance(one, UnreadableFile | UnreadablePlan)
            for one in error.diagnostics
        ):
            raise
        return _outcome(stage, before, error)
    except Exception as error:
        # It is the crash that is looked for.
        return _outcome(stage, before, error)
    return Replayed("gone", stage, before)


def _outcome(stage: str, before: str, error: Exception) -> Replayed:
    # Torch wraps what a backend raises.
    inner = getattr(error, "inner_exception", error)
    diagnostics = getattr(inner, "diagnostics", ())
    now = str(diagnostics[0]) if diagnostics else error_text(inner)
    return Replayed("same" if now == before else "other", stage, before, now)


def _run(folder: Path, stage: str) -> None:
    if stage in PLAN_PIPELINE:
        refine_again(_plan(folder), stage)
    elif stage == "front end":
        spec = Source("spec.peft", _text(folder, "spec.peft"))
        plan_again(spec, _config(folder))
    elif stage == "kernel":
        _run_kernel(folder)
    elif stage in GRAPH_PIPELINE or stage == "memory":
        rewrite_again(_plan(folder), _config(folder))
    else:
        raise _unreadable(
            folder / "facts.json", f"`{stage}` cannot be replayed; run it again"
        )


def _facts(folder: Path) -> tuple[str, str]:
    """The stage that crashed, and how."""
    try:
        facts: Any = json.loads(_text(folder, "facts.json"))
        return str(facts["stage"]), str(facts["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        path = folder / "facts.json"
        raise _unreadable(path, "it tells no stage that crashed") from None


def _run_kernel(folder: Path) -> None:
    from peftc.rewrite import disagreement
    from peftc.rewrite.checked import Checked

    try:
        function, tensors = disagreement.read(folder)
    except (OSError, ValueError, LookupError) as error:
        raise _unreadable(folder, str(error)) from None
    Checked(function).check(tensors)


def _plan(folder: Path) -> Plan:
    return parse_plan(_text(folder, "plan.txt"), str(folder / "plan.txt"))


def _config(folder: Path) -> Path:
    _text(folder, "config.json")
    return folder / "config.json"


def _text(folder: Path, name: str) -> str:
    path = folder / name
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is no text"
        raise _unreadable(path, problem) from None


def _unreadable(path: Path, problem: str) -> PeftcError:
    return fail(UnreadableFile(path=str(path), problem=problem))
