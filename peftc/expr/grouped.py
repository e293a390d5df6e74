"""Joint programs of linears that read one activation, as one program.

In: the programs of the sites, in the order of the graph.  Out: one that gives all their
values, and the gradient of what they share as one sum.  The k-th site's names end in
`@k`: `y@2 = W@2 x`, `lora.A@2`, `dy@2`; `x` belongs to all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.expr.joint_program import Direction, Drawn, JointProgram
from peftc.expr.program import Input, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SHARED = "x"


def group(programs: Sequence[JointProgram]) -> JointProgram:
    """The programs as one; a single one stays as it is."""
    if len(programs) == 1:
        return programs[0]
    own = list(_renamed(programs))
    inputs = {one.name: one for program in own for one in program.inputs}
    kept = {one.name: one for program in own for one in program.kept}
    count = sum(len(p.forward.steps) + len(p.backward.steps) for p in programs)
    return JointProgram(
        inputs=tuple(inputs.values()),
        masks=tuple(mask for program in own for mask in program.masks),
        forward=_side_by_side([program.forward for program in own]),
        backward=_summed([program.backward for program in own], f"%{count}"),
        kept=tuple(kept.values()),
        again=tuple(name for program in own for name in program.again),
        separate_tokens=any(program.separate_tokens for program in own),
        seeds="; ".join(dict.fromkeys(program.seeds for program in own)),
        microseconds=round(sum(program.microseconds for program in own), 1),
        machine=own[0].machine,
    )


def beside(name: str, value: str) -> str:
    """`name` at the site that `value` is of: `W@2` for `W` beside `y@2`."""
    _, mark, site = value.partition("@")
    return f"{name}{mark}{site}"


def site_names(name: str, count: int) -> tuple[str, ...]:
    """A name at each of so many sites."""
    return tuple(f"{name}@{k}" for k in range(1, count + 1)) if count > 1 else (name,)


def site_of(name: str) -> tuple[str, int]:
    """The name that a site itself uses, and which of the sites, from 1."""
    own, _, number = name.partition("@")
    return own, int(number or 1)


# --- names --------------------------------------------------------------------------


def _renamed(programs: Sequence[JointProgram]) -> Iterator[JointProgram]:
    """The programs with names that are told apart; steps are numbered through."""
    forward = sum(len(program.forward.steps) for program in programs)
    first, second = 0, forward
    for number, program in enumerate(programs, 1):
        fronts, rears = program.forward.steps, program.backward.steps
        names = _names(program, f"@{number}")
        names |= {step.out: f"%{first + i}" for i, step in enumerate(fronts)}
        names |= {step.out: f"%{second + i}" for i, step in enumerate(rears)}
        yield _rename(program, names, f"W@{number}")
        first, second = first + len(fronts), second + len(rears)


def _names(program: JointProgram, suffix: str) -> dict[str, str]:
    given: list[Input | Drawn] = [*program.inputs, *program.masks]
    results = [name for name, _ in program.forward.results]
    names = {*(one.name for one in given), *results} - {SHARED}
    return {SHARED: SHARED} | {name: f"{name}{suffix}" for name in names}


def _rename(
    program: JointProgram, names: Mapping[str, str], weight: str
) -> JointProgram:
    def direction(one: Direction) -> Direction:
        steps = tuple(_step(step, names, weight) for step in one.steps)
        results = ((_of(result, weight), names[value]) for result, value in one.results)
        return replace(one, steps=steps, results=tuple(results))

    return replace(
        program,
        inputs=tuple(replace(one, name=names[one.name]) for one in program.inputs),
        masks=tuple(replace(one, name=names[one.name]) for one in program.masks),
        forward=direction(program.forward),
        backward=direction(program.backward),
        kept=tuple(replace(one, name=names[one.name]) for one in program.kept),
        again=tuple(names[name] for name in program.again),
    )


def _of(result: str, weight: str) -> str:
    return result if result == SHARED else beside(result, weight)


def _step(step: Step, names: Mapping[str, str], weight: str) -> Step:
    args = tuple(names[name] for name in step.args)
    if step.op in ("base", "product"):
        args = (*args, weight)
    return replace(step, out=names[step.out], args=args)


# --- both directions ------------------------------------------------------------------


def _side_by_side(every: Sequence[Direction]) -> Direction:
    steps = tuple(step for one in every for step in one.steps)
    results = tuple(pair for one in every for pair in one.results)
    return Direction(steps, results, _total(every, "flops"), _total(every, "bytes"))


def _summed(every: Sequence[Direction], name: str) -> Direction:
    """As `_side_by_side`, with one gradient of the shared value, named `name`."""
    whole = _side_by_side(every)
    parts = [value for result, value in whole.results if result == SHARED]
    if len(parts) < 2:
        return whole
    rest = tuple(pair for pair in whole.results if pair[0] != SHARED)
    opened = _opened(whole, parts)
    terms = [term for part in parts for term in opened.get(part, ((part, 1.0),))]
    like = next(step for step in whole.steps if step.out in parts)
    args, coefs = zip(*terms, strict=True)
    total = Step(name, "add", args, like.shape, like.tokens, coefs=coefs)
    steps = (step for step in whole.steps if step.out not in opened)
    return replace(whole, steps=(*steps, total), results=((SHARED, name), *rest))


def _opened(
    whole: Direction, parts: Sequence[str]
) -> Mapping[str, Sequence[tuple[str, float]]]:
    """The terms of those of the parts that are sums and that nothing else reads."""
    read = {name for step in whole.steps for name in step.args}
    return {
        step.out: tuple(zip(step.args, step.coefs, strict=True))
        for step in whole.steps
        if step.op == "add" and step.out in parts and step.out not in read
    }


def _total(every: Sequence[Direction], what: str) -> tuple[int, int]:
    pairs = [getattr(one, what) for one in every]
    return sum(first for first, _ in pairs), sum(second for _, second in pairs)
