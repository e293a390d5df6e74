"""Whatever happens while something is written, what was there before is whole.

Processes are killed, disks refuse, several write at once: for real, in processes of
their own.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.cli.output import whole_folder
from peftc.diagnostics.core import PeftcError
from peftc.files import STALE, beginning, put_folder, write_atomically
from peftc.runtime.state import FILE, Adapter, read_adapter, write_adapter
from tests.ecosystem.commands import peftc as command
from tests.models import model

if TYPE_CHECKING:
    from collections.abc import Callable

KILLS = 200
SPEC = "lora(q, v, r=2)"
ROOT = Path(__file__).parents[2]


def killed(work: Callable[[int], None], wait: float) -> int:
    """Do numbered work in a child until it is killed; the last number it had done."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        number = 0
        while True:
            number += 1
            work(number)
            os.write(writer, number.to_bytes(4, "little"))
    os.close(writer)
    told = os.read(reader, 4)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 4):
        told = more
    os.close(reader)
    return int.from_bytes(told, "little")


def numbered(number: int) -> Adapter:
    tensors = {f"t{i}": torch.full((64, 64), float(number)) for i in range(8)}
    return Adapter(Path(), "", "", "", "{}", number, "0", False, tensors)


@pytest.mark.slow
def test_an_adapter_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(5)
    for _ in range(KILLS):
        done = killed(
            lambda n: void(write_adapter(tmp_path, numbered(n))), chance.random() / 50
        )
        found = read_adapter(tmp_path)
        assert found.seed in (done, done + 1)
        assert all((t == found.seed).all() for t in found.tensors.values())


def void(_: object) -> None:
    """Give nothing back."""


def write_folder(target: Path, number: int) -> None:
    with whole_folder(target) as folder:
        for name in ("plan.txt", "a", "b", "c"):
            (folder / name).write_text(str(number))


@pytest.mark.slow
def test_a_folder_killed_at_any_moment(tmp_path: Path) -> None:
    """There is no moment at which neither the old folder nor the new one is there."""
    chance, target = random.Random(6), tmp_path / "out"
    for _ in range(KILLS):
        done = killed(lambda n: write_folder(target, n), chance.random() / 100)
        said = {path.name: path.read_text() for path in target.iterdir()}
        assert sorted(said) == ["a", "b", "c", "plan.txt"]
        assert set(said.values()) in ({str(done)}, {str(done + 1)})


def test_what_the_dead_left_is_removed(tmp_path: Path) -> None:
    start = beginning(tmp_path / "file")
    old, young, folder = (tmp_path / f"{start}{n}" for n in ("old", "young", "folder"))
    others = tmp_path / ".file.swp"
    folder.mkdir()
    for path in (old, young, others, folder / "in"):
        path.write_text("begun")
    long_ago = time.time() - 2 * STALE
    for path in (old, others, folder):
        os.utime(path, (long_ago, long_ago))
    write_atomically(tmp_path / "file", b"whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", young.name, others.name}


def test_folders_change_places_without_the_call_of_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Without:
        def __init__(self, *_: Any, **__: Any) -> None:
            """A C library that has nothing."""

    monkeypatch.setattr("peftc.files.ctypes.CDLL", Without)
    for name in ("fresh", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "is").write_text(name)
    put_folder(tmp_path / "fresh", tmp_path / "target")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "is").read_text() == "fresh"


# --- disks that refuse ----------------------------------------------------------------


def in_a_child(work: Callable[[], None]) -> None:
    """Run in a process whose files may have no more than 4096 bytes."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            work()
        except BaseException as error:  # the parent sees the code
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_adapter_for_which_there_is_no_room(tmp_path: Path) -> None:
    write_adapter(tmp_path, numbered(1))

    def work() -> None:
        with pytest.raises(PeftcError, match="PEFT627"):
            write_adapter(tmp_path, numbered(2))

    in_a_child(work)
    assert read_adapter(tmp_path).seed == 1
    assert os.listdir(tmp_path) == [FILE]


def test_a_folder_for_which_there_is_no_room(tmp_path: Path) -> None:
    target = tmp_path / "out"
    write_folder(target, 1)

    def work() -> None:
        with pytest.raises(PeftcError, match="PEFT660"), whole_folder(target) as folder:
            (folder / "large").write_bytes(bytes(10_000))

    in_a_child(work)
    assert (target / "plan.txt").read_text() == "1"
    assert os.listdir(tmp_path) == ["out"]


def test_a_place_where_nothing_can_be_written(base: str) -> None:
    """/proc takes no files, not even from root."""
    for told in (
        command("compile", SPEC, base, "--output", "/proc/peftc"),
        command("compile", SPEC, base, "--output", "/proc/peftc/a/b"),
    ):
        assert told.exit_code == 1
        assert "PEFT660" in told.stderr, told.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    model("llama").save_pretrained(folder)
    return str(folder)


# --- several at once ------------------------------------------------------------------


@pytest.mark.slow
def test_several_compile_into_the_same_place(base: str, tmp_path: Path) -> None:
    """Each ends well, and what is there is one whole result, the same of each."""
    line = [sys.executable, "-m", "peftc.cli.main", "compile", SPEC, base]
    own = {"PEFTC_CACHE": str(tmp_path / "cache")}
    several = [
        subprocess.Popen(
            [*line, "--output", str(tmp_path / "out")],
            cwd=ROOT,
            env={**os.environ, **own, "PYTHONHASHSEED": str(seed)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    for one in several:
        _, told = one.communicate(timeout=240)
        assert one.returncode == 0, told
    alone = command("compile", SPEC, base, "--output", str(tmp_path / "alone"))
    assert alone.exit_code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert {p.name for p in tmp_path.iterdir()} <= {"out", "alone", "cache"}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- what does not fit ----------------------------------------------------------------


def test_a_download_that_was_cut_off(base: str, tmp_path: Path) -> None:
    for name in os.listdir(base):
        (tmp_path / name).write_bytes((Path(base) / name).read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    told = command("compile", SPEC, str(tmp_path), "-o", str(tmp_path / "out"))
    assert told.exit_code == 3
    assert "PEFT405" in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_that_was_changed(tmp_path: Path) -> None:
    peftc.compile(model("llama"), SPEC).peftc.save(tmp_path)
    other = model("llama")
    other.resize_token_embeddings(130)
    with pytest.raises(PeftcError, match="PEFT625") as caught:
        peftc.load(other, tmp_path)
    assert "128 tokens in its vocabulary, not 130" in str(caught.value)
    assert not hasattr(other, "peftc")


def test_a_format_of_the_future(tmp_path: Path) -> None:
    path = peftc.compile(model("llama"), SPEC).peftc.save(tmp_path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["format_version"] = "2"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(PeftcError, match="PEFT622") as caught:
        peftc.load(model("llama"), tmp_path)
    assert "a newer peftc wrote it" in str(caught.value)
