"""Captured graphs as text that does not change with torch's versions or addresses.

In: a graph of torch functions as Dynamo captures it, and the parameter paths of its
placeholders.  Out: one line per node: numbered values, short names of operations, types
and shapes (symbolic sizes are s0, s1, ... in order of appearance).  Inserted nodes are
marked by `+` and by the site and the line of the user's text they stem from.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DTYPES = {
    torch.float64: "f64",
    torch.float32: "f32",
    torch.bfloat16: "bf16",
    torch.float16: "f16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.bool: "bool",
}


def op_name(node: fx.Node) -> str:
    """The short name of what a node does: `linear`, `add`, `view`."""
    if isinstance(node.target, str):
        return node.target
    name: str = getattr(node.target, "__name__", None) or str(node.target)
    return name.strip("_")


def graph_text(graph: fx.Graph, names: Mapping[str, str] | None = None) -> str:
    """The graph as text, ending in a newline.

    `names` maps names of placeholders to what they are; those it lacks are called by
    where Dynamo found them.
    """
    writer = _Writer({**source_names(graph), **(names or {})})
    lines = (writer.line(node) for node in graph.nodes if _is_shown(node))
    return "\n".join(("graph", *lines, ""))


def source_names(graph: fx.Graph) -> dict[str, str]:
    """Where Dynamo found each placeholder: a parameter's path, an argument's name."""
    arguments = {
        node.name: node.meta["grapharg"]
        for node in graph.find_nodes(op="placeholder")
        if node.meta.get("grapharg") is not None
    }
    return {name: _path(str(a.source.name)) for name, a in arguments.items()}


def _path(source: str) -> str:
    """`L['self']._modules['lin']._parameters['weight']` is `lin.weight`."""
    members = re.findall(r"\._(?:modules|parameters|buffers)\['([^']+)'\]", source)
    keys = members or re.findall(r"\['?([^\]']+)'?\]", source)
    return ".".join(keys)


def _is_shown(node: fx.Node) -> bool:
    return node.op != "placeholder" or bool(node.users)


class _Writer:
    """Numbers values and symbols in the order in which they are written."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.values: dict[fx.Node, str] = {}
        self.symbols: dict[str, str] = {}

    def line(self, node: fx.Node) -> str:
        if node.op == "output":
            return f"  return {self.argument(node.args[0])}"
        mark = "+" if "peftc.site" in node.meta else " "
        call = self.call(node)
        self.values[node] = f"%{len(self.values)}"
        text = f"{mark} {self.values[node]}: {self.type(node)} = {call}"
        return f"{text}{_origin(node)}"

    def call(self, node: fx.Node) -> str:
        if node.op == "placeholder":
            return f"input {self.names.get(node.name, node.name)}"
        if node.op == "get_attr":
            return f"attribute {node.target}"
        named = (f"{k}={self.argument(v)}" for k, v in sorted(node.kwargs.items()))
        args = (*map(self.argument, node.args), *named)
        return f"{op_name(node)}({', '.join(args)})"

    def argument(self, value: Any) -> str:
        match value:
            case fx.Node():
                return self.values[value]
            case tuple() | list():
                return f"[{', '.join(map(self.argument, value))}]"
            case dict():
                items = (f"{k}: {self.argument(v)}" for k, v in value.items())
                return f"{{{', '.join(items)}}}"
            case slice():
                return self.slice(value)
            case torch.dtype():
                return DTYPES.get(value, str(value).removeprefix("torch."))
            case torch.device():
                return value.type
            case None:
                return "none"
        return "..." if value is Ellipsis else self.size(value)

    def slice(self, value: slice) -> str:
        ends = (value.start, value.stop, *([value.step] if value.step else []))
        return ":".join("" if end is None else self.argument(end) for end in ends)

    def type(self, node: fx.Node) -> str:
        value = node.meta.get("example_value")
        if isinstance(value, torch.Tensor):
            sizes = ", ".join(self.size(size) for size in value.shape)
            return f"{self.argument(value.dtype)}[{sizes}]"
        if isinstance(value, torch.SymInt):
            return f"size {self.size(value)}"
        return "scalar" if isinstance(value, torch.SymFloat) else "other"

    def size(self, value: Any) -> str:
        """A size or number; symbols are renamed in order of appearance."""
        return re.sub(r"\b[su]\d+\b", self.symbol, str(value))

    def symbol(self, found: re.Match[str]) -> str:
        return self.symbols.setdefault(found[0], f"s{len(self.symbols)}")


def _origin(node: fx.Node) -> str:
    marks: Iterator[str] = (
        node.meta[key] for key in ("peftc.site", "peftc.span") if node.meta.get(key)
    )
    text = " from ".join(marks)
    return f"  # {text}" if text else ""
