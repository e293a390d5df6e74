"""Programs as nodes: each operation, its marks, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from peftc.diagnostics.core import PeftcError
from peftc.expr.evaluate import run
from peftc.expr.functions import CALLS as FUNCTIONS
from peftc.expr.functions import ELEMENTWISE
from peftc.rewrite.emit import Source, emit
from peftc.rewrite.insert import Inserter
from peftc.rewrite.table import CALLS, MAPS
from peftc.rewrite.values import Value, reshape
from tests.capturing import given, program, step, token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.program import Program

K = 4
SPANS = {"A": "a.peft:1:1", "B": "a.peft:2:1"}


class Graph:
    """A graph whose placeholders are these tensors; token axes have symbolic sizes."""

    def __init__(self, values: Mapping[str, torch.Tensor], tokens: set[str]) -> None:
        self.graph, self.values = fx.Graph(), values
        self.env = ShapeEnv()
        mode = FakeTensorMode(shape_env=self.env)
        self.nodes: dict[str, fx.Node] = {}
        for name, value in values.items():
            node = self.graph.placeholder(name)
            lead = value.dim() - 1 if name in tokens else 0
            sizes = [DimDynamic.DUCK] * lead
            sizes += [DimDynamic.STATIC] * (value.dim() - lead)
            context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
            fake = mode.from_tensor(value, symbolic_context=context)
            node.meta |= {"example_value": fake, "nn_module_stack": {"m": ("m", F)}}
            self.nodes[name] = node
        self.end = self.graph.output(())

    def inserter(self) -> Inserter:
        return Inserter(self.end, "site", next(iter(self.nodes.values())), "a.peft:9:9")

    def run(self, result: fx.Node) -> torch.Tensor:
        self.end.args = (result,)
        self.graph.lint()
        value: torch.Tensor = fx.GraphModule({}, self.graph)(*self.values.values())
        return value


def emitted(
    one: Program, values: Mapping[str, torch.Tensor], training: bool = False
) -> tuple[torch.Tensor, Graph]:
    """The result of a program, run as a graph."""
    made = Graph(values, {i.name for i in one.inputs if i.tokens})
    target = made.nodes[one.target]
    source = Source(one, target, made.nodes.__getitem__, SPANS, training)
    return made.run(emit(source, made.inserter(), {})), made


def assert_as_evaluated(one: Program, values: Mapping[str, torch.Tensor]) -> Graph:
    actual, made = emitted(one, values)
    torch.testing.assert_close(actual, run(one, values))
    assert not made.env.guards, "a size was specialised"
    for node in made.graph.nodes:
        if node.op.startswith("call"):
            assert node.meta["peftc.site"] == "site"
            assert node.meta["nn_module_stack"] == {"m": ("m", F)}
    return made


def test_the_tables_hold_every_function() -> None:
    assert MAPS.keys() == ELEMENTWISE.keys()
    assert CALLS.keys() | {"drop", "training"} >= set(FUNCTIONS)


@pytest.mark.parametrize("fn", sorted(ELEMENTWISE))
def test_maps_mean_what_they_mean_for_numbers(fn: str) -> None:
    points = [0.25, 0.5, 1.0, 1.75] if fn in ("log", "sqrt", "rsqrt", "recip") else None
    numbers = points or [-1.5, -0.25, 0.5, 2.0]
    h = torch.tensor(numbers, dtype=torch.float64).view(1, 1, K).expand(2, 3, K)
    one = program("h", [token("h", K)], step("%0", "map", "h", K, fn=fn))
    actual, _ = emitted(one, {"h": h})
    expected = [ELEMENTWISE[fn](number) for number in numbers]
    assert actual[1, 2].tolist() == pytest.approx(expected, rel=1e-12)


# --- products -----------------------------------------------------------------------

PRODUCTS = {
    "i,*i->*i": ((K,), (2, 3, K)),
    "*i,i->*i": ((2, 3, K), (K,)),
    "*,*i->*i": ((2, 3), (2, 3, K)),
    "*i,*->*i": ((2, 3, K), (2, 3)),
    ",*i->*i": ((), (2, 3, K)),
    "*i,*i->*": ((2, 3, K), (2, 3, K)),
    "*i,i->*": ((2, 3, K), (K,)),
    "*i,ji->*j": ((2, 3, K), (5, K)),
    "*j,ij->*i": ((2, 3, K), (K, K)),
    "*ij,j->*ij": ((2, 3, 5, K), (K,)),
    "*ij,i->*ij": ((2, 3, 5, K), (5,)),
    "*i,j->*ij": ((2, 3, 5), (K,)),
    "*ij,jk,li->*lk": ((2, 3, 5, K), (K, 2), (3, 5)),
}
"""Specs over `*`; what they need of h is put in front of the last axis."""

IN_SPACE = {
    "i,j->ij": ((K,), (5,)),
    "ij,i->ij": ((5, K), (5,)),
    "ij,jk->ik": ((5, K), (K, 3)),
    "ij->ji": ((5, K),),
    "ij->i": ((5, K),),
    "ij,ij->i": ((5, K), (5, K)),
    "ii->i": ((K, K),),
    "ik,jl->ijkl": ((2, 3), (4, 5)),
    "i,i,i->i": ((K,), (K,), (K,)),
}


@pytest.mark.parametrize("spec", PRODUCTS)
def test_products_over_tokens(spec: str) -> None:
    shapes = PRODUCTS[spec]
    operands = spec.partition("->")[0].split(",")
    values = {f"v{i}": torch.randn(s).double() for i, s in enumerate(shapes)}
    lead = {n for n, labels in zip(values, operands, strict=True) if "*" in labels}
    sizes = {
        label: size
        for labels, shape in zip(operands, shapes, strict=True)
        for label, size in zip(
            labels.removeprefix("*"), shape[2 * labels.startswith("*") :], strict=True
        )
    }
    out = spec.partition("->")[2]
    shape = [sizes[label] for label in out.removeprefix("*")]
    inputs = [
        token(n, *v.shape[2:]) if n in lead else given(n, *v.shape)
        for n, v in values.items()
    ]
    whole = torch.randn(2, 3, *shape).double()
    one = program(
        "h",
        [token("h", *shape), *inputs],
        step("%0", "ein", " ".join(values), *shape, spec=spec),
        step("%1", "add", "h %0", *shape, coefs=(1.0, 1.0)),
    )
    made = Graph({"h": whole} | values, set())
    source = Source(one, made.nodes["h"], made.nodes.__getitem__, {}, False)
    actual = made.run(emit(source, made.inserter(), {}))
    einsum = torch.einsum(spec.replace("*", "..."), *values.values())
    torch.testing.assert_close(actual, whole + einsum)


@pytest.mark.parametrize("spec", IN_SPACE)
def test_products_in_parameter_space(spec: str) -> None:
    values = {f"v{i}": torch.randn(s).double() for i, s in enumerate(IN_SPACE[spec])}
    expected = torch.einsum(spec, *values.values())
    one = program(
        "g",
        [given("g", *expected.shape), *(given(n, *v.shape) for n, v in values.items())],
        step("%0", "ein", " ".join(values), *expected.shape, tokens=False, spec=spec),
    )
    actual, _ = emitted(one, {"g": torch.zeros_like(expected)} | values)
    torch.testing.assert_close(actual, expected)


def targets(made: Graph) -> list[Any]:
    return [n.target for n in made.graph.nodes if n.op.startswith("call")]


def test_elementwise_products_are_multiplications() -> None:
    one = program(
        "h",
        [token("h", K), given("A", K)],
        step("%0", "ein", "A h", K, spec="i,*i->*i"),
    )
    made = assert_as_evaluated(one, {"h": torch.randn(2, 3, K), "A": torch.randn(K)})
    assert targets(made) == [torch.mul]


def test_a_sum_keeps_its_order_and_scales_in_one_operation() -> None:
    one = program(
        "h",
        [token("h", K), given("A", K), given("B", K)],
        step("%0", "add", "h A B", K, coefs=(1.0, 0.5, 1.0)),
        step("%1", "add", "%0 A", K, coefs=(-2.0, 1.0)),
    )
    values = {"h": torch.randn(2, 3, K), "A": torch.randn(K), "B": torch.randn(K)}
    made = assert_as_evaluated(one, values)
    adds = [n for n in made.graph.nodes if n.target is torch.add]
    assert [n.kwargs for n in adds] == [{"alpha": 0.5}, {}, {}]
    assert targets(made) == [torch.add, torch.add, torch.mul, torch.add]
    assert adds[0].args[0] is made.nodes["h"]


# --- views ---------------------------------------------------------------------------

VIEWS = [
    ((12,), (3, 4)),
    ((3, 4), (12,)),
    ((2, 3, 4), (6, 4)),
    ((2, 3, 4), (2, 12)),
    ((2, 6), (2, 2, 3)),
    ((6, 4), (2, 3, 4)),
    ((4, 6), (3, 8)),
    ((12,), (12,)),
    ((1,), ()),
    ((), (1,)),
    ((4,), (1, 4)),
    ((4, 1), (4,)),
]


@pytest.mark.parametrize(("have", "want"), VIEWS)
def test_views_keep_token_axes(have: tuple[int, ...], want: tuple[int, ...]) -> None:
    h = torch.randn(2, 3, *have)
    made = Graph({"h": h}, set())
    value = Value(made.nodes["h"], "*", have)
    result = made.run(reshape(value, want, made.inserter()))
    assert torch.equal(result, h.reshape(2, 3, *want))


def test_views_specialise_no_size() -> None:
    one = program(
        "h",
        [token("h", 12), given("A", 3)],
        step("%0", "view", "h", 3, 4),
        step("%1", "ein", "%0 A", 3, 4, spec="*ij,i->*ij"),
        step("%2", "view", "%1", 12),
    )
    assert_as_evaluated(one, {"h": torch.randn(2, 5, 12), "A": torch.randn(3)})


# --- calls --------------------------------------------------------------------------


def test_calls_in_parameter_space() -> None:
    one = program(
        "g",
        [
            given("g", 8, 8),
            given("A", 8, 8),
            given("v", 3),
            given("m", 3),
            given("p", 8),
        ],
        step("%0", "call", "A", 8, 8, tokens=False, fn="eye"),
        step("%1", "add", "%0 A", 8, 8, tokens=False, coefs=(9.0, 1.0)),
        step("%2", "call", "%1 g", 8, 8, tokens=False, fn="solve"),
        step("%3", "call", "v m", 8, 8, tokens=False, fn="scatter"),
        step("%4", "call", "%3", 8, 8, tokens=False, fn="ifft2"),
        step("%5", "call", "A", 8, 8, tokens=False, fn="fwht"),
        step("%6", "call", "A", 8, 8, tokens=False, fn="topmask", attrs=(5,)),
        step("%7", "call", "A", 8, 8, tokens=False, fn="full", attrs=(3.0,)),
        step("%8", "call", "%7", 8, 8, tokens=False, fn="detach"),
        step("%9", "call", "A m", 3, tokens=False, fn="gather"),
        step("%12", "call", "%9", 8, tokens=False, fn="fit"),
        step("%13", "call", "%12 p", 8, tokens=False, fn="permute"),
        step("%14", "call", "%13", 2, tokens=False, fn="fit"),
        step("%10", "ein", "%14", tokens=False, spec="i->"),
        step(
            "%11",
            "add",
            "%2 %3 %4 %5 %6 %8 %10",
            *(8, 8),
            tokens=False,
            coefs=(1.0,) * 7,
        ),
    )
    values = {
        "g": torch.randn(8, 8).double(),
        "A": torch.randn(8, 8).double(),
        "v": torch.randn(3).double(),
        "m": torch.tensor([5, 63, 5]),
        "p": torch.tensor([2, 0, 1, 3, 4, 5, 6, 7]),
    }
    assert_as_evaluated(one, values)


def test_samples_and_tokens_apart() -> None:
    """A gate of each sample: the mean over its tokens; and one of each token."""
    one = program(
        "h",
        [token("h", K), given("A", K)],
        step("%0", "ein", "h A", spec="bti,i->b"),
        step("%1", "call", "h", tokens=False, fn="count", attrs=("t",)),
        step("%2", "map", "%1", tokens=False, fn="recip"),
        step("%3", "ein", "%0 %2", spec="b,->b"),
        step("%4", "map", "%3", fn="sigmoid"),
        step("%5", "ein", "%4 h", K, spec="b,bti->bti"),
        step("%6", "ein", "h", K, spec="bti->bi"),
        step("%7", "ein", "h", spec="bti->t"),
        step("%8", "call", "h", K, fn="full", attrs=(0.5,)),
        step("%9", "add", "%5 %6 %8", K, coefs=(1.0, 1.0, 1.0)),
        step("%10", "ein", "%7 %9", K, spec="t,bti->bti"),
        separate=True,
    )
    h, a = torch.randn(2, 3, K).double(), torch.randn(K).double()
    assert_as_evaluated(one, {"h": h, "A": a})


def test_a_value_without_tokens_is_spread_over_them() -> None:
    one = program(
        "h", [token("h", K), given("A", K)], step("%0", "map", "A", K, fn="tanh")
    )
    h, a = torch.randn(2, 3, K), torch.randn(K)
    actual, made = emitted(one, {"h": h, "A": a})
    assert torch.equal(actual, torch.tanh(a).expand(2, 3, K))
    assert not made.env.guards


@pytest.mark.parametrize(("training", "p"), [(False, 0.5), (True, 0.0), (True, 0.5)])
def test_drop_is_in_the_graph_of_a_training_step_only(training: bool, p: float) -> None:
    one = program(
        "h",
        [token("h", K), given("A", K)],
        step("%0", "call", "h", K, fn="drop", attrs=(p,)),
        step("%1", "add", "%0 A", K, coefs=(1.0, 1.0)),
    )
    values = {"h": torch.randn(2, 3, K), "A": torch.randn(K)}
    torch.manual_seed(3)
    actual, made = emitted(one, values, training)
    assert (F.dropout in targets(made)) == (training and p > 0)
    torch.manual_seed(3)
    dropped = F.dropout(values["h"], p, training)
    assert torch.equal(actual, dropped + values["A"])


# --- types and marks ----------------------------------------------------------------


def test_equal_types_need_no_cast() -> None:
    one = program(
        "h",
        [token("h", K), given("A", K, K)],
        step("%0", "linear", "h A", K),
        step("%1", "add", "h %0", K, coefs=(1.0, 1.0)),
    )
    for dtype in (torch.float32, torch.bfloat16):
        values = {
            "h": torch.randn(2, 3, K, dtype=dtype),
            "A": torch.randn(K, K, dtype=dtype),
        }
        assert targets(assert_as_evaluated(one, values)) == [F.linear, torch.add]


def test_nodes_carry_the_lines_their_tensors_come_from() -> None:
    one = program(
        "h",
        [token("h", K), given("A", K), given("B", K)],
        step("%0", "map", "h", K, fn="tanh"),
        step("%1", "ein", "%0 A", K, spec="*i,i->*i"),
        step("%2", "add", "%1 B", K, coefs=(1.0, 1.0)),
    )
    values = {"h": torch.randn(2, 3, K), "A": torch.randn(K), "B": torch.randn(K)}
    _, made = emitted(one, values)
    spans = [n.meta["peftc.span"] for n in made.graph.nodes if "peftc.site" in n.meta]
    assert spans == ["a.peft:9:9", "a.peft:1:1", "a.peft:1:1 + a.peft:2:1"]
    values_of = [
        n.meta["example_value"] for n in made.graph.nodes if n.op[:4] == "call"
    ]
    assert all(isinstance(value, FakeTensor) for value in values_of)


def test_separate_tokens_are_refused_where_there_are_none() -> None:
    """PEFT500 where the model has flattened its tokens."""
    one = program(
        "h", [token("h", K)], step("%0", "ein", "h", K, spec="bti->bi"), separate=True
    )
    with pytest.raises(PeftcError, match=r"(?s)PEFT500.*2 axes"):
        emitted(one, {"h": torch.randn(6, K)})


@pytest.mark.parametrize("op", ["map", "call"])
def test_an_unknown_function_is_refused(op: str) -> None:
    """PEFT501 for a program of another version."""
    one = program("h", [token("h", K)], step("%7", op, "h", K, fn="frobnicate"))
    with pytest.raises(PeftcError, match=r"(?s)PEFT501.*`frobnicate`"):
        emitted(one, {"h": torch.randn(2, 3, K)})


def test_the_transform_is_its_own_inverse() -> None:
    one = program(
        "g",
        [given("g", 8)],
        step("%0", "call", "g", 8, tokens=False, fn="fwht"),
        step("%1", "call", "%0", 8, tokens=False, fn="fwht"),
    )
    g = torch.randn(8).double()
    actual, _ = emitted(one, {"g": g})
    assert math.isclose((actual - g).abs().max().item(), 0, abs_tol=1e-12)
