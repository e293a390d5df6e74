"""What compiled kernels take of GPUs, at the schedules that are shipped.

They are compiled for four architectures; no GPU is needed for that.  The table in
tests/golden/resources is compared with some slack: compilers change.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.kernel_resources import (
    ARCHITECTURES,
    MATRIX,
    SHARED,
    TYPES,
    Usage,
    modules,
    usage,
)
from benchmarks.pick_schedules import BOTTLENECK, SIZES
from peftc.codegen.kernels.schedules import SMALL, Schedule, schedule_for, table
from peftc.codegen.kernels.source import KernelSource, kernel_source
from peftc.expr.compose import compose
from peftc.expr.joint import order_jointly
from tests.equations import define
from tests.golden.test_kernels import source

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = Path(__file__).parents[1] / "golden" / "resources" / "kernels.txt"
READINGS = Path(__file__).parents[2] / "benchmarks" / "schedules.txt"
LINE = re.compile(
    r"(\S+) (\S+) (\d+) sm_(\d+): (\d+) registers, (\d+) shared, (\d+) matrix"
)
SLACK = 0.15
"""How far registers and shared memory may be from the table; of a few, 8 or 2048."""
KERNELS = (
    *("lora forward_0 8192", "lora backward_0 8192", "lora backward_1 8192"),
    *("lora_dropout forward_0 8192", "lora_dropout backward_1 8192"),
    *("gate-lora backward_0 8192", "ia3 forward_0 8192", "ia3 forward_0 1"),
    "ia3+lora backward_1 8192",
    *(f"bottleneck {name} 8192" for name in ("forward_0", "backward_0", "backward_1")),
    *("lora forward_0_0 1", "lora forward_0_1 1", "lora forward_0_1 1024"),
    *("lora_dropout forward_0_0 1", "lora_dropout backward_0_1 1024"),
    *("gate-lora forward_0_1 1", "gate-lora backward_0_1 1024"),
    *("bottleneck forward_0_0 1", "bottleneck forward_0_1 1"),
    *("bottleneck forward_0_1 1024", "bottleneck backward_0_1 1024"),
)
"""Of a method, for a number of tokens."""
CASES = [(name, arch) for name in KERNELS for arch in ARCHITECTURES]


@pytest.fixture(autouse=True)
def own_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing is taken from what was compiled before."""
    where = tmp_path_factory.getbasetemp() / "triton"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(where))


@cache
def written(name: str) -> KernelSource:
    if name != "bottleneck":
        return source(name)
    one = define(BOTTLENECK, {**SIZES, "r": 64})
    program = order_jointly(compose(one.kind, (one.equation,), True), one.env, True)
    wanted = [result for result, _ in program.backward.results]
    return kernel_source(program, wanted, ("bias",))


def compiled(name: str, arch: int, folder: Path, at: Schedule | None = None) -> Usage:
    method, kernel, tokens = name.split()
    made = written(method)
    launch = made.launches[kernel]
    schedule = at or schedule_for(launch, int(tokens), arch)
    return usage(modules(made, folder)[kernel], launch, schedule, arch)


def known() -> Mapping[tuple[str, int], tuple[int, ...]]:
    found = map(LINE.fullmatch, TABLE.read_text(encoding="utf-8").splitlines())
    return {
        (f"{m[1]} {m[2]} {m[3]}", int(m[4])): (int(m[5]), int(m[6]), int(m[7]))
        for m in found
        if m
    }


@pytest.mark.parametrize(("name", "arch"), CASES)
def test_a_kernel_fits(
    name: str, arch: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = compiled(name, arch, tmp_path)
    assert found.stack == found.spills == 0
    assert found.shared <= SHARED[arch]
    if "ia3 " not in name:
        assert found.matrix > 0
    if request.config.getoption("--update-golden"):
        return update(name, arch, found)
    registers, shared, matrix = known()[name, arch]
    assert abs(found.registers - registers) <= max(8, SLACK * registers)
    assert abs(found.shared - shared) <= max(2048, SLACK * shared)
    assert (found.matrix > 0) == (matrix > 0)
    return None


def update(name: str, arch: int, found: Usage) -> None:
    """Write one line of the table."""
    every = dict(known()) if TABLE.is_file() else {}
    every[name, arch] = (found.registers, found.shared, found.matrix)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(
        "".join(
            f"{one} sm_{arch}: {r} registers, {s} shared, {m} matrix\n"
            for (one, arch) in CASES
            if (one, arch) in every
            for r, s, m in [every[one, arch]]
        ),
        encoding="utf-8",
    )


def test_the_table_has_every_kernel() -> None:
    assert list(known()) == CASES


def test_a_spill_would_be_seen(tmp_path: Path) -> None:
    """A block that does not fit into the registers of four warps."""
    large = Schedule(256, 256, 4, 1)
    found = compiled("bottleneck backward_1 8192", 80, tmp_path, large)
    assert found.stack > 0
    assert found.spills > 0


def test_every_kind_of_kernel_has_a_schedule() -> None:
    grids = ("row", "flat", "column", "split")
    every = {(a, g, w) for a in ARCHITECTURES for g in grids for w in SMALL}
    assert table().keys() == every


def test_the_table_is_the_last_that_was_tried() -> None:
    last: dict[str, str] = {}
    group = ""
    for line in READINGS.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            group = line
        elif not line.startswith("    "):
            last[group] = line.partition(":")[0].strip()
    assert last == {f"{a} {g} {w}": str(one) for (a, g, w), one in table().items()}


def test_other_architectures_take_the_next_older() -> None:
    launch = written("lora").launches["forward_0"]
    same = [(86, 80), (120, 100), (75, 80)]
    for other, own in same:
        assert schedule_for(launch, 8192, other) == schedule_for(launch, 8192, own)


def test_few_tokens_have_small_blocks() -> None:
    launches = written("lora").launches
    assert schedule_for(launches["forward_0_0"], 127, 90).bm == 16
    assert schedule_for(launches["forward_0_0"], 128, 90).bm > 16
    assert schedule_for(launches["backward_1"], 1, 90).bm > 16


def test_what_is_counted() -> None:
    assert MATRIX.keys() == SHARED.keys() == {*ARCHITECTURES}
    assert TYPES.keys() == {"value", "float32", "seed", "step", "count"}
