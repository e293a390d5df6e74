"""Rewritten graphs against the same models adapted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.capturing import (
    at_linears,
    given,
    input_scaling,
    low_rank,
    plan,
    program,
    rewrite,
    rewritten,
    scaling,
    site,
    step,
    token,
)
from tests.numerics.exactly import EXACT, assert_equal_with_gradients, draws

if TYPE_CHECKING:
    from peftc.expr.program import Program
    from peftc.view import Rows, Site

IN, OUT, R = 6, 12, 3


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# --- linears ------------------------------------------------------------------------


def add_in_place(y: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    y += c
    return y


SPELLINGS: dict[str, Any] = {
    "T": lambda x, w, c: x @ w.T + c,
    "left": lambda x, w, c: c + torch.matmul(x, w.t()),
    "in-place": lambda x, w, c: add_in_place(x @ w.T, c),
    "method": lambda x, w, c: F.linear(x, w).add_(c),
    "named": lambda x, w, c: F.linear(weight=w, bias=c, input=x),
    "flat": lambda x, w, c: (x.flatten(0, -2) @ w.T).view(*x.shape[:-1], OUT) + c,
    "mm": lambda x, w, c: torch.mm(x.view(-1, IN), w.T).view(*x.shape[:-1], OUT) + c,
    "addmm": lambda x, w, c: c.addmm(x.view(-1, IN), w.T).view(*x.shape[:-1], OUT),
}


class Spelt(nn.Linear):
    """A linear by other operators."""

    def __init__(self, kind: str) -> None:
        super().__init__(IN, OUT)
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = SPELLINGS[self.kind](x, self.weight, self.bias)
        return y


KINDS = ("linear", "conv", *SPELLINGS)


class Net(nn.Module):
    """tanh(W x + b), W owned by `lin`."""

    def __init__(self, kind: str = "linear", bias: bool = True) -> None:
        super().__init__()
        self.lin = Conv1D(OUT, IN) if kind == "conv" else nn.Linear(IN, OUT, bias=bias)
        if kind == "conv":
            nn.init.normal_(self.lin.bias)
        elif kind in SPELLINGS:
            self.lin = Spelt(kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.lin(x))

    @property
    def matrix(self) -> torch.Tensor:
        weight: torch.Tensor = self.lin.weight
        return weight.T if isinstance(self.lin, Conv1D) else weight


def whole(kind: str = "linear") -> Site:
    return site(
        "lin:q", weight="lin.weight", transposed=kind == "conv", shape=(OUT, IN)
    )


Reference = "Callable[[Net, torch.Tensor, Any], torch.Tensor]"


def additive(net: Net, x: torch.Tensor, t: Any) -> Any:
    return net.lin(x) + 0.5 * F.linear(F.linear(x, t["A"]), t["B"])


def output_scaled(net: Net, x: torch.Tensor, t: Any) -> Any:
    return t["l"] * net.lin(x)


def input_scaled(net: Net, x: torch.Tensor, t: Any) -> torch.Tensor:
    return F.linear(t["l"] * x, net.matrix, net.lin.bias)


def renormalised(net: Net, x: torch.Tensor, t: Any) -> torch.Tensor:
    weight = net.matrix + t["B"] @ t["A"]
    scale = t["m"] / weight.norm(dim=1)
    return F.linear(x, scale[:, None] * weight, net.lin.bias)


def renormalisation(out: int, into: int) -> Program:
    """W' = m / norm(W + B A) * (W + B A), reading W for the norm alone."""
    return program(
        "y",
        [
            token("x", into),
            *(given("W", out, into), given("bias", out)),
            *(given("A", R, into), given("B", out, R), given("m", out)),
        ],
        step("%0", "ein", "B A", out, into, tokens=False, spec="or,ri->oi"),
        step("%1", "add", "W %0", out, into, tokens=False, coefs=(1.0, 1.0)),
        step("%2", "ein", "%1 %1", out, tokens=False, spec="oi,oi->o"),
        step("%3", "map", "%2", out, tokens=False, fn="rsqrt"),
        step("%4", "ein", "m %3", out, tokens=False, spec="o,o->o"),
        step("%5", "product", "x", out),
        step("%6", "linear", "x A", R),
        step("%7", "linear", "%6 B", out),
        step("%8", "add", "%5 %7", out, coefs=(1.0, 1.0)),
        step("%9", "ein", "%4 %8", out, spec="o,*o->*o"),
        step("%10", "add", "%9 bias", out, coefs=(1.0, 1.0)),
    )


