"""Every spec of a folder, trained alike on the example model, in one table.

The task: pirate logs, of which the base, trained on plain English, can make nothing.
In: the specs of `examples/specs`.  Out: `docs/methods-compared.md`.  Each run is a
process of its own (`peftc train`), so that peak memory is its own; runs that are
finished are not made again, one that was interrupted goes on.  Run it as
`python benchmarks/compare_methods.py`; the options say where and how long.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftc.driver import read_spec
from peftc.files import write_atomically
from peftc.syntax import ast
from peftc.syntax.parse import parse
from peftc.syntax.print import format_file

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]

EXAMPLES = ROOT / "examples"
MODEL = EXAMPLES / "tiny_llama"
SPECS = EXAMPLES / "specs"
PAGE = ROOT / "docs" / "methods-compared.md"
RUNS = ROOT / "build" / "methods-compared"
STYLE, TRAINED, HELD_OUT = "pirate", 2000, 40
STEPS, BATCH, LENGTH = 200, 4, 64
RATES = ("1e-1", "1e-2", "1e-3")
INTERRUPTED = 130


INTRODUCTION = """# Methods, compared

Every spec of `examples/specs`, trained alike on `examples/tiny_llama`: {steps} steps
of {batch} windows of at most {length} bytes of pirate logs. The base has read plain
English only: on logs that no run has seen it loses {loss} nats per byte and gets
{right} % of the bytes right. Of the rates {rates} the best one counts. The time is the
middle of all steps on one core, of the fastest run; the memory the most that the
process held, with Python and torch.

This shows that every method learns, and what it costs. It does not rank methods: the
model is tiny, the specs differ in size, and no knob was tuned.

    make compare

makes this page, in about half an hour of one core; finished runs are kept under
`build/`, an interrupted one goes on."""


@dataclass(frozen=True)
class Plan:
    """What is compared: specs, rates, where runs go, how long each is."""

    specs: tuple[Path, ...]
    rates: tuple[str, ...]
    runs: Path
    steps: int

    def folder(self, spec: Path, rate: str) -> Path:
        """Where a run is."""
        return self.runs / f"{spec.stem}-{rate}-{self.steps}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are missing, then the page; 1 if a run failed."""
    options = _options(arguments)
    specs = tuple(path for path in sorted(options.specs.glob("*.peft")) if _main(path))
    plan = Plan(specs, tuple(options.rates.split(",")), options.runs, options.steps)
    plan.runs.mkdir(parents=True, exist_ok=True)
    _write_data(plan.runs)
    failed = {}
    for rate in plan.rates:
        for spec in plan.specs:
            if problem := _run(plan, spec, rate):
                failed[spec.stem, rate] = problem
        write_atomically(options.page, _page(plan, failed).encode())
    print(f"wrote {options.page}")
    return 1 if failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", type=Path, default=SPECS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rates", default=",".join(RATES))
    return parser.parse_args(arguments)


def _main(path: Path) -> bool:
    """Whether a file is a spec: others define methods only."""
    return any(isinstance(item, ast.Main) for item in parse(read_spec(path)).items)


def _write_data(folder: Path) -> None:
    """The logs that are trained and those that are measured."""
    sys.path.insert(0, str(EXAMPLES))
    from corpus import documents

    for name, count, held_out in (("train", TRAINED, False), ("test", HELD_OUT, True)):
        texts = islice(documents(STYLE, 0, held_out=held_out), count)
        lines = "".join(f"{json.dumps({'text': text})}\n" for text in texts)
        write_atomically(folder / f"{name}.jsonl", lines.encode())


def _run(plan: Plan, spec: Path, rate: str) -> str:
    """Train one spec, unless that is done; what went wrong, if anything did."""
    folder = plan.folder(spec, rate)
    _remove_stale(folder, spec)
    if (folder / "report.json").is_file():
        return ""
    print(f"{spec.stem} at {rate}", flush=True)
    code, told = start(_arguments(plan, spec, rate))
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return "" if code == 0 else _problem(told)


