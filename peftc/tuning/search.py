"""`peftc search`: which spec of a design space learns best in a few steps.

In: a space, a model, data, settings and a folder.  Out: the folder with a table of
trials, a picture and the best spec.  Every trial is on the disk when it ends; a search
that goes on makes the trials that it would have made without interruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.space import NoTrialWorked
from peftc.diagnostics.tuning import BadSetting
from peftc.driver import check_space, compile_model
from peftc.files import write_atomically
from peftc.resolve.space import OneOf, closed, trimmed
from peftc.syntax.print import format_file
from peftc.syntax.source import Source
from peftc.tuning.extras import require
from peftc.tuning.fit import fit
from peftc.tuning.folder import begin, check_folder, write_json
from peftc.tuning.job import prepare
from peftc.tuning.trials import Trial, draw_trials, markdown, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peftc.resolve.space import Choice, Space
    from peftc.tuning.job import Job, Ready
    from peftc.tuning.measure import Measures

METRICS = {"loss": False, "accuracy": True, "exact": True}
"""What a search goes by, and whether more of it is better."""
RUN = "search.json"
JOURNAL = "trials.journal"
BEST = "best.peft"
RANDOM = 8
"""Trials before the sampler learns from them."""
ATTEMPTS = 50
"""A spec that was tried is not tried again; so many draws in a row may give one."""


@dataclass(frozen=True)
class Aim:
    """What is looked for: how many trials, by which measure, within how many trained
    parameters (0: any number)."""

    trials: int
    metric: str = "loss"
    budget: int = 0

    def check(self) -> None:
        """Raise `PeftcError` (PEFT687) for a measure that there is not."""
        if self.metric not in METRICS:
            problem = f"`--metric` is one of {', '.join(METRICS)}"
            raise fail(BadSetting(problem=problem))

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return METRICS[self.metric]


@dataclass(frozen=True)
class _Search:
    """A search under way."""

    space: Space
    ready: Ready
    job: Job
    aim: Aim
    folder: Path
    optuna: Any


def search(
    job: Job,
    aim: Aim,
    folder: Path,
    note: Callable[[str], None],
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Explore a space; `job.spec` is its text.

    Returns:
        what results.json holds.

    Raises:
        Interrupted: after a signal; the trials before are kept.
        PeftcError: PEFT685 if no trial gave a result, or other diagnostics.
    """
    aim.check()
    space = check_space(job.spec)
    check_folder(folder, resume, RUN)
    optuna = require("optuna", "searching")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ready = prepare(job, note)
    if not ready.held_out:
        problem = "a search measures on held-out data: `--held-out` or `--eval`"
        raise fail(BadSetting(problem=problem))
    said = {"space": format_file(closed(space.unit)), **ready.said}
    said |= {"metric": aim.metric, "budget": aim.budget}
    begin(folder, {"version": 1, **said}, RUN)
    base = ready.measure(job.settings.batch)
    return _explore(_Search(space, ready, job, aim, folder, optuna), said, base, note)


def _explore(
    at: _Search,
    said: dict[str, Any],
    base: Measures | None,
    note: Callable[[str], None],
) -> dict[str, Any]:
    study = _study(at)
    trials = _finished(study)
    while len(trials) < at.aim.trials:
        tried = _trial(at, study, trials)
        if tried is None:
            note("no other spec was found in the space")
            break
        trials.append(tried)
        note(tried.line(at.aim.trials))
        _write(at, said, base, trials)
    made = _write(at, said, base, trials)
    if made["best"] is None:
        reason = trials[-1].reason if trials else "none was made"
        raise fail(NoTrialWorked(count=len(trials), reason=reason))
    return made


def _study(at: _Search) -> Any:
    """The study whose trials the folder keeps."""
    journal = at.optuna.storages.journal
    backend = journal.JournalFileBackend(str(at.folder / JOURNAL))
    return at.optuna.create_study(
        study_name="peftc",
        storage=at.optuna.storages.JournalStorage(backend),
        direction="maximize" if at.aim.rises else "minimize",
        load_if_exists=True,
    )


