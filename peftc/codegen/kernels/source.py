"""A joint program as Triton kernels and two functions that launch them.

In: a `JointProgram` whose token axes are one.  Out: a `KernelSource`: the text of a
module for each direction, which begins with the plan, and what each kernel is like.

The functions read `run` (launch a kernel), `rows` (an activation with its features side
by side), `empty`, `parts` (into how many parts the tokens are split where they are
summed), `few` (whether there are so few tokens that features are split), `splits` (into
how many parts), `draw` (a seed) and `call` (functions of whole tensors); whoever runs
the module gives them.  Nothing is added atomically: parts are summed in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.codegen.halves import halved, is_linear
from peftc.codegen.joint_text import joint_text
from peftc.codegen.kernels.formulas import formulas, values
from peftc.codegen.kernels.host import Host
from peftc.codegen.kernels.launches import Launch, launch_of
from peftc.codegen.kernels.parts import Direction, Kernel, outputs
from peftc.codegen.kernels.spaces import Spaces
from peftc.codegen.kernels.split import split
from peftc.codegen.kernels.template import (
    SEED,
    Surroundings,
    in_parts,
    kernel_text,
)
from peftc.codegen.torch_writer import NoSourceError, base_weight, variable
from peftc.expr.grouped import beside

if TYPE_CHECKING:
    from collections.abc import (
        Collection,
        Container,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from peftc.codegen.halves import Halves
    from peftc.codegen.kernels.formulas import Formula
    from peftc.codegen.kernels.template import Writer
    from peftc.codegen.kernels.work import Kind
    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step

IMPORTS = """import torch
import torch.nn.functional as F
import triton
import triton.language as tl
"""


@dataclass(frozen=True)
class KernelSource:
    """Two modules as text, and in which order their functions take and give values.

    `forward(**inputs)` gives the results and then `kept`; `backward(**adjoints,
    **saved)` gives the `gradients`.
    """

    forward: str
    backward: str
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    kept: tuple[str, ...]
    saved: tuple[str, ...]
    gradients: tuple[str, ...]
    launches: Mapping[str, Launch]
    """By the kernel's name."""
    moved: Mapping[str, tuple[tuple[str, ...], ...]]
    """By direction: what each part reads or writes, kernels and lines of torch."""


def kernel_source(
    program: JointProgram, wanted: Iterable[str], biases: Collection[str] = ()
) -> KernelSource:
    """The source of a program, with the gradients that are wanted.

    `biases` are those that the bases' linears have.

    Raises:
        NoSourceError: if a step has no form.
    """
    if any(m.tokens != "bt" or len(m.shape) > 1 for m in program.masks):
        raise NoSourceError("a mask is not one of tokens, or of tokens by features")
    halves = halved(program, wanted, biases)
    front, rear = _Half(program, halves, biases), _Half(program, halves, biases)
    forward = front.forward(program.forward.steps)
    backward = rear.backward(halves.back)
    masks, drawn = (SEED,) * bool(program.masks), (SEED,) * rear.draws
    head = "".join(f"# {line}\n" for line in joint_text(program).splitlines())
    return KernelSource(
        f"{head}\n{IMPORTS}\n\n{forward}",
        f"{head}\n{IMPORTS}\n\n{backward}",
        halves.inputs,
        tuple(halves.results),
        (*halves.kept, *masks),
        (*halves.saved, *drawn),
        tuple(halves.gradients),
        {**front.launches, **rear.launches},
        {"forward": (*_bases(halves), *front.moved), "backward": tuple(rear.moved)},
    )


def _bases(halves: Halves) -> Iterator[tuple[str, ...]]:
    """What the bases' own linears read and write."""
    return (("x", beside("W", y), y) for y in halves.bases)


@dataclass(frozen=True)
class Written:
    """A kernel with its text and what wrote it."""

    kernel: Kernel
    text: str
    writer: Writer


