"""Generated kernels against the equation, in Triton's interpreter.

Every clause of the library at a linear is tried, and so are the definitions of
tests/golden/programs and stacks of them, in three types.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import pytest

from tests.equations import CASES, stack
from tests.kernels import comparing
from tests.library import clauses
from tests.numerics.test_joint import STACKS
from tests.numerics.test_together import WITHOUT_EDGE_FORM, WITHOUT_FORM

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tests.kernels.conftest import Interpreted

TOLD_APART = {"pooled_lora", "unipelt_lora"}
"""Definitions with a mean over the tokens of a sample."""
SINGLE = [(name,) for name in CASES if stack([name]).kind in ("linear", "hidden")]
SEVERAL = [names for names in STACKS if stack(names).kind == "linear"]


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("name", "number"), clauses("linear"))
def test_every_method_of_the_library(
    name: str, number: int, biased: bool, interpreted: Interpreted
) -> None:
    found = interpreted(comparing.method, name, number, biased)
    assert found is ((name, number) not in WITHOUT_FORM)


@pytest.mark.parametrize(("name", "number"), clauses("hidden"))
def test_every_method_between_layers(
    name: str, number: int, interpreted: Interpreted
) -> None:
    found = interpreted(comparing.method, name, number, False)
    assert found is ((name, number) not in WITHOUT_EDGE_FORM)


@pytest.mark.parametrize("dtype", list(comparing.TOLERANCE), ids=str)
@pytest.mark.parametrize("names", [*SINGLE, *SEVERAL], ids="+".join)
def test_definitions_and_stacks(
    names: Sequence[str], dtype: torch.dtype, interpreted: Interpreted
) -> None:
    found = interpreted(comparing.several, names, dtype)
    assert found is not bool(TOLD_APART & {*names})


@pytest.mark.parametrize("dtype", list(comparing.TOLERANCE)[1:], ids=str)
@pytest.mark.parametrize("name", [name for (name,) in SINGLE])
def test_parameters_in_float32_over_activations_in_16_bits(
    name: str, dtype: torch.dtype, interpreted: Interpreted
) -> None:
    """Gradients of parameters have more digits than activations."""
    found = interpreted(comparing.mixed, name, dtype)
    assert found is (name not in TOLD_APART)


@pytest.mark.parametrize("dtype", list(comparing.TOLERANCE), ids=str)
@pytest.mark.parametrize("name", ["gated_lora", "lora_dropout", "renorm"])
def test_parts_of_several_blocks(
    name: str, dtype: torch.dtype, interpreted: Interpreted
) -> None:
    assert interpreted(comparing.wide, name, dtype)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("dtype", list(comparing.TOLERANCE), ids=str)
@pytest.mark.parametrize(
    "names", [("lora", "lora", "lora"), ("lora", "ia3", "dora")], ids=", ".join
)
def test_sites_of_one_activation(
    names: Sequence[str], dtype: torch.dtype, few: bool, interpreted: Interpreted
) -> None:
    interpreted(comparing.together, names, dtype, few)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_drop_as_often_as_they_should(p: float, interpreted: Interpreted) -> None:
    """Four deviations of 4096 draws; two masks of one program are independent."""
    dropped, both = cast("tuple[float, float]", interpreted(comparing.rates, p))
    assert abs(dropped - p) < 4 * math.sqrt(p * (1 - p) / 4096)
    assert abs(both - p * p) < 4 * math.sqrt(p * p * (1 - p * p) / 4096)
