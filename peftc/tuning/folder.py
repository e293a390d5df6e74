"""The folder of a run: what it was begun with, so that it can go on or be used.

In: plain data.  Out: `run.json`, and differences to what another start would write.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import RunDiffers, RunExists
from peftc.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

RUN = "run.json"
FREE = frozenset({"save_every"})
"""What may change when a run goes on."""
SHOWN = 60


def check_folder(folder: Path, resume: bool, record: str = RUN) -> None:
    """Refuse a folder that is not to be written to.

    Raises:
        PeftcError: PEFT679.
    """
    begun = (folder / record).is_file()
    if resume and not begun:
        problem = f"`{folder}` holds no run"
        raise fail(RunExists(problem=problem, hint="begin it without `--resume`"))
    if begun and not resume:
        problem = f"`{folder}` holds a run"
        raise fail(RunExists(problem=problem, hint="`--resume`, or another folder"))
    if folder.exists() and not folder.is_dir():
        problem = f"`{folder}` is a file"
        raise fail(RunExists(problem=problem, hint="name another folder with `-o`"))
    if not begun and folder.exists() and any(folder.iterdir()):
        problem = f"`{folder}` holds files that are no run"
        raise fail(RunExists(problem=problem, hint="name another folder with `-o`"))


def begin(folder: Path, said: dict[str, Any], record: str = RUN) -> None:
    """Write what a run begins with, or check that it goes on with the same.

    Raises:
        PeftcError: PEFT680.
    """
    path = folder / record
    if path.is_file():
        _compare(folder, json.loads(path.read_bytes()), said)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, said)


def write_json(path: Path, said: Any) -> None:
    """Write plain data, whole or not at all."""
    write_atomically(path, (json.dumps(said, indent=2) + "\n").encode())


def read_run(folder: Path) -> dict[str, Any]:
    """What the run in a folder was begun with; of any other folder nothing."""
    try:
        said = json.loads((folder / RUN).read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _compare(folder: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    names = [name for name in {**was, **now} if name not in FREE]
    # What was read back is compared: a tuple is written as a list.
    now = json.loads(json.dumps(now))
    different = [
        f"{name} was {_short(was.get(name))}, is {_short(now.get(name))}"
        for name in names
        if was.get(name) != now.get(name)
    ]
    if different:
        differences = "; ".join(different)
        raise fail(RunDiffers(folder=str(folder), differences=differences))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