class _Half:
    """Writes one direction."""

    def __init__(
        self, program: JointProgram, halves: Halves, biases: Collection[str]
    ) -> None:
        self.program = program
        self.halves = halves
        self.biases = biases
        self.known = values(program)
        self.masks = {m.name: (i, m) for i, m in enumerate(program.masks)}
        every = (*program.forward.steps, *program.backward.steps)
        active = [one.name for one in program.inputs if one.tokens]
        active += [mask.name for mask in program.masks]
        self.spaces = Spaces(self.known, formulas(every, self.known), active)
        self.launches: dict[str, Launch] = {}
        self.lines: list[str] = []
        self.texts: list[str] = []
        self.draws = False
        self.moved: list[tuple[str, ...]] = []

    def forward(self, steps: Sequence[Step]) -> str:
        """The module of the forward."""
        halves = self.halves
        bases = [f"{variable(y)} = {text}" for y, text in halves.bases.items()]
        given, found = [*halves.inputs, *halves.bases], tuple(halves.results.values())
        kept = (*halves.kept, *((SEED,) if self.masks else ()))
        self._write("forward", halves.like, steps, given, (*found, *halves.kept))
        draw = [f"{SEED} = draw({variable(halves.like)})"] if self.masks else []
        self.lines = [*bases, *draw, *self.lines]
        return self._module("forward", halves.inputs, (*found, *kept))

    def backward(self, steps: Sequence[Step]) -> str:
        """The module of the backward."""
        halves = self.halves
        given, found = (*halves.adjoints, *halves.saved), halves.gradients.values()
        self._write("backward", halves.adjoints[0], steps, given, found)
        drawn = (SEED,) * self.draws
        return self._module("backward", (*given, *drawn), found)

    # --- the function -----------------------------------------------------------------

    def _write(
        self,
        name: str,
        like: str,
        steps: Sequence[Step],
        given: Sequence[str],
        wanted: Iterable[str],
    ) -> None:
        direction = Direction(
            formulas(steps, self.known), self.spaces, self._mask_kinds(), wanted
        )
        inputs = {one.name for one in self.program.inputs if one.tokens}
        own = {*self.halves.results} if is_linear(self.program) else set[str]()
        active = frozenset((inputs & {*given}) - own)
        around = Surroundings(direction, self.known, self.masks, active)
        host = Host(self.known, variable(like), self.biases)
        host.made |= {n for n in given if n.startswith("%")} | {*self.halves.results}
        whole = direction.parts(given)
        kernels = [part for part in whole if isinstance(part, Kernel)]
        forms = {
            kernel: _forms(f"{name}_{number}", kernel, around)
            for number, kernel in enumerate(kernels)
        }
        written = [form for every in forms.values() for form in every]
        read = {n for form in written for n in form.writer.pointers if n in self.known}
        for part in whole:
            if isinstance(part, Kernel):
                self._kernel(forms[part], host.like)
            else:
                self._host(part, host, read)
            host.made |= {*outputs(part)}
        made = {n for part in whole for n in outputs(part)}
        self._contiguous(active, read - made - own, host.like)

    def _mask_kinds(self) -> dict[str, Kind]:
        return {
            mask.name: "wide" if mask.shape else "narrow" for mask in self.program.masks
        }

    def _host(self, formula: Formula, host: Host, read: Container[str]) -> None:
        weight = base_weight(formula.step)
        reads = dict.fromkeys((*formula.step.args, *((weight,) if weight else ())))
        self.moved.append((*reads, formula.name))
        text = host.text(formula)
        if formula.name in read and not host.is_contiguous(formula):
            text = f"({text}).contiguous()"
        self.lines.append(f"{variable(formula.name)} = {text}")

    def _contiguous(
        self, active: Iterable[str], read: Iterable[str], like: str
    ) -> None:
        """Kernels take activations with whole rows, and all else without gaps."""
        ahead = [f"tokens = {like}.shape[0]"]
        ahead += [f"{variable(n)} = rows({variable(n)})" for n in sorted(active)]
        fixed = sorted({*read} - {*active})
        ahead += [f"{variable(n)} = {variable(n)}.contiguous()" for n in fixed]
        self.lines = [*ahead, *self.lines]

    def _kernel(self, forms: Sequence[Written], like: str) -> None:
        """Launch a kernel, or, if tokens are few, those that are split."""
        for form in forms:
            self.texts.append(form.text)
            self.launches[form.writer.name] = launch_of(form.kernel, form.writer)
            self.draws |= SEED in form.writer.pointers
        whole, *few = forms
        self.moved.append(tuple(n for n in whole.writer.pointers if n != SEED))
        is_column = whole.kernel.template == "column"
        if is_column:
            self.lines.append(f"p = parts({like})")
        made = whole.kernel.made
        self.lines += [self._empty(name, like, "p" * is_column) for name in made]
        if few:
            width = max(self._width(form) for form in few)
            self.lines += ["if few(tokens):", f"    p = splits(tokens, {width})"]
            for form in few:
                self.lines += [f"    {line}" for line in self._split(form, like)]
            self.lines += ["else:", f"    {_run(whole, like)}"]
        else:
            self.lines.append(_run(whole, like, ", parts=p" * is_column))
        if is_column:
            names = map(variable, made)
            self.lines += [f"{name} = {name}.sum(0)" for name in names]

    def _width(self, form: Written) -> int:
        space = form.kernel.phases[-1].space
        return self.spaces.size(space) if space else 0

    def _split(self, form: Written, like: str) -> list[str]:
        """Room for what it leaves in parts, and its launch."""
        room = [self._empty(name, like, "p, tokens") for name in form.kernel.left]
        return [*room, _run(form, like, ", parts=p" if self._width(form) else "")]

    def _empty(self, name: str, like: str, parts: str) -> str:
        """Room for a value: numbers of tokens and sums in parts are in float32."""
        value = self.known[name]
        shape = ", ".join(map(str, (parts or "tokens", *value.shape)))
        dtype = ", torch.float32" * (bool(parts) or not value.shape)
        own = in_parts(name) if parts == "p, tokens" else name
        return f"{variable(own)} = empty({like}, [{shape}]{dtype})"

    def _module(self, name: str, takes: Iterable[str], gives: Iterable[str]) -> str:
        told, given = (", ".join(map(variable, names)) for names in (takes, gives))
        body = "".join(f"    {line}\n" for line in self.lines)
        function = f"def {name}({told}):\n{body}    return {given},\n"
        return "\n\n".join((*self.texts, function))


def _forms(name: str, kernel: Kernel, around: Surroundings) -> list[Written]:
    """A kernel, and then those that do its work for few tokens."""
    others = enumerate(split(kernel))
    named = [(name, kernel), *((f"{name}_{number}", one) for number, one in others)]
    return [Written(one, *kernel_text(label, one, around)) for label, one in named]


def _run(form: Written, like: str, over: str = "") -> str:
    writer = form.writer
    steps = [f"{variable(name)}.stride(0)" for name in writer.strides]
    count = ["p"] * (form.kernel.template == "split")
    args = ", ".join([*writer.pointers.values(), *steps, *count])
    return f"run({writer.name}, {like}, [{args}]{over})"
