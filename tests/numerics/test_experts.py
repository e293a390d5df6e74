"""Every method at a stack of experts against the same method at each expert alone.

The reference is a plain model with one `nn.Linear` for each expert, rewritten as any
linear is; a stack has to give its numbers and its gradients in every spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers.integrations.moe  # registers the grouped product
from torch import nn

from peftc.driver import make_plan
from peftc.resolve.library import standard_library
from peftc.sites.anchors import Located
from peftc.sites.linears import find_products
from peftc.syntax.source import Source
from peftc.view import ModelView, ParameterFact
from tests.capturing import at_linears, rewritten, site
from tests.equations import CASES, FOLDER, numbers, read
from tests.numerics.test_rewrite_methods import IN, LINEAR, OUT, OWN, assert_same
from tests.numerics.test_rewrite_methods import TEXTS as DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from peftc.plan.types import Plan, Rewrite
    from peftc.view import Rows, Site

    Tensors = Mapping[str, torch.Tensor]

assert transformers.integrations.moe
COUNTS = torch.tensor((3, 0, 2, 3))
EXPERTS = len(COUNTS)
NUMBERS = torch.arange(EXPERTS).repeat_interleave(COUNTS)
OVER_TOKENS = ("gate(", "averaged(")
MANY = [text for text in (*LINEAR, *OWN) if not text.startswith(OVER_TOKENS)]


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Stack(nn.Module):
    """The matrices of all experts in one parameter, multiplied as models do."""

    def __init__(self, spelling: str, sizes: tuple[int, int], *, turned: bool) -> None:
        super().__init__()
        self.spelling, self.turned = spelling, turned
        shape = sizes[::-1] if turned else sizes
        self.weight = nn.Parameter(torch.randn(EXPERTS, *shape).double())
        self.bias = nn.Parameter(torch.randn(EXPERTS, sizes[0]).double())

    def forward(self, x: torch.Tensor, numbers: torch.Tensor) -> Any:
        return torch.sin(getattr(self, self.spelling)(x, numbers))

    def grouped(self, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        counts = torch.histc(numbers.float(), bins=EXPERTS, min=0, max=EXPERTS - 1)
        ends = counts.cumsum(0, dtype=torch.int32)
        matrices = self.weight if self.turned else self.weight.transpose(-2, -1)
        y = torch.ops.transformers.grouped_mm_fallback(x, matrices, offs=ends)
        y.add_(self.bias[numbers])
        assert isinstance(y, torch.Tensor)
        return y

    def picked(self, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        matrices = self.weight[numbers]
        if self.turned:
            y = torch.bmm(x.unsqueeze(1), matrices).squeeze(1)
        else:
            y = torch.bmm(matrices, x.unsqueeze(-1)).squeeze(-1)
        return y + self.bias[numbers]

    def each(self, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        matrices = self.weight if self.turned else self.weight.transpose(1, 2)
        return torch.bmm(x, matrices) + self.bias.unsqueeze(1)


class Loop(nn.Module):
    """The same with a linear for each expert; `x` holds the rows of one after those of
    another, or has an axis of experts."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        weight = stack.weight.mT if stack.turned else stack.weight
        self.experts = nn.ModuleList(map(linear, weight, stack.bias))

    def forward(self, x: torch.Tensor, numbers: torch.Tensor) -> Any:
        rows = x.unbind() if x.dim() == 3 else x.split(COUNTS.tolist())
        ys = [e(part) for e, part in zip(self.experts, rows, strict=True)]
        return torch.sin(torch.stack(ys) if x.dim() == 3 else torch.cat(ys))


def linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    made = nn.Linear(*weight.shape[::-1]).double()
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made


def at_stack(of: Site) -> Any:
    def locate(graph: fx.Graph, names: Mapping[fx.Node, str]) -> list[Located]:
        (found,) = find_products(graph, names).linears.values()
        assert (found.experts, found.transposed) == (EXPERTS, of.transposed)
        return [Located(of, (found.anchor,))]

    return locate


def planned(text: str, *sites: Site) -> Plan:
    facts = tuple(
        ParameterFact(s.weight, (s.experts or 1, 64, 64), "float64") for s in sites
    )
    view = ModelView("tiny", sites, facts, 1)
    return make_plan(Source("<spec>", text), view, dtype="float64")


def values(rewrite: Rewrite) -> Tensors:
    """Buffers are small whole numbers: some are places."""
    return {
        t.name: torch.randint(1, 7, t.shape).double()
        if t.kind == "buffer"
        else torch.randn(t.shape, dtype=torch.float64, requires_grad=True)
        for t in rewrite.tensors
    }


