"""PEFT's LN_TUNING: `norm_tuning`.

In: differences at norms, or a folder of the type.  Out: the folder, whose norms are
whole and need the base; or the spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.spelling import draft
from peftc.exchange.tuner import (
    PREFIX,
    Piece,
    Tuner,
    Written,
    alone,
    modules_of,
    targets,
)
from peftc.exchange.whole import trained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's LN_TUNING"
NAMES = {"ln_tuning_layers.weight": "dg", "ln_tuning_layers.bias": "dc"}
IDLE = ("target_modules", "exclude_modules")


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of LN_TUNING."""
    modules = alone(applied, FORM)
    tensors = {}
    for module, one in modules.items():
        for path, value in trained(given, one):
            name = path.rpartition(".")[2]
            tensors[f"{PREFIX}{module}.ln_tuning_layers.{name}"] = value
    config = {"peft_type": "LN_TUNING", "target_modules": targets(modules, given)}
    return Written(config, tensors)


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of LN_TUNING as a spec."""
    folder.only((), IDLE)
    found = modules_of(folder, NAMES, optional=("dc",))
    pieces = [
        Piece(module, "norm_tuning", (), tensors, whole=True)
        for module, tensors in found.items()
    ]
    return draft(folder, pieces, view)


TUNER = Tuner("LN_TUNING", ("norm_tuning",), write, read)
