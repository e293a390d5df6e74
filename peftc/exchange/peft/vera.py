"""PEFT's VERA: `vera`, with the random matrices in the folder.

In: scaled random products at linears, or a folder of the type.  Out: the folder, or the
spec.  Ours draws a pair of matrices for all sites of equal sizes, PEFT cuts the pair of
each site out of one: so the pairs of ours stand side by side in it, along the rank, and
each site has zeros for the others.  Coming back, the pair is stored, as no seed of ours
draws it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from peftc.exchange.folder import Folder
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
    from collections.abc import Mapping, Sequence

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's VERA"
NAMES = {"vera_lambda_b": "l", "vera_lambda_d": "d"}
DOWN, UP = "base_model.vera_A", "base_model.vera_B"
DEFINITIONS = """
method vera_stored(r: size) on linear {
  shared buffer A[r, in] = 0, B[out, r] = 0
  param d[r] = 0.1, l[out] = 0
  W' = W + diag(l) @ B @ diag(d) @ A
}
"""
READ = ("r", "save_projection")
IDLE = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("fan_in_fan_out", "projection_prng_key", "vera_dropout", "d_initial"),
    "init_weights",
)


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of VERA."""
    modules = alone(applied, FORM)
    pairs = {_pair(one): one.tensors for one in applied}
    starts, rank = {}, 0
    for pair, found in pairs.items():
        starts[pair] = rank
        rank += len(found["d"])
    config = {
        "peft_type": "VERA",
        "target_modules": targets(modules, given),
        "r": rank,
        "save_projection": True,
        "fan_in_fan_out": all(one.site.transposed for one in applied),
        "bias": "none",
    }
    widths, heights = ([one.tensors[n].shape[i] for one in applied] for n, i in _SIZES)
    downs = [_grown(found["A"], 1, max(widths)) for found in pairs.values()]
    ups = [_grown(found["B"], 0, max(heights)) for found in pairs.values()]
    tensors = {DOWN: torch.cat(downs), UP: torch.cat(ups, dim=1)}
    for module, one in modules.items():
        start, own = starts[_pair(one)], one.tensors["d"]
        scales = pad(own, (start, rank - start - len(own)))
        tensors[f"{PREFIX}{module}.vera_lambda_d"] = scales
        tensors[f"{PREFIX}{module}.vera_lambda_b"] = one.tensors["l"]
    return Written(config, tensors)


_SIZES = (("A", 1), ("B", 0))


def _pair(one: Applied) -> tuple[str, ...]:
    """What tells the pair of matrices of a site from others."""
    return tuple(t.shared for t in one.application.tensors if t.shared)


def _grown(tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """A matrix with zeros up to a size."""
    more = size - tensor.shape[axis]
    return pad(tensor, (0, more) if axis else (0, 0, 0, more))


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of VERA as a spec."""
    folder.only(READ, IDLE)
    pair = {name: folder.tensors.get(name) for name in (DOWN, UP)}
    down, up = pair[DOWN], pair[UP]
    if down is None or up is None:
        reason = "its matrices are drawn as PEFT draws them, and are not in the folder"
        raise folder.refused("save_projection", reason)
    if down.ndim != 2 or up.ndim != 2:
        raise folder.damaged("its random matrices are no matrices")
    others = {k: t for k, t in folder.tensors.items() if k not in pair}
    found = modules_of(Folder(folder.path, folder.config, others), NAMES)
    whole = (s for s in view.sites if s.kind == "linear" and s.rows is None)
    sizes = {site.owner: dict(site.sizes) for site in whole}
    pieces = [
        _piece(module, tensors, (down, up), sizes.get(module, {}))
        for module, tensors in found.items()
    ]
    return draft(folder, pieces, view, DEFINITIONS)


def _piece(
    module: str,
    tensors: Mapping[str, torch.Tensor],
    pair: tuple[torch.Tensor, torch.Tensor],
    sizes: Mapping[str, int],
) -> Piece:
    down, up = pair
    cut = {"A": down[:, : sizes.get("in")], "B": up[: sizes.get("out")]}
    return Piece(module, "vera_stored", (("r", len(down)),), {**tensors, **cut})


TUNER = Tuner("VERA", ("vera", "vera_stored"), write, read, DEFINITIONS)
