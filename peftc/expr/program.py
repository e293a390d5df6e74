"""A program: the ordered evaluation of one rewritten value, as straight-line steps.

Made by `expr.order` from a composed equation; printed in the plan; run inside the
rewritten graph by `rewrite.emit`.  Values are named: inputs by what they are, steps by
`%0`, `%1`, ...  A value is a *token* value (its leading axes are the activation's, as
many as the graph has; written `*`) or a *parameter-space* value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Op: TypeAlias = Literal[
    "linear", "ein", "add", "map", "view", "call", "base", "product"
]
"""
linear   (v, M): v[*, k] M[n, k] -> [*, n]
ein      (a, b, ...) with `spec`: an einsum, `*i,oi->*o`; `*` stands for the token axes,
         or, in a program with `separate_tokens`, they are spelled `b` and `t`
add      sum of coefs[i] * args[i]; all of the same axes up to missing token axes, or
         scalars
map      elementwise `fn` of the arguments
view     splits or merges the trailing axes to `shape`; token axes stay
call     `fn` (solve, drop, detach, ...) with constant `attrs`: those of
         functions.CALLS, and constants of the type of their argument: eye(like),
         full(like; value), and count(like; "t"), the number of samples (b), of tokens
         in each (t), or of both (bt), as a scalar
base     (v): the site's own linear applied to v, bias included, by the graph's own op
product  (v): the same without bias
"""


@dataclass(frozen=True)
class Step:
    """`out = op(args)`; only the fields its op names are set.

    `shape` is the result's trailing (non-token) shape, for every op.
    """

    out: str
    op: Op
    args: tuple[str, ...]
    shape: tuple[int, ...]
    tokens: bool
    spec: str = ""
    fn: str = ""
    coefs: tuple[float, ...] = ()
    attrs: tuple[float | int | str, ...] = ()


@dataclass(frozen=True)
class Input:
    """A value the program reads.

    Token inputs: `x` and `y` (a linear's input and output, bias included), `h` (a
    hidden edge), `u` (the sublayer's input), `n` (h as the following norm would give
    it), `real` (1 for tokens, 0 for padding; no features).  Parameter-space inputs:
    `W`, `bias`, `g`, `c` (the base's), and added tensors by their names in the plan
    (`lora.A`).
    """

    name: str
    shape: tuple[int, ...]
    tokens: bool


@dataclass(frozen=True)
class Program:
    """Steps that compute `result` from `inputs`.

    `target` is the value that is replaced: `y`, `h`, `g` or `c`; or rows that are added
    to an attention: `k` and `v`, of further methods `k#2` and `v#2`, ...  These are
    parameter-space values [rows, key], or activations [b, rows, key] or [b, t, rows,
    key], whose program then has `separate_tokens`.

    `flops` and `bytes` are per token for token steps (first) and per call for parameter
    space (second).
    """

    target: str
    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    result: str
    separate_tokens: bool = False
    flops: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)


def live(program: Program, training: bool) -> frozenset[str]:
    """The names that the result depends on, in training or outside it."""
    steps = {step.out: step for step in program.steps}
    found: set[str] = set()
    waiting = [program.result]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _needed(steps[name], training) if name in steps else ()
    return frozenset(found)


def _needed(step: Step, training: bool) -> tuple[str, ...]:
    if step.fn == "training":
        return step.args[:1] if training else step.args[1:]
    return step.args
