"""Data as records: JSONL files, text files and data sets.

In: the DATA argument.  Out: `Data`, records that all have the same fields, each with
the place it is from.  No torch, no tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.tuning import EmptyData, UnreadableData, WrongFields
from peftc.tuning.extras import is_there, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind: TypeAlias = Literal["text", "pairs", "labels"]

JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
ANSWERS = ("completion", "target")
KNOWN = ("text", "prompt", *ANSWERS, "label")


@dataclass(frozen=True)
class Record:
    """A text, with an answer or a label where the data have them.

    `where` is what a message calls it: `data.jsonl:3`.
    """

    where: str
    text: str
    answer: str = ""
    label: str | int = ""


@dataclass(frozen=True)
class Data:
    """Records of one kind.

    `flows` means that they are parts of one text, which windows may cut anywhere.
    """

    name: str
    kind: Kind
    records: tuple[Record, ...]
    flows: bool = False

    def fingerprint(self) -> str:
        """What the records are known by, whatever file they are in."""
        said = [(r.text, r.answer, r.label) for r in self.records]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def split(self, share: float, seed: int) -> tuple[Data, Data]:
        """The data without and with a share of them that is held out, drawn by a seed.

        Of one flowing text the end is held out, from a line's beginning.

        Raises:
            PeftcError: PEFT674 if nothing would be left to train on.
        """
        if self.flows:
            return self._cut(share)
        count = max(1, round(share * len(self.records)))
        if count >= len(self.records):
            problem = f"{len(self.records)} records, of which {count} are held out"
            hint = "`--held-out 0` holds none out; `--eval FILE` measures on a file"
            raise fail(EmptyData(place=self.name, problem=problem, hint=hint))
        chosen = set(Random(seed).sample(range(len(self.records)), count))
        parts: tuple[list[Record], list[Record]] = [], []
        for number, record in enumerate(self.records):
            parts[number in chosen].append(record)
        kept, held = (replace(self, records=tuple(part)) for part in parts)
        return kept, held

    def _cut(self, share: float) -> tuple[Data, Data]:
        (whole,) = self.records
        at = whole.text.find("\n", int(len(whole.text) * (1 - share))) + 1
        texts = whole.text[:at], whole.text[at:]
        if not all(text.strip() for text in texts):
            problem = "the text has too few lines to hold some out"
            hint = "`--held-out 0` holds none out; `--eval FILE` measures on a file"
            raise fail(EmptyData(place=self.name, problem=problem, hint=hint))
        kept, held = (
            replace(self, records=(replace(whole, text=text),)) for text in texts
        )
        return kept, held


def read_data(place: str, split: str = "train") -> Data:
    """The data of a command line.

    Raises:
        PeftcError: PEFT671 to PEFT674.
    """
    path = Path(place)
    if path.is_file():
        text = _text(path)
        if path.suffix.lower() in JSON_LINES:
            return _records(place, _json_lines(path.name, text))
        return _plain(place, text)
    return _records(place, _data_set(place, split))


def read_prompts(place: str) -> tuple[str, ...]:
    """The prompts in a file: the `prompt` or `text` of JSONL records, or the lines.

    Raises:
        PeftcError: PEFT672 to PEFT674.
    """
    path = Path(place)
    text = _text(path)
    if path.suffix.lower() in JSON_LINES:
        found = [_prompt(where, row) for where, row in _json_lines(path.name, text)]
    else:
        found = [line for line in text.splitlines() if line.strip()]
    if not found:
        raise fail(EmptyData(place=place, problem="there are no prompts"))
    return tuple(found)


def _prompt(where: str, row: Any) -> str:
    name = next(
        (n for n in ("prompt", "text") if isinstance(row, dict) and n in row), ""
    )
    if not name:
        raise fail(WrongFields(place=where, problem="it has no `prompt`"))
    return _string(where, row, name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise fail(UnreadableData(place=str(path), problem=problem)) from None


def _plain(place: str, text: str) -> Data:
    """Paragraphs, which together are one text."""
    if not text.strip():
        raise fail(EmptyData(place=place, problem="the file is empty"))
    return Data(place, "text", (Record(place, text),), flows=True)


def _json_lines(name: str, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{name}:{number}"
            yield where, _parsed(where, line)


def _parsed(where: str, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = f"not JSON: {error}"
        raise fail(UnreadableData(place=where, problem=problem)) from None


def _data_set(place: str, split: str) -> Iterator[tuple[str, Any]]:
    """What the package `datasets` knows by a name or in a folder."""
    if not Path(place).is_dir() and not is_there("datasets"):
        problem = "no such file; names of data sets need the package `datasets`"
        raise fail(UnreadableData(place=place, problem=problem))
    datasets = require("datasets", f"the data set `{place}`")
    try:
        found = _loaded(datasets, place, split)
    except Exception as error:
        # The package raises what it likes for what it cannot find or read.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise fail(UnreadableData(place=place, problem=reason)) from error
    for number, row in enumerate(found):
        yield f"{place}[{number}]", row


def _loaded(datasets: Any, place: str, split: str) -> Any:
    saved = ("dataset_dict.json", "state.json")
    if any((Path(place) / name).is_file() for name in saved):
        found = datasets.load_from_disk(place)
        return found[split] if hasattr(found, "keys") else found
    return datasets.load_dataset(place, split=split)


def _records(place: str, rows: Iterable[tuple[str, Any]]) -> Data:
    records: list[Record] = []
    kinds: dict[Kind, str] = {}
    for where, row in rows:
        kind, record = _record(where, row)
        kinds.setdefault(kind, where)
        records.append(record)
        if len(kinds) > 1:
            first, second = kinds
            problem = f"its fields are those of {second}, before they were of {first}"
            raise fail(WrongFields(place=where, problem=problem))
    if not records:
        raise fail(EmptyData(place=place, problem="there are no records"))
    return Data(place, next(iter(kinds)), tuple(records))


def _record(where: str, row: Any) -> tuple[Kind, Record]:
    if not isinstance(row, dict):
        raise fail(WrongFields(place=where, problem="it is not an object with fields"))
    answer = next((name for name in ANSWERS if name in row), "")
    if "prompt" in row and answer:
        texts = [_string(where, row, name) for name in ("prompt", answer)]
        return "pairs", Record(where, texts[0], texts[1])
    if "text" in row and "label" in row:
        return "labels", Record(
            where, _string(where, row, "text"), label=_label(where, row["label"])
        )
    if "text" in row:
        return "text", Record(where, _string(where, row, "text"))
    raise fail(WrongFields(place=where, problem=_found(row)))


def _found(row: dict[Any, Any]) -> str:
    names = [str(name) for name in row]
    hints = (suggestion(name, KNOWN) for name in names if name not in KNOWN)
    hint = next(filter(None, hints), "")
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    return f"its fields are {listed}" + (f"; {hint}" if hint else "")


def _string(where: str, row: dict[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value:
        given = "empty" if value == "" else f"{json.dumps(value, default=str)[:40]}"
        problem = f"`{name}` is {given}, not a text"
        raise fail(WrongFields(place=where, problem=problem))
    return value


def _label(where: str, value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        given = json.dumps(value, default=str)[:40]
        problem = f"`label` is {given}, not a text or a whole number"
        raise fail(WrongFields(place=where, problem=problem))
    return value
