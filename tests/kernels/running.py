"""Models whose sites run as generated kernels, in Triton's interpreter.

Run in a process that was started with TRITON_INTERPRET=1, as `comparing` is.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

import peftc
from peftc.codegen.torch_writer import drawn
from peftc.diagnostics.core import PeftcError
from peftc.expr.joint import order_jointly
from peftc.replay import replay
from peftc.rewrite import checked, launch, philox
from peftc.rewrite.generated import generated
from peftc.rewrite.kernel_step import KernelStep
from peftc.rewrite.operators import name_of, operator
from peftc.rewrite.step import twice
from peftc.rewrite.torch_step import together
from tests.equations import stack
from tests.kernels.comparing import far
from tests.models import model, randomise, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


# --- whole models ---------------------------------------------------------------------


def alike(family: str, spec: str, base: torch.dtype, added: torch.dtype) -> int:
    """How many nodes of kernels a training step has, whose loss, gradients and logits
    are as near to those in float64 as those of separate operations; no kernel is
    refused, and with a cache the same tokens are generated."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, kernels = (_made(family, spec, b, base, added) for b in BACKENDS)
        exact = _made(family, spec, "plain", torch.float64, torch.float64)
        _as_near(plain, kernels, exact, base)
        nodes = kernels.peftc.captures.texts[-1].count("= kernels(")
        _same_tokens(plain.eval(), kernels.eval())
    return int(nodes)


BACKENDS = ("plain", "triton")


def _as_near(plain: Any, kernels: Any, exact: Any, base: torch.dtype) -> None:
    """By the measure of `checked`, for a whole model."""
    every = zip(*map(_trained, (plain, kernels, exact)), strict=True)
    for own, found, due in every:
        assert own.dtype == found.dtype
        slack = checked.UNITS * torch.finfo(base).eps
        assert far(found, due) <= checked.TIMES * far(own, due) + slack


def _made(
    family: str, spec: str, backend: str, base: torch.dtype, added: torch.dtype
) -> Any:
    named = str(added).removeprefix("torch.")
    made = peftc.compile(model(family).to(base), spec, backend=backend, dtype=named)
    randomise(made.train())
    return made


def _trained(made: Any) -> list[Tensor]:
    """Logits and gradients of a step; what the base drops, is dropped alike."""
    torch.manual_seed(0)
    more = {"decoder_input_ids": tokens()} if made.config.is_encoder_decoder else {}
    logits = made(input_ids=tokens(), **more).logits
    logits.square().mean().backward()
    gradients = [p.grad for p in made.parameters() if p.requires_grad]
    return [logits.detach(), *(g for g in gradients if g is not None)]


def _same_tokens(plain: Any, kernels: Any) -> None:
    if not plain.can_generate():
        return
    told = {"max_new_tokens": 3, "do_sample": False, "min_new_tokens": 3}
    texts = [made.generate(tokens(), **told) for made in (plain, kernels)]
    assert torch.equal(*texts)


def dropped(spec: str) -> tuple[int, bool]:
    """Of a model with dropout: how many warnings a step and its backward give, and
    whether two steps differ."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = _made("llama", spec, "triton", torch.float32, torch.float32)
        first, second = _trained(made)[0], made(input_ids=tokens()).logits
    refused = [one for one in said if "PEFT448" in str(one.message)]
    return len(refused), torch.equal(first, second)


def on_a_cpu(spec: str) -> str:
    """What is said where kernels are not interpreted."""
    made = peftc.compile(model("llama"), spec, backend="triton")
    del os.environ["TRITON_INTERPRET"]
    try:
        made(input_ids=tokens())
    except PeftcError as error:
        return error.diagnostics[0].code
    except Exception as error:
        inner = getattr(error, "inner_exception", error)
        return str(getattr(inner, "diagnostics", [error])[0])
    finally:
        os.environ["TRITON_INTERPRET"] = "1"
    return ""


# --- one step -------------------------------------------------------------------------


def _given(step: KernelStep, tokens: int = 6) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = {one.name: one.shape for one in step.program.inputs}
    width = shapes.get("x") or shapes["W"][1:]
    found = []
    for name, active in zip(step.inputs, step.active, strict=True):
        own = width if name == "x" else shapes[name]
        shape = (tokens, *own) if active else own
        found.append(torch.randn(shape, dtype=torch.float32) / 4)
    return found


def _step(name: str) -> KernelStep:
    methods = stack([name])
    return KernelStep(
        order_jointly(methods.composed(False), methods.env, False), frozenset()
    )


def twice_derived(name: str) -> float:
    """How far gradients of gradients are from those of torch's step; masks are the
    same, as both draw one seed."""
    os.chdir(tempfile.mkdtemp())  # kernels compute in float32, and are refused here
    step = _step(name)
    given = [t.double() for t in _given(step)]
    found = []
    for one in (step, together(step.program, frozenset())):
        torch.manual_seed(1)
        leaves = [t.clone().requires_grad_() for t in given]
        with twice():
            y = one(*leaves)
            (slope,) = torch.autograd.grad(
                y.square().sum(), leaves[:1], None, True, True
            )
            found.append(torch.autograd.grad(slope.square().sum(), leaves[0])[0])
    return far(*found)


def opcheck(name: str) -> None:
    """torch's own checks of both operators: schema, shapes, aliases, tracing."""
    step = _step(name)
    given = _given(step)
    front = generated(step.program, frozenset(), "", "forward", tuple(step.given))
    rear = generated(step.program, frozenset(), "", "backward", tuple(step.given))
    values = operator(front)(*given)
    names = (*front.source.inputs, "dy", *front.source.kept)
    passed = (*given, torch.ones_like(values[0]), *values[1:])
    known = dict(zip(names, passed, strict=True))
    for made, args in ((front, given), (rear, [known[n] for n in rear.takes])):
        operator(made)
        packet = getattr(torch.ops.peftc, name_of(made)).default
        torch.library.opcheck(packet, tuple(args))


