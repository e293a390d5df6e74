"""A joint program as Python over torch.

In: a `JointProgram` whose token axes are one.  Out: the text of two functions, and the
names of what is passed between them.  `codegen.torch_writer` writes either direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.codegen.torch_writer import (
    NoSourceError,
    Size,
    Whole,
    Writer,
    base_weight,
    drawn,
)
from peftc.expr.grouped import beside

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step


@dataclass(frozen=True)
class Source:
    """Two functions as text, and in which order they take and give values.

    `forward(**inputs)` gives the results and then `kept`, as does `again(**inputs,
    **drawn)`, which draws nothing; `backward(**adjoints, **saved)` gives the
    `gradients`.
    """

    forward: str
    again: str
    backward: str
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    kept: tuple[str, ...]
    drawn: tuple[str, ...]
    saved: tuple[str, ...]
    gradients: tuple[str, ...]


def torch_source(
    program: JointProgram,
    wanted: Iterable[str],
    *,
    biases: Collection[str] = (),
    wide: str = "",
) -> Source:
    """The source of a program with the gradients that are wanted.

    `biases` are those that the base's linears have; `wide` is the type of the added
    tensors, as `torch.float32`, if the base has another.

    Raises:
        NoSourceError: if a step has no form.
    """
    _check(program)
    rear = _rear(program, set(wanted))
    masks = tuple(map(drawn, program.masks))
    inputs = tuple(dict.fromkeys(_inputs(program, biases)))
    kept = (*_kept(program, rear.reads), *masks)
    saved = tuple(name for name in (*inputs, *kept) if name in rear.reads)
    whole = Whole(_sizes(program), _steps(program), frozenset(biases), wide)
    return Source(
        _forward(program, whole, inputs, kept),
        _again(program, whole, inputs, kept),
        _backward(program, whole, rear, saved),
        inputs,
        tuple(name for name, _ in program.forward.results),
        kept,
        masks,
        saved,
        tuple(rear.gradients),
    )


def accumulated(program: JointProgram) -> set[str]:
    """The products that are added to another value and are none themselves."""
    rear = _rear(program, {name for name, _ in program.backward.results})
    whole = Whole(_sizes(program), _steps(program), frozenset())
    front = _front(program, whole, tuple(_kept(program, rear.reads)))
    return front.late | _back(program, whole, rear).late


@dataclass(frozen=True)
class _Rear:
    """What of the backward is needed: its steps, gradients, and what they read."""

    steps: Sequence[Step]
    gradients: Mapping[str, str]
    reads: Collection[str]


def _rear(program: JointProgram, wanted: Collection[str]) -> _Rear:
    asked = {name: v for name, v in program.backward.results if name in wanted}
    back = _needed(program.backward.steps, asked.values())
    repeated = [step for step in program.forward.steps if step.out in program.again]
    steps = (*_needed(repeated, _reads(back, asked.values())), *back)
    reads = _reads(steps, asked.values())
    recalled = {drawn(mask) for mask in program.masks if mask.name in reads}
    return _Rear(steps, asked, reads | recalled)


# --- the functions --------------------------------------------------------------------


def _forward(
    program: JointProgram, whole: Whole, inputs: Sequence[str], kept: Sequence[str]
) -> str:
    writer = _front(program, whole, kept)
    writer.draw(program.masks)
    return _fronted(program, writer, ("forward", inputs), kept)


def _again(
    program: JointProgram, whole: Whole, inputs: Sequence[str], kept: Sequence[str]
) -> str:
    writer = _front(program, whole, kept)
    writer.recall(program.masks)
    takes = (*inputs, *map(drawn, program.masks))
    return _fronted(program, writer, ("again", takes), kept)


def _front(program: JointProgram, whole: Whole, kept: Sequence[str]) -> Writer:
    live = {*(value for _, value in program.forward.results), *kept}
    return Writer(whole, "x", program.forward.steps, live)


def _fronted(
    program: JointProgram,
    writer: Writer,
    head: tuple[str, Sequence[str]],
    kept: Sequence[str],
) -> str:
    writer.apply([y for y, _ in program.forward.results if _is_read(program, y)])
    return writer.function(*head, program.forward.results, kept)


def _backward(
    program: JointProgram, whole: Whole, rear: _Rear, saved: Sequence[str]
) -> str:
    adjoints = _adjoints(program)
    writer = _back(program, whole, rear)
    writer.recall([mask for mask in program.masks if mask.name in rear.reads])
    takes = (*adjoints, *saved)
    return writer.function("backward", takes, list(rear.gradients.items()))


def _back(program: JointProgram, whole: Whole, rear: _Rear) -> Writer:
    live = set(rear.gradients.values())
    return Writer(whole, _adjoints(program)[0], rear.steps, live)


def _adjoints(program: JointProgram) -> list[str]:
    return [f"d{name}" for name, _ in program.forward.results]


# --- what is passed -------------------------------------------------------------------


def _check(program: JointProgram) -> None:
    apart = any(mask.tokens not in ("", "bt") for mask in program.masks)
    if program.separate_tokens or apart:
        raise NoSourceError("samples and tokens are told apart")
    if any(not name.startswith("y") for name, _ in program.forward.results):
        raise NoSourceError("what is replaced is no linear's output")


def _inputs(program: JointProgram, biases: Collection[str]) -> Iterator[str]:
    """What the forward takes: what each base needs, then what else is read."""
    for result, _ in program.forward.results:
        if _has_base(program, result):
            weight, bias = beside("W", result), beside("bias", result)
            yield from ("x", weight, *((bias,) if bias in biases else ()))
    made = {name for result, _ in program.forward.results for name in _made(result)}
    yield from ("x",) * bool(program.masks)
    yield from (one.name for one in program.inputs if one.name not in made)


def _made(result: str) -> tuple[str, str]:
    """The base's own value, and the adjoint: no inputs of the forward."""
    return result, f"d{result}"


