"""AdapterHub's prefix tuning, and UniPELT's gated prefixes.

In: a part, and the view of a model.  Out: pieces at the attentions, in their order: the
tensors of all layers stand side by side in one.  Positions of tokens stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.tuner import Piece

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from peftc.exchange.adapterhub.parts import Part, Tensors
    from peftc.plan.types import Knob
    from peftc.view import ModelView

DEFINITIONS = """
method gated_prefix(p: size = 10, mlp: size = 16, embed: size = hidden) on attention {
  shared param E[p, embed] ~ normal(1), A[mlp, embed] ~ kaiming(5), a[mlp] = 0
  param K[key, mlp] ~ kaiming(5), k0[key] = 0, V[value, mlp] ~ kaiming(5)
  param v0[value] = 0, w[hidden] ~ normal(0.02), c[] = 0
  gate = mean(sigmoid(w(u) + c), t)
  k' = outer(gate, K(tanh(A(E) + a)) + k0)
  v' = outer(gate, V(tanh(A(E) + a)) + v0)
}
"""
READ = ("architecture", "version", "flat", "use_gating", "shared_gating")
IDLE = (
    *("encoder_prefix", "cross_prefix", "leave_out", "prefix_length", "dropout"),
    *("bottleneck_size", "init_weights_seed", "non_linearity"),
)
FLAT = {"self_prefix.control_trans": "rows"}
MADE = {
    "self_prefix.wte.weight": "E",
    "self_prefix.control_trans.0.weight": "A",
    "self_prefix.control_trans.0.bias": "a",
    "self_prefix.control_trans.2.weight": "matrices",
    "self_prefix.control_trans.2.bias": "offsets",
}


def pieces(part: Part, view: ModelView) -> list[Piece]:
    """What a part of architecture `prefix_tuning` does."""
    part.folder.only(READ, IDLE)
    flat = part.folder.setting("flat", False)
    if not flat:
        part.must({"non_linearity": "tanh"})
    owners = [site.owner for site in view.sites if site.kind == "attention"]
    found = part.found("prefix_tunings")
    if len(found) != 1 or any(site.stack for site in view.sites):
        raise part.folder.damaged("it is for another model, of one stack")
    ((module, tensors),) = found.items()
    values = part.named(module, tensors, FLAT if flat else MADE)
    made = (_flat if flat else _made)(part, values, owners)
    gates = part.found("prefix_gates")
    gated = part.folder.setting("use_gating", False)
    if gated:
        part.must({"shared_gating": True, "flat": False})
        if len(gates) != len(made):
            raise part.folder.damaged("its gates are not those of the model's layers")
        ordered = sorted(gates.items(), key=lambda gate: _numbers(gate[0]))
        made = [_gated(part, *pair) for pair in zip(made, ordered, strict=True)]
    return made


def _numbers(module: str) -> list[int]:
    """Where a module stands among those of other layers."""
    return [int(part) for part in module.split(".") if part.isdecimal()]


def _flat(part: Part, values: Tensors, owners: list[str]) -> list[Piece]:
    count = part.folder.setting("prefix_length", 30)
    if count < 1:
        raise part.refused("prefix_length")
    rows = part.folder.reshaped(values["rows"], count, len(owners), 2, -1)
    return [
        Piece(
            owner, "prefix", _knobs(p=count), {"K": rows[:, i, 0], "V": rows[:, i, 1]}
        )
        for i, owner in enumerate(owners)
    ]


def _made(part: Part, values: Tensors, owners: list[str]) -> list[Piece]:
    flat = part.folder.reshaped
    if values["A"].ndim != 2 or values["E"].ndim != 2:
        raise part.folder.damaged("what makes its rows is no table and no matrix")
    mlp, embed = values["A"].shape
    knobs = _knobs(p=len(values["E"]), mlp=mlp, embed=embed)
    matrices = flat(values["matrices"], len(owners), 2, -1, mlp)
    offsets = flat(values["offsets"], len(owners), 2, -1)
    shared = {name: values[name] for name in ("E", "A", "a")}
    return [
        Piece(owner, "prefix", knobs, {**shared, **_of(matrices[i], offsets[i])})
        for i, owner in enumerate(owners)
    ]


def _of(matrices: torch.Tensor, offsets: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """What makes the keys and the values of one layer."""
    (keys, values), (first, second) = matrices, offsets
    return {"K": keys, "k0": first, "V": values, "v0": second}


def _knobs(**sizes: Knob) -> tuple[tuple[str, Knob], ...]:
    return (*sizes.items(), ("positions", "keep"))


def _gated(part: Part, piece: Piece, gate: tuple[str, Tensors]) -> Piece:
    module, tensors = gate
    found = part.named(module, tensors, {"weight": "w", "bias": "c"})
    flat = part.folder.reshaped
    own = {"w": flat(found["w"], -1), "c": flat(found["c"])}
    return Piece(
        piece.module, "gated_prefix", piece.knobs[:-1], {**piece.tensors, **own}
    )
