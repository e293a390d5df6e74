"""Linears of one activation and their programs as one node: planned, run as one step.

In: the uses of linear sites.  Out: those that were given a node; the others have to be
computed in the ordinary way: their weight is stored turned or in codes, tokens are told
apart, or a function has no derivative.  A step runs lines of torch, or kernels; where
there are no kernels for it, torch.

Sites that read one activation in one module (q, k and v; gate and up) are one node: the
gradient of what they share is accumulated in it.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F

from peftc.codegen.one_step import Apart, forms
from peftc.codegen.torch_writer import BASE, NoSourceError
from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import KernelsOnCpu
from peftc.expr.cost import Machine
from peftc.expr.grouped import group, site_names, site_of
from peftc.expr.order import MACHINE
from peftc.rewrite.edit import after, now
from peftc.rewrite.edit import replace as put
from peftc.rewrite.insert import BOTH, Inserter, example
from peftc.rewrite.kernel_step import KernelStep
from peftc.rewrite.launch import is_interpreted
from peftc.rewrite.linear import weight
from peftc.rewrite.torch_step import together
from peftc.rewrite.uses import uses
from peftc.sites.anchors import Edit, LinearAnchor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from peftc.expr.joint_program import JointProgram
    from peftc.plan.types import Plan
    from peftc.rewrite.step import Together
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import Capture, Steps

    Linear: TypeAlias = Use[LinearAnchor]
    Types: TypeAlias = tuple[torch.dtype, torch.dtype]

Programs: TypeAlias = "Mapping[tuple[str, bool], JointProgram]"
"""By site, in training and outside; what has none is computed in the ordinary way."""

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
MACHINES = {"torch": CPU, "kernels": MACHINE}
MODES: Mapping[str, tuple[bool, ...]] = {"torch": (True,), "kernels": (True, False)}
"""Torch's steps give what separate operations give only up to rounding, which is
accepted where gradients are computed; kernels are asked for to be used."""


def joint_programs(plan: Plan, capture: Capture) -> Programs:
    """The joint programs of a plan's sites by their keys: one for each kind."""
    modes = {*capture.training.values()} & {*MODES.get(capture.steps, ())}
    return {
        (key, training): program
        for training in modes
        for key, program in _planned(_Same(plan), capture.steps, training).items()
    }


