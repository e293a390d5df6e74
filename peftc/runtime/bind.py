"""How added parameters enter a captured graph: as its own inputs, never by closure.

In: a forward and the reads of a plan.  Out: a forward that first passes every adapted
weight and every added tensor to an opaque call, the marker, which Dynamo keeps; and,
from a captured graph, the `Binding` that the marker's arguments are.

The marker is for the capture alone.  It refuses to run on real tensors, because then
the graph is not ours and the methods would be missing.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.runtime import MarkerMissing, MarkersDisagree, RanUnadapted
from peftc.diagnostics.scale import OutsideOfLayer
from peftc.rewrite.inputs import NUMBERS
from peftc.rewrite.several import SEVERAL
from peftc.runtime.names import ROWS, code_path, rows_path, scattered, tensor_path

if TYPE_CHECKING:
    from peftc.plan.types import Plan, Rewrite, StoredWeight
    from peftc.runtime.layers import Kin
    from peftc.view import Site

Forward: TypeAlias = Callable[..., Any]

GIVEN = "peftc_given"
"""The argument by which a forward is given tensors that are not the model's."""


@dataclass(frozen=True)
class Read:
    """One value the marker passes: a base parameter, or a tensor of a site."""

    path: str
    site: str = ""
    """The site key of an added tensor, the weight that a code is of; empty for a base
    parameter."""
    name: str = ""
    """The tensor's name in the plan, or ROWS."""


@dataclass(frozen=True)
class Layout:
    """What the marker of one entry passes, in order; the same for every capture."""

    signature: str
    reads: tuple[Read, ...]
    sites: tuple[str, ...]
    owners: tuple[str, ...]
    """Of each site, the module whose `training` says the site's mode."""
    within: str = ""
    """The path of the module whose forward the entry is; empty for the model."""
    input: str = ""
    """The key of the site whose rows stand among the tokens this forward is given."""
    stores: bool = False
    """Whether it has weights that are kept in codes."""
    given: int = 0
    """How many of the last reads are no tensors of the model: the forward is given
    them."""
    kin: Kin | None = None
    """What layers with this signature share: the graph of one is that of all."""


def layout(plan: Plan, signature: str, model: nn.Module, within: str = "") -> Layout:
    """The layout of the sites owned by modules of the module at `within`.

    A module counts wherever its path leads: an encoder has the embedding that the model
    shares with it.
    """
    inside = set(model.get_submodule(within).modules())
    owned = ((model.get_submodule(r.site.owner), r) for r in plan.rewrites)
    rewrites = [
        rewrite
        for owner, rewrite in owned
        if (owner in inside or _reads_table(rewrite.site, model, within))
        and not _of_others(rewrite.site, model, within)
    ]
    stores = [s for s in plan.stores if model.get_submodule(_owner(s.weight)) in inside]
    read = [*map(_reads, rewrites), *map(_codes, stores)]
    reads = dict.fromkeys(chain.from_iterable(read))
    sites = tuple(r.site.key for r in rewrites)
    owners = tuple(r.site.owner for r in rewrites)
    inputs = [r.site.key for r in rewrites if r.site.kind == "input"]
    given = inputs[0] if inputs else ""
    facts = (tuple(reads), sites, owners, within, given, bool(stores))
    return Layout(f"{signature}:{within}", *facts)


def for_several(whole: Layout, paths: Container[str], names: Iterable[str]) -> Layout:
    """The layout where several adapters run at once.

    The forward is given the added tensors at these paths, and what is said of the
    adapters under these names.
    """
    stacked = [r for r in whole.reads if r.site and r.path in paths]
    said = [Read(SEVERAL, SEVERAL, name) for name in names]
    kept = [r for r in whole.reads if r not in set(stacked)]
    signature = ":".join((whole.signature, *(one.name for one in said)))
    reads = (*kept, *stacked, *said)
    given = len(stacked) + len(said)
    # What is given does not come from inside a layer, so that each has its own graph.
    return replace(whole, signature=signature, reads=reads, given=given, kin=None)


def _codes(stored: StoredWeight) -> list[Read]:
    parts = (part.name for part in stored.parts)
    codes = [Read(code_path(stored, name), stored.weight, name) for name in parts]
    return [Read(stored.weight), *codes]


def _owner(path: str) -> str:
    return path.rpartition(".")[0]


def _reads_table(site: Site, model: nn.Module, within: str) -> bool:
    """Whether a module reads tokens from the table of an input, perhaps by a name of
    its own."""
    if site.kind != "input":
        return False
    table = model.get_parameter(site.weight)
    return any(p is table for p in model.get_submodule(within).parameters())


