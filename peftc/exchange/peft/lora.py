"""PEFT's LORA: `lora`, with `rs` too, and `dora`.

In: these methods at linears, or a folder of the type.  Out: the folder, or the spec.
A weight with one of them as a whole keeps its rank and alpha.  Where several meet, or
only rows of a fused weight are meant, all that is added is one product of larger rank,
with zeros for the other rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftc.exchange.low_rank import Product, product_of, side_by_side
from peftc.exchange.patterns import most_common, pattern, patterned
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
from peftc.plan.equations import definitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft
    from peftc.view import ModelView

NAMES = {"lora_A.weight": "A", "lora_B.weight": "B"}
MAGNITUDE = {"lora_magnitude_vector.weight": "m", "lora_magnitude_vector": "m"}
FORM = "PEFT's LORA"

READ = (
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern"),
    *("alpha_pattern", "init_lora_weights"),
)
IDLE = (
    *("target_modules", "exclude_modules", "fan_in_fan_out", "megatron_core"),
    *("layers_to_transform", "layers_pattern", "qalora_group_size", "loftq_config"),
)
"""Which modules are adapted is told by the tensors; the others do nothing alone."""
STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Initial values that leave the base as it is; others change its weights as well."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What is at one module: `scale * up @ down`, scale being alpha / r or, with `rs`,
    alpha / sqrt(r)."""

    product: Product
    alpha: float
    rs: bool = False
    magnitude: torch.Tensor | None = None

    def told(self, rs: bool) -> float:
        """The alpha that gives the scale under a rule; `rs` only if this has it."""
        root = math.sqrt(self.product.rank)
        return self.alpha if self.rs == rs else self.alpha * root


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of LORA."""
    split = {one.known_as for one in applied}
    if len(split) > 1:
        odd = next(one for one in applied if one.known_as != applied[0].known_as)
        raise odd.refuse(FORM, f"`{applied[0].method.name}` is of the other kind")
    entries = {m: _entry(given, m, ones) for m, ones in by_module(applied).items()}
    dropout = max(float(one.knobs.get("dropout", 0)) for one in applied)
    return written(given, entries, applied, dropout)


def written(
    given: Given,
    entries: Mapping[str, Entry],
    applied: Sequence[Applied],
    dropout: float = 0,
) -> Written:
    """The settings and tensors of entries by module."""
    rs = all(entry.rs for entry in entries.values())
    ranks = {module: entry.product.rank for module, entry in entries.items()}
    alphas = {module: _number(entry.told(rs)) for module, entry in entries.items()}
    r, alpha = most_common(ranks.values()), most_common(alphas.values())
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "target_modules": targets(entries, given),
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rs,
        "use_dora": any(entry.magnitude is not None for entry in entries.values()),
        "rank_pattern": pattern(ranks, r),
        "alpha_pattern": pattern(alphas, alpha),
        "bias": "none",
        "fan_in_fan_out": all(one.site.transposed for one in applied),
    }
    tensors = {}
    for module, entry in entries.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = entry.product.down
        tensors[f"{PREFIX}{module}.lora_B.weight"] = entry.product.up
        if entry.magnitude is not None:
            tensors[f"{PREFIX}{module}.lora_magnitude_vector.weight"] = entry.magnitude
    return Written(config, tensors)


def _number(value: float) -> float:
    """A whole number as one."""
    return int(value) if float(value).is_integer() else value


def _entry(given: Given, module: str, ones: Sequence[Applied]) -> Entry:
    first = ones[0]
    whole = len(ones) == 1 and first.site.rows is None and not first.site.experts
    if whole:
        values, alpha = first.tensors, first.number("alpha")
        product = Product(values["A"], values["B"])
        rs = bool(first.knobs.get("rs", False))
        return Entry(product, alpha, rs, values.get("m"))
    if "m" in first.tensors:
        reason = f"it is at a part of `{module}`, and a magnitude is one of all rows"
        raise first.refuse(FORM, reason)
    return plain(given, ones, FORM)


def plain(given: Given, ones: Sequence[Applied], form: str) -> Entry:
    """All that is added to one weight as one product, its scale in it.

    Raises:
        PeftcError: PEFT730 for the method that adds something else.
    """
    products = []
    for rewrite in {one.site.key: one.rewrite for one in ones}.values():
        own = [one for one in ones if one.rewrite is rewrite]
        found = _product(given, own)
        if isinstance(found, str):
            raise _to_blame(given, own).refuse(form, found)
        rows = [n for a, b in rewrite.site.rows or () for n in range(a, b)]
        out = given.rows(rewrite.site)
        products.append(found.in_rows(rows, out) if rows else found)
    product = side_by_side(products)
    return Entry(product, product.rank)


def _product(given: Given, ones: Sequence[Applied]) -> Product | str:
    """What some of the methods at a site add."""
    applications = tuple(one.application for one in ones)
    tensors = {
        f"{one.application.instance}.{name}": value
        for one in ones
        for name, value in one.tensors.items()
    }
    rewrite = replace(ones[0].rewrite, applications=applications)
    return product_of(rewrite, definitions(given.plan), tensors)


def _to_blame(given: Given, ones: Sequence[Applied]) -> Applied:
    """The first method that adds no product by itself."""
    alone = (one for one in ones if isinstance(_product(given, [one]), str))
    return next(alone, ones[0])


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of LORA as a spec."""
    folder.only(READ, IDLE)
    if folder.config.get("init_lora_weights") not in STARTS:
        reason = "this start changes the base's weights, which are not in the folder"
        raise folder.refused("init_lora_weights", reason)
    names = NAMES | (MAGNITUDE if folder.setting("use_dora", False) else {})
    found = modules_of(folder, names)
    pieces = [_piece(folder, module, tensors) for module, tensors in found.items()]
    return draft(folder, pieces, view)


def _piece(folder: Folder, module: str, tensors: dict[str, torch.Tensor]) -> Piece:
    r = int(tensors["A"].shape[0]) if tensors["A"].ndim == 2 else 0
    told = patterned(folder, "rank_pattern", module, folder.setting("r", 8))
    if r != told:
        raise folder.damaged(f"`{module}` has rank {r}, and {told} by the settings")
    usual = float(folder.setting("lora_alpha", 8.0))
    alpha = float(patterned(folder, "alpha_pattern", module, usual))
    rs = folder.setting("use_rslora", False)
    if "m" in tensors:
        scaled = alpha * math.sqrt(r) if rs else alpha
        return Piece(module, "dora", (("r", r), ("alpha", scaled)), tensors)
    knobs: list[tuple[str, Any]] = [("r", r), ("alpha", alpha)]
    dropout = folder.setting("lora_dropout", 0.0)
    knobs += [("dropout", dropout)] if dropout else []
    knobs += [("rs", True)] if rs else []
    return Piece(module, "lora", tuple(knobs), tensors)


TUNER = Tuner("LORA", ("lora", "dora"), write, read)
