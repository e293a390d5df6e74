"""The ordered program of each method at large sizes, as text.

`programs/NAME.peft` holds a method and its sizes; `NAME.txt` its program.  `A+B.txt` is
two methods at one site, `gate-A.txt` a method in a gate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from peftc.codegen.text import parse_program, program_text, torch_text
from peftc.expr.order import order
from tests.equations import CASES, FOLDER, Stack, gated, numbers, stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peftc.expr.program import Program

SEVERAL = ("lora+ia3", "ia3_in+lora", "krona+oft", "dora+lora", "adapter+parallel")
GATES = ("gate-lora", "gate-ia3", "gate-dora")
FACTORED = (
    *("lora", "krona", "lokr", "loha", "phm", "vera", "miss", "lora_xs", "adalora"),
    *("dora", "dora_full", "oft", "oft_left", "hra", "gated_lora", "mixture"),
    *("dora+lora", "krona+oft", "gate-dora", "gate-lora"),
)
"""What has a factored form: nothing of the size of a weight is ever made."""


def site(name: str) -> tuple[Stack, bool]:
    """The methods of a golden file at its large sizes, and whether there is a bias."""
    parts = name.removeprefix("gate-").split("+")
    make = gated if name.startswith("gate-") else stack
    return make(parts, "sizes"), any(numbers(part, "sizes")[1] for part in parts)


def programs(name: str) -> Iterator[Program]:
    methods, biased = site(name)
    composed = methods.composed(biased)
    for target in composed.outputs:
        yield order(composed, target, methods.env, biased)


@pytest.mark.parametrize("name", [*CASES, *SEVERAL, *GATES])
def test_program_text(name: str, golden: Callable[[Path, str], None]) -> None:
    made = list(programs(name))
    golden(FOLDER / f"{name}.txt", "\n".join(map(program_text, made)))
    for program in made:
        assert parse_program(program_text(program)) == program


@pytest.mark.parametrize("name", FACTORED)
def test_nothing_of_the_size_of_a_weight_is_made(name: str) -> None:
    for program in programs(name):
        sizes = [math.prod(step.shape) for step in program.steps if not step.tokens]
        assert max(sizes, default=0) < 4096 * 4096 / 8


def test_every_golden_file_has_its_case() -> None:
    texts = {path.stem for path in FOLDER.glob("*.txt")}
    assert texts == {*CASES, *SEVERAL, *GATES, "gate-lora.torch"}


def test_torch_text(golden: Callable[[Path, str], None]) -> None:
    (program,) = programs("gate-lora")
    golden(FOLDER / "gate-lora.torch.txt", torch_text(program, "layers_0_q"))
