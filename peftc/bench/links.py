"""Which tensors of two models are the same one, so that both start alike.

In: our compiled model, a peer of the same case.  Out: links, from a parameter of ours
to the part of the peer's parameter (or of its gradient) that corresponds to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from peftc.bench.cases import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor
    from torch.nn import Parameter

    from peftc.bench.cases import Case

_PREFIXES = ("_orig_mod.", "base_model.model.")
"""What wrappers put before the paths of a model."""


@dataclass(frozen=True, eq=False)
class Link:
    """`part` of a tensor like `theirs` is what corresponds to `ours`."""

    ours: Parameter
    theirs: Parameter
    part: Callable[[Tensor], Tensor]

    def copy(self) -> None:
        """Give the peer the values of ours."""
        self.part(self.theirs.data).copy_(self.ours.data)

    def gradients(self) -> tuple[Tensor, Tensor] | None:
        """Both gradients, if both are there."""
        if self.ours.grad is None or self.theirs.grad is None:
            return None
        return self.ours.grad, self.part(self.theirs.grad)


def links(ours: Any, theirs: Any, case: Case) -> tuple[Link, ...]:
    """The links between what both train; empty if nothing corresponds."""
    mine, other = _trained(ours), _trained(theirs)
    if mine.keys() == other.keys():
        return tuple(Link(mine[n], other[n], _alike(mine[n])) for n in mine)
    if ROWS in case.names:
        return tuple(_of_table(mine, other))
    return tuple(_by_ends(mine, other, case.names))


def _trained(model: Any) -> dict[str, Parameter]:
    named = model.named_parameters()
    return {_path(name): p for name, p in named if p.requires_grad}


def _path(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _alike(parameter: Parameter) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.view(parameter.shape)


def _by_ends(
    mine: Mapping[str, Parameter],
    other: Mapping[str, Parameter],
    names: Mapping[str, str],
) -> Iterator[Link]:
    places = {_place(name): name for name in mine}
    for name, theirs in other.items():
        for end, own in names.items():
            found = places.get((name.removesuffix(f".{end}"), own))
            if name.endswith(f".{end}") and found:
                yield Link(mine[found], theirs, _alike(mine[found]))


def _place(name: str) -> tuple[str, str]:
    """The module that owns a tensor, and its method and name without the site."""
    owner, _, rest = name.partition(".peftc.")
    return owner, rest.partition(".")[2]


def _of_table(
    mine: Mapping[str, Parameter], other: Mapping[str, Parameter]
) -> Iterator[Link]:
    """PEFT's table is [rows, (layer, key or value, width)]."""
    (table,) = other.values()
    for number, ours in enumerate(mine.values()):
        part = partial(_columns, number=number, of=len(mine))
        yield Link(ours, table, part)


def _columns(tensor: Tensor, *, number: int, of: int) -> Tensor:
    return tensor.chunk(of, dim=1)[number]
