"""Plain low rank, as every server and converter takes it.

In: an adapter whose methods only add low-rank products to linears.  Out: a folder of
PEFT's type LORA with one rank for all modules, scales folded into the tensors, and no
setting beyond that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.functional import pad

from peftc.exchange.low_rank import Product
from peftc.exchange.peft.lora import Entry, plain, written
from peftc.exchange.tuner import by_module

if TYPE_CHECKING:
    from peftc.exchange.applied import Given
    from peftc.exchange.tuner import Written

FORM = "plain low rank"


def portable(given: Given) -> Written:
    """All of an adapter as products of one rank.

    Raises:
        PeftcError: PEFT730 for a method that is no such product.
    """
    entries = {
        module: plain(given, ones, FORM)
        for module, ones in by_module(given.applied).items()
    }
    rank = max(entry.product.rank for entry in entries.values())
    padded = {m: Entry(_padded(e.product, rank), rank) for m, e in entries.items()}
    return written(given, padded, given.applied)


def _padded(product: Product, rank: int) -> Product:
    """The same product with rows and columns of zeros."""
    more = rank - product.rank
    return Product(pad(product.down, (0, 0, 0, more)), pad(product.up, (0, more)))
