"""Tables of learned positions in a plan: read further on where methods move tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.plan.positions import moved_tables, starts_of
from peftc.plan.types import Rewrite
from peftc.view import Site, Unresolved
from tests.views import toy

Stack: TypeAlias = Literal["", "enc", "dec"]

TABLE = Site(
    "wpe:table",
    "pos",
    "embedding",
    "wpe",
    (("in", 32), ("hidden", 64)),
    "float32",
    in_block=False,
    weight="wpe.weight",
)
VIEW = replace(toy(), sites=(TABLE, replace(TABLE, key="enc:table", stack="enc")))


def at(start: int, stack: Stack = "", *, cross: bool = False) -> Rewrite:
    site = Site("o:attention", "attention", "attention", "o", (), "float32")
    site = replace(site, stack=stack, cross=cross)
    return Rewrite(site, (), start=start)


def starts(*rewrites: Rewrite) -> dict[str, int]:
    return {r.site.key: r.start for r in moved_tables(rewrites, VIEW)}


def test_a_table_moves_with_the_attentions_of_its_stack() -> None:
    assert starts(at(3), at(5), at(0)) == {"wpe:table": 5}
    assert starts(at(2, "enc")) == {"enc:table": 2}


def test_cross_attentions_move_no_token_of_their_stack() -> None:
    assert starts_of([at(2, "dec"), at(6, "dec", cross=True)]) == {"dec": 2}


def test_nothing_moves_that_need_not() -> None:
    assert starts(at(0)) == {}
    assert starts(at(4, cross=True)) == {}
    assert starts(at(4, "dec")) == {}


def test_positions_that_are_computed() -> None:
    said = Unresolved("positions of dec", "they are computed", ("pos",))
    view = replace(VIEW, unresolved=(said,))
    assert [*moved_tables([at(2, "enc")], view)]
    with pytest.raises(PeftcError, match="PEFT321"):
        list(moved_tables([at(2, "dec")], view))


def test_no_position_is_left() -> None:
    assert starts(at(31)) == {"wpe:table": 31}
    with pytest.raises(PeftcError, match="PEFT320"):
        starts(at(32))
