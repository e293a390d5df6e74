"""The joint program of methods and stacks at large sizes, as text.

`joint/NAME.txt` is that of the definition `programs/NAME.peft`; `A+B.txt` is two at one
site, `gate-A.txt` one in a gate, `NAME.loss.txt` that of the terms of its loss.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftc.codegen.joint_text import joint_text, parse_joint
from peftc.expr.joint import order_jointly, order_losses
from tests.equations import CASES
from tests.golden.test_programs import site

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step

FOLDER = Path(__file__).parent / "joint"
SINGLE = (
    *("lora", "lora_dropout", "dora", "dora_full", "ia3", "ia3_in", "adapter", "krona"),
    *("loha", "vera", "compacter", "oft", "oft_left", "hra", "pooled_lora", "hira"),
)
STACKS = ("ia3+lora", "lora+krona", "dora+ia3", "krona+oft")
GATES = ("gate-lora", "gate-ia3_in", "gate-oft")
NAMES = (*SINGLE, *STACKS, *GATES)
WEIGHT = 4096 * 4096


def planned(name: str) -> JointProgram:
    methods, biased = site(name)
    return order_jointly(methods.composed(biased), methods.env, biased)


def text(name: str) -> str:
    return joint_text(planned(name))


@pytest.mark.parametrize("name", NAMES)
def test_joint_text(name: str, golden: Callable[[Path, str], None]) -> None:
    program = planned(name)
    golden(FOLDER / f"{name}.txt", joint_text(program))
    assert parse_joint(joint_text(program)) == program


def test_text_of_a_loss(golden: Callable[[Path, str], None]) -> None:
    methods, biased = site("adalora")
    program = order_losses(methods.composed(biased), methods.env)
    assert program
    golden(FOLDER / "adalora.loss.txt", joint_text(program))
    assert parse_joint(joint_text(program)) == program


def test_every_golden_file_has_its_case() -> None:
    files = {path.stem for path in FOLDER.glob("*.txt")}
    assert files == {*NAMES, "adalora.loss"}


# --- what is shared ---------------------------------------------------------------


def products(steps: tuple[Step, ...], name: str) -> list[Step]:
    return [step for step in steps if name in step.args]


def test_down_projections_of_both_directions_are_shared() -> None:
    """x A^T is made in the forward alone, dy B once, and each read by two products."""
    program = planned("lora")
    (down,) = products(program.forward.steps, "x")
    (up,) = products(program.backward.steps, "lora.B")
    assert (down.args, up.args) == (("x", "lora.A"), ("dy", "lora.B"))
    assert [kept.name for kept in program.kept] == ["x", down.out]
    assert len(products(program.backward.steps, up.out)) == 2
    given = dict(program.backward.results)
    steps = {step.out: step for step in program.backward.steps}
    made = {name: steps[steps[given[name]].args[0]] for name in ("lora.A", "lora.B")}
    assert made["lora.A"].args == ("x", up.out)
    assert made["lora.B"].args == ("dy", down.out)


def base_products(program: JointProgram) -> tuple[int, int]:
    """How often W meets an activation, in the forward and in the backward."""
    forward = [s for s in program.forward.steps if s.op in ("base", "product")]
    backward = [s for s in program.backward.steps if s.tokens and "W" in s.args]
    again = [s for s in program.backward.steps if s.op in ("base", "product")]
    return len(forward), len(backward) + len(again)


@pytest.mark.parametrize("name", ["oft", "oft_left"])
def test_the_product_with_the_weight_is_reused_in_the_backward(name: str) -> None:
    assert base_products(planned(name)) == (1, 1)


def test_the_value_that_the_weight_gave_is_kept() -> None:
    program = planned("oft_left")
    (product,) = [s for s in program.forward.steps if s.op == "product"]
    assert product.out in [kept.name for kept in program.kept]


@pytest.mark.parametrize("name", ["gate-ia3_in", "gate-oft"])
def test_a_gate_by_tokens_moves_past_the_weight(name: str) -> None:
    """Both adjoints are dy times one number a token: one product, found by a seed."""
    program = planned(name)
    assert program.seeds != "all"
    assert base_products(program)[1] == 1


FACTORED = tuple(n for n in (*SINGLE, *STACKS, *GATES) if n != "hira")


@pytest.mark.parametrize("name", FACTORED)
def test_nothing_of_the_size_of_a_weight_is_made(name: str) -> None:
    program = planned(name)
    steps = (*program.forward.steps, *program.backward.steps)
    assert (
        max((math.prod(s.shape) for s in steps if not s.tokens), default=0) < WEIGHT / 8
    )


@pytest.mark.parametrize("name", [*CASES, *STACKS, "hra+dora", "dora+lora"])
def test_no_sum_with_a_weight_is_stored(name: str) -> None:
    program = planned(name)
    copies = {"W"}
    for step in (*program.forward.steps, *program.backward.steps):
        same = not step.tokens and copies & set(step.args)
        assert not (same and step.op == "add"), step
        if same and step.op in ("ein", "view") and math.prod(step.shape) >= WEIGHT:
            copies.add(step.out)


# --- one text -----------------------------------------------------------------------

DETERMINED = """
from tests.golden.test_joint import text
texts = {{name: text(name) for name in {names}}}
print("".join(texts[name] for name in sorted(texts)))
"""


def test_one_text_whatever_was_compiled_before() -> None:
    names = ["dora+ia3", "krona+oft", "gate-oft", "loha"]
    texts = {
        subprocess.run(
            [sys.executable, "-c", DETERMINED.format(names=order)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed, order in enumerate((names, names[::-1]))
    }
    assert len(texts) == 1
    assert texts.pop().count("joint y") == 4
