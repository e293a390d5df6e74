"""The elementwise functions of equations, with their meaning on one number.

`peftc.expr.evaluate` and the rewriter give each its torch equivalent; a test compares
them with these.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def sigmoid(a: float) -> float:
    """The logistic function, without overflow."""
    if a >= 0:
        return 1 / (1 + math.exp(-a))
    return math.exp(a) / (1 + math.exp(a))


def gelu(a: float) -> float:
    """a times the normal distribution function of a (the exact form)."""
    return a * 0.5 * (1 + math.erf(a / math.sqrt(2)))


def gelu_tanh(a: float) -> float:
    """The usual approximation of gelu by tanh."""
    inner = math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)
    return 0.5 * a * (1 + math.tanh(inner))


def softplus(a: float) -> float:
    """log(1 + exp(a)), without overflow."""
    return max(a, 0.0) + math.log1p(math.exp(-abs(a)))


ELEMENTWISE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "clamp01": lambda a: min(max(a, 0.0), 1.0),
    "cos": math.cos,
    "elu": lambda a: a if a > 0 else math.expm1(a),
    "erf": math.erf,
    "exp": math.exp,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "leaky_relu": lambda a: a if a > 0 else 0.01 * a,
    "log": math.log,
    "mish": lambda a: a * math.tanh(softplus(a)),
    "quick_gelu": lambda a: a * sigmoid(1.702 * a),
    "recip": lambda a: 1 / a,
    "relu": lambda a: max(a, 0.0),
    "rsqrt": lambda a: 1 / math.sqrt(a),
    "sigmoid": sigmoid,
    "sign": lambda a: math.copysign(1.0, a) if a else 0.0,
    "silu": lambda a: a * sigmoid(a),
    "sin": math.sin,
    "softplus": softplus,
    "sqrt": math.sqrt,
    "step": lambda a: 1.0 if a > 0 else 0.0,
    "tanh": math.tanh,
}
"""Functions of one number.  `identity` is none of them: it is its argument."""

CALLS = (
    "bilstm",
    "detach",
    "drop",
    "fit",
    "fwht",
    "gather",
    "ifft2",
    "permute",
    "scatter",
    "solve",
    "topmask",
    "training",
)
"""Functions of whole tensors, which nothing looks into.

bilstm(e, a, r, b, c)  states of a recurrent layer, forwards and backwards
detach(e)            e, without a gradient
drop(e; p)           e with each element zero with probability p in training
fit(e)               the first elements along the last axis, or zeros behind them
fwht(e)              normalised Walsh-Hadamard transform along the last axis
gather(e, index)     elements of flattened e, in the shape of index
ifft2(e)             real part of the inverse two-dimensional Fourier transform
permute(v, places)   elements along the last axis, taken from their places
scatter(v, index)    zeros of the node's axes, v added at the places of flattened index
solve(a, b)          a^-1 b over the last two axes, batched over the others
topmask(e; k)        ones at the k largest elements of flattened e, zeros elsewhere
training(a, b)       a in training, b otherwise
"""

DERIVED_CALLS = ("back", "base", "product", "unpermute")
"""Functions that no equation names: they come with derivatives and base products.

back(g)              W^T g, the base linear's own gradient
base(v), product(v)  the base linear of v, with its bias and without
unpermute(g, places) zeros, g added along the last axis at the places
"""

LINEAR_CALLS = frozenset(
    (
        *("back", "detach", "drop", "fit", "fwht", "gather", "ifft2", "permute"),
        *("product", "scatter", "unpermute"),
    )
)
"""Those that give zeros for zeros in their first argument."""

OUTSIDE_TRAINING = {"drop": 0, "detach": 0, "training": 1}
"""Of these, those that are one of their operands where nothing is trained: which."""
