"""Side networks in a plan: their tensors, and what may stand beside them.

In: an application at a side, or the rewrites of a plan.  Out: the tensors that its
network has; or an error for a method that no gradient would reach.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics, PeftcError, fail
from peftc.diagnostics.networks import InsideBackbone, NoSideNetwork, SideTwice
from peftc.plan.equations import equation_of
from peftc.plan.types import AddedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.networks import Network
    from peftc.plan.types import Application, Rewrite
    from peftc.resolve.spec import Applied
    from peftc.syntax.ast import Method
    from peftc.view import ModelView, NetworkTensors, Site


def network_of(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> Network:
    """The network that an application at a side puts there."""
    network = equation_of(application, site, methods).network
    assert network is not None
    return network


def with_networks(
    parts: Sequence[Applied], applications: Sequence[Application], view: ModelView
) -> tuple[Application, ...]:
    """The applications at a side with the tensors of their networks.

    Raises:
        PeftcError: with what is wrong with a network's options, at its application.
    """
    if view.networks is None:
        reason = "this view of it does not tell its classes"
        raise fail(NoSideNetwork(model=view.architecture, reason=reason))
    told = view.networks
    pairs = zip(parts, applications, strict=True)
    return tuple(
        replace(application, tensors=_tensors(applied, application, told))
        for applied, application in pairs
    )


def _tensors(
    applied: Applied, application: Application, told: NetworkTensors
) -> tuple[AddedTensor, ...]:
    """The tensors of a network, named within its application."""
    site, method = applied.site, applied.method
    network = network_of(application, site, {method.name: method})
    try:
        tensors = told(site, network.builder, network.options)
    except PeftcError as error:
        placed = (replace(d, span=applied.call) for d in error.diagnostics)
        raise PeftcError(placed) from None
    return tuple(
        AddedTensor(f"{application.instance}.{name}", shape, "param", init)
        for name, shape, init in tensors
    )


def check_beside(spec: Sequence[Applied], rewrites: Sequence[Rewrite]) -> None:
    """Refuse a second network, and trained tensors that no gradient reaches.

    Raises:
        PeftcError: PEFT352 for each method inside the backbone, PEFT353.
    """
    sides = [applied for applied in spec if applied.site.kind == "side"]
    trained = {
        rewrite.site.key
        for rewrite in rewrites
        if any(tensor.kind == "param" for tensor in rewrite.tensors)
    }
    errors = Diagnostics()
    for applied in spec if sides else ():
        site, first = applied.site, sides[0].method.name
        if applied in sides[1:] and site.key == sides[0].site.key:
            errors.add(SideTwice(span=applied.span, first=first))
        elif site.kind != "side" and site.role != "head" and site.key in trained:
            name, span = applied.method.name, applied.span
            place = site.role or site.owner
            errors.add(InsideBackbone(span=span, method=name, site=place, side=first))
    errors.check()