def _has_base(program: JointProgram, result: str) -> bool:
    """Whether anything reads the base's linear of a site."""
    weight = beside("W", result)
    steps = (*program.forward.steps, *program.backward.steps)
    applied = any(weight == base_weight(step) for step in steps)
    return applied or _is_read(program, result)


def _is_read(program: JointProgram, name: str) -> bool:
    return any(one.name == name for one in program.inputs)


def _kept(program: JointProgram, read: Collection[str]) -> Iterator[str]:
    """What lives from the forward to the backward, beside the forward's inputs."""
    made = {step.out for step in program.forward.steps}
    made |= {name for name, _ in program.forward.results}
    yield from sorted(made & set(read))


def _needed(steps: Sequence[Step], results: Iterable[str]) -> list[Step]:
    """Those of the steps that the results depend on, in their order."""
    needed, found = set(results), []
    for step in reversed(steps):
        if step.out in needed:
            found.append(step)
            needed |= set(step.args)
    return found[::-1]


def _reads(steps: Sequence[Step], results: Iterable[str]) -> set[str]:
    """The names that steps and results read, and steps do not make."""
    own = {step.out for step in steps}
    weights = {weight for step in steps if (weight := base_weight(step))}
    return ({a for s in steps for a in s.args} | weights | set(results)) - own


def _steps(program: JointProgram) -> Mapping[str, Step]:
    return {s.out: s for s in (*program.forward.steps, *program.backward.steps)}


def _sizes(program: JointProgram) -> Mapping[str, Size]:
    """The size of every value; of what is no step, as it is given."""
    found = {one.name: Size(one.shape, one.tokens) for one in program.inputs}
    found |= {m.name: Size(m.shape, bool(m.tokens)) for m in program.masks}
    steps = _steps(program).values()
    return found | {step.out: Size(step.shape, step.tokens) for step in steps}
