"""Generated modules are on disk as a whole, whatever else happens there."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from peftc.rewrite.module_cache import (
    FOLDER,
    clear,
    entries,
    folder,
    is_whole,
    stored,
)

TEXT = "answer = 42\n"


def test_a_text_is_written_once(tmp_path: Path) -> None:
    path = stored(TEXT, tmp_path / "new")
    assert path.read_text() == TEXT
    before = path.stat().st_mtime_ns
    assert stored(TEXT, tmp_path / "new") == path
    assert path.stat().st_mtime_ns == before
    assert [*path.parent.iterdir()] == [path]


def test_other_texts_have_other_files(tmp_path: Path) -> None:
    assert stored(TEXT, tmp_path) != stored(TEXT + "\n", tmp_path)


@pytest.mark.parametrize("broken", [b"", b"answer = 4", b"\xff\xfe"])
def test_what_is_not_its_text_is_written_again(tmp_path: Path, broken: bytes) -> None:
    path = stored(TEXT, tmp_path)
    path.write_bytes(broken)
    assert not is_whole(path)
    assert stored(TEXT, tmp_path) == path
    assert is_whole(path)


def _write(where: Path) -> bool:
    return all(is_whole(stored(f"{TEXT}# {i}", where)) for i in range(50))


def test_writers_at_the_same_time(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_write, [tmp_path] * 2) == [True, True]
    assert not [*tmp_path.glob("*.tmp")]


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "/somewhere")
    assert folder() == Path("/somewhere")
    monkeypatch.delenv(FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert folder() == Path("/cache/peftc/kernels")


def test_what_is_there_is_told_and_removed(tmp_path: Path) -> None:
    assert entries(tmp_path / "none") == []
    path = stored("# joint y(x)\n", tmp_path)
    (tmp_path / "k1.py").write_text("cut")
    (tmp_path / "left.tmp").write_text("")
    found = {one.path: one for one in entries(tmp_path)}
    assert (found[path].title, found[path].whole) == ("joint y(x)", True)
    assert not found[tmp_path / "k1.py"].whole
    assert clear(tmp_path) == 2
    assert [*tmp_path.iterdir()] == []
