"""Errors of training, evaluating and searching from the command line.

In: nothing.  Out: the diagnostic classes that `peftc.tuning` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class MissingExtra(Diagnostic):
    """A command needs a package that peftc does not install by itself.

    Compiling a model needs few packages.  Training runs on transformers' Trainer, which
    needs accelerate; searching runs on optuna; named data sets are read by `datasets`;
    comparing with PEFT needs `peft`.  They are installed on request.

    Fix: `pip install 'peftc[train]'`, `pip install 'peftc[search]'` or `pip install
    'peftc[bench]'`; in a clone of the repository `pip install -c constraints.txt -e
    '.[train,search,bench]'`.
    """

    code: ClassVar[str] = "PEFT671"
    title: ClassVar[str] = "a package is missing"
    label: ClassVar[str] = "{what} needs `{package}`"
    help: ClassVar[str] = "`pip install {install}`"
    exit_code: ClassVar[int] = 5
    what: str
    package: str
    install: str


@dataclass(frozen=True, kw_only=True)
class UnreadableData(Diagnostic):
    """The data are not there, or a line of them is not what the file's name says.

    DATA is a JSONL file (`.jsonl`, one JSON object on each line), a plain text file, or
    the name or folder of a data set that the package `datasets` can load.

    Example: `peftc train 'lora(q)' MODEL logs.jsonl -o out` where line 3 is cut off.

    Fix: the line that is named; `python -m json.tool --json-lines FILE` checks all.
    """

    code: ClassVar[str] = "PEFT672"
    title: ClassVar[str] = "cannot read the data"
    label: ClassVar[str] = "`{place}`: {problem}"
    exit_code: ClassVar[int] = 2
    place: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class WrongFields(Diagnostic):
    """A record of the data has not the fields that one can train on.

    The fields tell what a record is: `text` is continued text; `prompt` with
    `completion` (or `target`) is a question and its answer, of which only the answer is
    learned; `text` with `label` is a text and its class.  All records have the same.
    Texts are strings, not empty; a label is a string or a whole number.

    Wrong: `{"question": "2 + 2", "answer": "4"}`

    Right: `{"prompt": "2 + 2", "completion": "4"}`
    """

    code: ClassVar[str] = "PEFT673"
    title: ClassVar[str] = "wrong fields"
    label: ClassVar[str] = "`{place}`: {problem}"
    help: ClassVar[str] = (
        "records are `text`, `prompt` with `completion` or `target`, or `text` with"
        " `label`"
    )
    exit_code: ClassVar[int] = 2
    place: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class EmptyData(Diagnostic):
    """There is nothing to train or to measure on.

    The file has no records, or no text, or so few records that nothing remains for
    training beside the held-out share.

    Fix: more data; `--held-out 0` keeps none back; `--eval FILE` measures on another
    file.
    """

    code: ClassVar[str] = "PEFT674"
    title: ClassVar[str] = "no data"
    label: ClassVar[str] = "`{place}`: {problem}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 2
    place: str
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class TooLong(Diagnostic):
    """A record has more tokens than `--max-length`, or that is more than the model has.

    A record with an answer or a label means something as a whole, so it is not cut
    without being told to.  Plain text is cut into windows and is never too long.

    Fix: `--max-length N` up to the positions of the model, or `--truncate`, which cuts
    the beginning of prompts and the end of everything else.
    """

    code: ClassVar[str] = "PEFT675"
    title: ClassVar[str] = "too long"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 2
    problem: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class TokensOutside(Diagnostic):
    """Text gives tokens that the model has no embedding for.

    Either `--bytes` is used with a model that has fewer than 256 tokens, or the
    tokenizer belongs to another model.

    Fix: the tokenizer of the model, in its folder.
    """

    code: ClassVar[str] = "PEFT676"
    title: ClassVar[str] = "tokens outside the vocabulary"
    label: ClassVar[str] = "{problem}"
    exit_code: ClassVar[int] = 3
    problem: str


@dataclass(frozen=True, kw_only=True)
class BadLabel(Diagnostic):
    """A label is none of the model's classes.

    Labels that are numbers count from 0.  Labels that are strings are the model's own
    (`id2label` of its configuration) where it has names for them; a model that gets a
    new classification head takes the sorted labels of the training data.

    Fix: correct the label, or `--labels N` for a new head with more classes than the
    training data show.
    """

    code: ClassVar[str] = "PEFT677"
    title: ClassVar[str] = "no such class"
    label: ClassVar[str] = "`{place}`: label {given}; {known}"
    exit_code: ClassVar[int] = 2
    place: str
    given: str
    known: str


@dataclass(frozen=True, kw_only=True)
class WrongTask(Diagnostic):
    """The task, the model and the data do not go together.

    `causal` needs a model that writes text, and text or prompts with answers; `seq2seq`
    an encoder with a decoder, and prompts with answers; `classification` texts with
    labels, and any model that has a class for it in transformers.

    Example: `--task seq2seq` with a Llama.

    Fix: leave `--task` out; it is chosen by the model and the data.
    """

    code: ClassVar[str] = "PEFT678"
    title: ClassVar[str] = "the task does not fit"
    label: ClassVar[str] = "{problem}"
    exit_code: ClassVar[int] = 2
    problem: str


@dataclass(frozen=True, kw_only=True)
class RunExists(Diagnostic):
    """The output folder holds a run, or the run to go on with is not there.

    A run that was interrupted is continued with `--resume`, to the same bits as one
    that was not.  Without it peftc would have to throw the earlier run away, and does
    not do so unasked.

    Fix: `--resume`, or another folder.
    """

    code: ClassVar[str] = "PEFT679"
    title: ClassVar[str] = "not a new run"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    problem: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class RunDiffers(Diagnostic):
    """`--resume` continues a run, and it was begun with something else.

    Going on with other data, another spec or another rate would give a result that no
    single run gives, under the report of one.

    Fix: what the run was begun with, or a new folder.
    """

    code: ClassVar[str] = "PEFT680"
    title: ClassVar[str] = "this run was begun differently"
    label: ClassVar[str] = "`{folder}`: {differences}"
    folder: str
    differences: str


@dataclass(frozen=True, kw_only=True)
class BadSetting(Diagnostic):
    """Options of a command contradict each other or mean nothing.

    Example: `--steps 100 --epochs 2`; or `--held-out 1.5`, which is a share of the data
    and lies from 0 to below 1.

    Fix: what the message says.
    """

    code: ClassVar[str] = "PEFT687"
    title: ClassVar[str] = "options that do not fit"
    label: ClassVar[str] = "{problem}"
    exit_code: ClassVar[int] = 2
    problem: str