class Whole(torch.nn.Module):
    """A module that runs a step."""

    def __init__(self, step: KernelStep) -> None:
        super().__init__()
        self.run = step._bare

    def forward(self, *given: Tensor) -> Tensor:
        """The step's value, doubled."""
        return self.run(*given)[0] * 2


def traced(name: str) -> tuple[float, float, str]:
    """How far a compiled and an exported module are from the module itself, and the
    exported graph."""
    whole = Whole(_step(name)).eval()
    given = tuple(_given(_step(name)))
    with torch.no_grad():
        due = whole(*given)
        compiled = torch.compile(whole, backend="aot_eager", fullgraph=True)(*given)
        exported = torch.export.export(whole, given)
        again = exported.module()(*given)
    return far(compiled, due.double()), far(again, due.double()), str(exported.graph)


# --- what is wrong --------------------------------------------------------------------


def refused(name: str, folder: str, fault: str) -> tuple[float, list[str], set[str]]:
    """A step whose kernels are faulty: how far it is from torch's, the warnings, and
    how replays of what is left end, where kernels are as they should be."""
    os.chdir(folder)
    checked.load = lambda *args: _broken(launch.load(*args), fault)  # type: ignore[attr-defined]
    try:
        step = _step(name)
        named = zip(step.inputs, _given(step), strict=True)
        given = [t.requires_grad_(name in step.given) for name, t in named]
        leaves = [t for t in given if t.requires_grad]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            y = step(*given)
            slopes = torch.autograd.grad(y.sum(), leaves)
            step(*given)  # it is not told again
    finally:
        checked.load = launch.load  # type: ignore[attr-defined]
    due = together(step.program, frozenset())(*given)
    owed = torch.autograd.grad(due.sum(), leaves)
    both = zip((y, *slopes), (due, *owed), strict=True)
    errors = [far(a.detach(), b.detach().double()) for a, b in both]
    outcomes: set[str] = {replay(left).outcome for left in Path(folder).iterdir()}
    texts = [str(one.message) for one in said]
    return max(errors), texts, outcomes


def _broken(run: Any, fault: str) -> Any:
    def broken(*given: Tensor) -> tuple[Tensor, ...]:
        if fault == "raises":
            raise RuntimeError("out of shared memory")
        first, *rest = run(*given)
        first = first.clone()
        first[0, 0] += float("nan") if fault == "nan" else 0.01
        return first, *rest

    return broken


# --- random numbers -------------------------------------------------------------------


@triton.jit  # type: ignore[untyped-decorator]
def numbers(out, seed, start, N: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Random numbers of the places from a start on."""
    places = tl.arange(0, N).to(tl.int64) + tl.load(start)
    tl.store(out + tl.arange(0, N), tl.rand(tl.load(seed), places))


def same_numbers(seed: int, start: int) -> bool:
    """Whether torch and Triton draw the same."""
    by_triton = torch.empty(256)
    numbers[(1,)](by_triton, torch.tensor(seed), torch.tensor(start), N=256)
    places = torch.arange(start, start + 256)
    return torch.equal(by_triton, philox.uniform(torch.tensor(seed), places))


def same_masks(name: str) -> Sequence[float]:
    """Of masks that a kernel and torch draw from one seed: how many elements are kept,
    and how far apart the values of the step are."""
    step = _step(name)
    given = _given(step, 9)
    y, *rest = step.run(*given)
    masks = philox.kept(step.program.masks, rest[-1], 9)
    plain = together(step.program, frozenset())
    assert [drawn(mask) for mask in step.program.masks] == list(plain.source.drawn)
    due = plain.again(*given, *masks)[0]
    return float(masks[0].double().mean()), far(y, due.double())
