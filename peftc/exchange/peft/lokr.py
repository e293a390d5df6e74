"""PEFT's LOKR: `krona`, and Kronecker products whose factors are of low rank.

In: Kronecker products at linears, or a folder of the type.  Out: the folder, or the
spec.  PEFT derives the sizes of the factors from one number for all modules, which has
to be found: near the square root, or a divisor that all first factors have.
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
from peftc.expr.numbers import near_sqrt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

FORM = "PEFT's LOKR"
WHOLE = {"lokr_w1": "A", "lokr_w2": "B"}
SECOND = {"lokr_w1": "A", "lokr_w2_a": "B1", "lokr_w2_b": "B2"}
BOTH = {"lokr_w1_a": "A1", "lokr_w1_b": "A2", "lokr_w2_a": "B1", "lokr_w2_b": "B2"}
FIRST = {"lokr_w1_a": "A1", "lokr_w1_b": "A2", "lokr_w2": "B"}
METHODS = {
    "krona": WHOLE,
    "lokr_second": SECOND,
    "lokr_both": BOTH,
    "lokr_first": FIRST,
}
"""The tensors of each method, by PEFT's names."""
DEFINITIONS = """
method lokr_second(a1: size, a2: size, r: size, s: scale = 1) on linear {
  param A[a1, a2] ~ kaiming(5), B1[out/a1, r] ~ kaiming(5), B2[r, in/a2] = 0
  W' = W + s * kron(A, B1 @ B2)
}
method lokr_both(a1: size, a2: size, r: size, s: scale = 1) on linear {
  param A1[a1, r] ~ kaiming(5), A2[r, a2] ~ kaiming(5)
  param B1[out/a1, r] ~ kaiming(5), B2[r, in/a2] = 0
  W' = W + s * kron(A1 @ A2, B1 @ B2)
}
method lokr_first(a1: size, a2: size, r: size, s: scale = 1) on linear {
  param A1[a1, r] ~ kaiming(5), A2[r, a2] ~ kaiming(5), B[out/a1, in/a2] = 0
  W' = W + s * kron(A1 @ A2, B)
}
"""
READ = ("r", "alpha", "rank_pattern", "alpha_pattern", "init_weights")
IDLE = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_dropout", "module_dropout", "rank_dropout_scale", "use_effective_conv2d"),
    *("decompose_both", "decompose_factor"),
)


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of LOKR."""
    modules = alone(applied, FORM, transposed=False)
    ranks = {module: _rank(one) for module, one in modules.items()}
    alphas = {m: one.number("s") * ranks[m] for m, one in modules.items()}
    r, alpha = most_common(ranks.values()), most_common(alphas.values())
    both = {one.known_as in ("lokr_both", "lokr_first") for one in applied}
    if len(both) > 1:
        raise applied[0].refuse(FORM, "all first factors are of low rank, or none")
    config = {
        "peft_type": "LOKR",
        "target_modules": targets(modules, given),
        "r": r,
        "alpha": alpha,
        "rank_pattern": pattern(ranks, r),
        "alpha_pattern": pattern(alphas, alpha),
        "decompose_both": both.pop(),
        "decompose_factor": _factor(applied),
    }
    tensors = {
        f"{PREFIX}{module}.{theirs}": one.tensors[ours]
        for module, one in modules.items()
        for theirs, ours in METHODS[one.known_as].items()
    }
    return Written(config, tensors)


def _rank(one: Applied) -> int:
    """The rank in PEFT: of whole factors, one that is no restriction."""
    sizes = [one.site.size("out"), one.site.size("in")]
    return int(one.knobs.get("r", max(sizes)))


def _factor(applied: Sequence[Applied]) -> int:
    """PEFT's number from which it finds the factors' sizes; -1 is the square root."""
    if all(_first(one) == _near(one) for one in applied):
        return -1
    factor = int(applied[0].knobs["a1"])
    odd = next((one for one in applied if _first(one) != (factor, factor)), None)
    if odd is not None:
        raise odd.refuse(FORM, "`a1` and `a2` are one number there, for all modules")
    return factor


def _first(one: Applied) -> tuple[int, int]:
    return int(one.knobs["a1"]), int(one.knobs["a2"])


def _near(one: Applied) -> tuple[int, int]:
    return near_sqrt(one.site.size("out")), near_sqrt(one.site.size("in"))


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of LOKR as a spec."""
    folder.only(READ, IDLE)
    names = {theirs: ours for one in METHODS.values() for theirs, ours in one.items()}
    found = modules_of(folder, names, optional=names.values())
    pieces = [_piece(folder, module, tensors) for module, tensors in found.items()]
    used = any(piece.method != "krona" for piece in pieces)
    return draft(folder, pieces, view, DEFINITIONS if used else "")


def _piece(folder: Folder, module: str, tensors: dict[str, torch.Tensor]) -> Piece:
    same = (m for m, names in METHODS.items() if {*names.values()} == tensors.keys())
    method = next(same, None)
    if method is None or any(tensor.ndim != 2 for tensor in tensors.values()):
        raise folder.damaged(f"the factors of `{module}` are none of a linear")
    r = patterned(folder, "rank_pattern", module, folder.setting("r", 8))
    if r < 1:
        raise folder.damaged(f"`{module}` has rank {r} by the settings")
    usual = float(folder.setting("alpha", 8.0))
    scale = patterned(folder, "alpha_pattern", module, usual) / r
    rows = tensors["A"] if "A" in tensors else tensors["A1"]
    columns = tensors["A"] if "A" in tensors else tensors["A2"]
    knobs = [("a1", rows.shape[0]), ("a2", columns.shape[1]), ("s", scale)]
    knobs += [("r", r)] if method != "krona" else []
    return Piece(module, method, tuple(knobs), tensors)


TUNER = Tuner("LOKR", tuple(METHODS), write, read, DEFINITIONS)
