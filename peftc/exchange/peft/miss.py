"""PEFT's MISS: `miss`.

In: shared blocks at linears, or a folder of the type.  Out: the folder, or the spec.
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's MISS"
NAMES = {"miss_block": "D"}
READ = ("r", "init_weights")
IDLE = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("miss_dropout", "mini_r"),
)
STARTS = (None, True, False)
"""The others, `bat` and `mini`, are other equations."""


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of MISS."""
    modules = alone(applied, FORM, transposed=False)
    r = int(applied[0].knobs["r"])
    odd = next((one for one in applied if int(one.knobs["r"]) != r), None)
    if odd is not None:
        raise odd.refuse(FORM, f"there, all modules have one `r`, here first {r}")
    config = {"peft_type": "MISS", "target_modules": targets(modules, given), "r": r}
    tensors = {
        f"{PREFIX}{module}.miss_block": one.tensors["D"].mT
        for module, one in modules.items()
    }
    return Written(config, tensors)


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of MISS as a spec; PEFT fills inputs up with zeros, ours must divide."""
    folder.only(READ, IDLE)
    if folder.config.get("init_weights") not in STARTS:
        raise folder.refused("init_weights", "that is another equation")
    found = modules_of(folder, NAMES)
    if any(tensors["D"].ndim != 2 for tensors in found.values()):
        raise folder.damaged("its blocks are no matrices")
    pieces = [
        Piece(module, "miss", (("r", len(tensors["D"])),), {"D": tensors["D"].mT})
        for module, tensors in found.items()
    ]
    return draft(folder, pieces, view)


TUNER = Tuner("MISS", ("miss",), write, read)