CASES: dict[str, tuple[Program, Any, dict[str, tuple[int, ...]]]] = {
    "additive": (low_rank(OUT, IN, R), additive, {"A": (R, IN), "B": (OUT, R)}),
    "output": (scaling("y", OUT), output_scaled, {"l": (OUT,)}),
    "input": (input_scaling(OUT, IN), input_scaled, {"l": (IN,)}),
    "renormalised": (
        renormalisation(OUT, IN),
        renormalised,
        {"A": (R, IN), "B": (OUT, R), "m": (OUT,)},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lead", [(4,), (2, 5), (2, 3, 4)])
def test_whole_linears(kind: str, case: str, lead: tuple[int, ...]) -> None:
    one, reference, shapes = CASES[case]
    net, tensors = Net(kind).double(), draws(**shapes)
    x = torch.randn(*lead, IN, dtype=torch.float64, requires_grad=True)
    of = whole(kind)
    run = rewritten(net, plan(rewrite(of, one)), {of.key: tensors}, at_linears(of))
    expected = torch.tanh(reference(net, x, tensors))
    assert_equal_with_gradients(run.forward(x), expected, [x, *tensors.values()])


@pytest.mark.parametrize("kind", KINDS)
def test_zero_deltas_change_no_bit(kind: str) -> None:
    net, x, of = Net(kind), torch.randn(2, 5, IN), whole(kind)
    tensors = {"A": torch.randn(R, IN), "B": torch.zeros(OUT, R)}
    run = rewritten(
        net, plan(rewrite(of, low_rank(OUT, IN, R))), {of.key: tensors}, at_linears(of)
    )
    assert torch.equal(run.forward(x), net(x))
    ones = {"l": torch.ones(OUT)}
    run = rewritten(
        net, plan(rewrite(of, scaling("y", OUT))), {of.key: ones}, at_linears(of)
    )
    assert torch.equal(run.forward(x), net(x))


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_dropout_draws_what_torch_draws(p: float) -> None:
    net, x, of = Net(), torch.randn(2, 5, IN), whole()
    tensors = draws(torch.float32, A=(R, IN), B=(OUT, R))
    planned = plan(rewrite(of, low_rank(OUT, IN, R, p=p)))
    run = rewritten(net.train(), planned, {of.key: tensors}, at_linears(of))
    torch.manual_seed(7)
    actual = run.forward(x)
    torch.manual_seed(7)
    branch = F.linear(F.linear(F.dropout(x, p), tensors["A"]), tensors["B"])
    assert torch.equal(actual, torch.tanh(net.lin(x) + 0.5 * branch))


def test_dropout_is_not_in_the_graph_of_an_evaluation() -> None:
    net, x, of = Net().eval(), torch.randn(2, 5, IN), whole()
    tensors = draws(torch.float32, A=(R, IN), B=(OUT, R))
    planned = plan(rewrite(of, low_rank(OUT, IN, R, p=0.4)))
    run = rewritten(net, planned, {of.key: tensors}, at_linears(of))
    torch.testing.assert_close(run.forward(x), torch.tanh(additive(net, x, tensors)))
    assert F.dropout not in {node.target for node in run.capture.graph.nodes}


def test_a_low_base_is_adapted_in_the_type_of_the_tensors() -> None:
    net, of = Net().bfloat16(), whole()
    x = torch.randn(2, 5, IN, dtype=torch.bfloat16)
    tensors = draws(torch.float32, A=(R, IN), B=(OUT, R))
    planned = plan(rewrite(of, low_rank(OUT, IN, R)))
    run = rewritten(net, planned, {of.key: tensors}, at_linears(of))
    branch = F.linear(F.linear(x.float(), tensors["A"]), tensors["B"])
    expected = (net.lin(x).float() + 0.5 * branch).bfloat16()
    actual = run.forward(x)
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, torch.tanh(expected))
    zeros = {of.key: {"A": tensors["A"], "B": torch.zeros(OUT, R)}}
    assert torch.equal(
        rewritten(net, planned, zeros, at_linears(of)).forward(x), net(x)
    )


def test_input_rules_on_a_low_base_call_the_base_in_its_type() -> None:
    net, of = Net().bfloat16(), whole()
    x = torch.randn(2, 5, IN, dtype=torch.bfloat16)
    tensors = draws(torch.float32, l=(IN,))
    planned = plan(rewrite(of, input_scaling(OUT, IN)))
    run = rewritten(net, planned, {of.key: tensors}, at_linears(of))
    assert torch.equal(
        run.forward(x), net((tensors["l"] * x.float()).to(torch.bfloat16))
    )


def test_autocast_decides_the_types() -> None:
    net, x, of = Net(), torch.randn(2, 5, IN), whole()
    tensors = draws(torch.float32, A=(R, IN), B=(OUT, R))
    planned = plan(rewrite(of, low_rank(OUT, IN, R)))
    run = rewritten(net, planned, {of.key: tensors}, at_linears(of))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = run.forward(x), torch.tanh(additive(net, x, tensors))
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, expected)
    assert not [n for n in run.capture.graph.nodes if n.target == "to"]


