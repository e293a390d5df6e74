"""Programs compute what the equations say.

They are run in float64 at odd sizes, with gradients, and compared with the reference
evaluator; so are merged weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F

from peftc.expr import ir
from peftc.expr.evaluate import MAPS, evaluate, run
from peftc.expr.functions import CALLS, ELEMENTWISE
from peftc.expr.ir import Leaf
from peftc.expr.merge import Merged, derive_merge
from peftc.expr.order import order
from peftc.expr.places import READABLE
from peftc.view import Site
from tests.equations import CASES, Stack, gated, stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.expr.compose import Composed

torch.set_num_threads(1)

BATCH, TOKENS = 2, 5

STACKS = (
    ("lora", "ia3"),
    ("ia3", "lora", "bitfit"),
    ("krona", "lora", "ia3_in"),
    ("dora", "lora", "gated_lora"),
    ("oft", "lora_dropout", "ssf"),
    ("hra", "oft", "dora"),
    ("oft_left", "loha", "bitfit"),
    ("lora", "krona", "lora_dropout", "unipelt_lora"),
    ("adapter", "parallel", "loreft"),
)
GATED = (("lora",), ("ia3",), ("dora",), ("krona",), ("bitfit",), ("oft",))


def tensors_for(roots: Sequence[ir.Node], env: Mapping[str, int]) -> dict[str, Tensor]:
    """A random tensor for each leaf; indices for those named `idx`."""
    generator = torch.Generator().manual_seed(1)
    leaves = {n.name: n for n in ir.walk(*roots) if isinstance(n, Leaf)}
    found = {}
    for name, leaf in sorted(leaves.items()):
        shape = [axis.value(env) for axis in leaf.axes]
        value = torch.rand(shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1
        if name.endswith(".idx"):
            found[name] = (value * 60).long()
            continue
        signs = torch.rand(shape, generator=generator, dtype=torch.float64) < 0.5
        positive = leaf.kind == "buffer"
        found[name] = value if positive else torch.where(signs, -value, value)
    return found


def given(
    composed: Composed, env: Mapping[str, int], biased: bool
) -> dict[str, Tensor]:
    """Tensors for all leaves of a site, the linear's output included."""
    leaves = [v for n, v in READABLE[composed.kind].items() if n != "y"]
    tensors = tensors_for((*composed.outputs.values(), *leaves), env)
    if composed.kind == "linear":
        if not biased:
            del tensors["bias"]
        y = tensors["x"] @ tensors["W"].T
        tensors["y"] = y + tensors["bias"] if biased else y
    return tensors


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    scale = other.abs().max().clamp(min=1e-30)
    return bool((one - other).abs().max() <= tolerance * scale)


def check(site: Stack, biased: bool) -> None:
    """Values and gradients of every program against the evaluator."""
    composed = site.composed(biased)
    env = {"b": BATCH, "t": TOKENS, **site.env}
    for target, output in composed.outputs.items():
        tensors = given(composed, env, biased)
        floats = {
            name: value.requires_grad_()
            for name, value in tensors.items()
            if name != "y" and value.is_floating_point()
        }
        if composed.kind == "linear":
            y = floats["x"] @ floats["W"].T
            tensors["y"] = y + floats["bias"] if biased else y
        (expected,) = evaluate([output], tensors, env)
        program = order(composed, target, env, biased)
        result = run(program, tensors)
        if composed.kind == "attention":  # rows that do not vary are given once
            expected = expected[{4: (), 3: (slice(None), 0), 2: (0, 0)}[result.dim()]]
        assert result.shape == expected.shape
        assert close(result, expected, 1e-12)
        wanted = gradients(expected, floats)
        for name, grad in gradients(result, floats).items():
            assert close(grad, wanted[name], 1e-10), name


