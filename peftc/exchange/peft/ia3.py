"""PEFT's IA3: `ia3`, at what linears give or, for feed-forward modules, what they read.

In: scales at linears, or a folder of the type.  Out: the folder, or the spec.  Scales
of some rows of a fused weight are those of all its rows with ones for the others;
several scales of one module are multiplied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.exchange.spelling import draft
from peftc.exchange.tuner import (
    PREFIX,
    Piece,
    Tuner,
    Written,
    by_module,
    modules_of,
    targets,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's IA3"
DEFINITIONS = """
method ia3_input() on linear {
  param l[in] = 1
  x' = l * x
}
"""
"""`ia3` scales the input of what leads out of a feed-forward block; PEFT, of any."""
READ = ("fan_in_fan_out", "init_ia3_weights")
IDLE = ("target_modules", "exclude_modules", "feedforward_modules")


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of IA3."""
    modules = by_module(applied)
    inputs = sorted(module for module, ones in modules.items() if _at_input(ones[0]))
    config = {
        "peft_type": "IA3",
        "target_modules": sorted(modules) if inputs else targets(modules, given),
        "feedforward_modules": inputs,
        "fan_in_fan_out": all(one.site.transposed for one in applied),
    }
    tensors = {
        f"{PREFIX}{module}.ia3_l": _scales(given, ones)
        for module, ones in modules.items()
    }
    return Written(config, tensors)


def _at_input(one: Applied) -> bool:
    """Whether it scales what the linear reads."""
    clause = one.method.clauses[one.application.clause]
    return clause.place != "linear" or one.known_as == "ia3_input"


def _scales(given: Given, ones: Sequence[Applied]) -> torch.Tensor:
    """The scales of a module: [1, in] of its input, else [out, 1]."""
    at_input = _at_input(ones[0])
    for one in ones:
        if _at_input(one) != at_input:
            raise one.refuse(FORM, "a module has scales of its input or of its output")
        if one.site.experts:
            raise one.refuse(FORM, "experts are no linears of their own")
    if at_input:
        return torch.stack([one.tensors["l"] for one in ones]).prod(0)[None]
    whole = ones[0].tensors["l"].new_ones(given.rows(ones[0].site))
    for one in ones:
        rows = one.site.rows or ((0, len(whole)),)
        whole[[n for a, b in rows for n in range(a, b)]] *= one.tensors["l"]
    return whole[:, None]


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of IA3 as a spec."""
    folder.only(READ, IDLE)
    found = modules_of(folder, {"ia3_l": "l"})
    pieces = [_piece(folder, m, tensors["l"]) for m, tensors in found.items()]
    used = any(piece.method == "ia3_input" for piece in pieces)
    return draft(folder, pieces, view, DEFINITIONS if used else "")


def _piece(folder: Folder, module: str, scales: torch.Tensor) -> Piece:
    if scales.ndim != 2 or 1 not in scales.shape:
        raise folder.damaged(f"the scales of `{module}` are no vector")
    method = "ia3_input" if scales.shape[0] == 1 else "ia3"
    return Piece(module, method, (), {"l": scales.reshape(-1)})


TUNER = Tuner("IA3", ("ia3", "ia3_input"), write, read, DEFINITIONS)
