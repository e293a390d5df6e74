"""From a captured graph to the code that runs it.

In: a graph as Dynamo captured it, with the marker in it.  Out: a callable, in which
every site of the plan that this graph uses is rewritten; or an error.  A site whose
weight is used but that was not found and rewritten is never passed over.

The backend holds the model weakly and keeps no graph: Dynamo's caches hold the backend,
and the model must go away when its user lets go of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx, nn
from torch._functorch import config as functorch

from peftc.diagnostics.core import Diagnostics, fail
from peftc.diagnostics.rewrite import SiteNotFoundInGraph
from peftc.diagnostics.runtime import ModuleReplaced
from peftc.rewrite.check import check_located
from peftc.rewrite.inputs import NUMBERS
from peftc.rewrite.print import graph_text
from peftc.rewrite.several import SEVERAL
from peftc.rewrite.together import readers
from peftc.runtime import blocks, checkpoint
from peftc.runtime.bind import Binding, Layout, check_own, read
from peftc.runtime.names import CHILD
from peftc.runtime.needed import erase
from peftc.runtime.watched import NAMES, watched
from peftc.sites import bodies
from peftc.sites.anchors import Capture, Located
from peftc.sites.capture import ties
from peftc.sites.locate import locate

if TYPE_CHECKING:
    import weakref

    from peftc.plan.types import Plan
    from peftc.runtime.recipe import Captures, Recipe
    from peftc.sites.anchors import Steps
    from peftc.sites.bodies import Region
    from peftc.view import Site

Code: TypeAlias = Callable[..., Any]
Ties: TypeAlias = Mapping[str, tuple[str, ...]]
Runner: TypeAlias = Callable[[fx.GraphModule, Sequence[Any]], Code]


def _eager(gm: fx.GraphModule, inputs: Sequence[Any]) -> Code:
    return gm.forward


def _behind(name: str) -> Runner:
    def run(gm: fx.GraphModule, inputs: Sequence[Any]) -> Code:
        code: Code = torch._dynamo.lookup_backend(name)(gm, list(inputs))
        return code

    return run


def _inductor(gm: fx.GraphModule, inputs: Sequence[Any]) -> Code:
    """As torch does, but norms and activations are computed again in the backward also
    where a product there reads them: the gradient of a narrow factor is such a one."""
    with functorch.patch(ban_recompute_materialized_backward=False):
        return _behind("inductor")(gm, inputs)


PLAIN = "plain"
"""Eager, every site as separate operations whose backward is autograd's."""
KERNELS = "triton"
"""Eager, sites as generated kernels."""
WATCHED = "watched"
"""As PLAIN, one operation at a time, up to a value that is not finite."""

RUNNERS: dict[str, Runner] = {
    "eager": _eager,
    PLAIN: _eager,
    KERNELS: _eager,
    "aot_eager": _behind("aot_eager"),
    "inductor": _inductor,
    WATCHED: watched,
}
STEPS: dict[str, Steps] = {PLAIN: "", WATCHED: "", KERNELS: "kernels"}
"""What sites are one step by; torch, where nothing is said."""


