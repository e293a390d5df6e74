"""Generated kernels in Triton's interpreter against the equation as written.

This module is run in a process that was started with TRITON_INTERPRET=1: Triton looks
at it when it is first imported, and torch imports it.  All memory that kernels write is
NaN before.  Both forms of kernels are run, whatever the number of tokens.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from peftc.codegen.torch_writer import NoSourceError
from peftc.expr.derivative import NoDerivativeError
from peftc.expr.dropout import in_training
from peftc.expr.evaluate import evaluate
from peftc.expr.grouped import group, site_names, site_of
from peftc.expr.joint import order_jointly
from peftc.expr.joint_program import Drawn
from peftc.expr.normal import concrete
from peftc.rewrite import launch
from peftc.rewrite.kernel_step import KernelStep
from tests.equations import Stack, instance, read, stack
from tests.library import small_sites
from tests.numerics.test_joint import slanted, with_places
from tests.numerics.test_programs import given
from tests.numerics.test_together import ACTIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


SHAPES = ((2, 5), (1, 1), (3, 7))
"""Samples and tokens: fewer than a block, one, and more, none of them whole blocks."""
TOLERANCE = {
    torch.float32: 2e-6,
    torch.float16: 3 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 3 * torch.finfo(torch.bfloat16).eps,
}
"""Of the largest element.  In 16 bits three units: what is kept is rounded, and sums of
a few tokens have nothing that evens it out."""
CANCELLING = 6
"""How many times more the gradient of a single number may be wrong: it is a sum over
all tokens that nearly cancels: by 700 times of `krona_b_res`, where torch is as far off
in float32."""


UNEVEN = 3
"""Parts of features, of which there are one or two blocks: one part has none."""


IN_TORCH = {"compacter", "fish", "krona", "lokr", "mixture", "phm"}
"""Definitions of whose gradients torch sums some, in the type of the activations."""
TWICE = {"lora_xs"}
"""A definition of which a gradient is a product of two products with parameters, which
are rounded there: they are given values that 16 bits hold."""


def few_digits(name: str) -> bool:
    """Whether a tensor is one of those."""
    return name.partition(".")[0] in TWICE


def hollow(like: Tensor, shape: list[int], dtype: torch.dtype | None = None) -> Tensor:
    """Room whose every element has to be written."""
    return like.new_full(shape, float("nan"), dtype=dtype)


def method(name: str, number: int, biased: bool) -> bool:
    """A clause of the library; whether any of its sites has kernels."""
    found = [compare(site, biased) for site in small_sites(name, number)]
    return any(found)


def several(names: Sequence[str], dtype: torch.dtype, biased: bool = True) -> bool:
    """Definitions of tests/golden/programs at one site."""
    return compare(stack(names), biased, dtype)


CHOSEN = {"few": False}
"""Read at each call: equal programs may have one function, which is loaded once."""


def prepare(few: bool) -> None:
    """Choose a form of kernels, and what can be told from what they should write."""
    launch.empty, launch.draw = hollow, fixed
    CHOSEN["few"] = few
    vars(launch).update(few=chosen, splits=lambda tokens, width: UNEVEN)


def chosen(tokens: int) -> bool:
    """Whether kernels of few tokens run, however many there are."""
    return CHOSEN["few"]


def mixed(name: str, dtype: torch.dtype) -> bool:
    """A definition whose parameters are in float32, and all else is not."""
    return compare(stack([name]), True, dtype, torch.float32)


def wide(name: str, dtype: torch.dtype) -> bool:
    """A definition at a site whose features are ten and five blocks."""
    one = instance(read(name), {"in": 150, "out": 67, "r": 3}, "m.")
    return compare(Stack((one.equation,), one.kind, one.env), True, dtype)


def compare(
    methods: Stack,
    biased: bool,
    dtype: torch.dtype = torch.float32,
    own: torch.dtype | None = None,
) -> bool:
    """Value and all gradients, in both forms; False if there are no kernels.

    Parameters have a type of their `own`, or that of the activations.
    """
    types = Types(dtype, own or dtype)
    return all(_formed(methods, biased, types, few) for few in (False, True))


@dataclass(frozen=True)
class Types:
    """The type of activations and bases, and that of parameters."""

    base: torch.dtype
    own: torch.dtype

    @property
    def wide(self) -> str:
        """That of parameters, if it is another, as a step is told it."""
        return str(self.own) if self.own != self.base else ""

    def of(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor in its type."""
        if not tensor.is_floating_point():
            return tensor
        if name in (*ACTIVE, "y", "W", "bias"):
            return tensor.to(self.base)
        return (tensor.to(self.base) if few_digits(name) else tensor).to(self.own)