def gradients(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    found = torch.autograd.grad(
        (value * weights).sum(), list(leaves.values()), allow_unused=True
    )
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_program_equals_equation(name: str, biased: bool) -> None:
    check(stack([name]), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_program_of_several_equals_equation(
    names: tuple[str, ...], biased: bool
) -> None:
    check(stack(names), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", GATED, ids="+".join)
def test_program_of_a_gate_equals_equation(
    names: tuple[str, ...], biased: bool
) -> None:
    check(gated(names), biased)


# --- merged weights ---------------------------------------------------------------

MERGED = ("lora", "krona", "dora", "oft", "oft_left", "hra", "ia3", "ia3_in", "ssf")
MERGED_STACKS = (
    *((name,) for name in MERGED),
    *((name,) for name in ("loha", "lokr", "phm", "miss", "vera", "hira", "lora_xs")),
    *((name,) for name in ("adalora", "lora_dropout", "dora_full", "bitfit", "renorm")),
    *((name,) for name in ("fish", "fourierft", "diffpruning", "said")),
    ("lora", "ia3", "bitfit"),
    ("krona", "oft", "ssf"),
    ("hra", "oft", "dora"),
)


def merged(methods: Stack, biased: bool) -> Merged:
    site = Site(
        key="m:q",
        role="q",
        kind=methods.kind,
        owner="m",
        sizes=(),
        dtype="float64",
        weight="m.weight",
        bias="m.bias" * biased,
    )
    result = derive_merge(methods.composed(biased), methods.env, site)
    assert isinstance(result, Merged)
    return result


def apply_merged(
    result: Merged, tensors: Mapping[str, Tensor], env: Mapping[str, int]
) -> Tensor:
    """The plain linear with the merged weight and bias."""
    (weight,) = evaluate([result.weight], tensors, env)
    y = tensors["x"] @ weight.T
    return y + evaluate([result.bias], tensors, env)[0] if result.bias else y


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", MERGED_STACKS, ids="+".join)
def test_merged_weight_equals_equation(names: tuple[str, ...], biased: bool) -> None:
    methods = stack(names)
    composed = methods.composed(biased)
    env = {"b": BATCH, "t": TOKENS, **methods.env}
    tensors = given(composed, env, biased)
    (expected,) = evaluate([composed.outputs["y"]], tensors, env)
    result = apply_merged(merged(methods, biased), tensors, env)
    assert close(result, expected, 1e-10)


@pytest.mark.parametrize("biased", [True, False])
def test_merged_edge_equals_equation(biased: bool) -> None:
    """An affine edge after a linear of 21 x 13."""
    methods = stack(["loreft"])
    composed = methods.composed(biased)
    env = {"b": BATCH, "t": TOKENS, "in": 13, **methods.env}
    tensors = given(composed, env, biased)
    generator = torch.Generator().manual_seed(2)
    for name, shape in (("x", (BATCH, TOKENS, 13)), ("W", (21, 13)), ("bias", (21,))):
        tensors[name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    tensors["h"] = tensors["x"] @ tensors["W"].T + tensors["bias"] * biased
    (expected,) = evaluate([composed.outputs["h"]], tensors, env)
    result = apply_merged(merged(methods, biased), tensors, env)
    assert close(result, expected, 1e-10)


# --- exact promises ---------------------------------------------------------------

IDENTITIES = (
    *("lora", "lora_dropout", "krona", "lokr", "loha", "phm", "vera", "adalora", "ia3"),
    *("ia3_in", "bitfit", "ssf", "oft", "adapter", "parallel", "compacter", "miss"),
    *("gated_lora", "unipelt_lora", "mixture", "swiglu", "scale_shift", "hira"),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_at_the_start_to_the_bit(name: str, dtype: torch.dtype) -> None:
    """Tensors that start at a constant have it; the others are random."""
    methods = stack([name])
    composed = methods.composed(True)
    env = {"b": BATCH, "t": TOKENS, **methods.env}
    tensors = given(composed, env, True)
    for declared in composed.declarations:
        start = declared.init.node
        if isinstance(start, ir.Literal):
            tensors[declared.name] = torch.full_like(
                tensors[declared.name], start.value
            )
    tensors = {n: t.to(dtype) for n, t in tensors.items()}
    if composed.kind == "linear":
        tensors["y"] = torch.nn.functional.linear(
            tensors["x"], tensors["W"], tensors["bias"]
        )
    for target in composed.outputs:
        result = run(order(composed, target, env, True), tensors)
        assert torch.equal(result, tensors[target])


def test_dropout_in_training_only() -> None:
    methods = stack(["lora_dropout"])
    composed = methods.composed(False)
    env = {"b": BATCH, "t": TOKENS, **methods.env}
    tensors = given(composed, env, False)
    program = order(composed, "y", env, False)
    torch.manual_seed(0)
    trained = run(program, tensors, training=True)
    assert not torch.equal(trained, run(program, tensors))
    torch.manual_seed(0)
    dropped = torch.nn.functional.dropout(tensors["x"], 0.1)
    up, down = tensors["lora_dropout.B"], tensors["lora_dropout.A"]
    assert close(trained, tensors["y"] + 2 * (dropped @ down.T @ up.T), 1e-12)


@pytest.mark.parametrize("fn", sorted(ELEMENTWISE))
def test_functions_of_numbers_and_of_tensors_agree(fn: str) -> None:
    points = [-2.5, -0.3, 0.0, 0.4, 3.0]
    if fn in ("log", "sqrt", "rsqrt", "recip"):
        points = [0.2, 1.0, 7.5]
    expected = torch.tensor([ELEMENTWISE[fn](p) for p in points], dtype=torch.float64)
    result = MAPS[fn](torch.tensor(points, dtype=torch.float64))
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


def test_every_function_has_its_torch() -> None:
    assert MAPS.keys() == ELEMENTWISE.keys()


def _cells() -> dict[str, Tensor]:
    """Three rows of one number, and cells of width one for both ways."""
    stream = torch.Generator().manual_seed(5)
    shapes = {"x": (3, 1), "k": (2, 4, 1), "y": (2, 4)}
    return {
        name: torch.randn(shape, generator=stream, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def _recurrent() -> Tensor:
    """What torch's own layer makes of them."""
    cells = _cells()
    layer = torch.nn.LSTM(1, 1, bidirectional=True, dtype=torch.float64)
    for way, end in enumerate(("", "_reverse")):
        for name, source in (("weight", "k"), ("bias", "y")):
            for kind in ("ih", "hh"):
                parameter = layer.get_parameter(f"{name}_{kind}_l0{end}")
                parameter.data.copy_(cells[source][way])
    made: Tensor = layer(cells["x"])[0].detach()
    return made


def test_calls() -> None:
    """Each function of whole tensors against its definition."""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in "ab")
    index = torch.tensor([3, 9, 3])
    v = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    turned = torch.tensor([[3, 0, 1, 2], [1, 0, 3, 2], [0, 1, 2, 3], [2, 3, 0, 1]])
    tensors = {"a": a, "b": b, "i": index, "v": v, "p": turned, "w": a.new_zeros(4, 6)}
    tensors |= _cells() | {"z": a.new_zeros(3, 2)}
    leaves = {
        n: ir.leaf(n, "buffer", tuple(value.shape)) for n, value in tensors.items()
    }

    def value(fn: str, names: str, shape: str, *attrs: float) -> Tensor:
        operands = [leaves[n] for n in names]
        return evaluate(
            [ir.call(fn, operands, attrs, leaves[shape].axes)], tensors, {}
        )[0]

    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    scattered = torch.zeros(16, dtype=torch.float64)
    scattered[3], scattered[9] = 5.0, 2.0
    expected = {
        "bilstm": (_recurrent(), value("bilstm", "xkkyy", "z")),
        "detach": (a, value("detach", "a", "a")),
        "drop": (a, value("drop", "a", "a", 0.5)),
        "fit": (F.pad(a, (0, 2)), value("fit", "a", "w")),
        "fwht": (a @ signs.double() / 2, value("fwht", "a", "a")),
        "gather": (a.flatten()[index], value("gather", "ai", "v")),
        "ifft2": (torch.fft.ifft2(a).real, value("ifft2", "a", "a")),
        "permute": (a.gather(1, turned), value("permute", "ap", "a")),
        "scatter": (scattered.view(4, 4), value("scatter", "vi", "a")),
        "solve": (a.inverse() @ b, value("solve", "ab", "b")),
        "topmask": (
            (a >= a.flatten().sort()[0][-3]).double(),
            value("topmask", "a", "a", 3),
        ),
        "training": (b, value("training", "ab", "b")),
    }
    assert expected.keys() == set(CALLS)
    for wanted, made in expected.values():
        torch.testing.assert_close(made, wanted, rtol=1e-10, atol=1e-10)
