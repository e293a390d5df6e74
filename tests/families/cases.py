"""Tiny models of the families whose sites are written down in `expected/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf

from tests.families.zoo import dec, enc, moe, vis
from tests.families.zoo.case import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CASES", "FAMILIES", "LAYERS", "MODES", "config", "model", "slow"]

CASES = {**dec.CASES, **enc.CASES, **moe.CASES, **vis.CASES}
FAMILIES = tuple(CASES)


def config(family: str, attention: str = "") -> Any:
    """The configuration of a family, with its usual attention unless one is named."""
    case = CASES[family]
    made = getattr(hf, case.config)(**case.facts)
    made._attn_implementation = attention or case.attentions[0]
    made.architectures = [case.model]
    return made


def model(family: str, attention: str = "", device: str = "") -> Any:
    """A model in evaluation mode, without weights unless on the CPU."""
    model_class = getattr(hf, CASES[family].model)
    torch.manual_seed(0)
    with torch.device(device or CASES[family].device):
        return model_class._from_config(config(family, attention)).eval()


MODES: dict[str, Callable[[Any], Any]] = {
    "eval": lambda made: made.eval(),
    "train": lambda made: made.train(),
}


def slow(*values: Any) -> Any:
    """A case that a quick run leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow, id="-".join(map(str, values)))
