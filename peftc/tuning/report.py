"""The report of a run, for programs and for people.

In: what was trained and measured.  Out: `report.json` as plain data, `report.md`.
"""

from __future__ import annotations

import platform
import resource
import sys
from typing import TYPE_CHECKING, Any

import torch

from peftc.markdown import table
from peftc.tuning.progress import clock
from peftc.versions import versions as of_packages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.runtime.handle import Handle
    from peftc.tuning.fit import Fitted
    from peftc.tuning.measure import Measures

PACKAGES = ("peftc", "torch", "transformers", "accelerate", "safetensors")
LAST = 10
"""The loss at the end is the mean of so many steps."""


def counts(handle: Handle) -> dict[str, Any]:
    """What is trained, all and by method."""
    told = handle.report()
    names = ("architecture", "base", "trainable", "trainable_by_method", "sites")
    return {name: told[name] for name in names}


def training(fitted: Fitted) -> dict[str, Any]:
    """What the training took and where it led."""
    steps, seconds = len(fitted.losses), fitted.seconds
    last = fitted.losses[-LAST:]
    return {
        "steps": steps,
        "first_loss": fitted.losses[0],
        "last_loss": sum(last) / len(last),
        "seconds": seconds,
        "seconds_per_step": fitted.step_seconds,
        "tokens": fitted.tokens,
        "tokens_per_second": fitted.tokens / max(seconds, 1e-9),
    }


def memory() -> dict[str, int | None]:
    """The most bytes this process has held, and its GPU if it used one."""
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    cuda = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None
    return {"resident": resident, "cuda": cuda}


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **of_packages(PACKAGES)}


def measured(before: Measures | None, after: Measures | None) -> dict[str, Any] | None:
    """The base and what became of it on the same held-out samples."""
    if before is None or after is None:
        return None
    return {"base": before.record(), "tuned": after.record()}


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    parts = [
        "# A training run",
        f"```peft\n{report['spec'].strip()}\n```",
        table(("what", "value"), _facts(report)),
    ]
    if report["held_out"]:
        head = (f"{report['held_out']['base']['samples']} held-out samples", "base")
        parts.append(table((*head, "tuned"), _compared(report["held_out"])))
    if report["picture"]:
        parts.append(f"![loss]({report['picture']})")
    return "\n\n".join(parts) + "\n"


def _facts(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    trained, count, data = report["training"], report["counts"], report["data"]
    share = 100 * count["trainable"] / max(1, count["base"])
    by_method = (f"{m} {n:,}" for m, n in count["trainable_by_method"].items())
    rows = {
        "model": f"{report['model']} ({count['architecture']}, {count['base']:,})",
        "task": report["task"],
        "data": f"{data['name']}, {data['examples']:,} samples",
        "trainable": f"{count['trainable']:,} ({share:.3f} %)",
        "by method": ", ".join(by_method),
        "steps": f"{trained['steps']:,}",
        "loss": f"{trained['first_loss']:.4f} to {trained['last_loss']:.4f}",
        "time": clock(trained["seconds"]),
        "time of a step": f"{trained['seconds_per_step']:.3f} s",
        "throughput": f"{trained['tokens_per_second']:,.0f} tokens/s",
        "peak memory": _mebibytes(report["memory"]),
        "seed": str(report["seed"]),
        "versions": ", ".join(f"{n} {v}" for n, v in report["versions"].items()),
    }
    return list(rows.items())


def _mebibytes(memory: Mapping[str, int | None]) -> str:
    told = {"process": memory["resident"], "GPU": memory["cuda"]}
    return ", ".join(f"{n} {s / 2**20:,.0f} MiB" for n, s in told.items() if s)


def _compared(held_out: Mapping[str, Any]) -> list[tuple[str, ...]]:
    names = ("loss", "perplexity", "accuracy", "exact")
    pairs = ((name, held_out["base"][name], held_out["tuned"][name]) for name in names)
    return [
        (name, *(f"{number:.4f}" for number in numbers))
        for name, *numbers in pairs
        if None not in numbers
    ]
