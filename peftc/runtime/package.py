"""A compiled model as a file that torch alone can run.

In: a compiled model.  Out: `program.pt2`, its rewritten forward as `torch.export` has
it, or `compiled.pt2`, that as machine code of AOTInductor.  Either takes any number of
samples and tokens, and has given what the model gives for another number of both before
it is written.  torch promises neither to load in another version of itself.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from peftc.diagnostics.core import fail
from peftc.diagnostics.program import ForeignOperators, NoCompiler, NoProgram
from peftc.diagnostics.runtime import WrongState
from peftc.files import replacing
from peftc.runtime.program import named_inputs, program_of
from peftc.sites.inputs import example_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from peftc.runtime.handle import Handle
    from peftc.runtime.program import Program

TOKENS, MASK = "input_ids", "attention_mask"
OURS = ("aten", "prims", "higher_order")
"""The operators that come with torch."""


def write_program(
    handle: Handle, folder: Path, kind: str, inputs: Mapping[str, Any] | None = None
) -> Path:
    """Write a program into a folder; returns the file.

    Raises:
        PeftcError: PEFT720 to PEFT722; the folder is then as it was.
    """
    name, write = PROGRAMS[kind]
    if write is _write_compiled:
        check_compiler()
    exported = export_program(handle, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / name) as fresh:
        write(exported, fresh)
    return folder / name


def _write_exported(exported: ExportedProgram, path: Path) -> None:
    torch.export.save(exported, path)


def _write_compiled(exported: ExportedProgram, path: Path) -> None:
    from torch._inductor import aoti_compile_and_package

    aoti_compile_and_package(exported, package_path=str(path))


PROGRAMS: dict[str, tuple[str, Callable[[ExportedProgram, Path], None]]] = {
    "pt2": ("program.pt2", _write_exported),
    "aoti": ("compiled.pt2", _write_compiled),
}
"""For each kind of program its file, and what writes it."""


def check_compiler() -> None:
    """Refuse to make machine code without a compiler.

    Raises:
        PeftcError: PEFT722.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise fail(NoCompiler(problem=_first_line(error))) from None


# --- the program ----------------------------------------------------------------------


def export_program(
    handle: Handle, inputs: Mapping[str, Any] | None = None
) -> ExportedProgram:
    """The rewritten forward as `torch.export` has it, batch and sequence left open.

    Args:
        inputs: example arguments of the forward; which of them there are is how the
            program is called.  What is not given is made up, and tokens get a mask.

    Raises:
        PeftcError: PEFT720 or PEFT721; PEFT631 if the model is sharded or without
            values, its layers are captured one by one, or several adapters run at once.
    """
    handle.require_whole()
    _check_one_graph(handle)
    given = _arguments(handle.model, inputs)
    dynamic = {n: _open(v) for n, v in given.items() if isinstance(v, torch.Tensor)}
    program = program_of(handle, given, dynamic)
    shapes = {n: dict.fromkeys(axes, Dim.DYNAMIC) for n, axes in dynamic.items()}
    example = {name: given[name].clone() for name in dynamic}
    with torch.no_grad():
        try:
            exported = torch.export.export(
                named_inputs(program), (), example, dynamic_shapes=shapes, strict=False
            )
        except Exception as error:
            # Whatever torch says while it traces is why there is no program.
            raise fail(NoProgram(problem=_first_line(error))) from error
        check_operators(exported)
        _check_other_sizes(program, exported, example, dynamic)
    return exported


def _check_one_graph(handle: Handle) -> None:
    """Refuse a model without values, or one that runs by several graphs or adapters."""
    if any(parameter.is_meta for parameter in handle.model.parameters()):
        raise fail(WrongState(what="a model on the meta device has nothing to save"))
    if handle.slots.several is not None:
        hint = "a program is of one: activate a slot that holds an adapter"
        raise fail(WrongState(what="several adapters run at once", hint=hint))
    if handle.entries[0].layout.within:
        hint = "load the adapter on a model that is captured as a whole"
        raise fail(WrongState(what="each layer has a graph of its own", hint=hint))


def _arguments(model: nn.Module, inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of the forward that are the program's alone."""
    made = example_inputs(model, inputs)
    if TOKENS in made and MASK not in made and _takes(model, MASK):
        made[MASK] = torch.ones_like(made[TOKENS])
    return {
        name: _example(value) if isinstance(value, torch.Tensor) else value
        for name, value in made.items()
    }


def _example(value: torch.Tensor) -> torch.Tensor:
    """A tensor that leaves open what is to be: strides, and sizes of one, would become
    conditions of the program."""
    alone = tuple(axis for axis in _open(value) if value.shape[axis] == 1)
    longer = _longer(value.detach(), alone)
    return longer.clone(memory_format=torch.contiguous_format)


def _takes(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _open(value: torch.Tensor) -> tuple[int, ...]:
    """The axes that are left open: samples; tokens, where values are given for each."""
    of_tokens = value.dim() == 2 and not value.is_floating_point()
    return (0, 1) if of_tokens else (0,)


def check_operators(exported: ExportedProgram) -> None:
    """Refuse a program of which torch does not have all operators.

    Raises:
        PeftcError: PEFT720 with their names.
    """
    targets = {node.target for node in _calls(exported.graph_module)}
    names = {str(t) for t in targets if getattr(t, "namespace", OURS[0]) not in OURS}
    if names:
        raise fail(ForeignOperators(names=", ".join(sorted(names))))


def _calls(gm: fx.GraphModule) -> Iterator[fx.Node]:
    graphs = (m.graph for m in gm.modules() if isinstance(m, fx.GraphModule))
    return (n for graph in graphs for n in graph.nodes if n.op == "call_function")


def _check_other_sizes(
    program: Program,
    exported: ExportedProgram,
    example: Mapping[str, torch.Tensor],
    dynamic: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse a program that is not the model's for other numbers of samples and tokens.

    A size that Python code had fixed would be in it as a number.
    """
    other = {name: _longer(value, dynamic[name]) for name, value in example.items()}
    expected = tree_leaves(program(*other.values()))
    try:
        found = tree_leaves(exported.module()(**other))
        for one, expect in zip(found, expected, strict=True):
            torch.testing.assert_close(one, expect, equal_nan=True)
    except (AssertionError, RuntimeError) as error:
        problem = f"for other sizes it is not the model: {_first_line(error)}"
        raise fail(NoProgram(problem=problem)) from error


def _longer(value: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    for axis in axes:
        value = torch.cat((value, value.narrow(axis, 0, 1)), axis)
    return value


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
