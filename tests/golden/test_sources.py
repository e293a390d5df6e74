"""The generated source of sites at large sizes.

`sources/NAME.py.txt`, named as in joint/; `ONE, OTHER.py.txt` of sites that are one
step.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftc.codegen.torch_source import Source, torch_source
from peftc.expr.grouped import group
from tests.golden.test_joint import planned
from tests.golden.test_programs import site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FOLDER = Path(__file__).parent / "sources"
NAMES = ("lora", "dora", "ia3", "krona", "loha", "oft", "ia3+lora", "dora+ia3")
GROUPS = {"lora, lora": ("lora", "lora"), "lora_dropout, ia3": ("lora_dropout", "ia3")}
"""Sites that read one activation."""


@pytest.mark.parametrize("name", NAMES)
def test_source(name: str, golden: Callable[[Path, str], None]) -> None:
    source = generated([name], ("bias",) * site(name)[1])
    golden(FOLDER / f"{name}.py.txt", f"{source.forward}\n\n{source.backward}")


@pytest.mark.parametrize("name", GROUPS)
def test_groups(name: str, golden: Callable[[Path, str], None]) -> None:
    """Also as it is where the base's type is another than the added tensors'."""
    names = GROUPS[name]
    for wide in ("", "torch.float32"):
        source = generated(names, (), wide)
        path = FOLDER / f"{name}{', wide' * bool(wide)}.py.txt"
        golden(path, f"{source.forward}\n\n{source.backward}")


def generated(names: Sequence[str], biases: Sequence[str], wide: str = "") -> Source:
    program = group([planned(name) for name in names])
    wanted = [result for result, _ in program.backward.results]
    return torch_source(program, wanted, biases=biases, wide=wide)
