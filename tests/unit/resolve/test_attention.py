"""Which attention a method reaches, and from which selectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.driver import check, make_plan
from peftc.resolve.spec import Applied, apply_to
from peftc.syntax.source import Source
from tests.views import attention, linear, toy

if TYPE_CHECKING:
    from peftc.view import ModelView

TOY = toy()
BOTH = """
method both(p: size = 2) on linear { param d[out] = 0; y' = y + d }
on attention {
  param K[p, key] ~ normal(0.02), V[p, value] ~ normal(0.02)
  k' = K
  v' = V
}
"""
GATED = """
method scaled(inner: method) on linear { param s[] = 1; y' = y + s * (inner(y) - y) }
on attention {
  param s[] = 1
  k' = s * inner(k)
  v' = s * inner(v)
}
"""


def stacks() -> ModelView:
    """A layer of an encoder, and one of a decoder that attends to it."""
    sites = []
    for stack, cross in (("enc", False), ("dec", False), ("dec", True)):
        at = f"{stack}.0.{'cross' if cross else 'self'}"
        facts = {"stack": stack, "cross": cross}
        q = linear(f"{at}.q:q", (64, 64), 0)
        sites += [replace(q, **facts), attention(f"{at}.o:attention", 0, **facts)]  # type: ignore[arg-type]
    return replace(TOY, sites=tuple(sites), layers=1)


def applied(text: str, view: ModelView = TOY) -> tuple[Applied, ...]:
    return apply_to(check(Source("<spec>", text)), view)


def keys(text: str, view: ModelView = TOY) -> list[str]:
    return [one.site.key for one in applied(text, view)]


EVERY = [f"model.layers.{n}.self_attn.o_proj:attention" for n in (0, 1)]


@pytest.mark.parametrize("selector", ["q", "k", "v", "o", "attn", "attention"])
def test_every_site_of_the_sublayer_leads_to_its_attention(selector: str) -> None:
    assert keys(f"prefix({selector})") == EVERY


def test_several_selectors_lead_there_once() -> None:
    assert keys("prefix(k, v, attn)") == EVERY


def test_without_a_selector_every_attention_in_scope() -> None:
    assert keys("prefix(p=2)") == EVERY
    assert keys("prefix(p=2) @ layers(1)") == EVERY[1:]
    assert keys("prefix(k, v) @ layers(0)") == EVERY[:1]


@pytest.mark.parametrize("sites", ["", "q"])
def test_scopes_of_stacks(sites: str) -> None:
    view = stacks()
    assert keys(f"prefix({sites}) @ enc", view) == ["enc.0.self.o:attention"]
    assert keys(f"prefix({sites}) @ cross", view) == ["dec.0.cross.o:attention"]
    assert keys(f"prefix({sites}) @ dec @ self", view) == ["dec.0.self.o:attention"]
    assert len(keys(f"prefix({sites})", view)) == 3


def test_a_clause_of_the_sites_own_kind_is_preferred() -> None:
    places = [f"{one.clause} {one.site.role}" for one in applied(f"{BOTH} both(q)")]
    assert places == ["0 q", "0 q"]
    assert keys(f"{BOTH} both(attention, attn)") == EVERY
    with pytest.raises(PeftcError, match="PEFT211"):
        applied(f"{BOTH} both(p=3)")


def test_a_wrapper_has_one_instance_at_each_attention() -> None:
    spec = f"{GATED} scaled(lora(q, v) + prefix(k, v) @ layers(0))"
    found = [(one.site.role, len(one.inner)) for one in applied(spec)]
    assert sorted(found) == [("attention", 1)] + [("q", 1)] * 2 + [("v", 1)] * 2


def test_an_optional_selector_may_lead_nowhere() -> None:
    view = replace(TOY, sites=tuple(s for s in TOY.sites if s.key not in EVERY[1:]))
    assert keys("prefix(q?)", view) == EVERY[:1]
    with pytest.raises(PeftcError, match="`q` leads to no attention call at "):
        keys("prefix(q)", view)


def test_positions_start_behind_all_rows() -> None:
    spec = f"{GATED} prefix(p=3) + scaled(prefix(p=4)) @ layers(0)"
    plan = make_plan(Source("<spec>", spec), TOY)
    assert [rewrite.start for rewrite in plan.rewrites] == [7, 3]
    programs = [[p.target for p in rewrite.programs] for rewrite in plan.rewrites]
    assert programs == [["k", "v", "k#2", "v#2"], ["k", "v"]]
    text = [str(p.inputs) for p in plan.rewrites[0].programs]
    assert "scaled.s" not in text[0]
    assert "scaled.s" in text[2]


GUARDS = """
method m(n: count = 0, at: here | there = here) on attention where n and causal {
  param K[n, key] ~ normal(0.02), V[n, value] ~ normal(0.02)
  k' = K
  v' = V
}
on attention where at is there and causal or at is here { start' = start + 1 }
"""


@pytest.mark.parametrize(
    ("knobs", "causal", "clause"),
    [
        ("n=2", True, 0),
        ("n=2", False, 1),
        ("n=2, at=there", False, None),
        ("", True, 1),
        ("at=there", True, 1),
        ("at=there", False, None),
    ],
)
def test_guards_ask_sites_numbers_and_words(
    knobs: str, causal: bool, clause: int | None
) -> None:
    sites = tuple(replace(site, causal=causal) for site in TOY.sites)
    view = replace(TOY, sites=sites)
    if clause is None:
        with pytest.raises(PeftcError, match="PEFT213"):
            applied(f"{GUARDS} m({knobs})", view)
    else:
        assert {one.clause for one in applied(f"{GUARDS} m({knobs})", view)} == {clause}


def test_guards_of_wrappers_hold() -> None:
    """The clause of a wrapper is chosen at the site, as any other."""
    text = """
    method w(inner: method, on_causal: flag = true) on linear
    where on_causal and causal {
      param s[] = 1
      y' = y + s * (inner(y) - y)
    }
    on linear where biased { y' = inner(y) }
    """
    causal = tuple(replace(site, causal=True) for site in TOY.sites)
    view = replace(TOY, sites=causal)
    assert {one.clause for one in applied(f"{text} w(lora(q))", view)} == {0}
    with pytest.raises(PeftcError, match="PEFT213"):
        applied(f"{text} w(lora(q), on_causal=false)", view)
