"""PEFT's LOHA: `loha`.

In: products of two at linears, or a folder of the type.  Out: the folder, or the spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.patterns import most_common, pattern, patterned
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

    import torch

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's LOHA"
NAMES = {"hada_w1_a": "B1", "hada_w1_b": "A1", "hada_w2_a": "B2", "hada_w2_b": "A2"}
READ = ("r", "alpha", "rank_pattern", "alpha_pattern", "init_weights")
IDLE = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_dropout", "module_dropout", "use_effective_conv2d"),
)


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of LOHA."""
    modules = alone(applied, FORM, transposed=False)
    ranks = {module: int(one.knobs["r"]) for module, one in modules.items()}
    alphas = {module: one.knobs["alpha"] for module, one in modules.items()}
    r, alpha = most_common(ranks.values()), most_common(alphas.values())
    config = {
        "peft_type": "LOHA",
        "target_modules": targets(modules, given),
        "r": r,
        "alpha": alpha,
        "rank_pattern": pattern(ranks, r),
        "alpha_pattern": pattern(alphas, alpha),
    }
    tensors = {
        f"{PREFIX}{module}.{theirs}": one.tensors[ours]
        for module, one in modules.items()
        for theirs, ours in NAMES.items()
    }
    return Written(config, tensors)


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of LOHA as a spec."""
    folder.only(READ, IDLE)
    found = modules_of(folder, NAMES)
    pieces = [_piece(folder, module, tensors) for module, tensors in found.items()]
    return draft(folder, pieces, view)


def _piece(folder: Folder, module: str, tensors: dict[str, torch.Tensor]) -> Piece:
    r = patterned(folder, "rank_pattern", module, folder.setting("r", 8))
    usual = float(folder.setting("alpha", 8.0))
    alpha = patterned(folder, "alpha_pattern", module, usual)
    return Piece(module, "loha", (("r", r), ("alpha", alpha)), tensors)


TUNER = Tuner("LOHA", ("loha",), write, read)