def start(arguments: tuple[str, ...]) -> tuple[int, str]:
    """Run a command of peftc in a process of its own; its exit code and stderr."""
    done = subprocess.run(
        (sys.executable, "-m", "peftc.cli.main", *arguments),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return done.returncode, done.stderr


def _arguments(plan: Plan, spec: Path, rate: str) -> tuple[str, ...]:
    """Those of the command that trains one spec."""
    folder = plan.folder(spec, rate)
    data = (str(plan.runs / name) for name in ("train.jsonl", "test.jsonl"))
    options = {
        **dict(zip(("", "--eval"), data, strict=True)),
        "--output": str(folder),
        "--lr": rate,
        "--steps": str(plan.steps),
        "--batch": str(BATCH),
        "--max-length": str(LENGTH),
    }
    written = (part for pair in options.items() for part in pair if part)
    resume = ("--resume",) if (folder / "run.json").is_file() else ()
    return ("train", str(spec), str(MODEL), *written, *resume)


def _remove_stale(folder: Path, spec: Path) -> None:
    """Remove the run of a spec that reads differently now."""
    begun = folder / "run.json"
    if not begun.is_file():
        return
    if json.loads(begun.read_bytes())["spec"] != format_file(parse(read_spec(spec))):
        shutil.rmtree(folder)


def _problem(told: str) -> str:
    """The diagnostic in what a command told, on one line."""
    _, mark, text = told.partition("error[")
    return " ".join((mark + text if mark else told[-300:]).split())


# --- the page ------------------------------------------------------------------------


def _page(plan: Plan, failed: dict[tuple[str, str], str]) -> str:
    reports = [found for spec in plan.specs if (found := _best(plan, spec))]
    parts = [_intro(plan, reports), _table(reports)]
    if failed:
        lines = (f"- `{n}` at rate {r}: {text}" for (n, r), text in failed.items())
        parts.append("Runs that ended in a diagnostic:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _best(plan: Plan, spec: Path) -> dict[str, Any] | None:
    """The report of the rate with the least held-out loss; the time of the fastest:
    what else the machine does makes a run slower, and never faster."""
    found = []
    for rate in plan.rates:
        path = plan.folder(spec, rate) / "report.json"
        if path.is_file():
            read = json.loads(path.read_bytes())
            found.append({**read, "name": spec.stem, "rate": rate})
    if not found:
        return None
    seconds = min(report["training"]["seconds_per_step"] for report in found)
    best: dict[str, Any] = min(found, key=_loss)
    return {**best, "seconds_per_step": seconds}


def _loss(report: dict[str, Any]) -> float:
    return float(report["held_out"]["tuned"]["loss"])


def _intro(plan: Plan, reports: list[dict[str, Any]]) -> str:
    base = reports[0]["held_out"]["base"] if reports else {"loss": 0.0, "accuracy": 0.0}
    return INTRODUCTION.format(
        steps=plan.steps,
        batch=BATCH,
        length=LENGTH,
        loss=f"{base['loss']:.3f}",
        right=f"{100 * base['accuracy']:.1f}",
        rates=", ".join(plan.rates),
    )


def _table(reports: list[dict[str, Any]]) -> str:
    head = ("spec", "trained", "loss", "bytes right", "rate", "ms per step", "peak MiB")
    rows = [head, ("---", *("--:",) * (len(head) - 1))]
    rows += map(_row, sorted(reports, key=_loss))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(report: dict[str, Any]) -> tuple[str, ...]:
    tuned = report["held_out"]["tuned"]
    return (
        f"[{report['name']}](../examples/specs/{report['name']}.peft)",
        f"{report['counts']['trainable']:,}",
        f"{tuned['loss']:.3f}",
        f"{100 * tuned['accuracy']:.1f} %",
        report["rate"],
        f"{1000 * report['seconds_per_step']:.0f}",
        f"{report['memory']['resident'] / 2**20:,.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
