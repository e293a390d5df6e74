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

from peftc.rewrite.insert import example, length
from peftc.rewrite.values import EXPERTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from peftc.expr.program import Step
    from peftc.rewrite.insert import Inserter, Target
    from peftc.rewrite.values import Value

    Map: TypeAlias = Callable[[Inserter, fx.Node], fx.Node]
    Call: TypeAlias = Callable[[Inserter, Step, list[Value]], fx.Node]


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


# --- functions of whole tensors -----------------------------------------------------


def _solve(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    return at.put(torch.linalg.solve, *(arg.node for arg in args))


def _detach(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    return at.put("detach", args[0].node)


def _ifft2(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    return at.put(torch.real, at.put(torch.fft.ifft2, args[0].node))


def _fwht(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    dtype, size = example(args[0].node).dtype, step.shape[-1]
    value = at.cast(args[0].node, torch.promote_types(dtype, torch.float32))
    for level in range(size.bit_length() - 1):
        half = 1 << level
        pairs = at.put("unflatten", value, -1, (size // (2 * half), 2, half))
        first, second = (at.put(torch.select, pairs, -2, i) for i in (0, 1))
        both = (at.put(torch.add, first, second), at.put(torch.sub, first, second))
        value = at.put(torch.flatten, at.put(torch.stack, both, -2), -3)
    return at.cast(at.put(torch.mul, value, 1 / math.sqrt(size)), dtype)


def _fit(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    more = step.shape[-1] - args[0].shape[-1]
    return at.put(F.pad, args[0].node, (0, more))


def _permute(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    return at.put(torch.gather, args[0].node, -1, _index(at, args[1]))


def _gather(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    if args[0].lead != EXPERTS:
        return at.put(torch.take, args[0].node, _index(at, args[1]))
    value, index = _flat(at, args[0]), at.put(torch.flatten, _index(at, args[1]), 1)
    return at.put("unflatten", at.put(torch.gather, value, 1, index), 1, step.shape)


def _scatter(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    value, size = _flat(at, args[0]), math.prod(step.shape)
    if args[0].lead == EXPERTS:
        index = at.put(torch.flatten, _index(at, args[1]), 1)
        empty = at.put("new_zeros", value, (length(value, 0, at), size))
        filled = at.put(torch.scatter_add, empty, 1, index, value)
        return at.put("unflatten", filled, 1, step.shape)
    index = at.put(torch.flatten, _index(at, args[1]))
    empty = at.put("new_zeros", value, (size,))
    filled = at.put(torch.index_add, empty, 0, index, value)
    return at.put("unflatten", filled, 0, step.shape)


def _flat(at: Inserter, value: Value) -> fx.Node:
    """The elements of a value, or of each expert's."""
    if value.lead == EXPERTS:
        return at.put(torch.flatten, value.node, 1)
    return at.put(torch.flatten, value.node)


def _bilstm(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    """torch's own, which has a kernel: one sample, one layer, both ways."""
    rows, *weights = (arg.node for arg in args)
    width = step.shape[-1] // 2
    start = at.put("new_zeros", rows, (2, 1, width))
    ways = [at.put(operator.getitem, one, way) for way in (0, 1) for one in weights]
    sequence = at.put(torch.unsqueeze, rows, 0)
    facts = (True, 1, 0.0, False, True, True)
    made = at.put(torch.lstm, sequence, [start, start], ways, *facts)
    return at.put(torch.squeeze, at.put(operator.getitem, made, 0), 0)


def _index(at: Inserter, value: Value) -> fx.Node:
    whole = example(value.node).dtype == torch.int64
    return value.node if whole else at.put("long", value.node)


def _topmask(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    flat, axis = _flat(at, args[0]), int(args[0].lead == EXPERTS)
    largest = at.put(torch.topk, flat, int(step.attrs[0]))
    index = at.put(operator.getitem, largest, 1)
    empty = at.put(torch.zeros_like, flat)
    mask = at.put(torch.scatter, empty, axis, index, 1.0)
    return at.put("unflatten", mask, axis, step.shape)


# --- constants, in the type of a value and at its place -------------------------------


def _eye(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    return at.put(torch.diag, at.put("new_ones", args[0].node, step.shape[:1]))


def _full(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    like, value = args[0], float(step.attrs[0])
    if not step.tokens:
        return at.put("new_full", like.node, step.shape, value)
    node = like.node
    for _ in like.shape:
        node = at.put(torch.select, node, -1, 0)
    node = at.put(torch.full_like, node, value)
    kept = (-1,) * example(node).dim()
    for _ in step.shape:
        node = at.put(torch.unsqueeze, node, -1)
    return at.put("expand", node, (*kept, *step.shape))


def _count(at: Inserter, step: Step, args: list[Value]) -> fx.Node:
    """The number of samples (b), of tokens (t), or of both: a sum of ones."""
    like = args[0]
    assert like.lead == "bt", "tokens are counted where they are separate"
    sizes = [at.put("size", like.node, "bt".index(a)) for a in str(step.attrs[0])]
    return at.put(torch.sum, at.put("new_ones", like.node, tuple(sizes)))


CALLS: dict[str, Call] = {
    "bilstm": _bilstm,
    "count": _count,
    "detach": _detach,
    "eye": _eye,
    "fit": _fit,
    "full": _full,
    "fwht": _fwht,
    "gather": _gather,
    "ifft2": _ifft2,
    "permute": _permute,
    "scatter": _scatter,
    "solve": _solve,
    "topmask": _topmask,
}
"""All but `drop` and `training`, which depend on whether the graph is trained."""
CONSTANTS = frozenset(("eye", "full"))
"""Of their argument they take the type and the place alone."""
