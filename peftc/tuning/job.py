"""`peftc train` from start to end.

In: a spec, a model, data, settings and a folder.  Out: the folder with the adapter, the
report and the picture of the loss; and the report.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import BadSetting
from peftc.driver import check, compile_model
from peftc.files import write_atomically
from peftc.syntax.parse import parse
from peftc.syntax.print import format_file
from peftc.tuning import report
from peftc.tuning.examples import Collate, examples
from peftc.tuning.extras import require
from peftc.tuning.fit import fit
from peftc.tuning.folder import begin, check_folder, write_json
from peftc.tuning.measure import Measures, measure
from peftc.tuning.picture import loss_curve
from peftc.tuning.records import read_data
from peftc.tuning.subject import subject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peftc.syntax.source import Source
    from peftc.tuning.examples import Example
    from peftc.tuning.fit import Fitted
    from peftc.tuning.records import Data
    from peftc.tuning.settings import Settings
    from peftc.tuning.subject import Asked, Subject

CHECKPOINTS = "checkpoints"
PICTURE = "loss.png"
REPORT = "report.json"


@dataclass(frozen=True)
class Job:
    """All that is asked for; `evaluated` is the file to measure on, if there is one."""

    spec: Source
    asked: Asked
    data: str
    settings: Settings
    evaluated: str = ""


@dataclass(frozen=True)
class Ready:
    """A subject with its examples, those that are trained and those held out."""

    subject: Subject
    trained: tuple[Example, ...]
    held_out: tuple[Example, ...]
    said: dict[str, Any]
    """Of the model, the data and the settings, what a run is known by."""

    def measure(self, batch: int) -> Measures | None:
        """Measure the model as it is now on what is held out, if anything is."""
        if not self.held_out:
            return None
        reading = self.subject.reading
        collate = Collate(reading.task, reading.codec.pad)
        return measure(self.subject.model, self.held_out, collate, batch)


def train(
    job: Job, folder: Path, note: Callable[[str], None], *, resume: bool = False
) -> dict[str, Any]:
    """Train, measure, and write everything.

    Raises:
        Interrupted: after a signal, once the last checkpoint is whole.
        PeftcError: with diagnostics.
    """
    check(job.spec)
    spec = format_file(parse(job.spec))
    check_folder(folder, resume)
    ready = prepare(job, note)
    seed = job.settings.seed
    handle = compile_model(ready.subject.model, job.spec, seed=seed)
    begin(folder, {"version": 1, "spec": spec, **ready.said})
    if (folder / REPORT).is_file():
        note(f"`{folder}` is finished")
        done: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
        return done
    with handle.disabled():
        before = ready.measure(job.settings.batch)
    fitted = fit(
        handle.model,
        ready.trained,
        ready.subject.reading,
        job.settings,
        folder=folder / CHECKPOINTS,
    )
    after = ready.measure(job.settings.batch)
    # What a method does last may have compiled the model anew.
    handle = ready.subject.model.peftc
    handle.save(folder)
    held_out = report.measured(before, after)
    made = {
        "version": 1,
        "spec": spec,
        **ready.said,
        "counts": report.counts(handle),
        "training": report.training(fitted),
        "losses": list(fitted.losses),
        "held_out": held_out,
        "memory": report.memory(),
        "versions": report.versions(),
        "picture": _picture(folder, fitted, (before, after), note),
    }
    write_atomically(folder / "report.md", report.markdown(made).encode())
    write_json(folder / REPORT, made)
    return made


def _picture(
    folder: Path,
    fitted: Fitted,
    held_out: tuple[Measures | None, Measures | None],
    note: Callable[[str], None],
) -> str:
    named = zip(("base, held out", "tuned, held out"), held_out, strict=True)
    levels = {name: one.loss for name, one in named if one}
    if loss_curve(folder / PICTURE, fitted.losses, levels):
        return PICTURE
    note(f"note: no {PICTURE}, as matplotlib is not installed")
    return ""


def prepare(job: Job, note: Callable[[str], None]) -> Ready:
    """Read the data, load the model, make the examples.

    Raises:
        PeftcError: with diagnostics; nothing is written.
    """
    job.settings.check()
    require("accelerate", "training")
    whole = read_data(job.data)
    kept, held = _split(job, whole)
    loaded = subject(job.asked, whole, job.settings, note)
    parts = tuple(examples(d, loaded.reading) if d else () for d in (kept, held))
    return Ready(loaded, parts[0], parts[1], _said(job, (whole, held), loaded, parts))


def _split(job: Job, whole: Data) -> tuple[Data, Data | None]:
    if job.evaluated:
        held = read_data(job.evaluated, split="test")
        if held.kind != whole.kind:
            problem = f"`{held.name}` holds {held.kind}, `{whole.name}` {whole.kind}"
            raise fail(BadSetting(problem=problem))
        return whole, held
    if not job.settings.held_out:
        return whole, None
    return whole.split(job.settings.held_out, job.settings.seed)


def _said(
    job: Job,
    data: tuple[Data, Data | None],
    loaded: Subject,
    parts: tuple[tuple[Example, ...], ...],
) -> dict[str, Any]:
    whole, held = data
    reading = loaded.reading
    return {
        "model": job.asked.model,
        "random_init": job.asked.random_init,
        "task": reading.task,
        "codec": reading.codec.kind,
        "classes": list(reading.classes or ()),
        "data": {
            "name": whole.name,
            "fingerprint": whole.fingerprint(),
            "examples": len(parts[0]),
            "held_out": held.fingerprint() if held else None,
        },
        **asdict(job.settings),
    }
