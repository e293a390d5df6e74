"""Choose schedules for generated kernels, without a GPU.

    python -m benchmarks.pick_schedules READINGS > peftc/codegen/kernels/schedules.txt

In: kernels of some methods at usual sizes, for each grid and longest small axis.  Out:
for each architecture the cheapest schedule with which none of them spills, leaves out
the instructions for matrices or needs more shared memory than there is.  The cost is
analytic; no device has confirmed it.  READINGS, benchmarks/schedules.txt, has what was
tried, in this order, and what was read of each kernel.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.kernel_resources import ARCHITECTURES, SHARED, Usage, modules, usage
from peftc.codegen.kernels.launches import Grid, Launch
from peftc.codegen.kernels.schedules import (
    OF_FEW,
    SMALL,
    SPLIT_TOKENS,
    Schedule,
    of_few,
    splits,
)
from peftc.codegen.kernels.source import kernel_source
from peftc.codegen.kernels.tiles import LEAST
from peftc.expr.compose import compose
from peftc.expr.joint import order_jointly
from tests.equations import Instance, define, instance, numbers, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOTTLENECK = """method bottleneck(r: size) on linear {
  param D[r, in] ~ normal(0.02), U[out, r] = 0, bd[r] = 0
  y' = y + U(gelu(D(x) + bd))
}"""
USUAL = ("lora", "dora", "gated_lora", "lora_dropout")
SIZES = {"in": 4096, "out": 4096}
TOKENS = 8192
PROCESSORS = {80: 108, 89: 142, 90: 132, 100: 148}
BLOCKS = ((128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32))
REGISTERS = 65536
"""Of a processor, which runs two programs at once at least."""


@dataclass(frozen=True)
class Case:
    """A kernel of a method, not compiled yet."""

    label: str
    launch: Launch
    kernel: Any

    @property
    def multiplies(self) -> bool:
        """Whether it has products of matrices."""
        return "tl.dot(" in self.kernel.src


def instances(widest: int) -> Iterator[tuple[str, Instance]]:
    """Methods whose longest small axis is padded to that one, and needs no padding; of
    long ones fewer, as compiling what spills takes long."""
    if widest == 0:
        for name in ("ia3", "ssf", "ia3_in", "renorm"):
            yield name, instance(read(name), numbers(name, "sizes")[0], "m.")
        return
    for name in USUAL if widest == LEAST else USUAL[:2]:
        for r in (widest, 8 if widest == LEAST else widest * 3 // 4):
            given = {**numbers(name, "sizes")[0], "r": r}
            yield f"{name} {r}", instance(read(name), given, "m.")
    yield f"bottleneck {widest}", define(BOTTLENECK, {**SIZES, "r": widest})


def cases(widest: int, folder: Path) -> Iterator[Case]:
    """Their kernels whose longest small axis that is."""
    for label, one in instances(widest):
        program = order_jointly(compose(one.kind, (one.equation,), True), one.env, True)
        wanted = [name for name, _ in program.backward.results]
        source = kernel_source(program, wanted, ("bias",))
        made = modules(source, folder)
        for name, launch in source.launches.items():
            if launch.widest == widest:
                yield Case(f"{label} {name}", launch, made[name])


def cost(grid: Grid, widest: int, schedule: Schedule, arch: int) -> float:
    """What a block reads again of the other operand, how its programs fill the
    processors, and how much of what a row's block reads is in whole lines."""
    own = schedule.bf if grid == "column" else schedule.bm
    busy = programs(grid, schedule) / PROCESSORS[arch]
    uneven = -(-programs(grid, schedule) // PROCESSORS[arch]) / busy
    again = 1 + widest / own
    return again * uneven * (1 + 8 / schedule.bf) + schedule.warps / 100


def programs(grid: Grid, schedule: Schedule) -> int:
    """How many there are."""
    if grid == "split":
        return -(-SPLIT_TOKENS // schedule.bm) * splits(SPLIT_TOKENS, SIZES["in"])
    across = 1 if grid == "row" else -(-SIZES["in"] // schedule.bf)
    return -(-TOKENS // schedule.bm) * across


def fits(found: Usage, schedule: Schedule, arch: int, multiplies: bool) -> bool:
    """Whether a kernel may be compiled so."""
    threads = 32 * schedule.warps
    return (
        found.stack == found.spills == 0
        and found.shared <= SHARED[arch]
        and 2 * threads * found.registers <= REGISTERS
        and (found.matrix > 0 or not multiplies)
    )


def candidates(grid: Grid, widest: int, arch: int) -> list[Schedule]:
    """What is tried, the cheapest first."""
    blocks = product(BLOCKS, (4, 8), (3, 2))
    every = [Schedule(bm, bf, warps, n) for (bm, bf), warps, n in blocks]
    return sorted(every, key=lambda one: cost(grid, widest, one, arch))


def pick(
    grid: Grid, widest: int, arch: int, every: Sequence[Case]
) -> tuple[Schedule | None, list[str]]:
    """The cheapest schedule that all of some kernels can have, and what was read.

    What did not fit is read first of the next.
    """
    lines, waiting = [f"{arch} {grid} {widest}"], list(every)
    for schedule in candidates(grid, widest, arch):
        expected = cost(grid, widest, schedule, arch)
        lines.append(f"  {schedule}: cost {expected:.3f}")
        for case in waiting:
            fitting, read = _read(case, schedule, arch)
            lines += read
            if not fitting:
                waiting = [case, *(other for other in waiting if other is not case)]
                break
        else:
            return schedule, lines
    return None, lines


def _read(case: Case, schedule: Schedule, arch: int) -> tuple[bool, list[str]]:
    """Whether a kernel fits, as it is and for few tokens, and what was read of it."""
    lines, fitting = [], True
    for one in (schedule, *((of_few(schedule),) * (case.launch.grid in OF_FEW))):
        found = usage(case.kernel, case.launch, one, arch)
        fitting = fits(found, one, arch, case.multiplies)
        verdict = "" if fitting else " does not fit"
        lines.append(f"    {case.label} at {one.bm}: {found}{verdict}")
        if not fitting:
            break
    return fitting, lines


def task(which: tuple[int, int]) -> list[tuple[str, list[str]]]:
    """The lines of the table for a longest small axis and an architecture, with what
    was read."""
    widest, arch = which
    with tempfile.TemporaryDirectory() as folder:
        every = list(cases(widest, Path(folder)))
        found = []
        for grid in get_args(Grid):
            own = [case for case in every if case.launch.grid == grid]
            schedule, lines = pick(grid, widest, arch, own)
            found.append((f"{arch} {grid} {widest}: {schedule}", lines))
    return found


def main(readings: str) -> None:
    """Print the table."""
    print("# architecture grid widest: tokens features warps stages")
    whole = product(SMALL, ARCHITECTURES)
    with (
        Path(readings).open("w", encoding="utf-8") as file,
        ProcessPoolExecutor(os.cpu_count()) as pool,
    ):
        for found in pool.map(task, whole):
            for line, read in found:
                print(line, flush=True)
                print(*read, sep="\n", file=file, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
