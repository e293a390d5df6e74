"""Linears of one activation and their programs as one node: planned, run as one step.

In: the uses of linear sites.  Out: those that were given a node; the others have to be
computed in the ordinary way: their weight is stored turned or in codes, tokens are told
apart, or a function has no derivative.

Sites that read one activation in one module (q, k and v; gate and up) are one node: the
gradient of what they share is accumulated in it.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F

from peftc.codegen.one_step import Apart, forms
from peftc.codegen.torch_writer import BASE
from peftc.expr.cost import Machine
from peftc.expr.grouped import group, site_names, site_of
from peftc.rewrite.edit import after, now
from peftc.rewrite.edit import replace as put
from peftc.rewrite.function import together
from peftc.rewrite.insert import BOTH, Inserter, example
from peftc.rewrite.linear import weight
from peftc.sites.anchors import Edit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from peftc.expr.joint_program import JointProgram
    from peftc.plan.types import Plan
    from peftc.rewrite.function import Together
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import LinearAnchor

    Linear: TypeAlias = Use[LinearAnchor]
    Types: TypeAlias = tuple[torch.dtype, torch.dtype]

Programs: TypeAlias = "Mapping[str, JointProgram]"
"""By site; a site that has none is computed in the ordinary way."""

DEVICE = "cpu"

CPU = Machine(
    matrix=9e10,
    vector=1e10,
    bandwidth=1.5e10,
    launch=3e-6,
    element=4,
    batch=4,
    tokens=128,
)
"""One core, as measured with matrices of a few hundred columns."""


def joint_programs(plan: Plan) -> Programs:
    """The joint programs of a plan's sites by their keys: one for each kind."""
    return {
        rewrite.site.key: program
        for same, program in forms(plan, CPU)
        if not isinstance(program, Apart)
        for rewrite in same
    }


def emit_together(uses: Sequence[Linear], programs: Programs) -> list[Linear]:
    """Insert nodes for those of the uses that can be one step; returns these."""
    done: list[Linear] = []
    for (_, _, types), same in _groups(uses, programs).items():
        _emit(same, [programs[use.key] for use in same], types)
        done += same
    return done


def _groups(
    uses: Sequence[Linear], programs: Programs
) -> dict[tuple[fx.Node, str, Types], list[Linear]]:
    """Uses that are one node, in the order of the graph."""
    found: dict[tuple[fx.Node, str, Types], list[Linear]] = {}
    for use in sorted(uses, key=lambda use: use.anchor.call):
        program = programs.get(use.key)
        types = _types(use, program) if program and _is_plain(use) else None
        if types is not None:
            key = now(use.capture, use.anchor.x), _module(use), types
            found.setdefault(key, []).append(use)
    return found


def _module(use: Linear) -> str:
    """What owns the linear's module: decoders' layers all read the encoder, and each
    has its time."""
    return use.rewrite.site.owner.rpartition(".")[0]


def _is_plain(use: Linear) -> bool:
    """Whether the output is that of one call on the weight as it is stored."""
    anchor = use.anchor
    return (
        use.capture.training.get(use.key, False)
        and anchor.call.target in (F.linear, torch.addmm)
        and anchor.weight in anchor.call.args
        and anchor.bias in (None, *anchor.call.args)
        and anchor.rows is None
        and anchor.written is None
        and now(use.capture, anchor.y) is anchor.y
        and example(anchor.x).shape[:-1] == example(anchor.y).shape[:-1]
    )


def _types(use: Linear, program: JointProgram) -> Types | None:
    """The types of the base and of the added tensors; None if there are more, or not on
    a CPU, or where something else decides."""
    base = [use.anchor.x, use.anchor.weight, use.anchor.bias]
    own = [one.name for one in program.inputs if one.name not in BASE]
    read = _kinds([node for node in base if node is not None])
    added = _kinds([use.tensor(name) for name in own]) or read
    if len(read) != 1 or len(added) != 1 or _inserter([use]).is_autocast(DEVICE):
        return None
    ((dtype, device),), ((other, where),) = read, added
    floating = dtype.is_floating_point and other.is_floating_point
    return (dtype, other) if floating and device == where == DEVICE else None


def _kinds(nodes: Sequence[fx.Node]) -> set[tuple[torch.dtype, str]]:
    values = map(example, nodes)
    return {(value.dtype, value.device.type) for value in values}


def _inserter(uses: Sequence[Linear]) -> Inserter:
    """Where a node for these uses stands: all that they read is there before."""
    first = uses[0]
    at = first.inserter(after(first.anchor.y), first.anchor.call)
    return replace(at, site=BOTH.join(use.key for use in uses))


def _emit(
    uses: Sequence[Linear], programs: Sequence[JointProgram], types: Types
) -> None:
    base, added = types
    biased = tuple(use.anchor.bias is not None for use in uses)
    function = _function(tuple(programs), biased, str(added) if base != added else "")
    at = _inserter(uses)
    made = at.put(function, *(_operand(name, uses, at) for name in function.inputs))
    for number, use in enumerate(uses):
        new = at.put(operator.getitem, made, number) if len(uses) > 1 else made
        put(use.capture, Edit((use.key,), ("y",), use.anchor.y, new))


@lru_cache(maxsize=256)
def _function(
    programs: tuple[JointProgram, ...], biased: tuple[bool, ...], wide: str
) -> Together:
    names = site_names("bias", len(programs))
    biases = frozenset(name for name, has in zip(names, biased, strict=True) if has)
    return together(group(programs), biases, wide)


def _operand(name: str, uses: Sequence[Linear], at: Inserter) -> fx.Node:
    """What the function's input of this name is in the graph."""
    own, number = site_of(name)
    use = uses[number - 1]
    match own:
        case "x":
            return now(use.capture, use.anchor.x)
        case "W":
            return weight(use, at)
        case "bias":
            return use.given("bias", use.anchor.bias)
    return use.tensor(own)
