"""Programs as text: one line a step, and back; and as a readable torch function.

    program y(x[*, 64], y[*, 64], lora.A[8, 64], lora.B[64, 8])
    %0[*, 8] = linear(x, lora.A)
    %1[*, 64] = linear(%0, lora.B)
    %2[*, 64] = add(y, %1; 1, 2)
    return %2
    cost 2176 flops/token, 0 flops, 418 bytes/token, 2048 bytes

`parse_program(program_text(p)) == p`.  What follows `;` are coefficients, attributes or
the spec of a product.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, TypeAlias, cast, get_args

from peftc.expr.program import Input, Op, Program, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Attr: TypeAlias = float | int | str

HEAD = re.compile(r"program ([\w#]+)\((.*)\)( with b, t)?")
VALUE = re.compile(r"([^\s\[\],]+)\[([^\]]*)\]")
STEP = re.compile(r"(\S+?)\[([^\]]*)\] = (\w+)(?: (\w+))?\(([^;]*)(?:; (.*))?\)")
ATTR = re.compile(r'"(?:[^"\\]|\\.)*"|[^",\s]+')
COST = re.compile(
    r"cost (\d+) flops/token, (\d+) flops, (\d+) bytes/token, (\d+) bytes"
)


# --- printing ----------------------------------------------------------------------


def program_text(program: Program) -> str:
    """A program, one line for its inputs, each step, its result and its cost."""
    inputs = ", ".join(value_text(i.name, i.shape, i.tokens) for i in program.inputs)
    separate = " with b, t" * program.separate_tokens
    lines = [
        f"program {program.target}({inputs}){separate}",
        *map(step_text, program.steps),
        f"return {program.result}",
        cost_text(program.flops, program.bytes),
    ]
    return "\n".join(lines) + "\n"


def cost_text(flops: tuple[int, int], moved: tuple[int, int]) -> str:
    """`cost 2176 flops/token, 0 flops, 418 bytes/token, 2048 bytes`."""
    (a, b), (c, d) = flops, moved
    return f"cost {a} flops/token, {b} flops, {c} bytes/token, {d} bytes"


def step_text(step: Step) -> str:
    """`%2[*, 64] = add(y, %1; 1, 2)`."""
    numbers = [*map(number_text, step.coefs), *map(_attr, step.attrs)]
    rest = step.spec or ", ".join(numbers)
    fn = f" {step.fn}" * bool(step.fn)
    args = ", ".join(step.args) + f"; {rest}" * bool(rest)
    return f"{value_text(step.out, step.shape, step.tokens)} = {step.op}{fn}({args})"


def value_text(name: str, shape: tuple[int, ...], tokens: bool) -> str:
    """`%2[*, 64]`."""
    return f"{name}[{', '.join([*['*'] * tokens, *map(str, shape)])}]"


def _attr(value: Attr) -> str:
    """Text from which the value can be told, also its type."""
    if isinstance(value, str):
        return json.dumps(value)
    return repr(value)


def number_text(value: float) -> str:
    """The shortest text of a float; whole ones as `2`."""
    return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


# --- parsing -------------------------------------------------------------------------


def parse_program(text: str) -> Program:
    """The program that `program_text` printed.

    Raises:
        ValueError: naming the first line that is none of a program.
    """
    head, *steps, result, cost = text.strip().splitlines()
    first, (flops, moved) = matched(HEAD, head), parse_cost(cost)
    if not result.startswith("return "):
        raise ValueError(f"not a line of a program: {result}")
    return Program(
        target=first[1],
        inputs=tuple(Input(*parse_value(*found)) for found in VALUE.findall(first[2])),
        steps=tuple(map(parse_step, steps)),
        result=result.removeprefix("return "),
        separate_tokens=first[3] is not None,
        flops=flops,
        bytes=moved,
    )


def parse_cost(line: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The flops and bytes that `cost_text` printed."""
    a, b, c, d = map(int, matched(COST, line).groups())
    return (a, b), (c, d)


