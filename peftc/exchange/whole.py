"""Trained parameters as a whole, and as the difference from the base.

In: a difference at a site, or a trained parameter.  Out: the other.  peftc trains and
stores differences; PEFT stores whole modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.exchange import NeedsBase

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from peftc.exchange.applied import Applied, Given, Read
    from peftc.view import Site


def trained(given: Given, one: Applied) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters of a site with its differences in them, by their paths; the first
    tensor of the method is that of the weight, a second one that of the bias.

    Raises:
        PeftcError: PEFT734 if the base is not at hand.
    """
    if given.read is None:
        what = f"`{one.site.owner}` is stored as a whole there"
        raise fail(NeedsBase(span=one.span, what=what))
    for path, value in zip(_paths(one.site), one.tensors.values(), strict=False):
        base = given.read(path).detach()
        yield path, base + _stored(one.site, value).to(base.dtype)


def difference(site: Site, path: str, value: torch.Tensor, read: Read) -> torch.Tensor:
    """What a trained parameter of a site adds to the base's, as a site stores it."""
    base = read(path).detach().to("cpu")
    return _stored(site, value.to(base.dtype) - base)


def _paths(site: Site) -> tuple[str, ...]:
    return (site.weight, site.bias) if site.bias else (site.weight,)


def _stored(site: Site, value: torch.Tensor) -> torch.Tensor:
    """A matrix of [out, in] as the base stores it, and back."""
    return value.mT if site.transposed and value.ndim > 1 else value
