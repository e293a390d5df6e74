"""The tensors of a compiled model under the names that its equations use.

In: a compiled model.  Out: `Values`: added tensors and base weights of a site by name,
the values of expressions over them, and the sum of what methods add to the loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import torch

from peftc.expr.evaluate import evaluate
from peftc.expr.ir import Leaf, walk
from peftc.plan.equations import definitions, environment
from peftc.plan.training import losses_of
from peftc.runtime.codes import codes_in
from peftc.runtime.evaluate import base_values, by_expert, reader
from peftc.runtime.names import tensor_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from peftc.expr.ir import Node
    from peftc.plan.training import Place
    from peftc.plan.types import Plan, Rewrite
    from peftc.runtime.handle import Handle


@dataclass(frozen=True)
class _Known:
    """What a plan says, looked up once: controls and losses ask in every step."""

    plan: Plan

    @cached_property
    def rewrites(self) -> Mapping[str, Rewrite]:
        """By the keys of sites."""
        return {rewrite.site.key: rewrite for rewrite in self.plan.rewrites}

    @cached_property
    def losses(self) -> Sequence[tuple[Rewrite, Sequence[Node]]]:
        """The terms that methods add to the loss, where they do."""
        methods = definitions(self.plan)
        every = ((r, losses_of(r, methods)) for r in self.plan.rewrites)
        return [(rewrite, nodes) for rewrite, nodes in every if nodes]


@dataclass
class Values:
    """What the equations of a compiled model see; nothing is copied."""

    model: nn.Module
    _last: _Known | None = field(default=None, repr=False)

    @property
    def plan(self) -> Plan:
        """Its plan, as it is now."""
        handle: Handle = self.model.peftc  # type: ignore[assignment]  # by `install`
        return handle.plan

    @property
    def _known(self) -> _Known:
        """What the plan says; another one after `replan`."""
        plan = self.plan
        if self._last is None or self._last.plan is not plan:
            self._last = _Known(plan)
        return self._last

    def rewrite(self, site: str) -> Rewrite:
        """What happens at a site, by its key."""
        return self._known.rewrites[site]

    def path(self, site: str, name: str) -> str:
        """The path of a tensor of a site: an added one by its name, or `W`, `bias`."""
        rewrite = self.rewrite(site)
        for tensor in rewrite.tensors:
            if tensor.name == name:
                return tensor_path(rewrite.site, tensor)
        return rewrite.site.weight if name in "Wg" else rewrite.site.bias

    def tensor(self, place: Place, index: int = 0) -> torch.Tensor:
        """The tensor that an operand of a control is, to read or to write."""
        return self.named(self.path(place.site, place.operands[index]))

    def named(self, path: str) -> torch.Tensor:
        """A parameter or buffer of the model by its path."""
        owner, _, name = path.rpartition(".")
        found: torch.Tensor = getattr(self.model.get_submodule(owner), name)
        return found

    def value(
        self, place: Place, index: int = 0, *, training: bool = True
    ) -> torch.Tensor:
        """The value of an operand, with gradients, in [out, in] orientation; at a
        stack of experts with their axis in front."""
        node = place.nodes[index]
        rewrite = self.rewrite(place.site)
        each = self._evaluated(rewrite, [node], training)
        return torch.stack([v for (v,) in each]) if rewrite.site.experts else each[0][0]

    def losses(self) -> torch.Tensor | None:
        """The sum of all terms that methods add to the loss; None without any."""
        terms: list[torch.Tensor] = []
        for rewrite, nodes in self._known.losses:
            terms += chain.from_iterable(self._evaluated(rewrite, nodes))
        return torch.stack(terms).sum() if terms else None

    def _evaluated(
        self, rewrite: Rewrite, nodes: Sequence[Node], training: bool = True
    ) -> list[list[torch.Tensor]]:
        """The values of expressions at a site, for each expert apart."""
        sizes = environment(rewrite)
        return [
            evaluate(nodes, values, sizes, torch.float32, training=training)
            for values in by_expert(rewrite, self._read(rewrite, nodes))
        ]

    def _read(
        self, rewrite: Rewrite, nodes: Sequence[Node]
    ) -> Mapping[str, torch.Tensor]:
        """The tensors that expressions at a site read, in float32 or wider."""
        read = reader(self.model, self.plan, codes_in(self.model, self.plan.stores))
        base = base_values(self.model, rewrite.site, read) if reads_base(nodes) else {}
        own = {
            tensor.name: self.named(tensor_path(rewrite.site, tensor))
            for tensor in rewrite.tensors
        }
        wide = {
            name: value.to(torch.promote_types(value.dtype, torch.float32))
            for name, value in own.items()
            if value.is_floating_point()
        }
        return {**base, **own, **wide}


def reads_base(nodes: Sequence[Node]) -> bool:
    """Whether expressions read a weight of the base."""
    return any(isinstance(n, Leaf) and n.kind == "weight" for n in walk(*nodes))
