"""The operators of a captured graph, by what they do to a value.

In: fx nodes as Dynamo or AOT write them.  Out: one name per operator whatever its
spelling (`torch.add`, `operator.iadd`, `x.add_`, `aten.add.Tensor` are all `add`), and
predicates over nodes.  Nothing here knows a model; nothing adds a guard to the graph.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _words(
    """
    view reshape transpose permute contiguous unsqueeze squeeze flatten
    unflatten clone t view_as reshape_as movedim swapaxes _unsafe_view detach
    getattr roll
    """
)
CASTS = _words(
    """
    to float half bfloat16 double type type_as _to_copy
    """
)
DROPOUTS = frozenset(("dropout", "native_dropout", "feature_dropout"))
RANDOM = _words("rand randn rand_like randn_like bernoulli")
TRANSPARENT = VIEWS | CASTS | DROPOUTS
"""The value goes through, at most laid out, rounded or masked anew."""

PIECES = _words(
    """
    getitem chunk split split_with_sizes tensor_split unbind narrow select slice
    split_copy
    """
)
JOINS = frozenset(("cat", "stack", "expand", "repeat"))
SCALES = frozenset(("mul", "div", "neg"))
SUMS = frozenset(("add", "sub"))
ACTIVATIONS = _words(
    """
    silu gelu relu relu6 leaky_relu elu selu celu softplus mish hardswish
    hardsigmoid hardtanh logsigmoid prelu threshold sigmoid tanh exp erf pow
    square sqrt rsqrt log log1p abs clamp clamp_min clamp_max minimum maximum
    where softsign reciprocal
    """
)
NORMS = frozenset(
    ("layer_norm", "rms_norm", "native_layer_norm", "_fused_rms_norm", "normalize")
)
POINTWISE = TRANSPARENT | PIECES | SCALES | SUMS | ACTIVATIONS | NORMS | {"batch_norm"}
"""No token or channel is mixed with another, but for what norms are taken over."""

FUNCTION = "autograd_function_apply"
"""A function with a gradient of its own: its steps are in a graph inside."""

MATMULS = _words(
    """
    matmul mm bmm baddbmm addmm linear einsum
    """
)
GROUPED = frozenset(("_grouped_mm", "grouped_mm", "grouped_mm_fallback"))
CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d", "convolution"))
PRODUCTS = MATMULS | GROUPED | CONVOLUTIONS
CHOICES = frozenset(("topk", "argmax"))
ATTENTIONS = _words(
    """
    scaled_dot_product_attention flex_attention flex_attention_hop
    _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention
    _scaled_dot_product_cudnn_attention
    _scaled_dot_product_flash_attention_for_cpu flash_attn_func
    """
)

_SPELLINGS = {
    "iadd": "add",
    "isub": "sub",
    "imul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "divide": "div",
    "negative": "neg",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "silu_": "silu",
    "__getitem__": "getitem",
}
_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)
_HOMES = ("torch", "_operator", "operator", "builtins", "transformers")


STORED = "peftc.stored"
"""Under this name a captured placeholder notes whether it is a buffer of the model."""


def name(node: fx.Node) -> str:
    """The operator of a node, spelt one way; "" for inputs, constants and outputs."""
    if node.op == "call_method":
        spelt = str(node.target)
    elif node.op == "call_function":
        spelt = _function(node.target)
    else:
        return ""
    if spelt.endswith("_") and not spelt.startswith("__"):
        spelt = spelt.rstrip("_")
    return _SPELLINGS.get(spelt, spelt)


def _function(target: Any) -> str:
    if isinstance(target, torch._ops.HigherOrderOperator):
        return str(target.name())
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.partition("::")[2]
    home = getattr(target, "__module__", None) or ""
    spelt = str(getattr(target, "__name__", ""))
    return spelt if home.partition(".")[0] in _HOMES else f"{home}.{spelt}"


def is_in_place(node: fx.Node) -> bool:
    """Whether the node writes into its first operand."""
    if node.op == "call_method":
        spelt = str(node.target)
        return spelt.endswith("_") and not spelt.endswith("__")
    return node.op == "call_function" and node.target is operator.setitem


def argument(node: fx.Node, index: int, *keywords: str) -> Any:
    """An argument by position or by any of its names; None if it is not given."""
    if index < len(node.args):
        return node.args[index]
    return next((node.kwargs[k] for k in keywords if k in node.kwargs), None)


def operands(node: fx.Node) -> tuple[Any, Any]:
    """Both sides of a binary operator."""
    return argument(node, 0, "input"), argument(node, 1, "other")


def tensor(node: fx.Node) -> torch.Tensor | None:
    """The fake tensor that stands for the value, if it is one tensor."""
    value = node.meta.get("example_value", node.meta.get("val"))
    return value if isinstance(value, torch.Tensor) else None


def shape(node: fx.Node) -> tuple[int, ...]:
    """The sizes of the value; of a dynamic size its hint.  () if it is no tensor."""
    value = tensor(node)
    return () if value is None else tuple(size(s) for s in value.shape)


def size(length: int | torch.SymInt) -> int:
    """A size as a number, without adding a guard."""
    if isinstance(length, torch.SymInt):
        hint = length.node.hint
        return -1 if hint is None else int(hint)
    return int(length)


def dtype(node: fx.Node) -> str:
    """The dtype of the value (`float32`), or ""."""
    value = tensor(node)
    return "" if value is None else str(value.dtype).removeprefix("torch.")


def is_sum(node: object) -> bool:
    """Whether the node adds two tensors of one shape, without broadcasting."""
    if not isinstance(node, fx.Node) or name(node) != "add":
        return False
    left, right = operands(node)
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return False
    return len(shape(node)) > 1 and shape(left) == shape(right) == shape(node)


def is_depthwise(node: fx.Node) -> bool:
    """Whether the node is a convolution that mixes tokens but no channels."""
    if name(node) not in CONVOLUTIONS:
        return False
    (channels,) = shape(inputs(node)[0])[1:2] or (0,)
    return bool(argument(node, 6, "groups") == channels == shape(node)[1])


def is_pointwise(node: fx.Node) -> bool:
    """Whether no token is mixed with another, and channels in norms at most."""
    operator = name(node)
    if operator in ("mean", "var"):
        return argument(node, 1, "dim") in (-1, [-1], (-1,))
    if operator == FUNCTION:
        steps = _steps(node)
        return bool(steps) and all(map(is_pointwise, steps))
    return operator in POINTWISE


def _steps(node: fx.Node) -> tuple[fx.Node, ...]:
    """The steps of the forward of a custom autograd function, if known."""
    module = node.graph.owning_module
    inside = getattr(module, str(node.all_input_nodes[0].target), None)
    if not isinstance(inside, fx.GraphModule):
        return ()
    return tuple(n for n in inside.graph.nodes if name(n) and inputs(n))


def mixes_tokens(node: fx.Node) -> bool:
    """Whether one operator makes each token from several: a convolution over more than
    one place, a Fourier transform."""
    operator = name(node)
    if operator in CONVOLUTIONS:
        weight = argument(node, 1, "weight")
        sizes = shape(weight) if isinstance(weight, fx.Node) else ()
        return any(length != 1 for length in sizes[2:]) or not sizes
    return operator.startswith("fft_")


def is_noise(node: fx.Node) -> bool:
    """Whether a value is made of random numbers alone."""
    todo, is_random = [node], False
    while todo:
        node = todo.pop()
        if name(node) in RANDOM:
            is_random = True
        elif not name(node) or not inputs(node):
            return False
        else:
            todo.extend(inputs(node))
    return is_random


def is_number(node: fx.Node) -> bool:
    """Whether the value is a size or another number that the graph does not fix."""
    return isinstance(node.meta.get("example_value", node.meta.get("val")), _NUMBERS)


def inputs(node: fx.Node) -> tuple[fx.Node, ...]:
    """The tensors, or tuples of them, that go into a node; numbers are left out."""
    return tuple(n for n in node.all_input_nodes if not is_number(n))


def is_unary(node: fx.Node) -> bool:
    """Whether exactly one tensor goes in."""
    return len(inputs(node)) == 1
