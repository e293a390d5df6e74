"""AdapterHub's LoRA and (IA)3, and UniPELT's gated LoRA.

In: a part.  Out: pieces at the linears whose modules it names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peftc.exchange.tuner import Piece

if TYPE_CHECKING:
    from peftc.exchange.adapterhub.parts import Part, Tensors
    from peftc.plan.types import Knob

DEFINITIONS = """
method gated_lora(r: size = 8) on linear {
  param A[r, in] ~ kaiming(5), B[out, r] = 0, w[in] ~ normal(0.02), c[] = 0
  y' = y + mean(sigmoid(w(x) + c), t) * B(A(x))
}
"""
"""Their gate stands in the place of alpha / r, and is a mean over padding too."""
READ = ("architecture", "r", "alpha", "composition_mode", "use_gating", "version")
IDLE = (
    *("selfattn_lora", "intermediate_lora", "output_lora", "attn_matrices"),
    *("leave_out", "init_weights", "init_weights_seed", "dropout", "dtype"),
)
"""Which modules there are is told by the tensors."""


ROLES = {"lora_A": "A", "lora_B": "B"}
GATED = {**ROLES, "gate.weight": "w", "gate.bias": "c"}
FAULTY = "adapters."
"""What versions of the library begin with; before 1.1 it scaled by one."""


def pieces(part: Part) -> list[Piece]:
    """What a part of architecture `lora` does."""
    part.folder.only(READ, IDLE)
    make = _added
    if part.folder.config.get("composition_mode") == "scale":
        part.must({"r": 1, "alpha": 1, "use_gating": False})
        make = _scaled
    elif part.folder.setting("use_gating", False):
        make = _gated
    part.must({"composition_mode": "scale" if make is _scaled else "add"})
    return [make(part, m, tensors) for m, tensors in part.found("loras").items()]


def _added(part: Part, module: str, tensors: Tensors) -> Piece:
    knobs: list[tuple[str, Knob]] = [("r", part.folder.setting("r", 8))]
    knobs += [("alpha", _alpha(part))]
    dropout = part.folder.setting("dropout", 0.0)
    knobs += [("dropout", dropout)] if dropout else []
    return Piece(module, "lora", tuple(knobs), part.named(module, tensors, ROLES))


def _alpha(part: Part) -> float:
    """The alpha that gives the scale with which the adapter was trained."""
    version = part.folder.setting("version", "").removeprefix(FAULTY)
    number = re.match(r"(\d+)\.(\d+)", version)
    r = part.folder.setting("r", 8)
    early = number is not None and (int(number[1]), int(number[2])) < (1, 1)
    return r if early else float(part.folder.setting("alpha", 8.0))


def _gated(part: Part, module: str, tensors: Tensors) -> Piece:
    values = part.named(module, tensors, GATED)
    flat = part.folder.reshaped
    values |= {"w": flat(values["w"], -1), "c": flat(values["c"])}
    return Piece(module, "gated_lora", (("r", part.folder.setting("r", 8)),), values)


def _scaled(part: Part, module: str, tensors: Tensors) -> Piece:
    values = part.named(module, tensors, {"lora_B": "l"})
    return Piece(module, "ia3", (), {"l": values["l"].reshape(-1)})