class Mixed(Net):
    """A linear in an autocast region of the model's own."""

    def forward(self, x: torch.Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.lin(x)
        return y + torch.sigmoid(x).sum()


def test_autocast_regions_of_the_model_decide_the_types() -> None:
    net, x, of = Mixed(), torch.randn(2, 5, IN), whole()
    tensors = draws(torch.float32, A=(R, IN), B=(OUT, R))
    planned = plan(rewrite(of, low_rank(OUT, IN, R)))
    run = rewritten(net, planned, {of.key: tensors}, at_linears(of))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = additive(net, x, tensors)
    assert torch.equal(run.forward(x), y + torch.sigmoid(x).sum())
    made = [n for n in run.capture.graph.nodes if "peftc.site" in n.meta]
    assert {n.meta["example_value"].dtype for n in made} == {torch.bfloat16}


# --- rows ---------------------------------------------------------------------------

CONTIGUOUS: tuple[Rows, ...] = (((0, 4),), ((4, 8),), ((8, 12),))
INTERLEAVED: tuple[Rows, ...] = (
    ((0, 2), (6, 8)),
    ((2, 4), (8, 10)),
    ((4, 6), (10, 12)),
)
MIXED: tuple[Rows, ...] = (((0, 2), (4, 6)), ((6, 9),))


def numbers(rows: Rows) -> torch.Tensor:
    return torch.tensor([i for start, stop in rows for i in range(start, stop)])


class Rowed(Net):
    """The rows of `lin` are read apart by `forward` of the reference."""

    def parts(self, x: torch.Tensor, rows: Rows) -> Net:
        part = Net().double()
        chosen = numbers(rows)
        part.lin.weight = nn.Parameter(self.matrix[chosen])
        part.lin.bias = nn.Parameter(self.lin.bias[chosen])
        return part


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("layout", [CONTIGUOUS, INTERLEAVED, MIXED, CONTIGUOUS[1:2]])
@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_fused_linear(kind: str, layout: tuple[Rows, ...], case: str) -> None:
    net = Rowed(kind).double()
    x = torch.randn(2, 5, IN, dtype=torch.float64, requires_grad=True)
    expected, leaves, rewrites, tensors = net.lin(x), [x], [], {}
    for index, rows in enumerate(layout):
        size = len(numbers(rows))
        one, reference, of = _row_case(case, size, rows, index, kind)
        shapes = {i.name: i.shape for i in one.inputs if i.name in "ABlm"}
        own = draws(**shapes)
        value = reference(net.parts(x, rows), x, own)
        expected = expected.index_copy(-1, numbers(rows), value)
        rewrites.append(rewrite(of, one))
        tensors[of.key] = own if len(rows) == 1 else own | {"rows": numbers(rows)}
        leaves += own.values()
    sites = [r.site for r in rewrites]
    run = rewritten(net, plan(*rewrites), tensors, at_linears(*sites))
    assert_equal_with_gradients(run.forward(x), torch.tanh(expected), leaves)


def _row_case(
    case: str, size: int, rows: Rows, index: int, kind: str
) -> tuple[Program, Any, Site]:
    programs = {
        "additive": low_rank(size, IN, R),
        "output": scaling("y", size),
        "input": input_scaling(size, IN),
        "renormalised": renormalisation(size, IN),
    }
    of = site(
        f"lin:{'qkv'[index]}",
        rows=rows,
        transposed=kind == "conv",
        weight="lin.weight",
        shape=(size, IN),
    )
    return programs[case], CASES[case][1], of


@pytest.mark.parametrize("rows", [((4, 8),), ((0, 2), (6, 8))])
def test_other_rows_keep_their_bits(rows: Rows) -> None:
    net, x = Net(), torch.randn(2, 5, IN)
    of = site("lin:k", rows=rows, weight="lin.weight", shape=(4, IN))
    tensors: Any = draws(torch.float32, A=(R, IN), B=(4, R))
    tensors |= {"rows": numbers(rows)} if len(rows) > 1 else {}
    planned = plan(rewrite(of, low_rank(4, IN, R)))
    run = rewritten(net, planned, {of.key: tensors}, at_linears(of))
    actual, base = run.forward(x), net(x)
    rest = [i for i in range(OUT) if i not in numbers(rows).tolist()]
    assert torch.equal(actual[..., rest], base[..., rest])
    assert not torch.equal(actual, base)


def test_a_whole_matrix_and_its_rows_are_added_up() -> None:
    net, x = Net().double(), torch.randn(2, 5, IN, dtype=torch.float64)
    fused, part = (
        whole(),
        site("lin:k", rows=((4, 8),), weight="lin.weight", shape=(4, IN)),
    )
    tensors = {
        fused.key: draws(A=(R, IN), B=(OUT, R)),
        part.key: draws(A=(R, IN), B=(4, R)),
    }
    planned = plan(
        rewrite(part, low_rank(4, IN, R)), rewrite(fused, low_rank(OUT, IN, R))
    )
    run = rewritten(net, planned, tensors, at_linears(fused, part))
    expected = additive(net, x, tensors[fused.key])
    own = tensors[part.key]
    expected[..., 4:8] += 0.5 * F.linear(F.linear(x, own["A"]), own["B"])
    torch.testing.assert_close(run.forward(x), torch.tanh(expected), rtol=0, atol=EXACT)


# --- shared layers ------------------------------------------------------------------


class Twice(Net):
    """The same linear used three times, its output and input both of size IN."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(IN, IN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.lin(self.lin(torch.tanh(self.lin(x)))))


@pytest.mark.parametrize("case", ["additive", "renormalised"])
def test_each_use_of_a_shared_linear_is_rewritten(case: str) -> None:
    net = Twice().double()
    of = site("lin:q", weight="lin.weight", shape=(IN, IN))
    one = {"additive": low_rank, "renormalised": lambda o, i, r: renormalisation(o, i)}
    made = one[case](IN, IN, R)
    tensors = draws(**{i.name: i.shape for i in made.inputs if i.name in "ABm"})
    x = torch.randn(2, 5, IN, dtype=torch.float64, requires_grad=True)
    run = rewritten(net, plan(rewrite(of, made)), {of.key: tensors}, at_linears(of))
    adapt = CASES[case][1]
    expected = torch.tanh(
        adapt(net, adapt(net, torch.tanh(adapt(net, x, tensors)), tensors), tensors)
    )
    assert_equal_with_gradients(run.forward(x), expected, [x, *tensors.values()])
    norms = [n for n in run.capture.graph.nodes if n.target is torch.rsqrt]
    assert len(norms) == (case == "renormalised")
