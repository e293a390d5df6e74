"""The joint program of any expression has torch's derivatives of it, and so have the
functions that are generated from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from peftc.codegen.joint_text import joint_text, parse_joint
from peftc.codegen.torch_writer import NoSourceError
from peftc.expr.compose import Composed
from peftc.expr.dropout import in_training
from peftc.expr.evaluate import evaluate
from peftc.expr.joint import order_jointly
from peftc.expr.normal import concrete
from peftc.rewrite.torch_step import together
from tests.numerics.test_joint import compare, near, slanted
from tests.property.test_programs import ENV, any_rule, tensors_of

if TYPE_CHECKING:
    from peftc.expr.ir import Node
    from peftc.expr.joint_program import JointProgram

SIZES = {name: size for name, size in ENV.items() if name not in ("b", "t")}


def planned(root: Node) -> JointProgram:
    return order_jointly(Composed("linear", {"y": root}, (), (), {}), SIZES, True)


@pytest.mark.parametrize("seed", range(60))
def test_joint_program_of_any_expression(seed: int) -> None:
    root = any_rule(seed)
    program = planned(root)
    compare(program, [root], tensors_of(root), ENV, least=1)
    assert parse_joint(joint_text(program)) == program


def differs(seed: int) -> bool | None:
    """Whether a generated function or a gradient of it is wrong; None if there is no
    function."""
    root = any_rule(seed)
    program = planned(root)
    try:
        step = together(program, frozenset({"bias"}))
    except NoSourceError:
        return None
    (written,), masks = in_training(concrete((root,), SIZES)[0])
    if masks:
        return None
    tensors = tensors_of(root)
    names = [name for name in step.inputs if name in step.given]
    leaves = [tensors[name].requires_grad_() for name in names]
    tensors["y"] = tensors["x"] @ tensors["W"].T + tensors["bias"]
    (due,) = evaluate([written], tensors, ENV, training=True)
    found = step(*(tensors[name] for name in step.inputs))
    adjoint = slanted(due.detach())
    owed, own = (torch.autograd.grad(y, leaves, adjoint) for y in (due, found))
    pairs = [(found.detach(), due.detach()), *zip(own, owed, strict=True)]
    return not all(near(one, other, 1) for one, other in pairs)


def test_generated_functions_of_any_expression() -> None:
    """Those that tell tokens apart, or drop elements, have none or are left out."""
    found = [differs(seed) for seed in range(60)]
    assert found.count(False) > 20
    assert True not in found