def matched(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    """The match of a whole line.

    Raises:
        ValueError: naming the line, if there is none.
    """
    match = pattern.fullmatch(line.strip())
    if match is None:
        raise ValueError(f"not a line of a program: {line}")
    return match


def parse_value(name: str, axes: str) -> tuple[str, tuple[int, ...], bool]:
    """The name, shape and token axes of the groups of VALUE."""
    parts = axes.split(", ") if axes else []
    tokens = parts[:1] == ["*"]
    return name, tuple(map(int, parts[tokens:])), tokens


def parse_step(line: str) -> Step:
    """The step that `step_text` printed."""
    name, axes, op, fn, args, rest = matched(STEP, line).groups()
    out, shape, tokens = parse_value(name, axes)
    if op not in get_args(Op):
        raise ValueError(f"not an operation: {op}")
    return Step(
        out=out,
        op=cast("Op", op),
        args=tuple(args.split(", ")) if args else (),
        shape=shape,
        tokens=tokens,
        spec=rest if op == "ein" else "",
        fn=fn or "",
        coefs=tuple(map(float, rest.split(", "))) if op == "add" else (),
        attrs=_parse_attrs(rest) if op == "call" and rest else (),
    )


def _parse_attrs(text: str) -> tuple[Attr, ...]:
    parts = ATTR.findall(text)
    if ", ".join(parts) != text:
        raise ValueError(f"no attributes of a step: {text}")
    return tuple(map(_parse_attr, parts))


def _parse_attr(text: str) -> Attr:
    if text.startswith('"'):
        return str(json.loads(text))
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


# --- as torch -----------------------------------------------------------------------


def torch_text(program: Program, name: str) -> str:
    """A torch function that computes the program, to be read; nothing runs it.

    `base(v)` is the site's own linear, `base(v, bias=False)` without its bias.
    """
    names = _identifiers(program)
    applied = any(step.op in ("base", "product") for step in program.steps)
    params = [names[i.name] for i in program.inputs] + ["base"] * applied
    lines = [f"def {name}({', '.join(params)}):"]
    lines += [f"    {_torch_line(step, names)}" for step in program.steps]
    return "\n".join([*lines, f"    return {names[program.result]}"]) + "\n"


def _identifiers(program: Program) -> dict[str, str]:
    """A Python name for each value, all different."""
    names: dict[str, str] = {}
    for one in (*(i.name for i in program.inputs), *(s.out for s in program.steps)):
        text = re.sub(r"\W", "_", one.replace("%", "v"))
        while text in names.values() or text == "base":
            text += "_"
        names[one] = text
    return names


def _torch_line(step: Step, names: Mapping[str, str]) -> str:
    args = [names[arg] for arg in step.args]
    shape = value_text("", step.shape, step.tokens)
    return f"{names[step.out]} = {TORCH[step.op](step, args)}  # {shape}"


def _torch_add(step: Step, args: list[str]) -> str:
    terms = [
        arg if coef == 1 else f"{number_text(coef)} * {arg}"
        for coef, arg in zip(step.coefs, args, strict=True)
    ]
    return " + ".join(terms).replace("+ -", "- ")


def _torch_ein(step: Step, args: list[str]) -> str:
    spec = step.spec.replace("*", "...")
    return f'torch.einsum("{spec}", {", ".join(args)})'


def _torch_view(step: Step, args: list[str]) -> str:
    lead = f"*{args[0]}.shape[:TOKEN_AXES], " * step.tokens
    return f"{args[0]}.reshape({lead}{', '.join(map(str, step.shape))})"


def _torch_call(step: Step, args: list[str]) -> str:
    attrs = map(_attr, step.attrs)
    return f"{step.fn}({', '.join([*args, *attrs])})"


TORCH: Mapping[Op, Callable[[Step, list[str]], str]] = {
    "linear": lambda step, args: f"F.linear({args[0]}, {args[1]})",
    "ein": _torch_ein,
    "add": _torch_add,
    "map": lambda step, args: f"{step.fn}({args[0]})",
    "view": _torch_view,
    "call": _torch_call,
    "base": lambda step, args: f"base({args[0]})",
    "product": lambda step, args: f"base({args[0]}, bias=False)",
}
