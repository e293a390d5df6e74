"""What each kind of site runs on in training, and the bytes it moves.

In: a plan, and the machine to count for.  Out: an `Account` for sites of equal shape
and methods.  Every operation counts what it reads and writes, the base's products among
them; a product that is added to a value in place is not written itself.  The least is
each value that goes in or out of a direction, once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.codegen.halves import is_linear
from peftc.codegen.one_step import Apart, forms
from peftc.codegen.torch_source import accumulated
from peftc.codegen.torch_writer import base_weight
from peftc.expr.grouped import beside, site_names
from peftc.expr.program import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from peftc.expr.cost import Machine
    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Input, Program
    from peftc.plan.types import Plan, Rewrite
    from peftc.view import Site


@dataclass(frozen=True)
class Account:
    """One kind of site.

    `why` says what keeps its operations apart; "" for one step of autograd.  Bytes are
    (moved, least); the backward of what is apart is autograd's, and not counted.
    """

    sites: tuple[str, ...]
    why: str
    forward: tuple[int, int]
    backward: tuple[int, int] | None
    kept: int | None
    """Bytes that live from the forward to the backward."""


def accounts(plan: Plan, machine: Machine) -> list[Account]:
    """The kinds of sites of a plan, in its order."""
    order = {rewrite.site.key: i for i, rewrite in enumerate(plan.rewrites)}
    found = sorted(forms(plan, machine), key=lambda pair: order[pair[0][0].site.key])
    return [_account(*pair, machine) for pair in found if pair[0][0].programs]


def _account(
    same: list[Rewrite], form: JointProgram | Apart, machine: Machine
) -> Account:
    sites = tuple(rewrite.site.place for rewrite in same)
    if isinstance(form, Apart):
        return Account(sites, form.why, _apart(same[0], machine), None, None)
    return account_of(form, [same[0].site], sites, machine)


def account_of(
    program: JointProgram, at: Sequence[Site], sites: tuple[str, ...], machine: Machine
) -> Account:
    """The account of a program that is of one site, or of several that are grouped.

    `at` are its sites in their order, `sites` the places of all that run it.
    """
    kept = sum(one.bytes for one in program.kept) * machine.batch * machine.tokens
    forward = _forward(program, at, machine)
    return Account(sites, "", forward, _backward(program, at, machine), kept)


# --- bytes --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Values:
    """Elements of values by name, and whether there are so many for each token."""

    sizes: Mapping[str, tuple[int, bool]]
    machine: Machine

    def bytes(self, names: Iterable[str]) -> int:
        """Of these values, each once."""
        m = self.machine
        tokens = m.batch * m.tokens
        found = (self.sizes[name] for name in set(names))
        return sum(m.element * n * (tokens if active else 1) for n, active in found)


def _values(
    inputs: Iterable[Input],
    steps: Iterable[Step],
    sites: Sequence[Site],
    machine: Machine,
) -> _Values:
    every: list[Input | Step] = [*inputs, *steps]
    names = [one.out if isinstance(one, Step) else one.name for one in every]
    sizes = {
        name: (math.prod(one.shape), one.tokens)
        for name, one in zip(names, every, strict=True)
    }
    named = zip(sites, *(site_names(n, len(sites)) for n in "yW"), strict=True)
    for site, y, weight in named:
        if site.kind == "linear":
            rows, columns = site.size("out"), site.size("in")
            own = {y: (rows, True), weight: (rows * columns, False)}
            sizes = {"x": (columns, True), **own, **sizes}
    return _Values(sizes, machine)


def _apart(rewrite: Rewrite, machine: Machine) -> tuple[int, int]:
    pairs = [_program(one, rewrite.site, machine) for one in rewrite.programs]
    return sum(moved for moved, _ in pairs), sum(least for _, least in pairs)


def _program(program: Program, site: Site, machine: Machine) -> tuple[int, int]:
    """What a program adds to a base, whose products are not counted."""
    values = _values(program.inputs, program.steps, [site], machine)
    names = [*(one.name for one in program.inputs), program.result]
    return _total(program.bytes, machine), values.bytes(names)


def by_kernels(
    account: Account,
    program: JointProgram,
    at: Sequence[Site],
    moved: Mapping[str, Sequence[Sequence[str]]],
    machine: Machine,
) -> Account:
    """The account with what kernels move: what each reads or writes, once.

    Parameters that several blocks of tokens read are counted once: they stay near.
    """
    every = (*program.forward.steps, *program.backward.steps)
    values = _values(program.inputs, every, at, machine)
    first, then = (sum(map(values.bytes, moved[w])) for w in ("forward", "backward"))
    least = account.backward[1] if account.backward else 0
    return replace(account, forward=(first, account.forward[1]), backward=(then, least))


def _forward(
    program: JointProgram, sites: Sequence[Site], machine: Machine
) -> tuple[int, int]:
    values = _values(program.inputs, program.forward.steps, sites, machine)
    results = dict(program.forward.results)
    linear = is_linear(program)
    own = {*(results if linear else ()), *(f"d{name}" for name in results)}
    given = {one.name for one in program.inputs} - own
    if linear:
        given |= {"x", *(beside("W", y) for y in results)}
    base = sum(map(values.bytes, _bases(program)))
    least = values.bytes({*given, *results.values()})
    spared = _spared(program, program.forward.steps, values)
    return _total(program.forward.bytes, machine) + base - spared, least


def _bases(program: JointProgram) -> Iterator[tuple[str, str, str]]:
    """What each product with a base's weight reads and writes."""
    for step in program.forward.steps:
        if base_weight(step):
            yield step.args[0], base_weight(step), step.out
    given = {one.name for one in program.inputs if is_linear(program)}
    for y, _ in program.forward.results:
        if y in given:
            yield "x", beside("W", y), y


def _backward(
    program: JointProgram, sites: Sequence[Site], machine: Machine
) -> tuple[int, int]:
    every = (*program.forward.steps, *program.backward.steps)
    values = _values(program.inputs, every, sites, machine)
    again = {step.out for step in program.forward.steps if step.out in program.again}
    own = {step.out for step in program.backward.steps} | again
    steps = [step for step in every if step.out in own]
    drawn = {mask.name for mask in program.masks}
    read = {name for step in steps for name in step.args} - own - drawn
    results = {value for _, value in program.backward.results}
    moved = _total(program.backward.bytes, machine)
    return moved - _spared(program, program.backward.steps, values), values.bytes(
        read | results
    )


def _spared(program: JointProgram, steps: Sequence[Step], values: _Values) -> int:
    """What is not written and read again, as it is added in place."""
    added = accumulated(program)
    return 2 * values.bytes(step.out for step in steps if step.out in added)


def _total(moved: tuple[int, int], machine: Machine) -> int:
    each, once = moved
    return each * machine.batch * machine.tokens + once
