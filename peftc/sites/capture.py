"""The whole forward of a model as one graph, without running it.

In: a model, on any device, the meta device included.  Out: `Captured`: the graph as
Dynamo makes it and the parameter path of each parameter placeholder.  Nothing is
executed, the model computes what it did, and neither the graph nor Dynamo keeps a
reference to its parameters.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.capture import CaptureFailed
from peftc.diagnostics.core import fail
from peftc.sites.bodies import inline
from peftc.sites.given import ARGUMENT, argument_name
from peftc.sites.inputs import example_inputs
from peftc.sites.ops import STORED
from peftc.sites.recording import install_output_hooks, lacks_hooks
from peftc.sites.tracing import tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import fx, nn


@dataclass(frozen=True)
class Captured:
    """One captured forward."""

    module: fx.GraphModule
    names: Mapping[fx.Node, str]
    """The first path of each parameter that the graph reads."""

    @property
    def graph(self) -> fx.Graph:
        """The graph."""
        return self.module.graph


class _StopError(Exception):
    """Ends the compilation when the graph is there; never leaves this module."""


class _NotTracedError(Exception):
    """The forward would run instead of being traced."""


class _Keeper:
    """A backend that keeps the graph and stops.  Dynamo never forgets a backend, so
    this one forgets the model and the graph."""

    def __init__(self, model: nn.Module) -> None:
        self.model: nn.Module | None = model
        self.captured: Captured | None = None

    def __call__(self, module: fx.GraphModule, _: object) -> Callable[..., Any]:
        assert self.model is not None
        inline(module)
        names = _parameter_names(module.graph, self.model)
        _note_buffers(module.graph, self.model)
        self.captured = Captured(module, names)
        raise _StopError

    def give(self) -> Captured:
        """Hand out the capture and keep nothing."""
        captured, self.captured, self.model = self.captured, None, None
        assert captured is not None
        return captured


def capture(model: nn.Module, inputs: Mapping[str, Any] | None = None) -> Captured:
    """Capture the forward of a model in the mode (training or not) it is in.

    Args:
        inputs: arguments of the forward; what is not given is made up.

    Raises:
        PeftcError: an input cannot be made up, or the forward is not one graph.
    """
    given = example_inputs(model, inputs)
    plain_buffers(model)
    keeper = _Keeper(model)
    error = _trace(model, given, keeper)
    if error is not None and lacks_hooks(error):
        install_output_hooks(model)
        error = _trace(model, given, keeper)
    if error is not None and (mask := _missing_mask(model, given)):
        # Some models make their masks only where they are not traced.
        error = _trace(model, {**given, **mask}, keeper)
    if error is not None:
        keeper.model = None
        raise fail(_failure(model, error)) from error
    captured = keeper.give()
    for node in captured.graph.find_nodes(op="placeholder"):
        # It holds the example value, which for a parameter is the parameter.
        node.meta.pop("grapharg", None)
    return captured


def _missing_mask(model: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """A mask without padding, if the forward takes one and none is given."""
    name, tokens = "attention_mask", given.get("input_ids")
    takes = name in inspect.signature(model.forward).parameters
    if not takes or name in given or tokens is None:
        return {}
    return {name: torch.ones_like(tokens)}


def _trace(model: nn.Module, given: dict[str, Any], keep: _Keeper) -> Exception | None:
    """Give the graph to `keep`, or say why there is none."""

    def forward(**inputs: Any) -> Any:
        if not torch.compiler.is_compiling():
            raise _NotTracedError("compilation is switched off in this process")
        return model(**inputs)

    # A code object of its own: Dynamo's cache hangs on it and goes with it.
    code = forward.__code__.replace()
    fresh = FunctionType(
        code, forward.__globals__, "forward", None, forward.__closure__
    )
    with tracing(), torch.compiler.set_stance("default"):
        compiled = torch.compile(fresh, backend=keep, fullgraph=True, dynamic=False)
        try:
            compiled(**given)
        except Exception as error:
            # Whatever a model raises while it is traced is why there is no graph.
            return None if keep.captured is not None else error
    return None


def plain_buffers(model: nn.Module) -> None:
    """Take the mark of `nn.Buffer` off the registered buffers.

    Dynamo cannot read it where a forward assigns a buffer anew.  All it says is how to
    register a tensor, and these are registered; `model.to()` drops it as well.
    """
    for buffer in model.buffers():
        vars(buffer).pop("_is_buffer", None)


def _parameter_names(graph: fx.Graph, model: nn.Module) -> dict[fx.Node, str]:
    """Pair placeholders with parameters by identity."""
    paths = {id(p): path for path, p in reversed(list(_named(model)))}
    found = {}
    for node in graph.find_nodes(op="placeholder"):
        argument = node.meta.get("grapharg")
        path = None if argument is None else paths.get(id(argument.example))
        if path is not None:
            found[node] = path
    return found


def _note_buffers(graph: fx.Graph, model: nn.Module) -> None:
    """Mark the placeholders that are no inputs but buffers; of inputs keep the names,
    when what Dynamo knows of them goes."""
    buffers = {id(buffer) for buffer in model.buffers()}
    for node in graph.find_nodes(op="placeholder"):
        argument = node.meta.get("grapharg")
        node.meta[STORED] = argument is not None and id(argument.example) in buffers
        node.meta[ARGUMENT] = argument_name(node)


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def ties(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """For each path of a shared parameter all its paths, in the model's order, those of
    linears last: some models have their head before their table."""
    groups: dict[int, list[str]] = {}
    named = list(_named(model))
    for path, parameter in sorted(named, key=lambda one: _is_of_linear(model, one[0])):
        groups.setdefault(id(parameter), []).append(path)
    shared = (tuple(group) for group in groups.values() if len(group) > 1)
    return {path: group for group in shared for path in group}


def _is_of_linear(model: nn.Module, path: str) -> bool:
    return isinstance(model.get_submodule(path.rpartition(".")[0]), torch.nn.Linear)


def _failure(model: nn.Module, error: Exception) -> CaptureFailed:
    """The first telling line of what the tracer said."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(cause).__name__
    hints = (line for line in lines if line.startswith(("Hint:", "Explanation:")))
    return CaptureFailed(
        architecture=type(model).__name__,
        reason=f"{type(cause).__name__}: {reason}",
        hint=next(hints, "").partition(":")[2].strip(),
    )
