"""From texts to applications at the sites of a hand-made view."""

from __future__ import annotations

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.driver import check
from peftc.resolve.spec import Applied, apply_to
from peftc.syntax.source import Source
from tests.views import toy, with_biases

TOY = toy()


def applied(text: str) -> tuple[Applied, ...]:
    return apply_to(check(Source("<spec>", text)), TOY)


def places(text: str) -> list[str]:
    return [f"{one.method.name} {one.site.place}" for one in applied(text)]


def codes(text: str) -> list[str]:
    with pytest.raises(PeftcError) as error:
        applied(text)
    return [d.code for d in error.value.diagnostics]


def test_a_role_means_its_site_in_every_layer() -> None:
    assert places("lora(q)") == ["lora layers.0.q", "lora layers.1.q"]


def test_scopes_restrict_and_nest() -> None:
    assert places("(lora(q) + ia3(k) @ layers(0)) @ layers(0..1)") == [
        "lora layers.0.q",
        "lora layers.1.q",
        "ia3 layers.0.k",
    ]


def test_linear_is_every_linear_in_blocks_and_not_the_head() -> None:
    found = places("lora(linear)")
    assert len(found) == 14
    assert "lora head" not in found


def test_overlapping_selectors_mean_a_site_once() -> None:
    assert places("lora(q, linear, q)") == places("lora(q, linear)")
    assert len(places("lora(q, linear)")) == 14


def test_a_glob_matches_whole_paths() -> None:
    assert places('lora("model.layers.*.q_proj")') == places("lora(q)")
    assert codes('lora("q_proj")') == ["PEFT203"]


def test_optional_sites_may_be_missing() -> None:
    assert places("lora(q, router?)") == places("lora(q)")
    assert places("lora(router?, r=2) + lora(q)") == places("lora(q)")
    assert places('lora(q, "*.nothing"?)') == places("lora(q)")


def test_a_redirection_goes_to_the_linear_of_the_block() -> None:
    assert places("ia3(ffn)") == ["ia3 layers.0.down", "ia3 layers.1.down"]
    assert {one.clause for one in applied("ia3(ffn)")} == {1}


def test_a_wrapper_has_the_sites_of_what_it_wraps() -> None:
    (one, other) = applied("gate(lora(q) @ layers(0) + ia3(q)) @ layers(0..1)")
    assert [p.method.name for p in one.inner] == ["lora", "ia3"]
    assert [p.method.name for p in other.inner] == ["ia3"]


def test_macros_take_arguments_and_lets_take_arithmetic() -> None:
    text = """
    let base = 2 * 2
    spec pair(r = base, more = r * 2) = lora(q, r=r) + lora(k, r=more)
    pair(r = base + 1) @ layers(0)
    """
    assert [one.knobs["r"].value for one in applied(text)] == [5, 10]


def test_a_guard_leaves_sites_out_and_all_of_them_is_an_error() -> None:
    assert codes("bitfit(linear)") == ["PEFT213"]
    spec = check(Source("<spec>", "bitfit(linear, norm)"))
    assert len(apply_to(spec, with_biases(TOY))) == 14 + 3
    assert len(applied("bitfit(q, create=true)")) == 2


def test_all_errors_of_the_stage_are_reported() -> None:
    assert codes("lora(ffn) + lora(router) + lora(q) @ layers(9)") == [
        "PEFT206",
        "PEFT203",
        "PEFT205",
    ]


def test_the_errors_of_names_come_together() -> None:
    assert codes("lroa(q) + lora(q, rr=3, r=zero / 0) @ layer(1)") == [
        "PEFT202",
        "PEFT204",
        "PEFT208",
        "PEFT215",
    ]
