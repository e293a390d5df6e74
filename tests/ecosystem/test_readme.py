"""The README's tour prints what the README shows.

`--update-golden` writes what is printed now into the README.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"(?<=^```console\n)\$ (.*)\n((?s:.*?))(?=^```)", re.MULTILINE)
COMMANDS = [command for command, _ in BLOCK.findall(README.read_text())]

pytestmark = pytest.mark.slow


def printed(command: str, folder: Path) -> str:
    """What a command prints on a terminal of 88 columns without colour.

    A relative output folder lies in `folder`.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "88", "NO_COLOR": "1"}
    moved = re.sub(r"\bout\b", str(folder / "out"), command)
    done = subprocess.run(
        moved, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    text = done.stdout if done.returncode == 0 else done.stderr
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_tour_prints_what_is_shown(
    command: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = printed(command, tmp_path)
    if request.config.getoption("--update-golden"):
        new = BLOCK.sub(
            lambda m: f"$ {m[1]}\n{text}" if m[1] == command else m[0],
            README.read_text(),
        )
        README.write_text(new)
    assert dict(BLOCK.findall(README.read_text()))[command] == text


def test_the_tour_has_commands() -> None:
    assert len(COMMANDS) > 4
