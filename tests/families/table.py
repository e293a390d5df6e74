"""docs/models.md, from the cases and expectations that the family tests hold true.

In: nothing.  Out: the page as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.families.behaving import row
from tests.families.cases import FAMILIES
from tests.families.test_sites import wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.families.behaving import Row

HEAD = """\
# Models

What peftc finds in {count} families of transformers, and what works there. The page is
made from the cases of `tests/families`: the roles of each were written down by hand
from reading the model, and are found in training and evaluation, in each spelling of
attention that the family has.

- **Roles** are the sites that can be named; what the dataflow does not tell is listed
  among the notes, and a spec that names it is refused with that reason.
- **Prefix**: `prefix(k, v)` extends its attentions; agrees with an independent
  attention (`tests/families/test_prefix.py`).
- **Generation**: `generate()` with a cache equals recomputation, with low-rank updates,
  scalings and prefixes in the model (`tests/families/test_behaviour.py`); a dash: the
  model class does not generate.

A family that is not here is no less supported: there is no table of architectures.

| family | model | roles | prefix | generation | notes |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD.format(count=len(FAMILIES)) + "".join(map(_line, sorted(FAMILIES)))


def _line(family: str) -> str:
    (first, *_) = wanted(family)
    found = row(family)
    if first.startswith("! "):
        cells = ["", "", "", f"refused: {first.split()[-1]}. {found.notes}"]
    else:
        generation = "not like recomputation" if found.uncached else "yes"
        cells = [
            " ".join(f"`{role}`" for role in found.roles),
            found.prefix,
            generation if found.generates else "-",
            " ".join(_notes(found)),
        ]
    return f"| {family} | {found.model} | {' | '.join(map(_escaped, cells))} |\n"


def _notes(found: Row) -> Iterator[str]:
    for text in (found.notes, found.differs, found.uncached):
        if text:
            yield text if text.endswith(".") else f"{text}."
    if found.unresolved:
        yield f"Not told: {'; '.join(found.unresolved)}."


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