@dataclass(frozen=True, eq=False)
class Backend:
    """What `torch.compile` calls with every graph of one entry of a model.

    Dynamo runs a graph again where the code and the backend are equal to those that it
    was made by.  Those of kin are.
    """

    model: weakref.ref[nn.Module]
    owners: Mapping[str, weakref.ref[nn.Module]]
    """The modules that the entry binds, by path, as they were when it was built."""
    layout: Layout
    recipe: Recipe
    captures: Captures

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Backend) or self.layout.kin is None:
            return self is other
        return self._told() == other._told()

    def __hash__(self) -> int:
        return hash(self.layout.signature)

    def _told(self) -> tuple[object, ...]:
        """All that the rewritten graph of a layer depends on."""
        return self.model(), self.layout.kin, self.layout.signature, self.recipe

    def __call__(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> Code:
        """Rewrite the graph and hand it to the backend that the user chose."""
        model = self._model()
        check_owners(model, self.owners)
        if self.layout.kin is not None:
            layer = model.get_submodule(self.layout.within)
            check_own(gm.graph, layer, self.layout)
        binding = read(gm.graph, (self.layout,), _named(model))
        erase(gm)
        regions = self._regions(gm, model)
        capture = self._rewrite(gm.graph, binding, ties(model))
        gm.meta[NAMES] = names = _names(binding)
        text = graph_text(gm.graph, names)
        self.captures.add(text, readers(capture, self.recipe.plan))
        runner = RUNNERS[self.recipe.backend]
        if runner is not watched:
            checkpoint.outline(gm, regions, eager=runner is _eager)
        gm.graph.lint()
        gm.recompile()
        code = runner(gm, inputs)
        return self.recipe.around(code) if self.recipe.around else code

    def _regions(self, gm: fx.GraphModule, model: nn.Module) -> tuple[Region, ...]:
        """What is checkpointed: the layers of Transformers' switch, else blocks."""
        given = bodies.inline(gm)
        return given or blocks.mark(gm, model, self.recipe.checkpoint_every)

    def _model(self) -> nn.Module:
        model = self.model()
        assert model is not None, "Dynamo captures the forward of a living model"
        return model

    def _rewrite(self, graph: fx.Graph, binding: Binding, tied: Ties) -> Capture:
        """Run the graph passes on the bound sites that the graph uses.

        A site that is used but not bound, because its owner is no part of the entry's
        module, counts as not located, and is refused.
        """
        plan = self.recipe.plan
        found = locate(graph, binding.base, tied) if _in_graph(plan) else ()
        known = {one.site.key: one for one in found}
        bound = [r.site for r in plan.rewrites if _is_bound(r.site, binding)]
        pairs = ((s.key, known.get(s.key) or _by_weight(s, found)) for s in bound)
        located = {key: one for key, one in pairs if one is not None}
        _check_placed(bound, located)
        used = {path: node for node, path in binding.base.items()}
        check_located(plan, located, used, found)
        inputs = (binding.tensors, binding.training, binding.base)
        steps = STEPS.get(self.recipe.backend, "torch")
        if SEVERAL in binding.tensors:  # one step has one adapter
            steps = ""
        eager = bool(steps) and RUNNERS[self.recipe.backend] is _eager
        capture = Capture(graph, located, *inputs, steps=steps, recompute=eager)
        self.recipe.manager.rewrite(capture, plan)
        return capture


def _is_bound(site: Site, binding: Binding) -> bool:
    """Whether a site is the entry's, and of an input whether rows were given places."""
    if site.kind == "input":
        return NUMBERS in binding.tensors.get(site.key, {})
    return site.key in binding.training


def _check_placed(bound: Sequence[Site], located: Mapping[str, Located]) -> None:
    """Refuse a graph that has places for rows and is not seen to read the tokens."""
    for site in bound:
        if site.kind == "input" and site.key not in located:
            raise fail(SiteNotFoundInGraph(site=site.place, users="`embedding`"))


def _in_graph(plan: Plan) -> bool:
    """Whether a plan rewrites anything: a side network is traced as it is."""
    sites = (rewrite.site for rewrite in plan.rewrites)
    return bool(plan.stores) or any(site.kind != "side" for site in sites)


def _by_weight(site: Site, found: Sequence[Located]) -> Located | None:
    """A whole linear whose role this graph does not tell, or tells otherwise.

    A part of the model, or a hook that gives out a value, can hide what a linear is
    for; what it computes is the same.
    """
    if site.kind != "linear" or site.rows is not None:
        return None
    same = [
        anchor
        for one in found
        for anchor in one.anchors
        if (one.site.kind, one.site.weight, one.site.rows)
        == ("linear", site.weight, None)
    ]
    return Located(site, tuple(same)) if same else None


def check_owners(
    model: nn.Module, owners: Mapping[str, weakref.ref[nn.Module]]
) -> None:
    """Refuse a model in which a module that owns added parameters was replaced."""
    errors = Diagnostics()
    for path, owner in owners.items():
        if _find(model, path) is not owner():
            errors.add(ModuleReplaced(module=path))
    errors.check()


def _find(model: nn.Module, path: str) -> nn.Module | None:
    module: nn.Module | None = model
    for name in path.split("."):
        module = None if module is None else module._modules.get(name)
    return module


def _named(model: nn.Module) -> Mapping[int, str]:
    """The first path of each parameter of the base, by its identity."""
    named = model.named_parameters()
    return {id(p): path for path, p in named if CHILD not in path.split(".")}


def _names(binding: Binding) -> Mapping[str, str]:
    """For the printed graph: placeholders of parameters by what they are."""
    added = {
        node.name: f"{site}.{name}"
        for site, tensors in binding.tensors.items()
        for name, node in tensors.items()
    }
    return {node.name: path for node, path in binding.base.items()} | added
