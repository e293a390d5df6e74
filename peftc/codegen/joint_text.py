"""Joint programs as text, and back.

    joint y(dy[*, 64], x[*, 64], y[*, 64], W[64, 64], lora.A[8, 64], lora.B[64, 8])
    forward
    %0[*, 8] = linear(x, lora.A)
    %1[*, 64] = linear(%0, lora.B)
    %2[*, 64] = add(y, %1; 1, 2)
    give y = %2
    cost 2176 flops/token, 0 flops, 418 bytes/token, 2048 bytes
    keep x[*, 64]: 128 bytes
    keep %0[*, 8]: 16 bytes
    backward
    %3[*, 64] = ein(dy, W; *i,ij->*j)
    ...
    give x = %6
    give lora.A = %8
    cost ...
    planned with all: 24.6 microseconds
    machine matrix=600000000000000.0 ...

`parse_joint(joint_text(p)) == p`.  A line `mask mask[*, 64]: 0.1` stands for each mask,
`again %1, %2` for steps of the forward that the backward does once more; what is kept
has so many bytes for each token (`*`), or for each sample (`b`) or place (`t`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peftc.codegen.text import (
    VALUE,
    cost_text,
    matched,
    number_text,
    parse_cost,
    parse_step,
    parse_value,
    step_text,
    value_text,
)
from peftc.expr.cost import Machine
from peftc.expr.joint_program import Direction, Drawn, JointProgram, Kept
from peftc.expr.program import Input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEAD = re.compile(r"joint ([^(]+)\((.*)\)( with b, t)?")
MASK = re.compile(r"mask ([^\s\[\]]+)\[([^\]]*)\]: (\S+)")
GIVE = re.compile(r"give (\S+) = (\S+)")
KEEP = re.compile(r"keep ([^\s\[\]]+)\[([^\]]*)\]: (\d+) bytes")
PLAN = re.compile(r"planned with (.+): (\S+) microseconds")


def joint_text(program: JointProgram) -> str:
    """Head, masks, forward, what is kept, backward, and what it was chosen by."""
    return "\n".join(_lines(program)) + "\n"


def _lines(program: JointProgram) -> Iterator[str]:
    names = ", ".join(name for name, _ in program.forward.results)
    inputs = ", ".join(value_text(i.name, i.shape, i.tokens) for i in program.inputs)
    yield f"joint {names}({inputs})" + " with b, t" * program.separate_tokens
    yield from (f"mask {_axes(mask)}: {number_text(mask.p)}" for mask in program.masks)
    yield "forward"
    yield from _direction_lines(program.forward)
    yield from (f"keep {_axes(kept)}: {kept.bytes} bytes" for kept in program.kept)
    if program.again:
        yield f"again {', '.join(program.again)}"
    yield "backward"
    yield from _direction_lines(program.backward)
    yield f"planned with {program.seeds}: {program.microseconds!r} microseconds"
    yield f"machine {program.machine.text()}"


def _direction_lines(direction: Direction) -> Iterator[str]:
    yield from map(step_text, direction.steps)
    yield from (f"give {name} = {value}" for name, value in direction.results)
    yield cost_text(direction.flops, direction.bytes)


def _axes(value: Kept | Drawn) -> str:
    """`x[*, 64]`; `b` or `t` where it has only one of the token axes."""
    lead = ["*"] if value.tokens == "bt" else list(value.tokens)
    return f"{value.name}[{', '.join([*lead, *map(str, value.shape)])}]"


# --- parsing -------------------------------------------------------------------------


def parse_joint(text: str) -> JointProgram:
    """The program that `joint_text` printed.

    Raises:
        ValueError: naming the first line that is none of a joint program.
    """
    head, *lines = text.strip().splitlines()
    first, back = lines.index("forward"), lines.index("backward")
    cost = next(i for i, line in enumerate(lines) if line.startswith("cost "))
    again = lines[back - 1].removeprefix("again ").split(", ")
    has_again = lines[back - 1].startswith("again ")
    top, plan = matched(HEAD, head), matched(PLAN, lines[-2])
    if not lines[-1].startswith("machine "):
        raise ValueError(f"not a line of a joint program: {lines[-1]}")
    return JointProgram(
        inputs=tuple(Input(*parse_value(*found)) for found in VALUE.findall(top[2])),
        masks=tuple(map(_parse_mask, lines[:first])),
        forward=_parse_direction(lines[first + 1 : cost + 1]),
        backward=_parse_direction(lines[back + 1 : -2]),
        kept=tuple(map(_parse_kept, lines[cost + 1 : back - has_again])),
        again=tuple(again) if has_again else (),
        separate_tokens=top[3] is not None,
        seeds=plan[1],
        microseconds=float(plan[2]),
        machine=Machine().changed(lines[-1].removeprefix("machine ")),
    )


def _parse_mask(line: str) -> Drawn:
    name, axes, p = matched(MASK, line).groups()
    return Drawn(name, *_parse_axes(axes), float(p))


def _parse_direction(lines: Sequence[str]) -> Direction:
    *body, cost = lines
    given = [line for line in body if line.startswith("give ")]
    steps = body[: len(body) - len(given)]
    results = (matched(GIVE, line).groups() for line in given)
    flops, moved = parse_cost(cost)
    pairs = tuple((name, value) for name, value in results)
    return Direction(tuple(map(parse_step, steps)), pairs, flops, moved)


def _parse_kept(line: str) -> Kept:
    name, axes, count = matched(KEEP, line).groups()
    return Kept(name, *_parse_axes(axes), int(count))


def _parse_axes(text: str) -> tuple[tuple[int, ...], str]:
    """The shape and the token axes."""
    parts = text.split(", ") if text else []
    lead = [part for part in parts if not part.isdigit()]
    tokens = "bt" if lead == ["*"] else "".join(lead)
    return tuple(map(int, parts[len(lead) :])), tokens
