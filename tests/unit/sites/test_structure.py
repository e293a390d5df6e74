"""Residual streams, layers and edges in the ways that models put them together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.sites.toys import (
    INNER,
    WIDTH,
    WORDS,
    Attend,
    Feed,
    Function,
    Layer,
    Model,
    plain,
    told,
)


class Parallel(Layer):
    def forward(self, x: torch.Tensor) -> Any:
        return self.attend(self.norm(x)) + self.feed(self.other(x)) + x


class ParallelOneNorm(Layer):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.norm(x)
        return x + self.attend(y) + self.feed(y)


class ParallelDroppedOut(Layer):
    """One dropout for both branches."""

    def forward(self, x: torch.Tensor) -> Any:
        y = self.norm(x)
        both = self.attend(y) + self.feed(y)
        return x + F.dropout(both, 0.1, self.training).type_as(x)


class Scaled(Layer):
    def forward(self, x: torch.Tensor) -> Any:
        x = x * 0.9 + 0.5 * self.attend(self.norm(x))
        return x * 0.9 + 0.5 * self.feed(self.other(x))


class PostNorm(Layer):
    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(self.attend(x) + x)
        return self.other(F.dropout(self.feed(x), 0.1, self.training) + x)


class PostNormByHand(Layer):
    """Each sum is read by a norm that is spelt out."""

    def forward(self, x: torch.Tensor) -> Any:
        x = rms(self.attend(x) + x, self.norm.weight)
        return rms(self.feed(x) + x, self.other.weight)


class NormedOutputs(Layer):
    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.norm(self.attend(x))
        return x + self.other(self.feed(x))


def rms(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    root = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return gain * (wide * root).to(x.dtype)


def edges(model: nn.Module) -> list[str]:
    """Each edge: its place, owner and flags."""
    return [
        " ".join(
            filter(
                None,
                (
                    f"{site.layer}.{site.role}",
                    site.owner.rpartition("layers.")[2],
                    "output" if site.weight else "",
                    "post" if site.post_norm else "",
                    "tap" if site.tap else "",
                ),
            )
        )
        for site in told(model).sites
        if site.kind == "hidden"
    ]


@pytest.mark.parametrize(
    "layer", [Layer, Parallel, ParallelOneNorm, ParallelDroppedOut]
)
def test_each_branch_is_an_edge(layer: type[Layer]) -> None:
    assert edges(Model(layer(), layer())) == [
        "0.attn 0.attend.d output tap",
        "0.ffn 0.feed.last output tap",
        "0.block 0.feed.last",
        "1.attn 1.attend.d output tap",
        "1.ffn 1.feed.last output tap",
        "1.block 1.feed.last",
    ]


def test_a_scaled_branch_is_no_plain_output() -> None:
    assert edges(Model(Scaled())) == [
        "0.attn 0.attend.d tap",
        "0.ffn 0.feed.last tap",
        "0.block 0.feed.last",
    ]


def test_a_norm_after_the_sublayer_is_before_the_edge() -> None:
    assert edges(Model(NormedOutputs(), NormedOutputs())) == [
        "0.attn 0.attend.d tap",
        "0.ffn 0.feed.last tap",
        "0.block 0.feed.last",
        "1.attn 1.attend.d tap",
        "1.ffn 1.feed.last tap",
        "1.block 1.feed.last",
    ]


@pytest.mark.parametrize("layer", [PostNorm, PostNormByHand])
def test_post_norm(layer: type[Layer]) -> None:
    assert edges(Model(layer())) == [
        "0.attn 0.attend.d output post tap",
        "0.ffn 0.feed.last output post tap",
        "0.block 0.feed.last",
    ]


def test_norms_inside_and_outside_of_blocks() -> None:
    sites = told(Model(Layer())).sites
    norms = {s.owner: s.in_block for s in sites if s.role == "norm"}
    assert norms == {"layers.0.norm": True, "layers.0.other": True, "final": False}


class Experts(nn.Module):
    """Routed experts in one tensor, and one that is always on."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = nn.Linear(WIDTH, 3, bias=False)
        self.first = nn.Parameter(torch.randn(3, WIDTH, INNER))
        self.second = nn.Parameter(torch.randn(3, INNER, WIDTH))
        self.shared = Feed(plain)

    def forward(self, x: torch.Tensor) -> Any:
        flat = x.reshape(-1, WIDTH)
        weight, index = self.choose(flat).softmax(-1).topk(1)
        inner = torch.bmm(flat.unsqueeze(1), self.first[index.squeeze(-1)]).relu()
        outer = torch.bmm(inner, self.second[index.squeeze(-1)]).squeeze(1) * weight
        return outer.reshape(x.shape) + self.shared(x)