def _of_others(site: Site, model: Any, within: str) -> bool:
    """Whether a site is where an encoder reads its tokens, and this is the decoder,
    which may have the same table."""
    if site.kind != "input" or site.stack != "enc" or not within:
        return False
    ask = getattr(model, "get_decoder", None)
    return ask is not None and ask() is model.get_submodule(within)


def _reads(rewrite: Rewrite) -> list[Read]:
    site = rewrite.site
    base = [Read(path) for path in (site.weight, site.bias) if path]
    tensors = [Read(tensor_path(site, t), site.key, t.name) for t in rewrite.tensors]
    return base + tensors + _row_numbers(site)


def _row_numbers(site: Site) -> list[Read]:
    return [Read(rows_path(site), site.key, ROWS)] if scattered(site) else []


# --- the marker -------------------------------------------------------------------


@torch._dynamo.allow_in_graph  # type: ignore[untyped-decorator]  # torch leaves it so
def marker(
    signature: str, modes: Sequence[bool], *values: torch.Tensor
) -> torch.Tensor:
    """Stand in the graph with all that the backend needs as arguments.

    Raises:
        PeftcError: when run on anything but Dynamo's fake tensors.
    """
    if not all(isinstance(value, FakeTensor) for value in values):
        raise ran_unadapted()
    return torch.empty(0)


@torch._dynamo.allow_in_graph  # type: ignore[untyped-decorator]  # torch leaves it so
def placed(signature: str, numbers: torch.Tensor) -> torch.Tensor:
    """Stand in the graph with the numbers of rows among the tokens, as `marker` does.

    Raises:
        PeftcError: when run on anything but Dynamo's fake tensors.
    """
    if not isinstance(numbers, FakeTensor):
        raise ran_unadapted()
    return torch.empty(0)


def ran_unadapted() -> PeftcError:
    """The error of a forward that runs where Dynamo should have captured it.

    Fake tensors alone do not tell: `torch.export` runs Python on them.
    """
    why = "its forward was run, not the graph that peftc rewrote"
    return fail(RanUnadapted(why=why))


_numbers = count()
"""Of the forwards made in this process."""


def bound(original: Forward, model: nn.Module, plan: Layout) -> Forward:
    """The forward that Dynamo traces: the marker, then the original.

    It has a code object of its own, so that its captures do not count against those of
    other models in the process; and a name of its own, by which Dynamo notes which
    sizes vary: those of another model's inputs say nothing of this one's.
    """
    signature = plan.signature
    own = len(plan.reads) - plan.given
    reads = [_place(model, read.path) for read in plan.reads[:own]]
    owners = [model.get_submodule(owner) for owner in plan.owners]

    def peftc_forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_dynamo_compiling():
            raise ran_unadapted()
        values = [getattr(module, name) for module, name in reads]
        modes = [owner.training for owner in owners]
        marker(signature, modes, *values, *kwargs.pop(GIVEN, ()))
        numbers = kwargs.pop(NUMBERS, None)
        if numbers is not None:
            placed(signature, numbers)
        return original(*args, **kwargs)

    name = f"{peftc_forward.__name__}_{next(_numbers)}"
    return types.FunctionType(
        peftc_forward.__code__.replace(co_name=name),
        peftc_forward.__globals__,
        name,
        None,
        peftc_forward.__closure__,
    )


