"""What each graph pass makes of a small graph, and a whole model's graph, as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from peftc.pipeline import load
from peftc.rewrite.print import graph_text
from peftc.sites.anchors import HiddenAnchor, Located, NormAnchor
from peftc.sites.locate import locate
from tests.capturing import (
    bottleneck,
    linear_uses,
    low_rank,
    plan,
    rewrite,
    rewritten,
    scaling,
    site,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import fx

    from peftc.plan.types import Rewrite
    from tests.capturing import Tensors

    Golden = Callable[[Path, str], None]

GRAPHS = Path(__file__).parent / "graphs"
N, R = 6, 2

DOWN = site("down:down", weight="down.weight", shape=(N, N))
Q = site("up:q", rows=((0, 2),), weight="up.weight", shape=(2, N))
K = site("up:k", rows=((2, 3), (4, 5)), weight="up.weight", shape=(2, N))
FFN = site("down:ffn", "hidden", weight="down.weight", shape=(N,))
NORM = site("norm:norm", "norm", weight="norm.weight", shape=(N,))


class Block(nn.Module):
    """norm(x + down(tanh(up(x)))), a post-norm sublayer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(N, N, bias=False), nn.Linear(N, N, bias=False)
        self.norm = nn.LayerNorm(N)

    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(x + self.down(torch.tanh(self.up(x))))


def in_block(graph: fx.Graph, names: Mapping[fx.Node, str]) -> list[Located]:
    by_name = {name: node for node, name in names.items()}
    (up,) = linear_uses(graph, names, "up.weight")
    (down,) = linear_uses(graph, names, "down.weight")
    (add,) = down.y.users
    (norm,) = add.users
    return [
        Located(DOWN, (down,)),
        Located(Q, (up,)),
        Located(K, (up,)),
        Located(FFN, (HiddenAnchor(down.y, add, up.x, norm),)),
        Located(NORM, (NormAnchor(by_name["norm.weight"], by_name["norm.bias"]),)),
    ]


def added(rewrites: Sequence[Rewrite]) -> Tensors:
    """Zeros for what the rewrites add, and the numbers of K's rows."""
    tensors = {
        one.site.key: {t.name: torch.zeros(t.shape) for t in one.tensors}
        for one in rewrites
    }
    if K.key in tensors:
        tensors[K.key]["rows"] = torch.tensor([2, 4])
    return tensors


def text_of(*rewrites: Rewrite) -> str:
    run = rewritten(Block(), plan(*rewrites), added(rewrites), in_block)
    run.forward(torch.zeros(2, 3, N))
    return run.texts[-1]


def test_a_whole_linear(golden: Golden) -> None:
    text = text_of(rewrite(DOWN, low_rank(N, N, R)))
    golden(GRAPHS / "rewrite-linears.txt", text)


def test_rows(golden: Golden) -> None:
    text = text_of(rewrite(Q, low_rank(2, N, R)), rewrite(K, scaling("y", 2)))
    golden(GRAPHS / "rewrite-rows.txt", text)


def test_an_edge(golden: Golden) -> None:
    golden(GRAPHS / "rewrite-edges.txt", text_of(rewrite(FFN, bottleneck(N, R, "n"))))


def test_a_norm(golden: Golden) -> None:
    golden(GRAPHS / "rewrite-norms.txt", text_of(rewrite(NORM, scaling("g", N))))


def test_verification_changes_nothing() -> None:
    one = rewrite(DOWN, low_rank(N, N, R))
    run = rewritten(Block(), plan(one), added([one]), in_block)
    run.forward(torch.zeros(2, 3, N))
    before = graph_text(run.capture.graph)
    (verify,) = load(["verify-rewrites"])
    assert verify.run(run.capture, plan(one)) == 0
    assert graph_text(run.capture.graph) == before


# --- a whole model --------------------------------------------------------------------


def test_a_language_model(golden: Golden) -> None:
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    sites = {
        role: site(f"model.layers.0.self_attn.{role}_proj:{role}", shape=(out, 16))
        for role, out in (("q", 16), ("v", 8))
    }
    one, two = (
        rewrite(
            sites[role],
            low_rank(out, 16, R),
            origin=f"spec.peft:1:{column}",
        )
        for role, out, column in (("q", 16, 6), ("v", 8, 9))
    )
    run = rewritten(model, plan(one, two), added([one, two]), locate)
    for tokens in (5, 7):  # the second time with symbolic sizes
        run.forward(input_ids=torch.zeros(2, tokens).long(), use_cache=False)
    golden(GRAPHS / "llama.txt", run.texts[-1])
