"""Choose schedules for generated kernels, without a GPU.

    python -m benchmarks.pick_schedules > peftc/codegen/kernels/schedules.txt

In: kernels of some methods at usual sizes, for each grid and longest small axis.  Out:
for each architecture the cheapest schedule with which none of them spills, leaves out
the instructions for matrices or needs more shared memory than there is.  The cost is
analytic; no device has confirmed it.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.kernel_resources import ARCHITECTURES, SHARED, Usage, modules, usage
from peftc.codegen.kernels.schedules import SMALL, Schedule
from peftc.codegen.kernels.source import kernel_source
from peftc.codegen.kernels.tiles import LEAST
from peftc.expr.compose import compose
from peftc.expr.joint import order_jointly
from tests.equations import Instance, define, instance, numbers, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from peftc.codegen.kernels.launches import Launch

BOTTLENECK = """method bottleneck(r: size) on linear {
  param D[r, in] ~ normal(0.02), U[out, r] = 0, bd[r] = 0
  y' = y + U(gelu(D(x) + bd))
}"""
USUAL = ("lora", "gated_lora", "lora_dropout")
SIZES = {"in": 4096, "out": 4096}
TOKENS = 8192
PROCESSORS = {80: 108, 89: 142, 90: 132, 100: 148}
BLOCKS = ((128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32))
REGISTERS = 65536
"""Of a processor, which runs two programs at once at least."""


def instances(widest: int) -> Iterator[Instance]:
    """Methods whose longest small axis is padded to that one, and needs no padding; of
    long ones fewer, as compiling what spills takes long."""
    if widest == 0:
        for name in ("ia3", "ssf", "ia3_in"):
            yield instance(read(name), numbers(name, "sizes")[0], "m.")
        return
    for name in USUAL if widest == LEAST else USUAL[:1]:
        for r in (widest, 8 if widest == LEAST else widest * 3 // 4):
            given = {**numbers(name, "sizes")[0], "r": r}
            yield instance(read(name), given, "m.")
    yield define(BOTTLENECK, {**SIZES, "r": widest})


def kernels(widest: int, folder: Path) -> Iterator[tuple[Launch, Any]]:
    """Their kernels whose longest small axis that is."""
    for one in instances(widest):
        program = order_jointly(compose(one.kind, (one.equation,), True), one.env, True)
        wanted = [name for name, _ in program.backward.results]
        source = kernel_source(program, wanted, ("bias",))
        made = modules(source, folder)
        for name, launch in source.launches.items():
            if launch.widest == widest:
                yield launch, made[name]


def cost(grid: str, widest: int, schedule: Schedule, arch: int) -> float:
    """What a block reads again of the other operand, how its programs fill the
    processors, and how much of what a row's block reads is in whole lines."""
    along, across = schedule.bm, schedule.bf
    own = across if grid == "column" else along
    blocks = -(-TOKENS // along) * (-(-4096 // across) if grid != "row" else 1)
    busy = blocks / PROCESSORS[arch]
    uneven = -(-blocks // PROCESSORS[arch]) / busy
    return (1 + widest / own) * uneven * (1 + 8 / across) + schedule.warps / 100


def fits(found: Usage, schedule: Schedule, arch: int, multiplies: bool) -> bool:
    """Whether a kernel may be compiled so."""
    threads = 32 * schedule.warps
    return (
        found.stack == found.spills == 0
        and found.shared <= SHARED[arch]
        and 2 * threads * found.registers <= REGISTERS
        and (found.matrix > 0 or not multiplies)
    )


def pick(
    grid: str, widest: int, every: Iterable[tuple[Launch, Any]], arch: int
) -> Schedule | None:
    """The cheapest schedule that all of some kernels can have."""
    blocks = product(BLOCKS, (4, 8), (3, 2))
    candidates = [Schedule(bm, bf, warps, n) for (bm, bf), warps, n in blocks]
    for schedule in sorted(candidates, key=lambda s: cost(grid, widest, s, arch)):
        found = (
            fits(usage(kernel, launch, schedule, arch), schedule, arch, _dots(kernel))
            for launch, kernel in every
        )
        if all(found):
            return schedule
    return None


def _dots(kernel: Any) -> bool:
    return "tl.dot(" in kernel.src


def main() -> None:
    """Print the table."""
    print("# architecture grid widest: tokens features warps stages")
    with tempfile.TemporaryDirectory() as folder:
        for widest in SMALL:
            groups: Mapping[str, list[tuple[Launch, Any]]] = {
                grid: [] for grid in ("row", "flat", "column")
            }
            for launch, kernel in kernels(widest, Path(folder)):
                groups[launch.grid].append((launch, kernel))
            for arch, (grid, every) in product(ARCHITECTURES, groups.items()):
                schedule = pick(grid, widest, every, arch)
                print(f"{arch} {grid} {widest}: {schedule}", flush=True)


if __name__ == "__main__":
    main()
