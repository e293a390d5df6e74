"""What a kernel is launched with, and what is said without Triton."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from peftc.codegen.kernels.schedules import SPLIT_TOKENS, SPLITS, few, splits
from peftc.codegen.kernels.tiles import MAPS
from peftc.diagnostics.core import PeftcError
from peftc.expr.functions import ELEMENTWISE
from peftc.rewrite import launch
from peftc.rewrite.kernel_step import KernelStep
from tests.golden.test_joint import planned


def test_without_triton_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    program = planned("ia3")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PeftcError, match=r"peftc\[gpu\]"):
        KernelStep(program, frozenset())


def test_every_function_has_a_form() -> None:
    assert MAPS.keys() == ELEMENTWISE.keys()


def test_rows_that_lie_apart_are_taken_as_they_are() -> None:
    wide = torch.zeros(4, 10)
    part = wide[:, :5]
    assert launch.rows(part) is part
    assert launch.rows(wide.t()).stride() == (4, 1)
    assert launch.rows(torch.zeros(()).expand(3, 5)).stride() == (5, 1)


def test_parts_depend_on_the_number_of_tokens_alone() -> None:
    counts = (1, 1024, 4096, 1 << 20)
    assert [launch.parts(torch.empty(n, 1)) for n in counts] == [1, 1, 4, 16]


def test_features_are_split_only_for_few_tokens() -> None:
    assert [few(n) for n in (1, SPLIT_TOKENS - 1, SPLIT_TOKENS)] == [True, True, False]


def test_few_tokens_have_about_as_many_programs_as_there_are_processors() -> None:
    """Programs of a block of tokens and a part of the features."""
    assert [splits(n, 4096) for n in (1, 64, 128, 256, 512, 1024)] == [
        *(32, 32, 32, 32, 16, 8),
    ]
    assert splits(1, 14336) == SPLITS
    assert [splits(1, n) for n in (1, 128, 129, 1024)] == [1, 1, 2, 8]
    assert splits(1 << 20, 4096) == 1


def test_a_seed_is_drawn_anew_and_by_torch() -> None:
    torch.manual_seed(3)
    first, second = launch.draw(torch.empty(1)), launch.draw(torch.empty(1))
    torch.manual_seed(3)
    assert first != second
    assert launch.draw(torch.empty(1)) == first
