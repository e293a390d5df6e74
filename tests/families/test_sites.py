"""The sites of each family, written down by hand, in both modes and attentions.

`expected/FAMILY.sites` says the role of every matrix, norm, table and edge, the rows of
fused weights, and what is not told.  Of a family that is refused it holds one line,
`! PEFT404`: the code of the diagnostic.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.diagnostics.core import PeftcError
from peftc.sites.view import model_view, view_from_config
from tests.families.cases import CASES, FAMILIES, MODES, config, model, slow
from tests.families.describing import described, expected

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPECTED = Path(__file__).parent / "expected"


def wanted(family: str, mode: str = "eval") -> list[str]:
    text = (EXPECTED / f"{family}.sites").read_text(encoding="utf-8")
    lines = expected(text, CASES[family].layers)
    refused = [line for line in lines if line.startswith(f"! {mode} ")]
    return refused or [line for line in lines if not line.startswith("! ")]


def found(made: Any, family: str) -> list[str]:
    inputs = CASES[family].inputs
    try:
        return described(model_view(made, inputs and inputs(made)))
    except PeftcError as refused:
        mode = "train" if made.training else "eval"
        return [f"! {mode} {refused.diagnostics[0].code}"]


VARIED = ("llama", "gpt-neox", "bert")
"""Families that are tried in each mode and attention, in another than the usual even in
a quick run."""


def variants() -> Iterator[Any]:
    """Each family in each mode and each attention it has; few in all pairs of them."""
    for family in FAMILIES:
        kinds = CASES[family].attentions
        for mode, attention in product(MODES, kinds):
            usual = (mode, attention) == ("eval", kinds[0])
            other = (mode, attention) == ("train", kinds[-1])
            is_quick = usual and CASES[family].quick
            is_quick |= other and family in VARIED
            marks = () if is_quick else (pytest.mark.slow,)
            name = f"{family}-{mode}-{attention}"
            if usual or other or family in VARIED:
                yield pytest.param(family, mode, attention, marks=marks, id=name)


def test_every_family_has_an_expectation() -> None:
    assert {path.stem for path in EXPECTED.iterdir()} == set(FAMILIES)


@pytest.mark.parametrize(("family", "mode", "attention"), [*variants()])
def test_sites(family: str, mode: str, attention: str) -> None:
    made = MODES[mode](model(family, attention))
    assert found(made, family) == wanted(family, mode)
    assert made.training is (mode == "train")


@pytest.mark.parametrize("family", ["gpt2", slow("t5"), slow("mixtral")])
def test_a_configuration_gives_the_view_of_the_model(family: str) -> None:
    made = model(family, device="cpu")
    assert view_from_config(config(family)) == model_view(made)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_view_does_not_depend_on_gradients(context: Any) -> None:
    with context():
        assert described(model_view(model("gpt2", device="cpu"))) == wanted("gpt2")


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox"])
def test_keys_are_unique_and_name_the_owner(family: str) -> None:
    sites = model_view(model(family)).sites
    keys = [site.key for site in sites]
    assert len(set(keys)) == len(keys)
    named = {s.key: "table" if s.kind == "embedding" else s.role for s in sites}
    assert keys == [f"{s.owner}:{named[s.key]}" for s in sites]


@pytest.mark.slow
def test_experts_one_by_one_have_the_edges_of_grouped_ones() -> None:
    made = model("mixtral")
    made.set_experts_implementation("batched_mm")
    assert described(model_view(made)) == wanted("mixtral")
