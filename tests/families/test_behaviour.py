"""Each family, compiled: it starts as its base is, and generates with a cache what it
would without."""

from __future__ import annotations

import pytest

import peftc
from peftc.diagnostics.core import PeftcError
from tests.families.behaving import SPEC, behaviour, inputs_of, row, with_weights
from tests.families.cases import FAMILIES
from tests.families.test_sites import wanted

pytestmark = pytest.mark.slow

NEAR = 1e-4
"""Sums in another order, over logits of about 1 to 10."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_model(family: str) -> None:
    (first, *_) = wanted(family)
    if first.startswith("! "):
        with pytest.raises(PeftcError, match=f"{first.split()[-1]}|PEFT604"):
            first_run(family)
        return
    said, found = row(family), behaviour(family)
    assert found.is_capture
    assert found.is_eager is not bool(said.differs)
    assert (found.cached is not None) is said.generates
    if found.cached is not None:
        assert (found.cached < NEAR) is not bool(said.uncached)


def first_run(family: str) -> None:
    """Compile a frozen model and run it.  What cannot be traced with gradients may be
    found at the first call only: until then nothing needs any."""
    base = with_weights(family)
    peftc.compile(base, SPEC)(**inputs_of(family, base))
