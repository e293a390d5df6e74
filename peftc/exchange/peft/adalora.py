"""PEFT's ADALORA: `adalora`.

In: triplets at linears, or a folder of the type.  Out: the folder, or the spec.  PEFT
has one rank for all modules; modules that kept fewer triplets are filled up with zeros.
It scales by alpha / (r + 1e-5), with the rank that the modules had at first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import pad

from peftc.exchange.patterns import most_common
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
    from collections.abc import Iterator, Sequence

    import torch

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's ADALORA"
NAMES = {"lora_A": "Q", "lora_B": "P", "lora_E": "l"}
SLACK = 1e-5
"""What PEFT adds to the rank before it divides by it."""
READ = ("init_r", "lora_alpha", "lora_dropout", "rank_pattern", "init_lora_weights")
IDLE = (
    *("target_modules", "exclude_modules", "fan_in_fan_out", "megatron_core", "r"),
    *("layers_to_transform", "layers_pattern", "qalora_group_size", "loftq_config"),
    *("target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight"),
    "total_step",
)


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of ADALORA."""
    modules = alone(applied, FORM)
    scale = most_common(_scale(one) for one in applied)
    rank = max(len(one.tensors["Q"]) for one in applied)
    config = {
        "peft_type": "ADALORA",
        "target_modules": targets(modules, given),
        "init_r": rank,
        "target_r": rank,
        "lora_alpha": scale * (rank + SLACK),
        "lora_dropout": applied[0].number("dropout"),
        "total_step": 1,
        "rank_pattern": None,
        "bias": "none",
        "fan_in_fan_out": all(one.site.transposed for one in applied),
    }
    tensors = {
        f"{PREFIX}{module}.{name}": tensor
        for module, one in modules.items()
        for name, tensor in _triplets(one, rank, _scale(one) / scale)
    }
    return Written(config, tensors)


def _scale(one: Applied) -> float:
    """What the triplets are times; nothing where an export has multiplied them."""
    return one.number("alpha") / one.number("init_r") if "l" in one.tensors else 1.0


def _triplets(
    one: Applied, rank: int, scale: float
) -> Iterator[tuple[str, torch.Tensor]]:
    """PEFT's tensors of a module, with zeros up to a rank."""
    rest = dict(one.tensors)
    right = rest.pop("Q")
    middle = rest.pop("l", right.new_ones(len(right)))
    (left,) = rest.values()
    more = rank - len(right)
    yield "lora_A", pad(right, (0, 0, 0, more))
    yield "lora_B", pad(left, (0, more))
    yield "lora_E", pad(scale * middle, (0, more))[:, None]


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of ADALORA as a spec; modules that kept no triplet are left out."""
    folder.only(READ, IDLE)
    init_r = folder.setting("init_r", 12)
    if init_r < 1:
        raise folder.refused("init_r", "it should be 1 or more")
    alpha = float(folder.setting("lora_alpha", 8.0)) or float(init_r)
    alpha *= init_r / (init_r + SLACK)
    pieces = [
        _piece(folder, module, tensors, (("init_r", init_r), ("alpha", alpha)))
        for module, tensors in modules_of(folder, NAMES).items()
        if tensors["l"].numel()
    ]
    return draft(folder, pieces, view)


def _piece(
    folder: Folder,
    module: str,
    tensors: dict[str, torch.Tensor],
    knobs: tuple[tuple[str, float], ...],
) -> Piece:
    dropout = folder.setting("lora_dropout", 0.0)
    more = (("dropout", dropout),) if dropout else ()
    triplets = {**tensors, "l": tensors["l"].reshape(-1)}
    return Piece(
        module, "adalora", (*knobs, ("r", len(triplets["l"])), *more), triplets
    )


TUNER = Tuner("ADALORA", ("adalora",), write, read)
