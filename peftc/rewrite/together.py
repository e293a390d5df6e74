"""A linear and its program as one node: forward and backward are planned together.

In: a use of a linear site.  Out: the node, or None where the site has to be computed in
the ordinary way: its weight is stored turned or in codes, its types differ, tokens are
told apart, or a function has no derivative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch.nn.functional as F

from peftc.codegen.torch_source import NoSourceError
from peftc.expr.cost import Machine
from peftc.expr.derivative import NoDerivativeError
from peftc.expr.joint import order_jointly
from peftc.plan.equations import composed, definitions, environment, same_shape
from peftc.rewrite.edit import now
from peftc.rewrite.function import together
from peftc.rewrite.insert import example

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from peftc.plan.types import Plan, Rewrite
    from peftc.rewrite.function import Together
    from peftc.rewrite.insert import Inserter
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import LinearAnchor
    from peftc.syntax.ast import Method

Functions: TypeAlias = "Mapping[str, Together]"
"""By site; a site that has none is computed in the ordinary way."""

CPU = Machine(
    matrix=9e10,
    vector=1e10,
    bandwidth=1.5e10,
    launch=3e-6,
    element=4,
    batch=4,
    tokens=128,
)
"""One core, as measured with matrices of a few hundred columns."""


def functions(plan: Plan) -> Functions:
    """The functions of a plan's sites by their keys: one is made for each kind."""
    methods = definitions(plan)
    found: dict[str, Together] = {}
    for group in same_shape([r for r in plan.rewrites if _may_be_one(r)]).values():
        function = _function(group[0], methods)
        if function is not None:
            found |= {rewrite.site.key: function for rewrite in group}
    return found


def _may_be_one(rewrite: Rewrite) -> bool:
    site = rewrite.site
    whole = site.kind == "linear" and site.rows is None and not site.experts
    return whole and not site.transposed and len(rewrite.programs) == 1


def _function(rewrite: Rewrite, methods: Mapping[str, Method]) -> Together | None:
    whole, env = composed(rewrite, methods), environment(rewrite)
    biased = bool(rewrite.site.bias)
    try:
        return together(order_jointly(whole, env, biased, CPU), biased)
    except (NoDerivativeError, NoSourceError):
        return None


def emit_together(
    use: Use[LinearAnchor], y: fx.Node, at: Inserter, known: Functions
) -> fx.Node | None:
    """Insert the site as one node on the linear's own operands."""
    function = known.get(use.key)
    if function is None or not _is_plain(use, y):
        return None
    given = {"x": now(use.capture, use.anchor.x), "W": use.anchor.weight}
    if use.anchor.bias is not None:
        given["bias"] = use.anchor.bias
    nodes = [given.get(n) or use.tensor(n) for n in function.inputs]
    if not _alike(nodes, at):
        return None
    return at.put(function, *nodes)


def _is_plain(use: Use[LinearAnchor], y: fx.Node) -> bool:
    """Whether the output is that of one call on the weight as it is stored."""
    anchor = use.anchor
    return (
        use.capture.training.get(use.key, False)
        and y is anchor.call
        and anchor.call.target is F.linear
        and anchor.weight in anchor.call.args
        and anchor.rows is None
    )


def _alike(nodes: list[fx.Node], at: Inserter) -> bool:
    """Whether all are of one type, on a CPU, and nothing else decides the type."""
    values = [example(node) for node in nodes]
    types = {(value.dtype, value.device.type) for value in values}
    (dtype, device), *others = types
    plain = device == "cpu" and dtype.is_floating_point
    return plain and not others and not at.is_autocast(device)
