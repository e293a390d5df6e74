"""From records to what a model is trained on.

In: `Data`, a codec and a task.  Out: `Example`s, and batches of them as tensors.
Targets of `IGNORED` are not learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import BadLabel, EmptyData, TooLong, WrongTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from peftc.tuning.codec import Codec
    from peftc.tuning.records import Data, Kind, Record

Task: TypeAlias = Literal["causal", "seq2seq", "classification"]

KINDS: dict[Task, tuple[Kind, ...]] = {
    "causal": ("text", "pairs"),
    "seq2seq": ("pairs",),
    "classification": ("labels",),
}
"""What a task can be trained on."""

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """t tokens that the model reads, and the targets of its loss.

    `targets`: of `causal` as many as tokens, of `seq2seq` those of the decoder, of
    `classification` one.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """How records are read: by what codec, for which task, how long at most.

    `classes`: the label that each class has; of a number its index.
    """

    codec: Codec
    task: Task
    longest: int
    truncate: bool = False
    classes: Mapping[str, int] | None = None
    class_count: int = 0


def examples(data: Data, reading: Reading) -> tuple[Example, ...]:
    """The examples of some data.

    Raises:
        PeftcError: PEFT674 to PEFT678.
    """
    if data.kind not in KINDS[reading.task]:
        wanted = " or ".join(KINDS[reading.task])
        problem = f"`{reading.task}` is trained on {wanted}, the data are {data.kind}"
        raise fail(WrongTask(problem=problem))
    make = _MAKERS[reading.task, data.kind]
    found = tuple(one for record in data.records for one in make(record, reading))
    if not found:
        problem = "no text is longer than one token"
        raise fail(EmptyData(place=data.name, problem=problem))
    return found


def _windows(record: Record, reading: Reading) -> Iterator[Example]:
    """A text in windows; what remains of it at the end is one if it has two tokens."""
    codec, size = reading.codec, reading.longest
    tokens = (*codec.begin, *codec.tokens(record.text), *codec.end)
    for at in range(0, len(tokens), size):
        window = tokens[at : at + size]
        if len(window) > 1:
            yield Example(window, window)


def _answered(record: Record, reading: Reading) -> Iterator[Example]:
    codec = reading.codec
    prompt = [*codec.begin, *codec.tokens(record.text)]
    answer = [*codec.tokens(record.answer), *codec.end]
    over = len(prompt) + len(answer) - reading.longest
    if over > 0:
        _check_length(record, len(prompt) + len(answer), reading)
        answer = answer[: reading.longest - 1]
        over = len(prompt) + len(answer) - reading.longest
        prompt = prompt[max(0, over) :]
    ignored = [IGNORED] * len(prompt)
    yield Example((*prompt, *answer), (*ignored, *answer))


def _translated(record: Record, reading: Reading) -> Iterator[Example]:
    codec = reading.codec
    prompt = [*codec.begin, *codec.tokens(record.text), *codec.end]
    answer = [*codec.tokens(record.answer), *codec.end]
    longer = max(len(prompt), len(answer))
    if longer > reading.longest:
        _check_length(record, longer, reading)
    yield Example(tuple(prompt[-reading.longest :]), tuple(answer[: reading.longest]))


def _labelled(record: Record, reading: Reading) -> Iterator[Example]:
    codec = reading.codec
    tokens = (*codec.begin, *codec.tokens(record.text), *codec.end)
    if len(tokens) > reading.longest:
        _check_length(record, len(tokens), reading)
    yield Example(tokens[: reading.longest], (_class(record, reading),))


_MAKERS: dict[tuple[Task, Kind], Callable[[Record, Reading], Iterator[Example]]] = {
    ("causal", "text"): _windows,
    ("causal", "pairs"): _answered,
    ("seq2seq", "pairs"): _translated,
    ("classification", "labels"): _labelled,
}


def _check_length(record: Record, length: int, reading: Reading) -> None:
    """Refuse a record that would have to be cut, unless it may be."""
    if not reading.truncate:
        problem = f"{record.where} has {length} tokens, more than {reading.longest}"
        hint = "`--max-length N` if the model has the positions, or `--truncate`"
        raise fail(TooLong(problem=problem, hint=hint))


def _class(record: Record, reading: Reading) -> int:
    known, label = reading.classes or {}, record.label
    index = known.get(label, -1) if isinstance(label, str) else label
    if 0 <= index < reading.class_count:
        return index
    names = ", ".join(map(repr, known)) if isinstance(label, str) else ""
    told = f"the classes are {names or f'0 to {reading.class_count - 1}'}"
    raise fail(BadLabel(place=record.where, given=repr(label), known=told))


# --- batches -------------------------------------------------------------------------


class Collate:
    """Examples to a batch: `input_ids` and `attention_mask` [b, t], `labels`.

    Counts the tokens that the model was given.
    """

    def __init__(self, task: Task, pad: int) -> None:
        self.task = task
        self.pad = pad
        self.tokens = 0

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        """One batch."""
        import torch

        ids = _filled([one.tokens for one in batch], self.pad)
        mask = _filled([(1,) * len(one.tokens) for one in batch], 0)
        self.tokens += int(mask.sum())
        if self.task == "classification":
            labels = torch.tensor([one.targets[0] for one in batch])
        else:
            labels = _filled([one.targets for one in batch], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _filled(rows: list[tuple[int, ...]], value: int) -> Any:
    """Rows of whole numbers as one tensor [b, t], filled up at the end."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