def inside(original: Forward | None, module: nn.Module, plan: Layout) -> Forward:
    """The forward of a layer that Dynamo traces; its code is that of the layer's kin.

    All that it reads it finds from the layer itself, by paths that are the same for all
    kin: a graph that was made for one layer and runs for another has no other way to a
    tensor than through the layer that it runs for.  `original` is a forward that the
    instance had of its own, if any.

    Raises:
        PeftcError: PEFT619 for a tensor that is not inside the layer.
    """
    assert plan.kin is not None
    signature = plan.signature
    reads = [_names(read.path, plan) for read in plan.reads]
    owners = [_names(owner, plan) for owner in plan.owners]
    forward = type(module).forward

    def peftc_layer(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_dynamo_compiling():
            raise ran_unadapted()
        values = [_reached(module, names) for names in reads]
        modes = [_reached(module, names).training for names in owners]
        marker(signature, modes, *values)
        if original is not None:
            return original(*args, **kwargs)
        return forward(module, *args, **kwargs)

    code = plan.kin.code(peftc_layer)
    rest = (peftc_layer.__globals__, code.co_name, None, peftc_layer.__closure__)
    return types.FunctionType(code, *rest)


def check_inside(plan: Layout) -> None:
    """Raise `PeftcError` (PEFT619) unless a layer holds all that it is to read."""
    for path in (*(read.path for read in plan.reads), *plan.owners):
        _names(path, plan)


def check_own(graph: fx.Graph, module: nn.Module, plan: Layout) -> None:
    """Raise `PeftcError` (PEFT619) unless a captured layer reads its own tensors.

    `inside` leaves no other way; whoever changes it finds out here.
    """
    for node in graph.find_nodes(op="call_function", target=marker):
        for read, value in zip(plan.reads, node.args[2:], strict=True):
            argument = value.meta.get("grapharg")
            own = _reached(module, _names(read.path, plan))
            if argument is not None and argument.example is not own:
                raise fail(OutsideOfLayer(tensor=read.path, layer=plan.within))


def _names(path: str, plan: Layout) -> tuple[str, ...]:
    """The attributes that lead from a layer to what is at a path."""
    if path == plan.within:
        return ()
    if not path.startswith(f"{plan.within}."):
        raise fail(OutsideOfLayer(tensor=path, layer=plan.within))
    return tuple(path.removeprefix(f"{plan.within}.").split("."))


def _reached(module: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        module = getattr(module, name)
    return module


def _place(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    owner, _, name = path.rpartition(".")
    return model.get_submodule(owner), name


# --- reading a captured graph ---------------------------------------------------------


@dataclass(frozen=True)
class Binding:
    """What the inputs of a captured graph are.

    `base`: placeholder to path, for every parameter of the base; `tensors`: site key,
    then tensor name, to placeholder; `training`: the mode of each site.
    """

    base: Mapping[fx.Node, str]
    tensors: Mapping[str, Mapping[str, fx.Node]]
    training: Mapping[str, bool]


def read(
    graph: fx.Graph, layouts: Iterable[Layout], named: Mapping[int, str]
) -> Binding:
    """Read the markers of a graph and erase them.

    `named` gives the path of a base parameter by its identity, for those that the
    marker does not pass.

    Raises:
        PeftcError: without a marker, or if two markers disagree.
    """
    markers = [n for n in graph.nodes if n.op == "call_function" and n.target is marker]
    if not markers:
        raise fail(MarkerMissing(nodes=len(graph.nodes)))
    by_signature = {one.signature: one for one in layouts}
    base = dict(_by_identity(graph, named))
    values: dict[Read, fx.Node] = {}
    training: dict[str, bool] = {}
    for node in markers:
        signature, modes, *arguments = node.args
        if signature not in by_signature:
            raise fail(
                MarkersDisagree(name=signature.rpartition(":")[2] or "the model")
            )
        one = by_signature[signature]
        _agree(values, dict(zip(one.reads, arguments, strict=True)))
        _agree(training, dict(zip(one.sites, modes, strict=True)))
        graph.erase_node(node)
    base |= {node: read.path for read, node in values.items() if not read.site}
    tensors = _tensors(values)
    for key, numbers in _placed(graph, by_signature):
        tensors.setdefault(key, {})[NUMBERS] = numbers
    return Binding(base, tensors, training)


def _placed(
    graph: fx.Graph, layouts: Mapping[str, Layout]
) -> Iterable[tuple[str, fx.Node]]:
    """The site and the numbers of rows that the forward was given, if it was."""
    for node in graph.find_nodes(op="call_function", target=placed):
        signature, numbers = node.args
        graph.erase_node(node)
        yield layouts[signature].input, numbers


def _by_identity(
    graph: fx.Graph, named: Mapping[int, str]
) -> Iterable[tuple[fx.Node, str]]:
    for node in graph.find_nodes(op="placeholder"):
        argument = node.meta.get("grapharg")
        path = named.get(id(argument.example)) if argument is not None else None
        if path is not None:
            yield node, path


def _agree(known: dict[Any, Any], new: Mapping[Any, Any]) -> None:
    for key, value in new.items():
        if known.setdefault(key, value) is not value:
            name = key.path if isinstance(key, Read) else key
            raise fail(MarkersDisagree(name=name))


def _tensors(
    values: Mapping[Read, fx.Node],
) -> dict[str, dict[str, fx.Node]]:
    tensors: dict[str, dict[str, fx.Node]] = {}
    for one, node in values.items():
        if one.site:
            tensors.setdefault(one.site, {})[one.name] = node
    return tensors
