"""A joint program as Python over torch.

In: a `JointProgram` whose token axes are one.  Out: the text of two functions, and the
names of what is passed between them.  `codegen.torch_writer` writes either direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.codegen.halves import halved, is_linear, like
from peftc.codegen.torch_writer import NoSourceError, Size, Whole, Writer, drawn
from peftc.expr.grouped import site_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from peftc.codegen.halves import Halves
    from peftc.expr.joint_program import Drawn, JointProgram
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
    halves = halved(program, wanted, biases)
    masks = tuple(map(drawn, program.masks))
    recalled = tuple(map(drawn, _recalled(program, halves)))
    kept, saved = (*halves.kept, *masks), (*halves.saved, *recalled)
    whole = Whole(_sizes(program), _steps(program), frozenset(biases), wide)
    return Source(
        _forward(program, whole, halves.inputs, kept),
        _again(program, whole, halves.inputs, kept),
        _backward(program, whole, halves, saved),
        halves.inputs,
        tuple(halves.results),
        kept,
        masks,
        saved,
        tuple(halves.gradients),
    )


def accumulated(program: JointProgram) -> set[str]:
    """The products that are added to another value and are none themselves."""
    halves = halved(program, [name for name, _ in program.backward.results], ())
    whole = Whole(_sizes(program), _steps(program), frozenset())
    front = _front(program, whole, halves.kept)
    return front.late | _back(whole, halves).late


def _recalled(program: JointProgram, halves: Halves) -> list[Drawn]:
    """The masks that the backward reads."""
    return [mask for mask in program.masks if mask.name in halves.reads]


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
    results = [value for _, value in program.forward.results]
    live = {*results, *kept}
    return Writer(whole, like(program), program.forward.steps, live, results)


def _fronted(
    program: JointProgram,
    writer: Writer,
    head: tuple[str, Sequence[str]],
    kept: Sequence[str],
) -> str:
    given = {one.name for one in program.inputs if is_linear(program)}
    writer.apply([y for y, _ in program.forward.results if y in given])
    return writer.function(*head, program.forward.results, kept)


def _backward(
    program: JointProgram, whole: Whole, halves: Halves, saved: Sequence[str]
) -> str:
    writer = _back(whole, halves)
    writer.recall(_recalled(program, halves))
    takes = (*halves.adjoints, *saved)
    return writer.function("backward", takes, list(halves.gradients.items()))


def _back(whole: Whole, halves: Halves) -> Writer:
    live = set(halves.gradients.values())
    return Writer(whole, halves.adjoints[0], halves.back, live, live)


# --- what is passed -------------------------------------------------------------------


def _check(program: JointProgram) -> None:
    apart = any(mask.tokens not in ("", "bt") for mask in program.masks)
    if program.separate_tokens or apart:
        raise NoSourceError("samples and tokens are told apart")
    if any(site_of(name)[0] not in "yh" for name, _ in program.forward.results):
        raise NoSourceError("what is replaced is no activation")


def _steps(program: JointProgram) -> Mapping[str, Step]:
    return {s.out: s for s in (*program.forward.steps, *program.backward.steps)}


def _sizes(program: JointProgram) -> Mapping[str, Size]:
    """The size of every value; of what is no step, as it is given."""
    found = {one.name: Size(one.shape, one.tokens) for one in program.inputs}
    found |= {m.name: Size(m.shape, bool(m.tokens)) for m in program.masks}
    steps = _steps(program).values()
    return found | {step.out: Size(step.shape, step.tokens) for step in steps}
