"""The generated kernels of sites at large sizes.

`kernels/NAME.py.txt`, named as in joint/: the modules of both directions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftc.codegen.kernels.source import kernel_source
from peftc.codegen.torch_writer import NoSourceError
from peftc.expr.grouped import group
from tests.golden.test_joint import planned
from tests.golden.test_programs import site

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.codegen.kernels.source import KernelSource

FOLDER = Path(__file__).parent / "kernels"
NAMES = (
    *("lora", "lora_dropout", "dora", "ia3", "krona", "oft_left", "hra", "vera"),
    *("ia3+lora", "dora+ia3", "gate-lora"),
)


def source(name: str) -> KernelSource:
    program, (_, biased) = planned(name), site(name)
    wanted = [result for result, _ in program.backward.results]
    return kernel_source(program, wanted, ("bias",) * biased)


@pytest.mark.parametrize("name", NAMES)
def test_kernels(name: str, golden: Callable[[Path, str], None]) -> None:
    made = source(name)
    golden(FOLDER / f"{name}.py.txt", f"{made.forward}\n\n{made.backward}")


def test_every_golden_file_has_its_case() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{n}.py.txt" for n in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_text_begins_with_the_plan(name: str) -> None:
    made = source(name)
    assert made.forward.startswith("# joint y(")
    assert made.backward.startswith("# joint y(")


@pytest.mark.parametrize("name", ["lora", "lora_dropout", "gate-lora"])
def test_no_activation_is_stored_but_results_and_operands_of_products(
    name: str,
) -> None:
    """What has tokens and features is computed again in registers."""
    made = source(name)
    for text in (made.forward, made.backward):
        stored = re.findall(r"^    (\w+) = empty\(\w+, \[tokens, 4096\]\)", text, re.M)
        assert len(stored) == 1
        assert re.search(rf"^    return {stored[0]},", text, re.M)


WHOLE = re.compile(r"(for|back)ward_\d+")
"""The names of kernels but for those of few tokens."""


def test_down_projections_and_their_use_are_one_kernel() -> None:
    made = source("lora")
    assert list(filter(WHOLE.fullmatch, made.launches)) == [
        "forward_0",
        "backward_0",
        "backward_1",
        "backward_2",
    ]
    assert made.forward.count("for f0 in range(0, 4096, BF):") == 2


def test_for_few_tokens_each_phase_is_a_kernel() -> None:
    made = source("gate-lora")
    few = [name for name in made.launches if not WHOLE.fullmatch(name)]
    assert few == ["forward_0_0", "forward_0_1", "backward_0_0", "backward_0_1"]
    for text in (made.forward, made.backward):
        assert text.count("for f0 in range(part * share, (part + 1) * share, BF):") == 2
        assert text.count("if few(tokens):") == 1


def test_what_ends_with_a_sum_ends_with_a_kernel_that_adds_its_parts() -> None:
    made = source("dora+ia3")
    few = [name for name in made.launches if not WHOLE.fullmatch(name)]
    assert few == ["forward_0_0", "forward_0_1", "backward_0_0", "backward_0_1"]
    _, last = made.backward.split("def backward_0_1(")
    adding = last.partition("@triton.jit")[0]
    assert "for one in tl.range(0, P" in adding
    assert "for f0" not in adding


def test_what_has_features_apart_has_one_form() -> None:
    assert list(source("ia3").launches) == ["forward_0", "backward_0", "backward_1"]


def test_sites_of_one_activation_read_it_once_in_a_direction() -> None:
    program = group([planned("lora")] * 3)
    wanted = [result for result, _ in program.backward.results]
    made = kernel_source(program, wanted)
    assert list(filter(WHOLE.fullmatch, made.launches)) == [
        *("forward_0", "backward_0", "backward_1", "backward_2", "backward_3"),
        "backward_4",
    ]
    forward, backward = (
        [text for text in whole.split("@triton.jit") if "tl.load(x + " in text]
        for whole in (made.forward, made.backward)
    )
    assert [kernel.count("tl.load(x + ") for kernel in forward] == [1, 1]
    assert [kernel.count("tl.load(x + ") for kernel in backward] == [1]
    assert "def forward_0_0(" in forward[1]


def test_what_has_no_form_is_said() -> None:
    with pytest.raises(NoSourceError, match="told apart"):
        source("pooled_lora")


def test_axes_of_equal_size_are_told_apart() -> None:
    """Rank 8 twice: a matrix of [r, r] is torch's, or multiplied along its own axis."""
    made = source("dora")
    assert (
        "torch.einsum('ij,kj->ki', dora_A.float(), dora_A.float())" not in made.forward
    )
    assert "dora_A.float() @ dora_A.float().t()" in made.forward