class _Same:
    """A plan, equal to itself alone: to compare two takes longer than to plan anew."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.plan is other.plan

    def __hash__(self) -> int:
        return id(self.plan)


@lru_cache(maxsize=8)
def _planned(same: _Same, steps: Steps, training: bool) -> Mapping[str, JointProgram]:
    return {
        rewrite.site.key: program
        for rewrites, program in forms(same.plan, MACHINES[steps], training)
        if not isinstance(program, Apart)
        for rewrite in rewrites
    }


def readers(capture: Capture, plan: Plan) -> list[tuple[str, ...]]:
    """The keys of linears, those that are one node if each can be, in their order."""
    found: dict[tuple[fx.Node, str], list[str]] = {}
    for use in sorted(uses(capture, plan, LinearAnchor), key=lambda u: u.anchor.call):
        found.setdefault((use.anchor.x, _module(use)), []).append(use.key)
    return [tuple(dict.fromkeys(keys)) for keys in found.values()]


def emit_together(given: Sequence[Linear], programs: Programs) -> list[Linear]:
    """Insert nodes for those of the uses that can be one step; returns these."""
    done: list[Linear] = []
    for (_, _, types), same in _groups(given, programs).items():
        _emit(
            same,
            [program for use in same if (program := program_of(use, programs))],
            types,
        )
        done += same
    return done


def _groups(
    given: Sequence[Linear], programs: Programs
) -> dict[tuple[fx.Node, str, Types], list[Linear]]:
    """Uses that are one node, in the order of the graph."""
    found: dict[tuple[fx.Node, str, Types], list[Linear]] = {}
    for use in sorted(given, key=lambda use: use.anchor.call):
        program = program_of(use, programs)
        types = _types(use, program) if program and _is_plain(use) else None
        if types is not None:
            key = now(use.capture, use.anchor.x), _module(use), types
            found.setdefault(key, []).append(use)
    return found


def program_of(use: Use[Any], programs: Programs) -> JointProgram | None:
    """The joint program of a site in the mode in which it is captured."""
    return programs.get((use.key, use.capture.training.get(use.key, False)))


def _module(use: Linear) -> str:
    """What owns the linear's module: decoders' layers all read the encoder, and each
    has its time."""
    return use.rewrite.site.owner.rpartition(".")[0]


def _is_plain(use: Linear) -> bool:
    """Whether the output is that of one call on the weight as it is stored."""
    anchor = use.anchor
    return (
        anchor.call.target in (F.linear, torch.addmm)
        and anchor.weight in anchor.call.args
        and anchor.bias in (None, *anchor.call.args)
        and anchor.rows is None
        and anchor.written is None
        and now(use.capture, anchor.y) is anchor.y
        and example(anchor.x).shape[:-1] == example(anchor.y).shape[:-1]
    )


def _types(use: Linear, program: JointProgram) -> Types | None:
    base = [use.anchor.x, use.anchor.weight, use.anchor.bias]
    return types_of(use, program, [node for node in base if node is not None])


def types_of(
    use: Use[Any], program: JointProgram, base: Sequence[fx.Node]
) -> Types | None:
    """The types of the base and of the added tensors; None if there are more, or on
    another device than is planned for, or where something else decides."""
    own = [one.name for one in program.inputs if one.name not in BASE]
    read = _kinds(base)
    added = _kinds([use.tensor(name) for name in own]) or read
    if len(read) != 1 or len(added) != 1:
        return None
    ((dtype, device),), ((other, where),) = read, added
    if device != where or not _is_planned_for(use, base[0], device):
        return None
    floating = dtype.is_floating_point and other.is_floating_point
    return (dtype, other) if floating else None


def _is_planned_for(use: Use[Any], base: fx.Node, device: str) -> bool:
    """Whether a step can be on this device.

    Raises:
        PeftcError: if kernels were asked for, and it is a CPU.
    """
    if use.capture.steps == "kernels" and device == "cpu" and not is_interpreted():
        raise fail(KernelsOnCpu(site=use.rewrite.site.place, device=device))
    known = device == "cpu" or use.capture.steps == "kernels"
    return known and not use.inserter(base, base).is_autocast(device)


def _kinds(nodes: Sequence[fx.Node]) -> set[tuple[torch.dtype, str]]:
    values = map(example, nodes)
    return {(value.dtype, value.device.type) for value in values}


def _inserter(same: Sequence[Linear]) -> Inserter:
    """Where a node for these uses stands: all that they read is there before."""
    first = same[0]
    at = first.inserter(after(first.anchor.y), first.anchor.call)
    return replace(at, site=BOTH.join(use.key for use in same))


def _emit(
    same: Sequence[Linear], programs: Sequence[JointProgram], types: Types
) -> None:
    biased = tuple(use.anchor.bias is not None for use in same)
    function = step_of(tuple(programs), biased, types, same[0].capture.steps)
    at = _inserter(same)
    operands = [_operand(name, same, at) for name in function.inputs]
    values = tuple(example(use.anchor.y) for use in same)
    made = at.put_as(values if len(same) > 1 else values[0], function, *operands)
    for number, use in enumerate(same):
        new = at.put(operator.getitem, made, number) if len(same) > 1 else made
        put(use.capture, Edit((use.key,), ("y",), use.anchor.y, new))


@lru_cache(maxsize=256)
def step_of(
    programs: tuple[JointProgram, ...],
    biased: tuple[bool, ...],
    types: Types,
    by: Steps,
) -> Together:
    """The step of these programs, and of those of their linears that have biases."""
    base, added = types
    wide = str(added) if base != added else ""
    names = site_names("bias", len(programs))
    biases = frozenset(name for name, has in zip(names, biased, strict=True) if has)
    whole = group(programs)
    launches = by == "kernels" and torch.float64 not in types  # kernels have float32
    try:
        return (KernelStep if launches else together)(whole, biases, wide)
    except NoSourceError:
        return together(whole, biases, wide)


def _operand(name: str, same: Sequence[Linear], at: Inserter) -> fx.Node:
    """What the function's input of this name is in the graph."""
    own, number = site_of(name)
    use = same[number - 1]
    match own:
        case "x":
            return now(use.capture, use.anchor.x)
        case "W":
            return weight(use, at)
        case "bias":
            return use.given("bias", use.anchor.bias)
    return use.tensor(own)
