"""How far merging moves what a model says.

In: a compiled model and the folder of the plain one that it became.  Out: the largest
difference of what they say to made-up inputs, as a part of the largest value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.runtime.trial import Trial, difference, first
from peftc.sites.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.runtime.handle import Handle


def logit_error(handle: Handle, merged: Path) -> float:
    """The difference between a compiled model and the plain one that it became."""
    trial = Trial(handle, {})
    inputs = trial.inputs()
    wanted = trial.said(inputs)
    with torch.no_grad():
        found = first(load(merged).model(**inputs))
    return difference(found, wanted)
