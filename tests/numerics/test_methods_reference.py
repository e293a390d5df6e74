"""Each method of the library against the same formula written by hand in torch.

Both in float64, on odd sizes, with every tensor random (not its initial value).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
import torch
import torch.nn.functional as F

from peftc.expr.compose import compose
from peftc.expr.elaborate import elaborate
from peftc.expr.equation import Initial
from peftc.expr.evaluate import evaluate
from peftc.expr.knobs import Given, bind_knobs
from peftc.expr.scope import kind_of
from peftc.resolve.library import standard_library

if TYPE_CHECKING:
    from torch import Tensor

    from peftc.expr.equation import Equation
    from peftc.view import Kind

Tensors: TypeAlias = Mapping[str, "Tensor"]
Formula: TypeAlias = Callable[[Tensors], "Tensor"]

SIZES: Mapping[Kind, dict[str, int]] = {
    "linear": {"in": 15, "out": 21},
    "hidden": {"hidden": 33},
    "norm": {"hidden": 33},
    "attention": {"hidden": 33, "heads": 6, "kv_heads": 3, "key": 12, "value": 15},
}
TOKENS = {"b": 2, "t": 5}
LIBRARY = standard_library()


@dataclass(frozen=True)
class Case:
    """A method with knobs, and what one of its places becomes, by hand."""

    method: str
    formula: Formula
    knobs: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    clause: int = 0
    output: str = "y"

    def __str__(self) -> str:
        knobs = (f"{name}={value}" for name, value in self.knobs.items())
        return "-".join((self.method, str(self.clause), self.output, *knobs))


def product(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return x @ weight.T + bias


def bottleneck(
    t: Tensors, read: str, act: Callable[[Tensor], Tensor], scale: float
) -> Tensor:
    inner = act(t[read] @ t["D"].T + t["bd"])
    return t["h"] + scale * (inner @ t["U"].T + t["bu"])


def dora(t: Tensors) -> Tensor:
    moved = t["W"] + 16 / 4 * t["B"] @ t["A"]
    rows = t["m"] / moved.norm(dim=1)
    return product(rows[:, None] * moved, t["bias"], t["x"])


def miss(t: Tensors) -> Tensor:
    blocks = t["x"].reshape(2, 5, 5, 3).sum(dim=2)
    return t["y"] + blocks @ t["D"].T


def vera(t: Tensors) -> Tensor:
    return t["y"] + t["l"] * ((t["d"] * (t["x"] @ t["A"].T)) @ t["B"].T)


def loha(t: Tensors) -> Tensor:
    delta = 16 / 4 * (t["B1"] @ t["A1"]) * (t["B2"] @ t["A2"])
    return product(t["W"] + delta, t["bias"], t["x"])


def phm(t: Tensors) -> Tensor:
    """Dense matrices out of Kronecker products, as torch makes them."""
    ways = []
    for first, second in (("S1", "T1"), ("S2", "T2")):
        terms = zip(t["P"], t[first] @ t[second], strict=True)
        ways.append(torch.stack([torch.kron(p, m) for p, m in terms]).sum(0))
    down, up = ways
    inner = F.gelu(t["h"] @ down.T + t["bd"])
    return t["h"] + inner @ up.T + t["bu"]


def low_rank(t: Tensors) -> Tensor:
    return t["x"] @ t["A"].T @ t["B"].T


CASES = (
    Case("lora", lambda t: t["y"] + 2 * low_rank(t)),
    Case("lora", lambda t: t["y"] + 9 / 3 * low_rank(t), {"r": 3, "alpha": 9}),
    Case(
        "lora", lambda t: t["y"] + 4 / 2 * low_rank(t), {"r": 4, "alpha": 4, "rs": True}
    ),
    Case("lora", lambda t: t["y"] + 2 * low_rank(t), {"dropout": 0.3}),
    Case("ia3", lambda t: t["l"] * t["y"]),
    Case("ia3", lambda t: product(t["W"], t["bias"], t["l"] * t["x"]), clause=1),
    Case("bitfit", lambda t: product(t["W"], t["bias"] + t["d"], t["x"])),
    Case("bitfit", lambda t: t["c"] + t["d"], clause=1, output="c"),
    Case(
        "krona",
        lambda t: product(t["W"] + torch.kron(t["A"], t["B"]), t["bias"], t["x"]),
    ),
    Case(
        "krona",
        lambda t: product(t["W"] + 4 * torch.kron(t["A"], t["B"]), t["bias"], t["x"]),
        {"a1": 7, "a2": 5, "s": 4},
    ),
    Case("adapter", lambda t: bottleneck(t, "h", F.gelu, 1), {"d": 7}, output="h"),
    Case(
        "adapter",
        lambda t: bottleneck(t, "h", torch.tanh, 0.5),
        {"d": 7, "act": "tanh", "s": 0.5},
        output="h",
    ),
    Case(
        "adapter",
        lambda t: bottleneck(t, "h", lambda a: a, 1),
        {"d": 7, "act": "identity"},
        output="h",
    ),
    Case(
        "pfeiffer",
        lambda t: bottleneck(t, "n", F.relu, 1),
        {"reduction": 3},
        output="h",
    ),
    Case("parallel", lambda t: bottleneck(t, "u", F.relu, 4), {"d": 7}, output="h"),
    Case("norm_tuning", lambda t: t["g"] + t["dg"], output="g"),
    Case("norm_tuning", lambda t: t["c"] + t["dc"], output="c"),
    Case("norm_tuning", lambda t: t["g"] + t["dg"], clause=1, output="g"),
    Case("full", lambda t: product(t["W"] + t["dW"], t["bias"] + t["db"], t["x"])),
    Case("full", lambda t: product(t["W"] + t["dW"], t["bias"], t["x"]), clause=1),
    Case("dora", dora, {"r": 4}),
    Case("dora", dora, {"r": 4, "exact": True}),
    Case("loha", loha, {"r": 4}),
    Case("vera", vera, {"r": 6}),
    Case("miss", miss, {"r": 3}),
    Case("phm", phm, {"terms": 3, "d": 6, "rank": 2}, output="h"),
)


def equation_of(
    name: str,
    knobs: Mapping[str, int | float | str | bool],
    clause: int = 0,
    inner: Mapping[str, list[Equation]] | None = None,
) -> tuple[Equation, dict[str, int]]:
    """The equation of a method, and the numbers of all its sizes."""
    method = LIBRARY.methods[name]
    kind = kind_of(method.clauses[clause].place)
    assert kind is not None
    sizes = SIZES[kind]
    given = {knob: Given(value) for knob, value in knobs.items()}
    bound = bind_knobs(method, given, sizes)
    equation = elaborate(method.clauses[clause], bound, sizes, f"{name}.", inner)
    named = {f"{name}.{n}": v for n, v in bound.items() if isinstance(v, int)}
    return equation, {**sizes, **TOKENS, **named}


def tensors_for(equation: Equation, kind: Kind, env: Mapping[str, int]) -> Tensors:
    """Random values for everything an equation reads; y is W x + bias."""
    generator = torch.Generator().manual_seed(7)

    def draw(*axes: str) -> Tensor:
        shape = [env[axis] for axis in axes]
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if kind == "linear":
        given = {"W": draw("out", "in"), "bias": draw("out"), "x": draw("b", "t", "in")}
        given["y"] = product(given["W"], given["bias"], given["x"])
    elif kind == "hidden":
        given = {name: draw("b", "t", "hidden") for name in "hun"}
    elif kind == "attention":
        given = {"u": draw("b", "t", "hidden")}
    else:
        given = {name: draw("hidden") for name in "gc"}
    lengths = torch.tensor([env["t"], env["t"] - 2])
    given["real"] = (torch.arange(env["t"]) < lengths[:, None]).double()
    for declared in equation.declarations:
        shape = [axis.value(env) for axis in declared.axes]
        given[declared.name] = torch.randn(
            shape, generator=generator, dtype=torch.float64
        )
    return given


def plain(tensors: Tensors) -> Tensors:
    """The tensors without the prefix of their method."""
    return {name.rpartition(".")[2]: value for name, value in tensors.items()}


def kind_of_case(case: Case) -> Kind:
    kind = kind_of(LIBRARY.methods[case.method].clauses[case.clause].place)
    assert kind is not None
    return kind


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_equation_is_the_formula(case: Case) -> None:
    kind = kind_of_case(case)
    equation, env = equation_of(case.method, case.knobs, case.clause)
    tensors = tensors_for(equation, kind, env)
    composed = compose(kind, [equation], biased=True)
    (value,) = evaluate([composed.outputs[case.output]], tensors, env)
    torch.testing.assert_close(
        value, case.formula(plain(tensors)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_model_starts_unchanged(case: Case) -> None:
    """With the initial values, a place is what it was; random ones are drawn."""
    kind = kind_of_case(case)
    equation, env = equation_of(case.method, case.knobs, case.clause)
    tensors = dict(tensors_for(equation, kind, env))
    for declared in equation.declarations:
        node = declared.init.node
        if node is not None:
            (start,) = evaluate([node], tensors, env)
            tensors[declared.name] = start.expand_as(tensors[declared.name])
        elif declared.init == Initial("glorot", (0.0,)):
            tensors[declared.name] = torch.zeros_like(tensors[declared.name])
    composed = compose(kind, [equation], biased=True)
    (value,) = evaluate([composed.outputs[case.output]], tensors, env)
    torch.testing.assert_close(value, tensors[case.output], rtol=1e-12, atol=1e-12)


def test_every_method_is_compared_here_or_in_a_file_of_its_own() -> None:
    files = Path(__file__).parent.glob("methods/test_*.py")
    compared = {case.method for case in CASES} | {"gate", "prefix"}  # below
    compared |= {path.stem.removeprefix("test_") for path in files}
    assert set(LIBRARY.methods) <= compared


# --- wrappers ------------------------------------------------------------------------


BOTH = pytest.mark.parametrize("pooled", [False, True], ids=["token", "mean"])


def gated(read: str, t: Tensors, pooled: bool) -> Tensor:
    """What the gate lets through at each token, or at the real ones on average."""
    through = torch.sigmoid(t[read] @ t["gate.w"] + t["gate.c"])[..., None]
    if not pooled:
        return through
    means = [g[r.bool()].mean() for g, r in zip(through, t["real"], strict=True)]
    return torch.stack(means)[:, None, None]


@BOTH
def test_gate_of_a_linear(pooled: bool) -> None:
    lora, sizes = equation_of("lora", {"r": 3})
    gate, env = equation_of("gate", {}, int(pooled), {"inner": [lora]})
    env |= sizes
    tensors = tensors_for(gate, "linear", env)
    composed = compose("linear", [gate], biased=True)
    (value,) = evaluate([composed.outputs["y"]], tensors, env)
    delta = 16 / 3 * tensors["x"] @ tensors["lora.A"].T @ tensors["lora.B"].T
    expected = tensors["y"] + gated("x", tensors, pooled) * delta
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_gate_of_a_sum_wraps_what_the_sum_does() -> None:
    """A scale after a weight change, whatever the order they are written in."""
    krona, first = equation_of("krona", {})
    ia3, second = equation_of("ia3", {})
    for inner in ([krona, ia3], [ia3, krona]):
        gate, env = equation_of("gate", {}, inner={"inner": inner})
        env |= first | second
        tensors = tensors_for(gate, "linear", env)
        composed = compose("linear", [gate], biased=True)
        (value,) = evaluate([composed.outputs["y"]], tensors, env)
        weight = tensors["W"] + torch.kron(tensors["krona.A"], tensors["krona.B"])
        wrapped = tensors["ia3.l"] * product(weight, tensors["bias"], tensors["x"])
        through = gated("x", tensors, pooled=False)
        expected = tensors["y"] + through * (wrapped - tensors["y"])
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@BOTH
def test_gate_of_an_edge(pooled: bool) -> None:
    adapter, sizes = equation_of("adapter", {"d": 7})
    gate, env = equation_of("gate", {}, 2 + pooled, {"inner": [adapter]})
    env |= sizes
    tensors = tensors_for(gate, "hidden", env)
    composed = compose("hidden", [gate], biased=True)
    (value,) = evaluate([composed.outputs["h"]], tensors, env)
    wrapped = bottleneck(plain(tensors), "h", F.gelu, 1)
    change = wrapped - tensors["h"]
    expected = tensors["h"] + gated("n", tensors, pooled) * change
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


# --- rows of keys and values ----------------------------------------------------------


def rows(equation: Equation, env: Mapping[str, int]) -> tuple[Tensors, list[Tensor]]:
    """Random tensors, and the keys and values for each token of each sample."""
    tensors = tensors_for(equation, "attention", env)
    outputs = compose("attention", [equation], biased=False).outputs
    return tensors, evaluate([outputs["k"], outputs["v"]], tensors, env)


def test_prefix_is_its_rows() -> None:
    equation, env = equation_of("prefix", {"p": 4, "dropout": 0.5}, clause=1)
    tensors, (k, v) = rows(equation, env)
    assert torch.equal(k, tensors["prefix.K"].expand(2, 5, 4, 12))
    assert torch.equal(v, tensors["prefix.V"].expand(2, 5, 4, 15))
    assert compose("attention", [equation], biased=False).start == 4


def test_prefix_of_a_hidden_layer() -> None:
    knobs: dict[str, int | str] = {"p": 4, "mlp": 6, "embed": 7, "positions": "keep"}
    equation, env = equation_of("prefix", knobs)
    tensors, both = rows(equation, env)
    t = plain(tensors)
    hidden = torch.tanh(t["E"] @ t["A"].T + t["a"])
    for value, weight, offset in zip(both, "KV", ("k0", "v0"), strict=True):
        expected = hidden @ t[weight].T + t[offset]
        torch.testing.assert_close(value[1, 3], expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(value, value[:1, :1].expand_as(value))
    assert compose("attention", [equation], biased=False).start == 0


@BOTH
def test_gate_of_a_prefix(pooled: bool) -> None:
    prefix, sizes = equation_of("prefix", {"p": 4}, clause=1)
    gate, env = equation_of("gate", {}, 4 + pooled, {"inner": [prefix]})
    tensors, (k, v) = rows(gate, env | sizes)
    through = gated("u", tensors, pooled)[..., None]
    expected = (through * tensors["prefix.K"]).expand_as(k)
    torch.testing.assert_close(k, expected, rtol=1e-12, atol=1e-12)
    expected = (through * tensors["prefix.V"]).expand_as(v)
    torch.testing.assert_close(v, expected, rtol=1e-12, atol=1e-12)
    assert compose("attention", [gate], biased=False).start == 4


def test_padding_does_not_change_what_is_pooled() -> None:
    prefix, sizes = equation_of("prefix", {"p": 4}, clause=1)
    gate, env = equation_of("gate", {}, 5, {"inner": [prefix]})
    tensors = dict(tensors_for(gate, "attention", env | sizes))
    output = compose("attention", [gate], biased=False).outputs["k"]
    (before,) = evaluate([output], tensors, env | sizes)
    tensors["u"] = torch.where(tensors["real"].bool()[..., None], tensors["u"], 9.0)
    (after,) = evaluate([output], tensors, env | sizes)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)
