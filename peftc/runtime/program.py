"""The rewritten forward as one module that needs nothing of the model's own code.

In: a compiled model, and arguments of its forward.  Out: a `Program`: the graph as an
entry captures it, with batch and sequence left open, every tensor that it reads, and
how its inputs and its result are made of those of the forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx, nn
from torch._dynamo.exc import InternalTorchDynamoError

from peftc.diagnostics.core import fail
from peftc.diagnostics.program import NoProgram
from peftc.runtime.backend import PLAIN
from peftc.runtime.insertion import Extended
from peftc.runtime.modes import evaluating

if TYPE_CHECKING:
    from peftc.runtime.entry import Entry
    from peftc.runtime.handle import Handle

Arguments: TypeAlias = "dict[str, Any]"
Extend: TypeAlias = Callable[[Arguments], Extended]
Holds: TypeAlias = Callable[[list[Any]], bool]
Dynamic: TypeAlias = Mapping[str, tuple[int, ...]]
"""The axes of each argument that are left open."""


@dataclass(frozen=True)
class Held:
    """An input of the graph that is a tensor of the program, by its path."""

    path: str


@dataclass(frozen=True)
class Given:
    """An input of the graph that is an argument of the forward."""

    name: str


@dataclass(frozen=True)
class Size:
    """An input of the graph that is a size of an argument."""

    name: str
    axis: int


@dataclass(frozen=True)
class Shape:
    """What a program is called with: `names` in order, and `constants` by name.

    `extend` gives the arguments of the captured forward, in which rows of methods have
    places; `reads` are the graph's inputs in order, `results` is the forward's result
    with the numbers of the graph's outputs in the place of tensors; `holds` tells of
    its inputs whether they have sizes that it was captured for.
    """

    names: tuple[str, ...]
    constants: Arguments
    extend: Extend
    reads: tuple[Held | Given | Size, ...]
    results: Any
    holds: Holds


class Program(nn.Module):
    """Called with the tensors that `shape.names` names, by position."""

    def __init__(
        self, graph: fx.GraphModule, shape: Shape, held: Mapping[str, torch.Tensor]
    ) -> None:
        super().__init__()
        self.graph = graph
        self.shape = shape
        self.held = nn.Module()
        for path, tensor in held.items():
            _register(self.held, path, tensor)

    def forward(self, *given: torch.Tensor) -> Any:
        """Run the graph; the result has the parts that the model's has, by name."""
        named = dict(zip(self.shape.names, given, strict=True))
        extended = self.shape.extend({**self.shape.constants, **named})
        read = [self._read(one, extended.arguments) for one in self.shape.reads]
        if not self.shape.holds(read):
            raise fail(NoProgram(problem="it was not captured for these sizes"))
        found = self.graph(*read)
        return extended.shortened(_filled(self.shape.results, found))

    def _read(self, one: Held | Given | Size, arguments: Arguments) -> Any:
        if isinstance(one, Held):
            return self.held.get_buffer(one.path)
        value = arguments[one.name]
        return value.shape[one.axis] if isinstance(one, Size) else value


def _register(module: nn.Module, path: str, tensor: torch.Tensor) -> None:
    *owners, name = path.split(".")
    for owner in owners:
        if owner not in module._modules:
            module.add_module(owner, nn.Module())
        module = module.get_submodule(owner)
    module.register_buffer(name, tensor)


def _filled(results: Any, found: Any) -> Any:
    """The forward's result, of the graph's outputs."""
    if isinstance(results, dict):
        return {name: _filled(one, found) for name, one in results.items()}
    if isinstance(results, tuple):
        return tuple(_filled(one, found) for one in results)
    return found[results]


# --- making it ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Input:
    """An input of a captured graph: what the tracer had for it, and the real tensor."""

    name: str
    traced: Any
    real: Any


class _Recorder:
    """Around what runs a graph: keeps it, what it was captured for, and its outputs.

    Dynamo never forgets what wraps a graph, so this one forgets what it kept.
    """

    def __init__(self) -> None:
        self.graphs: list[fx.GraphModule] = []
        self.inputs: list[_Input] = []
        self.holds: Holds = bool
        self.found: Any = ()

    def __call__(self, code: Any) -> Callable[..., Any]:
        self.graphs.append(code.__self__)
        self.inputs = [_input(n) for n in _placeholders(code.__self__)]
        self.holds = _conditions([one.traced for one in self.inputs])

        def run(*values: Any) -> Any:
            self.found = code(*values)
            return self.found

        return run

    def forget(self) -> None:
        """Let go of the model and its values."""
        self.graphs, self.inputs, self.found = [], [], ()


def _placeholders(gm: fx.GraphModule) -> list[fx.Node]:
    """The inputs that the graph reads: not what it was to decode, and the like."""
    return [n for n in gm.graph.find_nodes(op="placeholder") if n.users]


def _input(node: fx.Node) -> _Input:
    known = node.meta.get("grapharg")
    example = None if known is None else known.example
    return _Input(node.name, node.meta["example_value"], example)