def _formed(methods: Stack, biased: bool, types: Types, few: bool) -> bool:
    prepare(few)
    warnings.simplefilter("error")  # a kernel that is refused is one that is wrong
    try:
        program = order_jointly(methods.composed(biased), methods.env, biased)
        made = KernelStep(program, frozenset(("bias",) * biased), types.wide)
    except (NoDerivativeError, NoSourceError):
        return False
    for batch, tokens in SHAPES:
        _compare(made, methods, {"b": batch, "t": tokens, **methods.env}, types)
    return True


def _compare(
    made: KernelStep, methods: Stack, env: Mapping[str, int], types: Types
) -> None:
    biased, dtype = "bias" in made.biases, types.base
    composed = methods.composed(biased)
    tensors = with_places(composed, given(composed, env, biased), env)
    small = {name: types.of(name, tensor) for name, tensor in tensors.items()}
    rounded = {n: t.double() if t.is_floating_point() else t for n, t in small.items()}
    trained = [d.name for d in composed.declarations if d.kind == "param"]
    wanted = [n for n in made.inputs if n in (*ACTIVE, *trained)]
    sizes = {name: value for name, value in env.items() if name not in ("b", "t")}
    values, _ = in_training(concrete(tuple(composed.outputs.values()), sizes)[0])
    masks = _masks(made.program.masks, env)

    def written(tensors: Mapping[str, Tensor]) -> Tensor:
        return evaluate(values, {**tensors, **masks}, env, training=True)[0]

    def run(values: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = made(*(values[name] for name in made.inputs))
        return found

    small |= {name: apart(small[name]) for name in ACTIVE if name in small}
    due, slopes = differentiated(written, rounded, wanted, dtype)
    found, gradients = differentiated(run, small, wanted, dtype)
    assert found.dtype == dtype
    assert far(found, due) <= TOLERANCE[dtype], ("value", far(found, due), env)
    for name in wanted:
        assert gradients[name].dtype == small[name].dtype
        if small[name].dtype != dtype and env["t"] > 1:
            whole = torch.equal(gradients[name], gradients[name].to(dtype).float())
            assert not whole or name.partition(".")[0] in IN_TORCH, name
        error, slack = far(gradients[name], slopes[name]), 1
        if slopes[name].dim() == 0:
            slack = CANCELLING
        assert error <= slack * TOLERANCE[dtype], (name, error, env)


def together(names: Sequence[str], dtype: torch.dtype, few: bool) -> None:
    """Definitions each at a site of its own, of which all read one activation."""
    prepare(few)
    warnings.simplefilter("error")
    sites = [stack([name]) for name in names]
    programs = [order_jointly(s.composed(True), s.env, True) for s in sites]
    biases = frozenset(site_names("bias", len(sites)))
    made = KernelStep(group(programs), biases)
    own = [_tensors(site, dtype) for site in sites]
    own = [{**tensors, "x": own[0]["x"]} for tensors in own]
    x = own[0]["x"].clone().requires_grad_()
    wide = own[0]["x"].double().requires_grad_()
    places = [site_of(name) for name in made.inputs]
    taken = [x if n == "x" else own[k - 1][n] for n, k in places]
    found = made(*taken)
    due = [_written(s, {**t, "x": wide}) for s, t in zip(sites, own, strict=True)]
    adjoints = [slanted(value.detach()).to(dtype) for value in due]
    (slope,) = torch.autograd.grad(found, [x], adjoints)
    (owed,) = torch.autograd.grad(due, [wide], [a.double() for a in adjoints])
    errors = [far(a.detach(), b.detach()) for a, b in zip(found, due, strict=True)]
    assert max(*errors, far(slope, owed)) <= TOLERANCE[dtype], (
        errors,
        far(slope, owed),
    )


def _tensors(site: Stack, dtype: torch.dtype) -> dict[str, Tensor]:
    env = {"b": 2, "t": 5, **site.env}
    return {n: t.to(dtype) for n, t in given(site.composed(True), env, True).items()}


def _written(site: Stack, tensors: Mapping[str, Tensor]) -> Tensor:
    outputs = list(site.composed(True).outputs.values())
    values = {name: value.double() for name, value in tensors.items()}
    env = {"b": 2, "t": 5, **site.env}
    y = values["x"] @ values["W"].T + values["bias"]
    return evaluate(outputs, {**values, "y": y}, env, training=True)[0]


def differentiated(
    run: Callable[[Mapping[str, Tensor]], Tensor],
    tensors: Mapping[str, Tensor],
    wanted: Sequence[str],
    dtype: torch.dtype,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The value, and the gradients by name, for an adjoint that `dtype` can hold."""
    values = {n: t.detach() for n, t in tensors.items()}
    leaves = [values[name].requires_grad_() for name in wanted]
    found = run(values)
    adjoint = slanted(found.detach().double()).to(dtype).to(found.dtype)
    slopes = torch.autograd.grad(found, leaves, adjoint, allow_unused=True)
    return found.detach(), {
        name: torch.zeros_like(leaf) if slope is None else slope
        for name, leaf, slope in zip(wanted, leaves, slopes, strict=True)
    }


# --- dropout --------------------------------------------------------------------------

SEED = 12345


def fixed(like: Tensor) -> Tensor:
    """The seed, instead of one that is drawn."""
    return torch.tensor(SEED)


@triton.jit  # type: ignore[untyped-decorator]
def numbers(out, seed, size, N: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Random numbers of the places 0, 1, ..."""
    places = tl.arange(0, N)
    found = tl.rand(seed, places.to(tl.int64))
    tl.store(out + places, found, mask=places < size)


def _masks(masks: Sequence[Drawn], env: Mapping[str, int]) -> dict[str, Tensor]:
    """Each mask as a whole: a stream of its own, an element its place."""
    found = {}
    for stream, mask in enumerate(masks):
        shape = (env["b"], env["t"], *mask.shape)
        size = torch.Size(shape).numel()
        uniform = torch.empty(size)
        whole = triton.next_power_of_2(size)
        numbers[(1,)](uniform, SEED + stream, size, N=whole)
        kept = (uniform >= mask.p).double().view(shape)
        found[mask.name] = kept / (1 - mask.p)
    return found


def apart(value: Tensor) -> Tensor:
    """The same values in rows that lie apart."""
    return torch.cat((value, value), -1)[..., : value.shape[-1]]


def rates(p: float) -> tuple[float, float]:
    """How many elements two masks drop, and how many both of them do."""
    shapes = [Drawn(f"mask{i}", (64,), "bt", p) for i in (0, 1)]
    one, other = _masks(shapes, {"b": 2, "t": 32}).values()
    dropped, both = one == 0, (one == 0) & (other == 0)
    return float(dropped.double().mean()), float(both.double().mean())


def far(got: Tensor, due: Tensor) -> float:
    """The largest error as a part of the largest element; NaN counts as infinite."""
    assert got.shape == due.shape
    error = (got.double() - due).abs().max() / due.abs().max().clamp(min=1e-30)
    return float(error.nan_to_num(float("inf")))
