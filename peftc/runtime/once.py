"""One run of a model for the sake of its capture.

In: a model.  Out: it has run, and is as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftc.sites.inputs import example_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def run_once(model: nn.Module, inputs: Mapping[str, Any] | None = None) -> None:
    """Run a model on made-up inputs, leaving the random state as it was."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model(**example_inputs(model, inputs))
