"""What each function of a program is in torch.

In: the nodes of the arguments and a place to insert.  Out: the node of the result.
`MAPS` are elementwise functions; `CALLS` the opaque ones, which get the step too.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F

from peftc.rewrite.insert import example

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from peftc.expr.program import Step
    from peftc.rewrite.insert import Inserter, Target

    Map: TypeAlias = Callable[[Inserter, fx.Node], fx.Node]
    Call: TypeAlias = Callable[[Inserter, Step, list[fx.Node]], fx.Node]


def _map(target: Target, *args: float, **kwargs: float | str) -> Map:
    return lambda at, value: at.put(target, value, *args, **kwargs)


def _step(at: Inserter, value: fx.Node) -> fx.Node:
    return at.put("to", at.put(torch.gt, value, 0), example(value).dtype)


def _quick_gelu(at: Inserter, value: fx.Node) -> fx.Node:
    gate = at.put(torch.sigmoid, at.put(torch.mul, value, 1.702))
    return at.put(torch.mul, value, gate)


MAPS: dict[str, Map] = {
    "abs": _map(torch.abs),
    "clamp01": _map(torch.clamp, 0, 1),
    "cos": _map(torch.cos),
    "elu": _map(F.elu),
    "erf": _map(torch.erf),
    "exp": _map(torch.exp),
    "gelu": _map(F.gelu),
    "gelu_tanh": _map(F.gelu, approximate="tanh"),
    "leaky_relu": _map(F.leaky_relu, 0.01),
    "log": _map(torch.log),
    "mish": _map(F.mish),
    "quick_gelu": _quick_gelu,
    "recip": _map(torch.reciprocal),
    "relu": _map(torch.relu),
    "rsqrt": _map(torch.rsqrt),
    "sigmoid": _map(torch.sigmoid),
    "sign": _map(torch.sign),
    "silu": _map(F.silu),
    "sin": _map(torch.sin),
    "softplus": _map(F.softplus),
    "sqrt": _map(torch.sqrt),
    "step": _step,
    "tanh": _map(torch.tanh),
}


def _solve(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    return at.put(torch.linalg.solve, *args)


def _detach(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    return at.put("detach", *args)


def _ifft2(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    return at.put(torch.real, at.put(torch.fft.ifft2, *args))


def _fwht(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    (value,) = args
    size = step.shape[-1]
    for level in range(size.bit_length() - 1):
        half = 1 << level
        pairs = at.put("unflatten", value, -1, (size // (2 * half), 2, half))
        first, second = (at.put(torch.select, pairs, -2, i) for i in (0, 1))
        both = (at.put(torch.add, first, second), at.put(torch.sub, first, second))
        value = at.put("flatten", at.put(torch.stack, both, -2), -3)
    return at.put(torch.mul, value, 1 / math.sqrt(size))


def _gather(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    value, index = args
    return at.put(torch.take, value, index)


def _scatter(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    value, index = (at.put("flatten", arg) for arg in args)
    empty = at.put("new_zeros", value, (math.prod(step.shape),))
    filled = at.put(torch.index_add, empty, 0, index, value)
    return at.put("unflatten", filled, 0, step.shape)


def _topmask(at: Inserter, step: Step, args: list[fx.Node]) -> fx.Node:
    flat = at.put("flatten", args[0])
    largest = at.put(torch.topk, flat, int(step.attrs[0]))
    empty = at.put(torch.zeros_like, flat)
    index = at.put(operator.getitem, largest, 1)
    return at.put(
        "unflatten", at.put(torch.scatter, empty, 0, index, 1.0), 0, step.shape
    )


CALLS: dict[str, Call] = {
    "solve": _solve,
    "detach": _detach,
    "ifft2": _ifft2,
    "fwht": _fwht,
    "gather": _gather,
    "scatter": _scatter,
    "topmask": _topmask,
}
