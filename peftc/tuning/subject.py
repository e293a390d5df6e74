"""What is trained or measured: a model, and data as that model reads them.

In: the arguments of a command line.  Out: `Subject`, with the task that the model and
the data make, unless one is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.tuning import BadSetting, WrongTask
from peftc.tuning.codec import codec_for
from peftc.tuning.examples import Reading, Task
from peftc.tuning.settings import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.tuning.records import Data
    from peftc.tuning.settings import Settings

TASKS: tuple[Task, ...] = get_args(Task)
FEWEST_CLASSES = 2


@dataclass(frozen=True)
class Asked:
    """What a command line says of the model and of reading; `task` may be empty.

    `classes` are the labels of a new classification head: those of an earlier run, or
    those of the data if none are told; `labels` is how many there are at least.
    """

    model: str
    task: str = ""
    as_bytes: bool = False
    labels: int = 0
    random_init: int | None = None
    classes: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `PeftcError` (PEFT678) for a task that there is not."""
        if self.task and self.task not in TASKS:
            hint = suggestion(self.task, TASKS) or f"tasks are {', '.join(TASKS)}"
            raise fail(WrongTask(problem=f"no task is called `{self.task}`; {hint}"))


@dataclass(frozen=True)
class Subject:
    """A loaded model and how data are read for it."""

    model: Any
    reading: Reading


def subject(
    asked: Asked, data: Data, settings: Settings, note: Callable[[str], None]
) -> Subject:
    """Load the model that the task needs and find out how it reads.

    Raises:
        PeftcError: PEFT662, PEFT676, PEFT678, PEFT687, or what loading raises.
    """
    from peftc.sites.load import load

    asked.check()
    classes = _classes(asked, data)
    loaded = load(asked.model, random_init=asked.random_init, classes=classes)
    for text in loaded.notes:
        note(f"note: {text}")
    model: Any = loaded.model
    task = _task(asked, model, bool(classes))
    codec = codec_for(asked.model, model, as_bytes=asked.as_bytes)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = (
            codec.pad
        )  # classifiers look for it
    longest = _longest(settings, model)
    names: Mapping[str, int] = model.config.label2id if classes else {}
    count = model.config.num_labels if classes else 0
    return Subject(
        model, Reading(codec, task, longest, settings.truncate, names, count)
    )


def _classes(asked: Asked, data: Data) -> tuple[str, ...]:
    """The names of the classes of a classification; of another task none."""
    if asked.task not in ("", "classification"):
        return ()
    if data.kind != "labels" and asked.task != "classification":
        return ()
    if asked.classes:
        return asked.classes
    labels = {record.label for record in data.records}
    named = sorted(label for label in labels if isinstance(label, str) and label)
    highest = max((n for n in labels if isinstance(n, int)), default=-1)
    count = max(len(named), highest + 1, asked.labels, FEWEST_CLASSES)
    return (*named, *(f"LABEL_{number}" for number in range(len(named), count)))


def _task(asked: Asked, model: Any, classified: bool) -> Task:
    if classified:
        return "classification"
    if not model.can_generate():
        problem = f"{type(model).__name__} writes no text"
        raise fail(WrongTask(problem=problem))
    fitting: Task = "seq2seq" if model.config.is_encoder_decoder else "causal"
    if asked.task not in ("", fitting):
        problem = f"{type(model).__name__} is trained for `{fitting}`"
        raise fail(WrongTask(problem=problem))
    return cast("Task", asked.task or fitting)


def _longest(settings: Settings, model: Any) -> int:
    from peftc.runtime.memory import positions

    most = positions(model)
    if settings.longest and most and settings.longest > most:
        problem = f"`--max-length {settings.longest}`: the model has {most} positions"
        raise fail(BadSetting(problem=problem))
    return settings.longest or min(LONGEST, most or LONGEST)
