"""The base of a compiled model, with gradients, for a while.

In: a run and the sites whose weights matter.  Out: inside the `with` block the base
runs without methods and these weights require gradients; afterwards every weight has
the bytes that it had.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.masks import StoredInCodes
from peftc.runtime.evaluate import base_values, chosen, is_transposed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn

    from peftc.training.run import Run
    from peftc.view import Site


@contextmanager
def learning_base(run: Run, sites: Iterable[str]) -> Iterator[dict[str, nn.Parameter]]:
    """The weights and biases of sites by path, which require gradients inside."""
    found = weights(run, sites)
    before = {path: p.detach().clone() for path, p in found.items()}
    for parameter in found.values():
        parameter.requires_grad_(True)
    try:
        with run.handle.disabled():
            yield found
    finally:
        for path, parameter in found.items():
            parameter.requires_grad_(False)
            parameter.grad = None
            with torch.no_grad():
                parameter.copy_(before[path])


def weights(run: Run, sites: Iterable[str]) -> dict[str, nn.Parameter]:
    """The parameters of the base at sites, each once.

    Raises:
        PeftcError: PEFT333 if one is stored in codes.
    """
    found = {}
    stored = {one.weight for one in run.handle.plan.stores}
    for key in sites:
        site = run.values.rewrite(key).site
        for path in (site.weight, site.bias):
            if path in stored:
                raise fail(StoredInCodes(weight=path))
            if path:
                found[path] = run.model.get_parameter(path)
    return found


def at_site(model: nn.Module, site: Site) -> Mapping[str, Tensor]:
    """`W` [out, in] and `bias` of a site as they are now, copied."""
    values = base_values(model, site, lambda path: model.get_parameter(path).detach())
    return {name: value.clone() for name, value in values.items()}


def oriented(model: nn.Module, site: Site, value: Tensor) -> Tensor:
    """A tensor in the layout of a site's weight as [out, in], the site's rows only."""
    turned = value.mT if is_transposed(model, site) else value
    return chosen(site, "W", turned)
