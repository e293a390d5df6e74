"""Methods that are timed, each with what it is called in Hugging Face PEFT.

In: nothing.  Out: `CASES`.  PEFT's tensors are paired with ours by the ends of their
paths after the module that owns them, so that both start from the same values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftc.bench.choices import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ROWS = "rows"
"""PEFT keeps all rows of all layers in one table."""

LINEARS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


@dataclass(frozen=True)
class Case:
    """A spec, and the configuration of PEFT that means the same on a Llama, if any.

    `names` are ends of paths of PEFT's tensors to ours; `ROWS` stands for a table.
    """

    name: str
    spec: str
    config: Callable[[Any], Any] | None = None
    names: Mapping[str, str] = field(default_factory=dict, hash=False)
    why_not: str = "PEFT has no such method"


def _low_rank(peft: Any) -> Any:
    return peft.LoraConfig(r=8, lora_alpha=16, target_modules=LINEARS)


def _directions(peft: Any) -> Any:
    return peft.LoraConfig(r=8, lora_alpha=16, use_dora=True, target_modules=LINEARS)


def _scales(peft: Any) -> Any:
    targets = ["k_proj", "v_proj", "down_proj"]
    return peft.IA3Config(target_modules=targets, feedforward_modules=["down_proj"])


def _kronecker(peft: Any) -> Any:
    """A rank that is no restriction leaves both factors of the product whole."""
    return peft.LoKrConfig(r=1000, alpha=1000, target_modules=LINEARS)


def _hadamard(peft: Any) -> Any:
    return peft.LoHaConfig(r=8, alpha=16, target_modules=LINEARS)


def _rows(peft: Any) -> Any:
    return peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=30)


_A, _B = "lora_A.default.weight", "lora_B.default.weight"

_ALL = (
    Case("lora", "lora(linear, r=8)", _low_rank, {_A: "lora.A", _B: "lora.B"}),
    Case(
        "dora",
        "dora(linear, r=8)",
        _directions,
        {
            _A: "dora.A",
            _B: "dora.B",
            "lora_magnitude_vector.default.weight": "dora.m",
        },
    ),
    Case("ia3", "ia3(k, v, ffn)", _scales, {"ia3_l.default": "ia3.l"}),
    Case("prefix30", "prefix(k, v, p=30)", _rows, {ROWS: ROWS}),
    Case("adapter64", "adapter(attn, ffn, d=64)"),
    Case(
        "krona",
        "krona(linear)",
        _kronecker,
        {"lokr_w1.default": "krona.A", "lokr_w2.default": "krona.B"},
    ),
    Case(
        "loha",
        "loha(linear, r=8)",
        _hadamard,
        {
            "hada_w1_a.default": "loha.B1",
            "hada_w1_b.default": "loha.A1",
            "hada_w2_a.default": "loha.B2",
            "hada_w2_b.default": "loha.A2",
        },
    ),
    Case("bitfit", "bitfit(linear, create=true)"),
    Case(
        "lora+prefix+adapter",
        "lora(linear, r=8) + prefix(k, v, p=30) + adapter(ffn, d=64)",
        why_not="PEFT does not train several kinds of methods at once",
    ),
)

CASES: Mapping[str, Case] = {case.name: case for case in _ALL}


def chosen(names: Iterable[str]) -> tuple[Case, ...]:
    """The cases of these names.

    Raises:
        PeftcError: PEFT711 for a name that is none.
    """
    found = []
    for name in names:
        if name not in CASES:
            raise unknown("--methods", name, CASES)
        found.append(CASES[name])
    return tuple(found)