@dataclass(frozen=True)
class Shape:
    """A site's output rows of a matrix of some sizes."""

    out: int
    into: int
    rows: Rows | None = None

    @property
    def index(self) -> torch.Tensor:
        whole = ((0, self.out),)
        return torch.tensor([i for a, b in self.rows or whole for i in range(a, b)])

    def numbers(self) -> dict[str, torch.Tensor]:
        scattered = self.rows is not None and len(self.rows) > 1
        return {"rows": self.index} if scattered else {}

    def site(self, path: str) -> Site:
        made = site(f"{path}:q", rows=self.rows, shape=(len(self.index), self.into))
        prefix = f"{path}." if path else ""
        return replace(
            made,
            weight=f"{prefix}weight",
            bias=f"{prefix}bias",
            layer=0,
            dtype="float64",
        )


def check(text: str, stack: Stack, shape: Shape) -> None:
    """Rewrite the stack and the loop with the same tensors and compare all there is."""
    of = replace(shape.site(""), experts=EXPERTS, transposed=stack.turned)
    whole = planned(text, of)
    (rewrite,) = whole.rewrites
    tensors = values(rewrite)
    given = {of.key: {**tensors, **shape.numbers()}}
    size = (EXPERTS, 3) if stack.spelling == "each" else (8,)
    x = torch.randn(*size, shape.into).double().requires_grad_()
    actual = rewritten(stack.eval(), whole, given, at_stack(of)).forward(x, NUMBERS)

    alone = [shape.site(f"experts.{i}") for i in range(EXPERTS)]
    plan = planned(text, *alone)
    assert whole.trainable == plan.trainable
    own = {
        s.key: {n: t[i] if n in rewrite.stacked else t for n, t in tensors.items()}
        | shape.numbers()
        for i, s in enumerate(alone)
    }
    loop = rewritten(Loop(stack).eval(), plan, own, at_linears(*alone))
    expected = loop.forward(x, NUMBERS)
    leaves = [x, *(t for t in tensors.values() if t.requires_grad)]
    assert_same(actual, expected, leaves)


SPELLINGS = ("grouped", "picked", "each")
FEW = ("krona(q)", "vera(q, r=4)", "rotated(q)", "turned(q)", "rooted(q)")
EVERY = [("grouped", text) for text in MANY]
OTHER = [
    pytest.param(spelling, text, marks=pytest.mark.slow)
    for spelling in SPELLINGS[1:]
    for text in FEW
]


@pytest.mark.parametrize(("spelling", "text"), [*EVERY, *OTHER])
def test_methods(spelling: str, text: str) -> None:
    stack = Stack(spelling, (OUT, IN), turned=False)
    check(DEFINITIONS + text, stack, Shape(OUT, IN))


LAYOUTS: tuple[tuple[bool, Rows | None], ...] = (
    (True, None),
    (True, ((4, 12),)),
    (False, ((0, 4), (8, 12))),
)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("turned", "rows"), LAYOUTS)
@pytest.mark.parametrize("text", ["lora(q, r=3) + ia3(q)", "dora(q, r=3) + inputs(q)"])
def test_layouts(text: str, turned: bool, rows: Rows | None, spelling: str) -> None:
    stack = Stack(spelling, (OUT, IN), turned=turned)
    check(DEFINITIONS + text, stack, Shape(OUT, IN, rows))


def plain(name: str) -> bool:
    """Whether a case is a method at a linear, of no name that the library has, without
    what a plan refuses."""
    (clause,) = read(name).clauses
    if name in standard_library().methods:
        return False
    text = (FOLDER / f"{name}.peft").read_text(encoding="utf-8")
    return clause.place == "linear" and not re.search(r"mean\(|loss", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if plain(name)])
def test_equations(name: str) -> None:
    """All that programs consist of, by the grouped product."""
    given, _ = numbers(name, "odd")
    out, into = given.pop("out"), given.pop("in")
    knobs = "".join(f", {knob}={value}" for knob, value in given.items())
    text = (FOLDER / f"{name}.peft").read_text(encoding="utf-8")
    stack = Stack("grouped", (out, into), turned=False)
    check(f"{text}\n{name}(q{knobs})", stack, Shape(out, into))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_token_axis(spelling: str) -> None:
    stack = Stack(spelling, (OUT, IN), turned=False)
    with pytest.raises(Exception, match="PEFT510"):
        check(f"{DEFINITIONS}averaged(q)", stack, Shape(OUT, IN))
