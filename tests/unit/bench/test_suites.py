"""Suites: their rows, and what is chosen of them."""

from __future__ import annotations

import pytest

from peftc.bench.cases import CASES, chosen
from peftc.bench.peers import EAGER, FROZEN, OURS, PEERS, known
from peftc.bench.suites import SUITES, suite
from peftc.bench.targets import TARGETS

CPU = SUITES["cpu"]


def test_every_method_has_a_row_on_the_large_model() -> None:
    assert [a.case.name for a in CPU.on(["c1"]).asks] == list(CASES)
    assert CPU.depths
    assert CPU.on(["c1"]).depths == ()
    assert CPU.on([]) is CPU


def test_titles_tell_rows_apart() -> None:
    titles = [ask.title for ask in CPU.asks]
    assert len(set(titles)) == len(titles)


def test_every_target_has_a_row_with_its_peers() -> None:
    rows = {ask.title: ask.peers for ask in CPU.asks}
    for target in TARGETS:
        if target.row:
            assert {target.ours, target.peer} <= set(rows[target.row]), target.title


@pytest.mark.parametrize("name", SUITES)
def test_every_row_has_one_of_ours_to_agree_with(name: str) -> None:
    for ask in suite(name).asks:
        assert set(ask.peers) & set(OURS)
        assert set(ask.peers) <= set(PEERS)


def test_methods_and_peers_are_chosen() -> None:
    few = CPU.on(["C1"]).of(chosen(["dora"]), known(["Frozen", "eager"]))
    (ask,) = few.asks
    assert (ask.title, ask.peers) == ("C1 dora", (FROZEN, EAGER))


def test_a_method_that_a_suite_has_not_is_added() -> None:
    (ask,) = SUITES["quick"].of(chosen(["loha"]), ()).asks
    assert ask.title == "tiny loha"
