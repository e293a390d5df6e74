"""Which layer each addition of a stream is in.

In: what each addition mixes, as letters: `s` the tokens of its own stream by attention,
`x` those of another, `c` some in another way (a convolution, products of activations),
`f` none (a feed-forward).  Out: the number of the layer of each, None for what is
before the first.

A layer is what is repeated: additions that mix, then feed-forwards.  One of several
mixings (attention over time, then over space) is one layer if all are alike; else each
mixing of the stream's own tokens begins one.  Feed-forwards before the first mixing
belong to it if as many come before each (half a feed-forward, attention, convolution,
half a feed-forward).
"""

from __future__ import annotations

import re
from itertools import accumulate


def layer_numbers(kinds: str) -> tuple[int | None, ...]:
    """The layer of each addition.

    >>> layer_numbers("sxfsxf")  # a decoder
    (0, 0, 0, 1, 1, 1)
    >>> layer_numbers("fscffscf")  # conformers
    (0, 0, 0, 0, 1, 1, 1, 1)
    >>> layer_numbers("csfsf")  # positions by a convolution, then layers
    (None, 0, 0, 1, 1)
    >>> layer_numbers("ff")  # nothing is mixed
    (0, 0)
    >>> layer_numbers("ccsc")  # no feed-forwards
    (0, 1, 2, 3)
    """
    before = _before(kinds)
    rest = kinds[before:]
    begins = _begins(rest)
    numbers = accumulate(int(i in begins and i > 0) for i in range(len(rest)))
    return (*[None] * before, *numbers)


def _before(kinds: str) -> int:
    """The number of additions before the first layer: a convolution in front of the
    first of layers that have none."""
    first, *others = re.findall("[^f]+", kinds) or [""]
    is_alone = bool(others) and all(first == f"c{other}" for other in others)
    return 1 if is_alone and kinds[0] == "c" and "c" not in first[1:] else 0


def _begins(kinds: str) -> set[int]:
    """The places at which layers begin, besides the first addition."""
    groups = list(re.finditer("[^f]+", kinds))
    is_one = "f" in kinds and len({group.group() for group in groups}) == 1
    ahead = _ahead(kinds)
    begins = {group.start() - ahead for group in groups[1:]}
    if not is_one:
        begins |= {i for group in groups for i in _later_mixings(group)}
    return begins


def _later_mixings(group: re.Match[str]) -> list[int]:
    """Where a group mixes the stream's own tokens again."""
    own = [group.start() + mixing.start() for mixing in re.finditer("[sc]", group[0])]
    return own[1:]


def _ahead(kinds: str) -> int:
    """How many feed-forwards come before the mixings of each layer."""
    first, *others = map(len, re.split("[^f]+", kinds))
    is_each = all(run == first + others[-1] for run in others[:-1])
    return first if is_each else 0
