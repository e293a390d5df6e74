"""The table of methods: what is derived agrees with the papers."""

from __future__ import annotations

import pytest

from peftc.plan.catalog import Entry, catalog
from peftc.resolve.library import standard_library

ENTRIES = {entry.name: entry for entry in catalog(standard_library())}


def entry(name: str) -> Entry:
    return ENTRIES[name]


@pytest.mark.parametrize(
    ("name", "primitives", "merge"),
    [
        ("lora", "a", "exact"),
        ("ia3", "a", "exact"),
        ("adalora", "af", "exact"),
        ("adapter", "b", "none"),
        ("prefix", "c", "none"),
        ("mam", "bc", "none"),
        ("unipelt", "abc", "none"),
        ("compacter", "ab", "partly"),
        ("diffprune", "af", "exact"),
        ("norm_tuning", "a", "exact"),
        ("quantize", "a", "-"),
        ("qlora", "a", "exact"),
        ("sparse", "af", "as wrapped"),
        ("adamix", "af", "as wrapped"),
        ("prune_heads", "af", "exact"),
    ],
)
def test_what_follows_from_a_text(name: str, primitives: str, merge: str) -> None:
    """As the field's reference has it: where a method acts, whether it merges."""
    assert (entry(name).primitives, entry(name).merge) == (primitives, merge)


def test_what_a_text_says() -> None:
    lora = entry("lora")
    assert (lora.family, lora.paper) == ("reparametrisation", "2106.09685")
    assert lora.about == "a trained low-rank product beside a weight."
    assert lora.knobs.startswith("r=8, alpha=16")
    assert entry("unipelt").rewrites == "spec"


def test_each_has_a_family() -> None:
    assert all(entry.family for entry in ENTRIES.values())
