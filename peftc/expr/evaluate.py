"""The meaning of expressions and of programs, in torch.

In: tensors by name.  Out: tensors.  `evaluate` is the semantics that everything else is
tested against; `run` does what a program says, step by step.  Neither is fast.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from peftc.expr import ir
from peftc.expr.ir import Add, Call, Ein, Eye, Leaf, Literal, Map, Node, View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Program, Step

MAPS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "clamp01": lambda a: a.clamp(0, 1),
    "cos": torch.cos,
    "elu": F.elu,
    "erf": torch.erf,
    "exp": torch.exp,
    "gelu": F.gelu,
    "gelu_tanh": lambda a: F.gelu(a, approximate="tanh"),
    "leaky_relu": F.leaky_relu,
    "log": torch.log,
    "mish": F.mish,
    "quick_gelu": lambda a: a * torch.sigmoid(1.702 * a),
    "recip": torch.reciprocal,
    "relu": torch.relu,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "sqrt": torch.sqrt,
    "step": lambda a: (a > 0).to(a.dtype),
    "tanh": torch.tanh,
}
"""functions.ELEMENTWISE in torch."""


def wide(value: Tensor) -> Tensor:
    """In float32 or wider, where small types have no kernels or too few digits."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def fwht(value: Tensor) -> Tensor:
    """Normalised Walsh-Hadamard transform along the last axis, a power of two long."""
    size = value.shape[-1]
    result = value.reshape(-1, size)
    half = 1
    while half < size:
        pairs = result.reshape(-1, size // (2 * half), 2, half)
        first, second = pairs.unbind(2)
        result = torch.stack((first + second, first - second), 2).reshape(-1, size)
        half *= 2
    return (result / math.sqrt(size)).view_as(value)


def scatter(value: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Zeros of `shape` with `value` added at the flat places `index`."""
    empty = value.new_zeros(math.prod(shape))
    return empty.index_add(0, index.flatten().long(), value.flatten()).view(*shape)


def bilstm(
    rows: Tensor, into: Tensor, again: Tensor, first: Tensor, second: Tensor
) -> Tensor:
    """States [p, 2 * h] of recurrent cells along rows [p, n], both ways.

    into: [2, 4 * h, n], again: [2, 4 * h, h], biases: [2, 4 * h]; the gates are those
    of input, forgetting, cell and output, in this order.
    """
    ways = []
    for way in (0, 1):
        order = range(rows.shape[0]) if way == 0 else reversed(range(rows.shape[0]))
        state = cell = rows.new_zeros(again.shape[-1])
        states: dict[int, Tensor] = {}
        for number in order:
            read = into[way] @ rows[number] + again[way] @ state
            i, f, g, o = (read + first[way] + second[way]).chunk(4)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            state = states[number] = torch.sigmoid(o) * torch.tanh(cell)
        ways.append(torch.stack([states[number] for number in sorted(states)]))
    return torch.cat(ways, -1)


def topmask(value: Tensor, count: int) -> Tensor:
    """Ones at the `count` largest elements, zeros elsewhere."""
    flat = value.flatten()
    places = flat.topk(count).indices
    return torch.zeros_like(flat).scatter(0, places, 1.0).view_as(value)


def fit(value: Tensor, size: int) -> Tensor:
    """The first elements along the last axis, or all and zeros behind them."""
    return F.pad(value, (0, size - value.shape[-1]))


def permute(value: Tensor, places: Tensor) -> Tensor:
    """Elements along the last axis, taken from their places."""
    return value.gather(-1, places.long())


def unpermute(value: Tensor, places: Tensor) -> Tensor:
    """Zeros with elements added along the last axis at their places."""
    return torch.zeros_like(value).scatter_add(-1, places.long(), value)


def apply_call(
    fn: str,
    args: Sequence[Tensor],
    attrs: Sequence[float | int | str],
    shape: Sequence[int],
    training: bool = False,
) -> Tensor:
    """A function of whole tensors (functions.CALLS); `shape` is the result's."""
    first, *rest = args
    if fn == "drop":
        return F.dropout(first, float(attrs[0]), training)
    if fn == "training":
        return first if training else rest[0]
    if fn == "detach":
        return first.detach()
    if fn == "bilstm":
        return bilstm(first, *rest)
    if fn == "solve":
        solution: Tensor = torch.linalg.solve(wide(first), wide(rest[0]))
        return solution.to(first.dtype)
    if fn == "ifft2":
        return torch.real(torch.fft.ifft2(wide(first))).to(first.dtype)
    if fn == "fwht":
        return fwht(wide(first)).to(first.dtype)
    if fn == "fit":
        return fit(first, shape[-1])
    if fn == "permute":
        return permute(first, rest[0])
    if fn == "unpermute":
        return unpermute(first, rest[0])
    if fn == "scatter":
        return scatter(first, rest[0], shape)
    if fn == "gather":
        return first.flatten()[rest[0].long()]
    if fn == "topmask":
        return topmask(first, int(attrs[0]))
    raise ValueError(f"no function {fn}")


# --- expressions -------------------------------------------------------------------


def evaluate(
    roots: Sequence[Node],
    tensors: Mapping[str, Tensor],
    env: Mapping[str, int],
    dtype: torch.dtype = torch.float64,
    *,
    training: bool = False,
) -> list[Tensor]:
    """The values of expressions: leaves by name, sizes by `env`, constants in `dtype`.

    Raises:
        ValueError: if a tensor has another shape than its leaf.
    """
    device = next(iter(tensors.values())).device if tensors else None
    values: dict[Node, Tensor] = {}
    for node in ir.walk(*roots):
        shape = tuple(axis.value(env) for axis in node.axes)
        if isinstance(node, Leaf):
            values[node] = _given(node, tensors, shape)
        elif isinstance(node, Literal):
            values[node] = torch.full(shape, node.value, dtype=dtype, device=device)
        elif isinstance(node, Eye):
            values[node] = torch.eye(shape[0], dtype=dtype, device=device)
        else:
            args = [values[operand] for operand in node.operands]
            values[node] = _computed(node, args, shape, training)
    return [values[root] for root in roots]


def _given(leaf: Leaf, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    tensor = tensors[leaf.name]
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{leaf.name} is {tuple(tensor.shape)}, not {shape}")
    return tensor


def _computed(
    node: Node, args: list[Tensor], shape: tuple[int, ...], training: bool
) -> Tensor:
    if isinstance(node, Ein):
        pairs = zip(args, node.labels, strict=True)
        operands = [part for arg, row in pairs for part in (arg, list(row))]
        return torch.einsum(*operands, list(node.out))
    if isinstance(node, Add):
        return _combination(args, node.coefs)
    if isinstance(node, Map):
        return MAPS[node.fn](args[0])
    if isinstance(node, View):
        return args[0].reshape(shape)
    assert isinstance(node, Call)
    return apply_call(node.fn, args, node.attrs, shape, training)


def _combination(args: Sequence[Tensor], coefs: Sequence[float]) -> Tensor:
    """The sum of coefs[i] * args[i]; a coefficient of one changes no bit."""
    scaled = [a if c == 1 else a * c for a, c in zip(args, coefs, strict=True)]
    total = scaled[0]
    for one in scaled[1:]:
        total = total + one
    return total


# --- programs ------------------------------------------------------------------------


def run(
    program: Program, inputs: Mapping[str, Tensor], training: bool = False
) -> Tensor:
    """The result of a program.

    `inputs` has its inputs by name; for `base` and `product` steps also W and, for a
    linear that has one, bias.  Activations are [b, t, features].
    """
    values = dict(inputs)
    leads = {one.name: "bt" * one.tokens for one in program.inputs}
    for step in program.steps:
        _enter(step, values, leads, training)
    return values[program.result]


def run_joint(
    program: JointProgram, inputs: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The results and the gradients of a joint program, by name.

    `inputs` are those of `run`, masks, and the adjoints of the results.  Between the
    directions everything is forgotten but parameters, masks and what is kept.
    """
    values = dict(inputs)
    leads = {one.name: "bt" * one.tokens for one in program.inputs}
    leads |= {mask.name: mask.tokens for mask in program.masks}
    for step in program.forward.steps:
        _enter(step, values, leads)
    results = {name: values[value] for name, value in program.forward.results}
    lost = {one.name for one in program.inputs if one.tokens}
    lost |= {step.out for step in program.forward.steps} | {"y"}
    lost -= {one.name for one in program.kept} | {f"d{name}" for name in results}
    values = {name: value for name, value in values.items() if name not in lost}
    again = [step for step in program.forward.steps if step.out in program.again]
    for step in (*again, *program.backward.steps):
        _enter(step, values, leads)
    return results, {name: values[value] for name, value in program.backward.results}


def _enter(
    step: Step,
    values: dict[str, Tensor],
    leads: dict[str, str],
    training: bool = False,
) -> None:
    """Enter the value of a step and the token axes that it leads with."""
    args = [values[name] for name in step.args]
    before = [leads[name] for name in step.args]
    if step.op in ("base", "product"):
        bias = values.get("bias") if step.op == "base" else None
        values[step.out] = F.linear(args[0], values["W"], bias)
    else:
        values[step.out] = _run_step(step, args, before, training)
    leads[step.out] = _lead(step, before)


def _lead(step: Step, leads: Sequence[str]) -> str:
    """The token axes of a step's result."""
    out = step.spec.partition("->")[2].replace("*", "bt")
    found = out if step.op == "ein" else "".join(leads) * step.tokens
    return "".join(axis for axis in "bt" if axis in found)


def _run_step(
    step: Step, args: list[Tensor], leads: list[str], training: bool
) -> Tensor:
    if step.op == "linear":
        return F.linear(args[0], args[1])
    if step.op == "ein":
        return torch.einsum(step.spec.replace("*", "..."), *args)
    if step.op == "add":
        return _combination(_aligned(args, leads), step.coefs)
    if step.op == "map":
        return MAPS[step.fn](args[0])
    lead = args[0].shape[: len(leads[0])]
    if step.op == "view":
        return args[0].reshape(*lead, *step.shape)
    return _run_call(step, args, lead, training)


def _aligned(args: list[Tensor], leads: list[str]) -> list[Tensor]:
    """Arguments with samples but without tokens get an axis for the tokens."""
    if not any("t" in lead for lead in leads):
        return args
    pairs = zip(args, leads, strict=True)
    return [arg.unsqueeze(1) if lead == "b" else arg for arg, lead in pairs]


def _run_call(
    step: Step, args: list[Tensor], lead: Sequence[int], training: bool
) -> Tensor:
    like = args[0]
    shape = (*lead, *step.shape) if step.tokens else step.shape
    if step.fn == "full":
        return like.new_full(shape, float(step.attrs[0]))
    if step.fn == "eye":
        return torch.eye(step.shape[0], dtype=like.dtype, device=like.device)
    if step.fn == "count":
        sizes = dict(zip("bt", lead, strict=False))
        return like.new_full((), math.prod(sizes[axis] for axis in str(step.attrs[0])))
    return apply_call(step.fn, args, step.attrs, shape, training)
