"""The generated source of sites at large sizes.

`sources/NAME.py.txt`, named as in joint/.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftc.codegen.torch_source import torch_source
from tests.golden.test_joint import planned
from tests.golden.test_programs import site

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent / "sources"
NAMES = ("lora", "dora", "ia3", "krona", "loha", "oft", "ia3+lora", "dora+ia3")


@pytest.mark.parametrize("name", NAMES)
def test_source(name: str, golden: Callable[[Path, str], None]) -> None:
    program, (_, biased) = planned(name), site(name)
    wanted = [result for result, _ in program.backward.results]
    source = torch_source(program, wanted, biased=biased)
    golden(FOLDER / f"{name}.py.txt", f"{source.forward}\n\n{source.backward}")
