"""What works with what, from the results of the tests that run it.

In: the results of one or several runs of the tests (`pytest --junitxml=FILE`).  Out:
docs/compatibility.md: for everything promised of other tools the tests that run it and
how they ended, with the versions that are there.  Run it as
`python -m tests.compatibility FILES`; `make compatibility` does both.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from peftc.markdown import table
from tests.promises import PARAGRAPHS

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from tests.promises import Results, Row

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "compatibility.md"

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "lightning",
    "deepspeed",
    "safetensors",
    "huggingface_hub",
    "triton",
)


def rows() -> Iterator[Row]:
    """All that is promised."""
    for found in PARAGRAPHS.values():
        yield from found


# --- reading results ------------------------------------------------------------------


def read(path: Path) -> Results:
    """The results in a file of pytest's."""
    cases = ElementTree.parse(path).iter("testcase")
    return {_name(case): _end(case) for case in cases}


def _name(case: ElementTree.Element) -> str:
    module = case.get("classname", "").replace(".", "/")
    return f"{module}.py::{case.get('name')}"


def _end(case: ElementTree.Element) -> str:
    tags = {child.tag for child in case}
    if tags & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in tags else "passed"


# --- writing --------------------------------------------------------------------------


def document(results: Results) -> str:
    """The page."""
    parts = [
        "# What works with what",
        "Made from the results of the tests by `make compatibility`: each line is what"
        " tests run for real, with the versions below. Without a graphics card.",
        table(("package", "version"), _versions()),
    ]
    for title, found in PARAGRAPHS.items():
        lines = [(row.promise, _ended(row.ends(results)), _where(row)) for row in found]
        parts += [f"## {title}", table(("what", "tests", "where"), lines)]
    return "\n\n".join(parts) + "\n"


def _versions() -> Iterator[tuple[str, str]]:
    yield "Python", platform.python_version()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not there"


def _ended(ends: Counter[str]) -> str:
    order = ("passed", "failed", "skipped")
    return ", ".join(f"{ends[end]} {end}" for end in order if ends[end]) or "not run"


def _where(row: Row) -> str:
    files = dict.fromkeys(one.partition("::")[0] for one in row.tests)
    return ", ".join(f"[{Path(file).stem}](../{file})" for file in files)


def main(files: Sequence[str]) -> None:
    """Write the document; of a test in several files the last counts."""
    results: dict[str, str] = {}
    for file in files:
        results |= read(Path(file))
    DOCUMENT.write_text(document(results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
