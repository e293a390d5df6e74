"""Where tokens and rows of methods stand in the sequence that a stack reads.

In: which tokens are there [b, t], and the places of the rows.  Out: an `Arrangement`:
for each place of the longer sequence [b, n] the token or the row that stands there.
Places count from the first token of a sample that is there, or from behind its last;
padding on either side changes nothing.  No value is read: all is arithmetic on tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from peftc.expr.insertion import Places


@dataclass(frozen=True)
class Arrangement:
    """`order` [b, n] says what stands at each place: a row by its number, token i as
    `rows` + i."""

    order: Tensor
    rows: int

    @property
    def numbers(self) -> Tensor:
        """The number of the row at each place [b, n]; -1 where a token stands."""
        return torch.where(self.order < self.rows, self.order, -1)

    @property
    def kept(self) -> Tensor:
        """The places of the tokens [b, t]."""
        return self.order.argsort(1)[:, self.rows :]

    @property
    def ends(self) -> Tensor:
        """The last place before the next token, for each token [b, t]."""
        last = torch.full_like(self.order[:, :1], self.order.shape[1] - 1)
        return torch.cat((self.kept[:, 1:] - 1, last), 1)

    def spread(self, values: Tensor, fill: int) -> Tensor:
        """Values of tokens [b, t] at their places, and `fill` at those of rows."""
        of_rows = values.new_full((self.order.shape[0], self.rows), fill)
        values = values.expand(self.order.shape[0], -1)
        return torch.cat((of_rows, values), 1).gather(1, self.order)

    def positions(self, given: Tensor) -> Tensor:
        """Positions [b, t] further on for the rows before them, and those of rows,
        which count on to the token that follows."""
        given = given.expand(self.order.shape[0], -1)
        is_row = self.order < self.rows
        following = torch.cat((given, given[:, -1:] + 1), 1)
        before = (~is_row).cumsum(1) - (~is_row).long()
        return following.gather(1, before) + is_row.cumsum(1) - is_row.long()

    def tokens(self, values: Tensor, axis: int = 1) -> Tensor:
        """Of values with an axis of places those of the tokens."""
        return chosen(values, self.kept, axis)


def chosen(values: Tensor, places: Tensor, axis: int = 1) -> Tensor:
    """Values [b, ..., n, ...] at places [b, t] of one axis."""
    shape = [1] * values.dim()
    shape[0], shape[axis] = places.shape
    index = places.view(shape)
    target = [*values.shape]
    target[axis] = places.shape[1]
    return values.gather(axis, index.expand(target))


def arrange(real: Tensor, places: Places) -> Arrangement:
    """Put rows among tokens; `real` [b, t] is 0 for padding."""
    count = real.shape[1]
    is_real = (real != 0).long()
    first = is_real.argmax(1, keepdim=True)
    end = count - is_real.flip(1).argmax(1, keepdim=True)
    slots = [
        torch.minimum(first + at, end)
        if at >= 0
        else torch.maximum(end + 1 + at, first)
        for at, _ in places
    ]
    keys = [
        2 * slot.expand(-1, rows) for slot, (_, rows) in zip(slots, places, strict=True)
    ]
    tokens = 2 * torch.arange(count, device=real.device) + 1
    keys.append(tokens.expand(real.shape[0], -1))
    order = torch.cat(keys, 1).argsort(stable=True, dim=1)
    return Arrangement(order, sum(rows for _, rows in places))
