"""The joint program of any expression has torch's derivatives of it."""

from __future__ import annotations

import pytest

from peftc.codegen.joint_text import joint_text, parse_joint
from peftc.expr.compose import Composed
from peftc.expr.joint import order_jointly
from tests.numerics.test_joint import compare
from tests.property.test_programs import ENV, any_rule, tensors_of

SIZES = {name: size for name, size in ENV.items() if name not in ("b", "t")}


@pytest.mark.parametrize("seed", range(60))
def test_joint_program_of_any_expression(seed: int) -> None:
    root = any_rule(seed)
    program = order_jointly(Composed("linear", {"y": root}, (), (), {}), SIZES, True)
    compare(program, [root], tensors_of(root), ENV, least=1)
    assert parse_joint(joint_text(program)) == program
