"""Codes of every format: bounds, the same codes again, and those of other libraries.

`tests/oracles/make_storage_codes.py` made the codes of bitsandbytes and torchao.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from peftc.storage.nf4 import LEVELS as NF4
from peftc.storage.reading import decoded, encoded
from peftc.storage.table import form_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ORACLE = load_file(Path(__file__).parents[2] / "oracles" / "storage_codes.safetensors")
SHAPES = ("24x80", "7x9", "9x256")
FORMS = (
    "nf4(block=64, double=false, compute=base)",
    "fp4(block=64, double=false, compute=base)",
    "nf4(block=5, double=false, compute=base)",
    "fp4(block=16, double=false, compute=base)",
    "int8(compute=base)",
    "int4(group=128, symmetric=true, compute=base)",
    "int4(group=5, symmetric=true, compute=base)",
    "int4(group=5, symmetric=false, compute=base)",
)
DOUBLE = "nf4(block=4, double=true, compute=base)"


def keep(form: str, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """The codes of a weight, which must be of the shapes and types that are told."""
    parts = encoded(form, weight)
    told = form_of(form).parts(tuple(weight.shape))
    assert [part.name for part in told] == list(parts)
    for part in told:
        value = parts[part.name]
        assert (part.shape, f"torch.{part.dtype}") == (value.shape, str(value.dtype))
    return parts


def read(
    form: str, weight: torch.Tensor, parts: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    return decoded(form, tuple(weight.shape), weight.dtype, *parts.values())


def largest(form: str, weight: torch.Tensor) -> torch.Tensor:
    """What the error of each weight is measured by."""
    options = dict(form_of(form).options)
    if "block" in options:
        blocks = weight.reshape(-1).split(int(options["block"]))
        spread = [b.abs().amax().expand(len(b)) for b in blocks]
        return torch.cat(spread).reshape(weight.shape)
    size = int(options.get("group", weight.shape[-1]))
    spread = []
    for group in weight.split(size, -1):
        most = group.abs().amax(-1, keepdim=True)
        if options.get("symmetric") is False:
            low = group.amin(-1, keepdim=True).clamp(max=0)
            most = group.amax(-1, keepdim=True).clamp(min=0) - low
        spread.append(most.expand(group.shape))
    return torch.cat(spread, -1)


@st.composite
def weights(draw: st.DrawFn) -> torch.Tensor:
    """Matrices and stacks of them, with tails, zeros and outliers."""
    lead = draw(st.sampled_from([(), (2,)]))
    shape = (*lead, draw(st.integers(1, 9)), draw(st.integers(1, 70)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([1e-20, 0.02, 1.0, 300.0]))
    value = torch.randn(shape, generator=generator) * scale
    hidden = torch.rand(shape, generator=generator) < draw(st.sampled_from([0, 0.5, 1]))
    value = value.masked_fill(hidden, 0)
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
    return value.to(dtype)


@given(weights(), st.sampled_from(FORMS))
@settings(max_examples=120, deadline=None)
def test_every_weight_is_near_what_it_was(weight: torch.Tensor, form: str) -> None:
    wide = weight.double()
    parts = keep(form, weight)
    got = decoded(form, tuple(weight.shape), torch.float64, *parts.values())
    bound = largest(form, wide) * form_of(form).error
    assert bool(((got - wide).abs() <= bound * (1 + 1e-5) + 1e-37).all())


@given(weights(), st.sampled_from([f for f in FORMS if "symmetric=false" not in f]))
@settings(max_examples=120, deadline=None)
def test_encoding_what_was_decoded_gives_the_same_codes(
    weight: torch.Tensor, form: str
) -> None:
    weight = weight.float()
    parts = keep(form, weight)
    first = read(form, weight, parts)
    again = keep(form, first)
    assert torch.equal(first, read(form, weight, again))
    if "fp4" not in form:  # it has two zeros
        assert torch.equal(parts["codes"], again["codes"])


@given(weights())
@settings(max_examples=40, deadline=None)
def test_zeros_stay_zero(weight: torch.Tensor) -> None:
    for form in (*FORMS, DOUBLE):
        nothing = torch.zeros_like(weight)
        got = read(form, nothing, keep(form, nothing))
        assert not got.any()


def test_double_quantisation_changes_the_largest_values_only() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    once = keep(FORMS[0], weight)
    twice = keep("nf4(block=64, double=true, compute=base)", weight)
    assert torch.equal(once["codes"], twice["codes"])
    single = read(FORMS[0], weight, once)
    double = read("nf4(block=64, double=true, compute=base)", weight, twice)
    torch.testing.assert_close(single, double, rtol=0.02, atol=1e-3)


def test_the_widest_gap_of_the_levels() -> None:
    gaps = [high - low for low, high in pairwise(NF4)]
    assert max(gaps) / 2 == pytest.approx(0.1519, abs=5e-5)


# --- the same codes as other libraries make -------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("double", [False, True], ids=["once", "double"])
def test_blocks_are_those_of_bitsandbytes(
    shape: str, kind: str, block: int, double: bool
) -> None:
    weight = ORACLE[f"{shape}/weight"]
    form = f"{kind}(block={block}, double={str(double).lower()}, compute=base)"
    parts = keep(form, weight)
    at = f"{shape}/{kind}.{block}."
    assert torch.equal(parts["codes"], ORACLE[f"{at}codes"])
    for name in parts.keys() - {"codes"}:
        wanted = ORACLE[f"{at}double.{name}" if double else at + name]
        assert torch.equal(parts[name], wanted)
    if not double:
        assert torch.equal(read(form, weight, parts), ORACLE[f"{at}decoded"])


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_those_of_bitsandbytes(shape: str) -> None:
    parts = keep("int8(compute=base)", ORACLE[f"{shape}/weight"].half())
    assert torch.equal(parts["codes"], ORACLE[f"{shape}/int8.codes"])
    assert torch.equal(parts["absmax"], ORACLE[f"{shape}/int8.absmax"])


@pytest.mark.parametrize("shape", ["24x80", "9x256"])
@pytest.mark.parametrize("word", ["symmetric", "zero"])
def test_groups_are_those_of_torchao(shape: str, word: str) -> None:
    weight, at = ORACLE[f"{shape}/weight"], f"{shape}/int4.{word}."
    flag = str(word == "symmetric").lower()
    form = f"int4(group=16, symmetric={flag}, compute=base)"
    parts = keep(form, weight)
    packed = parts["codes"]
    codes = torch.stack([packed >> 4, packed & 15], -1).reshape(weight.shape)
    offset = 8 if word == "symmetric" else 0
    assert torch.equal(codes.int() - offset, ORACLE[f"{at}codes"].int())
    assert torch.equal(parts["scale"], ORACLE[f"{at}scale"])
    if word == "zero":
        assert torch.equal(parts["zero"].int(), ORACLE[f"{at}zero"].int())
    torch.testing.assert_close(read(form, weight, parts), ORACLE[f"{at}decoded"])