def _conditions(traced: list[Any]) -> Holds:
    """What a captured graph takes for granted of the sizes of its inputs."""
    sizes = [one for one in traced if isinstance(one, torch.SymInt)]
    if not sizes:
        return lambda values: True
    known = sizes[0].node.shape_env
    code = known.produce_guards_expression(traced) or "True"
    return lambda values: known.evaluate_guards_expression(code, values)


def program_of(handle: Handle, given: Arguments, dynamic: Dynamic) -> Program:
    """Capture the forward of a compiled model for arguments as these.

    Raises:
        PeftcError: PEFT721, or as any capture.
    """
    recorder, entry = _Recorder(), handle.entries[0]
    recipe = replace(handle.recipe, backend=PLAIN, dynamic=None, around=recorder)
    twin = entry.by(recipe)
    inserter, twin.inserter = twin.inserter, None  # the program makes places for rows

    def extend(arguments: Arguments) -> Extended:
        if inserter is None:
            return Extended(arguments)
        return inserter.extend(twin.original, (), arguments)

    try:
        return _recorded(twin, recorder, given, extend, dynamic)
    finally:
        recorder.forget()


def _recorded(
    twin: Entry, recorder: _Recorder, given: Arguments, extend: Extend, dynamic: Dynamic
) -> Program:
    arguments = extend(given).arguments
    result = _run(twin, arguments, dynamic)
    if len(recorder.graphs) != 1:
        raise fail(NoProgram(problem="its forward is not one graph for all sizes"))
    names = tuple(n for n, v in given.items() if isinstance(v, torch.Tensor))
    constants = {name: v for name, v in given.items() if name not in names}
    reads, held = _reads(recorder.inputs, twin.root, arguments)
    results = _numbers(result, recorder.found)
    shape = Shape(names, constants, extend, reads, results, recorder.holds)
    return Program(_alone(recorder.graphs[0]), shape, held)


def _run(twin: Entry, arguments: Arguments, dynamic: Dynamic) -> Any:
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            # Those that only the extended forward has are [samples, tokens].
            for axis in dynamic.get(name, (0, 1)):
                torch._dynamo.maybe_mark_dynamic(value, axis)
    with evaluating(twin.root), torch.no_grad():
        try:
            return twin(**arguments)
        except InternalTorchDynamoError as error:
            # The tracer cannot follow what this forward does with open sizes.
            problem = str(error).partition("\n")[0]
            raise fail(NoProgram(problem=problem)) from error


def _reads(
    inputs: list[_Input], model: nn.Module, arguments: Arguments
) -> tuple[tuple[Held | Given | Size, ...], dict[str, torch.Tensor]]:
    """What each input of a graph is, and the tensors among them that are held."""
    given = {id(v): n for n, v in arguments.items() if isinstance(v, torch.Tensor)}
    named = [*model.named_parameters(), *model.named_buffers()]
    paths = {id(tensor): path for path, tensor in reversed(named)}
    sizes, held = _sizes(inputs, given), {}
    reads: list[Held | Given | Size] = []
    for one in inputs:
        if isinstance(one.traced, torch.SymInt):
            reads.append(_size(sizes, one.traced))
        elif id(one.real) in given:
            reads.append(Given(given[id(one.real)]))
        else:
            path = paths.get(id(one.real), f"constants.{one.name}")
            held[path] = one.real.detach()
            reads.append(Held(path))
    return tuple(reads), held


def _sizes(inputs: list[_Input], given: Mapping[int, str]) -> dict[str, Size]:
    """Which axis of an argument each open size is."""
    return {
        str(size): Size(given[id(one.real)], axis)
        for one in reversed(inputs)
        if id(one.real) in given
        for axis, size in enumerate(one.traced.shape)
    }


def _size(sizes: Mapping[str, Size], value: torch.SymInt) -> Size:
    if str(value) not in sizes:
        raise fail(NoProgram(problem=f"its size {value} is that of no argument"))
    return sizes[str(value)]


def _numbers(result: Any, found: Any) -> Any:
    """The result of a forward with numbers of the graph's outputs for tensors.

    What is neither (a cache, a missing part) is left out.
    """
    if isinstance(result, torch.Tensor):
        return next((i for i, one in enumerate(found) if one is result), None)
    if isinstance(result, Mapping):
        parts = {name: _numbers(part, found) for name, part in result.items()}
        return {name: part for name, part in parts.items() if part is not None} or None
    if isinstance(result, tuple | list):
        inner = [_numbers(part, found) for part in result]
        return tuple(part for part in inner if part is not None) or None
    return None


def _alone(gm: fx.GraphModule) -> fx.GraphModule:
    """The graph without what Dynamo knows of it, which holds the example values, and
    without inputs that it does not read."""
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    inputs = set(_placeholders(gm))
    for node in gm.graph.nodes:
        if node.op == "placeholder" and node not in inputs:
            continue
        known[node] = graph.node_copy(node, known.__getitem__)
        known[node].meta = {}
    return fx.GraphModule(gm, graph)


def named_inputs(program: Program) -> fx.GraphModule:
    """A module around a program whose arguments have the forward's names."""
    graph = fx.Graph()
    given = tuple(graph.placeholder(name) for name in program.shape.names)
    graph.output(graph.call_module("program", given))
    return fx.GraphModule({"program": program}, graph)