def _finished(study: Any) -> list[Trial]:
    """The trials that ended; one that was interrupted is none, and is made again."""
    found = []
    for one in study.get_trials(deepcopy=False):
        if "trial" in one.user_attrs:
            found.append(Trial(**one.user_attrs["trial"]))
        elif one.state.name == "RUNNING":
            study.tell(one.number, state=type(one.state).FAIL)
    return found


def _trial(at: _Search, study: Any, before: list[Trial]) -> Trial | None:
    """Ask for a spec, try it, tell how good it is; None if none is left."""
    number, known = len(before) + 1, {trial.spec for trial in before}
    for attempt in range(ATTEMPTS):
        # What a trial tries depends on those before it and on its number alone.
        seed = at.job.settings.seed + ATTEMPTS * number + attempt
        sampler = at.optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM)
        study.sampler = sampler
        asked = study.ask()
        unit = at.space.decided(partial(_decide, asked))
        spec = format_file(trimmed(closed(unit)))
        if spec not in known:
            return _told(at, study, asked, _tried(at, spec, number))
        study.tell(asked, state=at.optuna.trial.TrialState.FAIL)
    return None


def _told(at: _Search, study: Any, asked: Any, made: Trial) -> Trial:
    made = made.choosing(asked.params)
    asked.set_user_attr("trial", record(made))
    if made.value is None:
        study.tell(asked, state=at.optuna.trial.TrialState.PRUNED)
    else:
        study.tell(asked, made.value)
    return made


def _decide(asked: Any, choice: Choice) -> int | float:
    if isinstance(choice, OneOf):
        chosen = asked.suggest_categorical(choice.name, choice.options)
        return choice.options.index(chosen)
    draw = asked.suggest_int if choice.whole else asked.suggest_float
    value: int | float = draw(choice.name, choice.low, choice.high, log=choice.log)
    return value


def _tried(at: _Search, spec: str, number: int) -> Trial:
    """Compile and train one spec; the model is the base again afterwards."""
    trial = Trial(number, spec)
    settings, model = at.job.settings, at.ready.subject.model
    try:
        source = Source(f"<trial {number}>", spec)
        handle = compile_model(model, source, seed=settings.seed)
    except PeftcError as error:
        return trial.refused(error)
    trial = trial.counting(handle.plan.trainable)
    try:
        if at.aim.budget and handle.plan.trainable > at.aim.budget:
            return trial.over(at.aim.budget)
        reading, label = at.ready.subject.reading, f"trial {number}/{at.aim.trials}"
        fitted = fit(model, at.ready.trained, reading, settings, label=label)
        found = at.ready.measure(settings.batch)
        assert found is not None
        return trial.measured(found.record(), at.aim.metric, fitted.seconds)
    except PeftcError as error:
        return trial.refused(error)
    finally:
        # What a method does last may have compiled the model anew.
        model.peftc.remove()


def _write(
    at: _Search, said: dict[str, Any], base: Measures | None, trials: list[Trial]
) -> dict[str, Any]:
    """The table, the picture and the best spec, as far as the search has come."""
    worked = [trial for trial in trials if trial.value is not None]
    key = {trial.number: trial.value or 0.0 for trial in worked}
    order = sorted(worked, key=lambda t: key[t.number], reverse=at.aim.rises)
    best = order[0] if order else None
    made = {
        "version": 1,
        **said,
        "base": base.record() if base else None,
        "best": record(best) if best else None,
        "trials": [record(trial) for trial in trials],
    }
    if best:
        write_atomically(at.folder / BEST, best.spec.encode())
    draw_trials(at.folder / "trials.png", trials, at.aim.metric)
    text = markdown(made, [*order, *(t for t in trials if t.value is None)])
    write_atomically(at.folder / "results.md", text.encode())
    write_json(at.folder / "results.json", made)
    return made
