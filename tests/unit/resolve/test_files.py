"""`use`: what a spec may read, and what it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.driver import check, read_spec

if TYPE_CHECKING:
    from pathlib import Path

METHOD = "method mine(r = 4) on linear { param d[out] = 0; y' = y + r * d }\n"


def codes(path: Path) -> list[str]:
    with pytest.raises(PeftcError) as error:
        check(read_spec(path))
    return [d.code for d in error.value.diagnostics]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_definitions_of_used_files_are_visible(tmp_path: Path) -> None:
    write(tmp_path / "lib" / "mine.peft", METHOD)
    write(tmp_path / "lets.peft", 'use "lib/mine.peft"\nlet size = 3\n')
    spec = write(tmp_path / "spec.peft", 'use "lets.peft"\nmine(q, r=size)\n')
    (request,) = check(read_spec(spec))
    assert request.method.name == "mine"
    assert request.knobs["r"].value == 3


def test_a_file_used_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "mine.peft", METHOD)
    write(tmp_path / "other.peft", 'use "mine.peft"\n')
    text = 'use "mine.peft"\nuse "other.peft"\nmine(q)\n'
    assert len(check(read_spec(write(tmp_path / "spec.peft", text)))) == 1


def test_a_cycle_of_files_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.peft", 'use "b.peft"\n')
    write(tmp_path / "b.peft", 'use "a.peft"\n')
    spec = write(tmp_path / "spec.peft", 'use "a.peft"\nlora(q)\n')
    assert codes(spec) == ["PEFT209"]
    assert codes(write(tmp_path / "self.peft", 'use "self.peft"\nlora(q)')) == [
        "PEFT209"
    ]


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_nothing_outside_the_folder_is_opened(tmp_path: Path, kind: str) -> None:
    secret = write(tmp_path / "secret.peft", METHOD)
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "link.peft").symlink_to(secret)
    path = {
        "parent": "../secret.peft",
        "absolute": str(secret),
        "link": "link.peft",
    }[kind]
    spec = write(folder / "spec.peft", f'use "{path}"\nmine(q)\n')
    assert "PEFT270" in codes(spec)


def test_a_used_file_may_be_missing_a_folder_or_binary(tmp_path: Path) -> None:
    (tmp_path / "folder.peft").mkdir()
    (tmp_path / "binary.peft").write_bytes(b"\xff\xfe\x00")
    for name, code in [("none", 270), ("folder", 270), ("binary", 113)]:
        spec = write(tmp_path / "spec.peft", f'use "{name}.peft"\nlora(q)\n')
        assert codes(spec) == [f"PEFT{code}"]


def test_a_spec_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.peft", tmp_path):
        with pytest.raises(PeftcError, match="PEFT270"):
            read_spec(path)


def test_a_text_is_not_a_path() -> None:
    assert read_spec("lora(q)").name == "<spec>"
