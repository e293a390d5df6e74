"""PEFT's P_TUNING: `ptuning`, whose rows are what its encoder gave.

In: rows at a model's input, or a folder of the type.  Out: the folder, or the spec,
with `encoder=none`: neither PEFT's folders nor our exports keep the encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.peft.prompt import drafted, written
from peftc.exchange.tuner import Tuner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.exchange.applied import Applied, Given
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Draft, Written
    from peftc.view import ModelView


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of P_TUNING."""
    return written("P_TUNING", given, applied)


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of P_TUNING as a spec."""
    return drafted(folder, view, "ptuning", (("encoder", "none"),))


TUNER = Tuner("P_TUNING", ("ptuning",), write, read)
