"""What the passes and the checks around them refuse, one test for each code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import fx, nn

from peftc.diagnostics.core import PeftcError
from peftc.passes import GRAPH_PIPELINE
from peftc.pipeline import load
from peftc.rewrite.check import check_located, check_rewritten
from peftc.rewrite.edit import now
from peftc.sites.anchors import Anchor, Capture, HiddenAnchor, Located
from tests.capturing import (
    bottleneck,
    captured,
    input_scaling,
    linear_uses,
    low_rank,
    plan,
    rewrite,
    scaling,
    site,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.plan.types import Plan
    from peftc.view import Site

N, R = 4, 2
Q = site("lin:q", weight="lin.weight", shape=(N, N))
FFN = site("lin:ffn", "hidden", weight="lin.weight", shape=(N,))


class Net(nn.Module):
    """x + W (W x): one linear used twice, then a residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(N, N, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        return x + self.lin(torch.tanh(self.lin(x)))


class Case:
    """A captured Net with placeholders for added tensors."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self.graph, self.names = captured(model or Net(), torch.randn(2, 3, N))
        self.uses = list(linear_uses(self.graph, self.names, "lin.weight"))
        self.used = {name: node for node, name in self.names.items()}
        self.end = next(n for n in self.graph.nodes if n.op == "output")

    def add(self, **shapes: tuple[int, ...]) -> dict[str, fx.Node]:
        """Placeholders of added tensors, whose values are the weight's."""
        made = {}
        mode = self.used["lin.weight"].meta["example_value"].fake_mode
        for name, shape in shapes.items():
            with self.graph.inserting_before(next(iter(self.graph.nodes))):
                made[name] = self.graph.placeholder(name)
            made[name].meta["example_value"] = mode.from_tensor(torch.randn(shape))
        return made

    def capture(
        self,
        anchors: Mapping[Site, Sequence[Anchor]],
        tensors: Mapping[str, Mapping[str, fx.Node]],
    ) -> Capture:
        located = {s.key: Located(s, tuple(found)) for s, found in anchors.items()}
        return Capture(self.graph, located, tensors, {})


QUIET = [0] * len(GRAPH_PIPELINE)


def run(capture: Capture, whole: Plan, *names: str) -> list[int]:
    """Run the passes, or those of these names."""
    return [one.run(capture, whole) for one in load(names or GRAPH_PIPELINE)]


def low(**at: Any) -> tuple[Case, Capture, Plan]:
    case = Case()
    tensors = {Q.key: case.add(A=(R, N), B=(N, R))}
    capture = case.capture({Q: at.get("uses", case.uses)}, tensors)
    return case, capture, plan(rewrite(Q, low_rank(N, N, R)))


# --- located ------------------------------------------------------------------------


def test_a_used_weight_without_a_site_is_refused() -> None:
    """PEFT430, naming what uses the weight."""
    case, _, whole = low()
    with pytest.raises(PeftcError, match=r"(?s)PEFT430.*`linear`"):
        check_located(whole, {}, case.used)
    with pytest.raises(PeftcError, match=r"(?s)PEFT430.*`linear`"):
        check_located(whole, {Q.key: Located(Q, ())}, case.used)


def test_a_use_that_is_not_the_sites_is_refused() -> None:
    case, capture, whole = low()
    check_located(whole, capture.located, case.used)
    with case.graph.inserting_before(case.end):
        product = case.graph.call_function(
            torch.matmul, (case.end.args[0][0], case.used["lin.weight"])
        )
        case.end.args = ((product,),)
    with pytest.raises(PeftcError, match=r"(?s)PEFT430.*`matmul`"):
        check_located(whole, capture.located, case.used)


def test_a_weight_that_is_not_used_needs_no_site() -> None:
    _, _, whole = low()
    check_located(whole, {}, {})
    graph = fx.Graph()
    check_located(whole, {}, {"lin.weight": graph.placeholder("w")})


# --- passes -------------------------------------------------------------------------


def test_each_use_is_counted() -> None:
    case, capture, whole = low()
    assert run(capture, whole) == [2, *QUIET[1:]]
    assert [edit.sites for edit in capture.edits] == [(Q.key,)] * 2
    assert now(capture, case.uses[0].y) is not case.uses[0].y


def test_an_empty_plan_changes_nothing() -> None:
    case, capture, _ = low()
    before = [node.name for node in case.graph.nodes]
    assert run(capture, plan()) == QUIET
    assert [node.name for node in case.graph.nodes] == before


def test_a_site_of_another_graph_is_left_alone() -> None:
    case = Case()
    capture = case.capture({}, {})
    assert run(capture, plan(rewrite(Q, low_rank(N, N, R)))) == QUIET


def test_a_reader_that_does_not_read_the_edge_is_refused() -> None:
    """PEFT431."""
    case = Case()
    tensors = {FFN.key: case.add(D=(R, N), b=(R,), U=(N, R))}
    first, second = case.uses
    (add,) = second.y.users
    capture = case.capture({FFN: [HiddenAnchor(first.y, add)]}, tensors)
    with pytest.raises(PeftcError, match="PEFT431"):
        run(capture, plan(rewrite(FFN, bottleneck(N, R))))


def test_an_edge_that_was_undone_is_found() -> None:
    case = Case()
    tensors = {FFN.key: case.add(D=(R, N), b=(R,), U=(N, R))}
    h = case.uses[1].y
    (add,) = h.users
    capture = case.capture({FFN: [HiddenAnchor(h, add)]}, tensors)
    whole = plan(rewrite(FFN, bottleneck(N, R)))
    run(capture, whole)
    add.replace_input_with(capture.edits[0].new, h)
    with pytest.raises(PeftcError, match="PEFT431"):
        check_rewritten(capture, whole)


def test_a_located_site_that_was_not_rewritten_is_found() -> None:
    """PEFT432, with how often it was and should have been."""
    _, capture, whole = low()
    with pytest.raises(PeftcError, match=r"(?s)PEFT432.*0 times, not 2"):
        check_rewritten(capture, whole)


def test_a_reader_of_a_replaced_value_is_found() -> None:
    """PEFT433."""
    case, capture, whole = low()
    run(capture, whole)
    old = capture.edits[0].old
    with case.graph.inserting_before(case.end):
        case.end.args = ((case.graph.call_function(torch.neg, (old,)),),)
    with pytest.raises(PeftcError, match=r"(?s)PEFT433.*neg reads y"):
        check_rewritten(capture, whole)


def test_a_tensor_that_nothing_reads_is_found() -> None:
    """PEFT434."""
    _, capture, whole = low()
    run(capture, whole)
    tensors = capture.tensors[Q.key]
    tensors["B"].replace_all_uses_with(tensors["A"])
    with pytest.raises(PeftcError, match=r"(?s)PEFT434.*`B`"):
        check_rewritten(capture, whole)


def test_an_edge_without_a_tap_has_no_u() -> None:
    """PEFT435 for the input of a sublayer that was not found, and a missing tensor."""
    case = Case()
    h = case.uses[1].y
    anchors = {FFN: [HiddenAnchor(h, next(iter(h.users)))]}
    tensors = case.add(D=(R, N), b=(R,), U=(N, R))
    whole = plan(rewrite(FFN, bottleneck(N, R, "u")))
    with pytest.raises(PeftcError, match=r"(?s)PEFT435.*`u`"):
        run(case.capture(anchors, {FFN.key: tensors}), whole)
    del tensors["D"]
    with pytest.raises(PeftcError, match=r"(?s)PEFT435.*`D`"):
        run(
            case.capture(anchors, {FFN.key: tensors}),
            plan(rewrite(FFN, bottleneck(N, R))),
        )


def test_rows_that_read_the_base_of_a_rewritten_matrix_are_refused() -> None:
    """PEFT436: the rows' `x' = l * x` would apply the base's matrix alone."""
    case = Case()
    k = site("lin:k", rows=((1, 3),), weight="lin.weight", shape=(2, N))
    tensors = {Q.key: case.add(A=(R, N), B=(N, R)), k.key: case.add(l=(N,))}
    capture = case.capture({Q: case.uses, k: case.uses}, tensors)
    whole = plan(rewrite(Q, low_rank(N, N, R)), rewrite(k, input_scaling(2, N)))
    with pytest.raises(PeftcError, match=r"(?s)PEFT436.*lin:k.*lin:q.*base"):
        run(capture, whole)


class InPlace(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.lin(x).sigmoid_() + x


def test_what_cannot_run_twice_is_refused() -> None:
    """PEFT437 for a base that changes its operand."""
    case = Case(InPlace())
    (use,) = case.uses
    changed = type(use)(use.call, use.x, next(iter(use.y.users)), use.weight, None)
    capture = case.capture({Q: [changed]}, {Q.key: case.add(l=(N,))})
    with pytest.raises(PeftcError, match=r"(?s)PEFT437.*`sigmoid_`"):
        run(capture, plan(rewrite(Q, input_scaling(N, N))))


def test_an_output_rule_there_is_fine() -> None:
    case = Case(InPlace())
    (use,) = case.uses
    changed = type(use)(use.call, use.x, next(iter(use.y.users)), use.weight, None)
    capture = case.capture({Q: [changed]}, {Q.key: case.add(l=(N,))})
    assert run(capture, plan(rewrite(Q, scaling("y", N)))) == [
        1,
        *[0] * (len(GRAPH_PIPELINE) - 1),
    ]