class Routed(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.feed = Experts()  # type: ignore[assignment]


def test_stacked_experts_are_said_and_the_rest_is_told() -> None:
    found = told(Model(Routed()))
    assert found.site("layers.0.feed.choose:router").in_block
    assert "layers.0.feed.shared.last:down" in found.keys
    assert found.site("layers.0.feed.shared.last:ffn").tap
    assert "all experts" in found.why["experts of layers.0"]


class Bias(nn.Module):
    """Attention spelt out with a learned bias of positions that all layers share."""

    def __init__(self, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias
        self.parts = Attend()
        self.feed = Feed(plain)

    def forward(self, x: torch.Tensor) -> Any:
        p = self.parts
        scores = p.a(x) @ p.b(x).mT + self.bias.expand(2, -1, -1)
        x = x + p.d(scores.softmax(-1) @ p.c(x))
        return x + self.feed(x)


def test_a_bias_of_scores_is_no_residual() -> None:
    bias = nn.Parameter(torch.randn(8, 8))
    found = told(Model(Bias(bias), Bias(bias)))
    assert [s.layer for s in found.sites if s.role == "q"] == [0, 1]
    assert {s.cross for s in found.sites} == {False}
    assert found.survey.layers == 2


class Decoder(nn.Module):
    """A decoder layer over an encoder of two."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.below = nn.ModuleList([Layer(), Layer()])
        self.own, self.cross, self.feed = Attend(), Attend(), Feed(plain)
        self.out = nn.Linear(WIDTH, WORDS)

    def forward(self, input_ids: torch.Tensor) -> Any:
        memory = self.table(input_ids)
        for layer in self.below:
            memory = layer(memory)
        x = self.table(input_ids[:, :5])
        x = x + self.own(x)
        x = x + self.cross(x, memory)
        return self.out(x + self.feed(x))


def test_cross_attention_tells_the_stacks() -> None:
    found = told(Decoder())
    assert found.survey.layers == 2
    cross = {s.owner for s in found.sites if s.cross}
    assert cross == {f"cross.{letter}" for letter in "abcd"}
    assert {s.stack for s in found.sites if s.owner.startswith("below")} == {"enc"}
    mine = [s for s in found.sites if s.owner.split(".")[0] in ("own", "cross", "feed")]
    assert {(s.stack, s.layer) for s in mine} == {("dec", 0)}
    assert found.site("cross.d:attn").tap


class Sharing(Layer):
    """A layer that attends to the keys and values of an earlier one."""

    def __init__(self, earlier: Attend) -> None:
        super().__init__()
        self.earlier = [earlier]

    def forward(self, x: torch.Tensor) -> Any:
        k: Any = self.earlier[0].keys
        v: Any = self.earlier[0].values
        mixed = F.scaled_dot_product_attention(self.attend.a(self.norm(x)), k, v)
        x = x + self.attend.d(mixed)
        return x + self.feed(self.other(x))


class Remembering(Attend):
    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> Any:
        self.keys, self.values = self.b(x), self.c(x)
        mixed = F.scaled_dot_product_attention(self.a(x), self.keys, self.values)
        return self.d(mixed)


def test_keys_of_an_earlier_layer_are_no_cross_attention() -> None:
    first = Layer()
    first.attend = Remembering()
    found = told(Model(first, Sharing(first.attend)))
    assert {s.cross for s in found.sites} == {False}
    k = found.site("layers.0.attend.b:k")
    assert (k.calls, k.fused, k.layer) == (1, False, 0)
    assert found.site("layers.1.attend.a:q").layer == 1


def test_a_layer_used_twice_has_no_number_and_two_calls() -> None:
    layer = Layer()
    found = told(Model(layer, layer))
    assert found.survey.layers == 2
    inside = [s for s in found.sites if s.in_block]
    assert {(s.calls, s.layer) for s in inside} == {(2, None)}


class TwoRoles(Layer):
    """One matrix that makes queries here and keys there."""

    def forward(self, x: torch.Tensor) -> Any:
        a, b, c, d = self.attend.a, self.attend.b, self.attend.c, self.attend.d
        x = x + d(F.scaled_dot_product_attention(a(x), b(x), c(x)))
        x = x + d(F.scaled_dot_product_attention(b(x), a(x), c(x)))
        return x + self.feed(x)


def test_a_matrix_of_two_roles_has_none() -> None:
    found = told(Model(TwoRoles()))
    assert {"layers.0.attend.a:", "layers.0.attend.b:"} <= set(found.keys)
    assert "layers.0.attend.c:v" in found.keys
    assert found.why["layers.0.attend.a.weight"] == "its uses have different roles"


class Written(Layer):
    """Keys that are written into a buffer before they are read."""

    def forward(self, x: torch.Tensor) -> Any:
        a = self.attend
        y = self.norm(x)
        keys = torch.zeros_like(x)
        keys[:, :, :4] = a.b(y)[:, :, :4]
        keys[:, :, 4:].copy_(a.b(y)[:, :, 4:])
        x = x + a.d(F.scaled_dot_product_attention(a.a(y), keys, a.c(y)))
        return x + self.feed(self.other(x))


class TwoMakers(Layer):
    """Keys of which two linears make a part each."""

    def forward(self, x: torch.Tensor) -> Any:
        a = self.attend
        keys = torch.cat((a.b(x)[..., :4], a.d(x)[..., 4:]), -1)
        return x + a.c(F.scaled_dot_product_attention(a.a(x), keys, a.c(x)))


def test_writes_in_place_are_followed() -> None:
    found = told(Model(Written()))
    assert found.site("layers.0.attend.a:q").layer == 0
    assert "2 linears" in found.why["k of layers.0"]


def test_an_input_of_two_linears_is_said() -> None:
    assert "2 linears" in told(Model(TwoMakers())).why["k of layers.0"]


class Convolving(Layer):
    """A layer that mixes tokens by a convolution only."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.join = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.join(self.kernel(self.norm(x).mT).mT)
        return x + self.feed(self.other(x))


def test_a_convolution_begins_a_layer_too() -> None:
    found = told(Model(Convolving(), Layer()))
    assert found.survey.layers == 2
    assert found.site("layers.0.feed.last:down").layer == 0
    assert found.site("layers.1.attend.a:q").layer == 1
    assert "conv1d" in found.why["a sublayer of layers.0"]
    assert found.why["layers.0.kernel.weight"]


class Pooled(Model):
    """States and a pooled value: no head."""

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.table(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.final(x), torch.tanh(self.out(x[:, 0]))


class TwoHeads(Model):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.second = nn.Linear(WIDTH, 2)

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.table(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.out(x), self.second(x)


def test_the_head_makes_the_output() -> None:
    assert "out:head" in told(Model(Layer())).keys


def test_a_pooler_is_no_head() -> None:
    found = told(Pooled(Layer()))
    assert "out:" in found.keys
    assert "head" not in found.why


def test_two_heads_are_said() -> None:
    found = told(TwoHeads(Layer()))
    assert {"out:", "second:"} <= set(found.keys)
    assert "2 products" in found.why["head"]


def test_a_tied_head_and_table_are_two_sites() -> None:
    model = Model(Layer())
    model.out.weight = model.table.weight
    found = told(model)
    assert found.site("table:table").tied == "out.weight"
    assert found.site("out:head").tied == "table.weight"


def test_no_attention_is_said() -> None:
    found = told(Model(nn.Sequential(nn.Linear(WIDTH, WIDTH))))
    assert "no attention" in found.why["layers"]
    assert found.site("layers.0.0:").in_block is False


def test_two_matrices_of_one_module_and_role_are_said() -> None:
    two = Function(lambda m, x: x @ m.v @ m.w, v=(WIDTH, WIDTH), w=(WIDTH, WIDTH))
    found = told(Model(two))
    assert found.site("layers.0:").weight == "layers.0.v"
    assert "already names" in found.why["layers.0.w"]


def test_a_matrix_that_enters_no_known_operator_is_said() -> None:
    model = Model(Function(lambda m, x: x + m.w, w=(8, WIDTH)))
    assert "no product" in told(model).why["layers.0.w"]


class Stages(Model):
    """Layers, half of the tokens with twice the width, layers again."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.merge = nn.Linear(2 * WIDTH, WIDTH)
        self.later = nn.ModuleList([Layer(), Layer()])

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.table(input_ids)
        for layer in self.layers:
            x = layer(x)
        x = self.merge(x.unflatten(1, (-1, 2)).flatten(2))
        for layer in self.later:
            x = layer(x)
        return self.out(self.final(x))


def test_layers_of_stages_are_numbered_on() -> None:
    found = told(Stages(Layer(), Layer()))
    assert found.survey.layers == 4
    assert [s.layer for s in found.sites if s.role == "q"] == [0, 1, 2, 3]


class Pieces(Layer):
    """All tokens but the first attend among themselves, then the first joins them."""

    def forward(self, x: torch.Tensor) -> Any:
        first, rest = x[:, :1], x[:, 1:] + self.attend(self.norm(x[:, 1:]))
        joined = torch.cat((first, rest), 1)
        return joined + self.feed(self.other(joined))


class Rejoined(Layer):
    """Both sides of the sum are put together from pieces."""

    def forward(self, x: torch.Tensor) -> Any:
        first, rest = x[:, :1], x[:, 1:]
        new = self.attend(self.norm(rest))
        x = torch.cat((first, rest), 1) + torch.cat((new.mean(1, True), new), 1)
        return x + self.feed(self.other(x))


@pytest.mark.parametrize("layer", [Pieces, Rejoined])
def test_a_residual_may_be_put_together_from_pieces(layer: type[Layer]) -> None:
    found = told(Model(layer(), layer()))
    assert found.survey.layers == 2
    assert [s.layer for s in found.sites if s.role == "attn"] == [0, 1]
    assert [s.layer for s in found.sites if s.role == "q"] == [0, 1]


class Spread(nn.Module):
    """A feed-forward whose inner channels each spread to their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.spread = nn.Conv1d(INNER, INNER, 3, padding=1, groups=INNER)

    def forward(self, x: torch.Tensor) -> Any:
        return self.down(F.gelu(self.spread(self.up(x).mT).mT))


class Spreading(Layer):
    def __init__(self) -> None:
        super().__init__()
        self.feed = Spread()  # type: ignore[assignment]


def test_a_convolution_of_each_channel_is_inside_a_feed_forward() -> None:
    found = told(Model(Spreading(), Spreading()))
    assert found.survey.layers == 2
    assert found.site("layers.1.feed.up:up").layer == 1
    assert found.site("layers.1.feed.down:ffn").tap
    assert "layers.0.feed.spread.weight" in found.why


class Skipping(Layer):
    """A layer whose attention is left out for samples drawn at random."""

    def forward(self, x: torch.Tensor) -> Any:
        noise = torch.floor(torch.rand((len(x), 1, 1)) + 0.9)
        x = x + self.attend(self.norm(x)).div(0.9) * noise
        return x + self.feed(self.other(x)) * 0.9


def test_a_branch_left_out_at_random_is_still_an_output() -> None:
    found = told(Model(Skipping()))
    assert found.site("layers.0.attend.d:attn").weight == "layers.0.attend.d.weight"
    assert found.site("layers.0.feed.last:ffn").weight == ""
