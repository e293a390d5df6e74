"""The types of Hugging Face PEFT that are known here, one file each.

In: nothing.  Out: `TUNERS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.peft import (
    adalora,
    ia3,
    ln_tuning,
    loha,
    lokr,
    lora,
    miss,
    p_tuning,
    prefix,
    prompt,
    vera,
)

if TYPE_CHECKING:
    from peftc.exchange.tuner import Tuner

TUNERS: tuple[Tuner, ...] = (
    lora.TUNER,
    ia3.TUNER,
    prefix.TUNER,
    prompt.TUNER,
    p_tuning.TUNER,
    adalora.TUNER,
    loha.TUNER,
    lokr.TUNER,
    vera.TUNER,
    ln_tuning.TUNER,
    miss.TUNER,
)
