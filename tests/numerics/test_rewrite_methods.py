"""Every method in a graph computes what its equation says, gradients included.

The meaning of an equation is `peftc.expr.evaluate`: no ordering, no graph.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftc.driver import make_plan
from peftc.expr.evaluate import evaluate
from peftc.plan.equations import composed, definitions, environment
from peftc.sites.anchors import HiddenAnchor, Located, NormAnchor
from peftc.syntax.source import Source
from peftc.view import ModelView, ParameterFact
from tests.capturing import at_linears, linear_uses, plan, rewritten, site

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from peftc.plan.types import Plan, Rewrite
    from peftc.view import Rows, Site

IN, OUT, B, T = 8, 12, 2, 5
EXACT = 1e-10

LINEAR = (
    "lora(q, r=3)",
    "lora(q, r=3, dropout=10%)",
    "lora(q, r=3, rs=true)",
    "ia3(q)",
    "bitfit(q)",
    "krona(q)",
    "loha(q, r=2)",
    "dora(q, r=3)",
    "dora(q, r=3, exact=true)",
    "vera(q, r=4)",
    "miss(q, r=4)",
    "full(q)",
    "gate(lora(q, r=3), pool=token)",
    "gate(lora(q, r=3) + ia3(q), pool=token)",
    "lora(q, r=3) + krona(q) + ia3(q) + bitfit(q)",
    "bitfit(q) + dora(q, r=3) + lora(q, r=2)",
)
TEXTS = """
method rotated(n: size = 4) on linear {
  param Q[in/n, n, n] ~ normal(0.3)
  x' = blockdiag[k: in/n](cayley(Q[k]))(x)
}
method inputs() on linear { param l[in] ~ normal(1); x' = l * x }
method turned(r: size = 3) on linear {
  param A[r, in] ~ normal(1), B[out, r] ~ normal(1), l[in] ~ normal(1)
  x' = l * x
  W' = W + B @ A
}
method averaged() on linear {
  param w[in] ~ normal(1), l[out] ~ normal(1)
  y' = y + mean(sigmoid(w(x)), t) * (l * y)
}
method rooted() on linear {
  param s[out] ~ normal(1)
  bias' = tanh(s) * bias
}
method adaptive(d: size = 3) on linear {
  param D[d, in] ~ normal(1), U[out, d] ~ normal(1)
  y' = y + U(silu(D(x))) * sigmoid(y)
}
"""
OWN = (
    "rotated(q)",
    "inputs(q)",
    "turned(q)",
    "averaged(q)",
    "rooted(q)",
    "adaptive(q)",
)
HIDDEN = (
    "pfeiffer(ffn, d=3)",
    "adapter(ffn, d=3)",
    "parallel(ffn, d=3)",
    "gate(adapter(ffn, d=3), pool=token)",
    "phm(ffn, terms=2, d=4, rank=2)",
    "parallel(ffn, d=2) + adapter(ffn, d=3)",
)


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def planned(text: str, *sites: Site) -> Plan:
    parameters = tuple(
        ParameterFact(name, (OUT, IN), "float64") for s in sites for name in (s.weight,)
    )
    view = ModelView("tiny", sites, parameters, 1)
    return make_plan(Source("<spec>", TEXTS + text), view, dtype="float64")


def random_tensors(rewrite: Rewrite) -> dict[str, torch.Tensor]:
    return {
        t.name: torch.randn(t.shape, dtype=torch.float64, requires_grad=True)
        for t in rewrite.tensors
    }


def meaning(
    of: Rewrite, whole: Plan, target: str, given: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    root = composed(of, definitions(whole)).outputs[target]
    env = environment(of) | {"b": B, "t": T}
    (value,) = evaluate([root], given, env)
    return value


def assert_same(
    actual: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor]
) -> None:
    torch.testing.assert_close(actual, expected, rtol=EXACT, atol=EXACT)
    weight = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype)
    for one, other in zip(
        *(
            torch.autograd.grad((v.flatten() * weight).sum(), leaves, allow_unused=True)
            for v in (actual, expected)
        ),
        strict=True,
    ):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=EXACT, atol=EXACT)


# --- linears ------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.lin = Conv1D(OUT, IN) if kind == "conv" else nn.Linear(IN, OUT)
        nn.init.normal_(self.lin.bias)

    def forward(self, x: torch.Tensor) -> Any:
        return self.lin(x)

    def matrix(self) -> torch.Tensor:
        weight = self.lin.weight
        return weight.T if isinstance(self.lin, Conv1D) else weight


LAYOUTS: tuple[tuple[str, Rows | None], ...] = (
    ("linear", None),
    ("conv", ((4, 12),)),
    ("linear", ((0, 4), (8, 12))),
)


@pytest.mark.parametrize(("kind", "rows"), LAYOUTS, ids=["whole", "range", "scattered"])
@pytest.mark.parametrize("text", [*LINEAR, *OWN])
def test_linear_methods(text: str, kind: str, rows: Rows | None) -> None:
    net = Net(kind).double().eval()
    index = torch.tensor([i for a, b in rows or ((0, OUT),) for i in range(a, b)])
    of = site("lin:q", rows=rows, transposed=kind == "conv", shape=(len(index), IN))
    of = replace(of, weight="lin.weight", bias="lin.bias", layer=0, dtype="float64")
    whole = planned(text, of)
    (rewrite,) = whole.rewrites
    tensors = random_tensors(rewrite)
    given = tensors | ({"rows": index} if rows and len(rows) > 1 else {})
    x = torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)
    run = rewritten(net, whole, {of.key: given}, at_linears(of))
    base = {"W": net.matrix()[index], "bias": net.lin.bias[index], "x": x}
    value = meaning(rewrite, whole, "y", base | tensors)
    expected = net(x).index_copy(-1, index, value)
    assert_same(run.forward(x), expected, [x, *tensors.values()])


SINGLE = ("lora(q, r=3)", "krona(q)", "loha(q, r=2)", "dora(q, r=3)", "inputs(q)")


@pytest.mark.parametrize("shape", [(1, IN), (OUT, 1), (1, 1)])
@pytest.mark.parametrize("text", SINGLE)
def test_single_channels(text: str, shape: tuple[int, int]) -> None:
    net = nn.Module()
    net.lin = nn.Linear(*shape[::-1]).double()
    net.forward = net.lin.forward
    of = replace(site("lin:q", shape=shape), weight="lin.weight", bias="lin.bias")
    whole = planned(text, replace(of, layer=0, dtype="float64"))
    (rewrite,) = whole.rewrites
    tensors = random_tensors(rewrite)
    x = torch.randn(B, T, shape[1], dtype=torch.float64, requires_grad=True)
    run = rewritten(net.eval(), whole, {of.key: tensors}, at_linears(of))
    base = {"W": net.lin.weight, "bias": net.lin.bias, "x": x}
    expected = meaning(rewrite, whole, "y", base | tensors)
    assert_same(run.forward(x), expected, [x, *tensors.values()])


# --- hidden edges and norms ---------------------------------------------------------


class Block(nn.Module):
    def __init__(self, post: bool) -> None:
        super().__init__()
        self.norm, self.post = nn.LayerNorm(IN), post
        self.up, self.down = nn.Linear(IN, OUT), nn.Linear(OUT, IN)

    def forward(self, x: torch.Tensor) -> Any:
        u = x if self.post else self.norm(x)
        total = self.down(torch.tanh(self.up(u))) + x
        return self.norm(total) if self.post else total


FFN = replace(
    site("down:ffn", "hidden", shape=(IN,)), weight="down.weight", layer=0, tap=True
)
NORM = replace(
    site("norm:norm", "norm", shape=(IN,)), weight="norm.weight", bias="norm.bias"
)


def in_block(graph: fx.Graph, names: Mapping[fx.Node, str]) -> list[Located]:
    by_name = {name: node for node, name in names.items()}
    (down,) = linear_uses(graph, names, "down.weight")
    (up,) = linear_uses(graph, names, "up.weight")
    (add,) = down.y.users
    norm = next((n for n in add.users if n.op != "output"), None)
    return [
        Located(FFN, (HiddenAnchor(down.y, add, up.x, norm),)),
        Located(NORM, (NormAnchor(by_name["norm.weight"], by_name["norm.bias"]),)),
    ]


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("text", HIDDEN)
def test_hidden_methods(text: str, post: bool) -> None:
    block = Block(post).double().eval()
    whole = planned(text, replace(FFN, post_norm=post, dtype="float64"))
    (rewrite,) = whole.rewrites
    tensors = random_tensors(rewrite)
    x = torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)
    run = rewritten(block, whole, {FFN.key: tensors}, in_block)
    u = x if post else block.norm(x)
    h = block.down(torch.tanh(block.up(u)))
    base = {"h": h, "u": u, "n": block.norm(h + x) if post else h}
    total = meaning(rewrite, whole, "h", base | tensors) + x
    expected = block.norm(total) if post else total
    assert_same(run.forward(x), expected, [x, *tensors.values()])


@pytest.mark.parametrize("text", ["norm_tuning(norm)"])
def test_norm_methods(text: str) -> None:
    block = Block(True).double().eval()
    whole = planned(text, replace(NORM, dtype="float64"))
    (rewrite,) = whole.rewrites
    tensors = random_tensors(rewrite)
    x = torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)
    run = rewritten(block, whole, {NORM.key: tensors}, in_block)
    base = {"g": block.norm.weight, "c": block.norm.bias}
    names = {"g": "norm.weight", "c": "norm.bias"}
    changed = {
        names[p.target]: meaning(rewrite, whole, p.target, base | tensors)
        for p in rewrite.programs
    }
    expected = torch.func.functional_call(block, changed, (x,))
    assert_same(run.forward(x), expected, [x, *tensors.values()])


def test_nothing_is_rewritten_where_nothing_is_planned() -> None:
    net = Net("linear")
    run = rewritten(net, plan(), {"": {"A": torch.zeros(1)}}, at_linears())
    x = torch.randn(B, T, IN)
    assert torch.equal(run.forward(x), net(x))
    assert run.capture.edits == []
