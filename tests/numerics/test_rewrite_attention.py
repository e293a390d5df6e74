"""Extended attentions in every spelling against a softmax written by hand in float64.

The reference knows nothing of graphs: it puts the rows before the keys, adds columns of
zeros to masks and biases, and mixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

from peftc.diagnostics.core import PeftcError
from peftc.expr.program import Program
from peftc.sites.locate import locate
from peftc.view import Site
from tests.capturing import (
    Rewritten,
    given,
    plan,
    program,
    rewrite,
    rewritten,
    step,
)
from tests.capturing import token as read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH, HEADS, HEAD, ROWS = 12, 4, 3, 5
SCALE = HEAD**-0.5
OWNER = "o"


@dataclass
class Parts:
    """What a spelling mixes, [b, h, t, d] each; `seen` and `bias` are [h, t, s]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    seen: torch.Tensor
    bias: torch.Tensor
    sinks: torch.Tensor


Mix = "Callable[[Parts], torch.Tensor]"


class Attend(nn.Module):
    """x + o(mix(q(x), k(x), v(x))), with `shared` key heads."""

    def __init__(self, mix: Callable[[Parts], torch.Tensor], shared: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.shared = mix, shared
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, HEAD * shared) for _ in "kv")
        self.sinks = nn.Parameter(torch.randn(HEADS))

    def parts(self, x: torch.Tensor) -> Parts:
        query, key, value = (
            linear(x).unflatten(-1, (-1, HEAD)).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        place = torch.arange(x.shape[1])
        distance = place[None, :] - place[:, None]
        seen = (distance <= 0)[None]
        slopes = torch.tensor([0.5**i for i in range(HEADS)], dtype=x.dtype)
        bias = slopes[:, None, None] * distance
        return Parts(query, key, value, seen, bias, self.sinks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(x, self.mix(self.parts(x)))

    def after(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return x + out


def repeated(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values for every query head, as transformers repeats them."""
    key, value = parts.key, parts.value
    count = HEADS // key.shape[1]
    if count == 1:
        return key, value
    b, g, s, d = key.shape
    key, value = (
        one[:, :, None].expand(b, g, count, s, d).reshape(b, g * count, s, d)
        for one in (key, value)
    )
    return key, value


def added_mask(parts: Parts) -> torch.Tensor:
    return torch.zeros((), dtype=parts.query.dtype).masked_fill(
        ~parts.seen, torch.finfo(parts.query.dtype).min
    )


# --- spellings: what the graph says ------------------------------------------------


def fused(**options: Any) -> Callable[[Parts], torch.Tensor]:
    def mix(parts: Parts) -> torch.Tensor:
        key, value = repeated(parts)
        return F.scaled_dot_product_attention(parts.query, key, value, **options)

    return mix


def fused_bool(parts: Parts) -> torch.Tensor:
    key, value = repeated(parts)
    return F.scaled_dot_product_attention(parts.query, key, value, parts.seen)


def fused_column(parts: Parts) -> torch.Tensor:
    """One column of the mask stands for all keys."""
    key, value = repeated(parts)
    seen = torch.ones(1, 1, parts.query.shape[2], 1, dtype=torch.bool)
    return F.scaled_dot_product_attention(parts.query, key, value, seen)


def fused_added(parts: Parts) -> torch.Tensor:
    key, value = repeated(parts)
    mask = added_mask(parts) + parts.bias
    return F.scaled_dot_product_attention(
        parts.query, key, value, attn_mask=mask[None], scale=0.3
    )


def fused_grouped(parts: Parts) -> torch.Tensor:
    return F.scaled_dot_product_attention(
        parts.query, parts.key, parts.value, is_causal=True, enable_gqa=True
    )


def spelt(
    between: Callable[[torch.Tensor, Parts], torch.Tensor],
    after: Callable[[torch.Tensor], torch.Tensor] = lambda weights: weights,
) -> Callable[[Parts], torch.Tensor]:
    def mix(parts: Parts) -> torch.Tensor:
        key, value = repeated(parts)
        scores = torch.matmul(parts.query, key.transpose(2, 3))
        weights = F.softmax(between(scores, parts), dim=-1)
        return torch.matmul(after(weights), value)

    return mix


def wide_softmax(parts: Parts) -> torch.Tensor:
    key, value = repeated(parts)
    scores = parts.query @ key.mT * SCALE + added_mask(parts)
    weights = scores.softmax(-1, dtype=torch.float32).to(parts.query.dtype)
    return F.dropout(weights, 0.0, True) @ value


def capped(scores: torch.Tensor, parts: Parts) -> torch.Tensor:
    scores = scores * SCALE / 2.0
    return torch.tanh(scores) * 2.0 + added_mask(parts)


def written_over(scores: torch.Tensor, parts: Parts) -> torch.Tensor:
    scores = scores.div_(1 / SCALE)
    scores += parts.bias
    return scores.masked_fill_(~parts.seen, -math.inf)


def chosen(scores: torch.Tensor, parts: Parts) -> torch.Tensor:
    low = torch.full([], -1e9, dtype=scores.dtype)
    return torch.where(parts.seen, scores * SCALE, low)


def flat(parts: Parts) -> torch.Tensor:
    """Samples and heads in one axis, the bias added by the product (BLOOM)."""
    key, value = repeated(parts)
    b, h, t, d = parts.query.shape
    query, key, value = (x.reshape(b * h, -1, d) for x in (parts.query, key, value))
    bias = parts.bias.repeat(b, 1, 1)
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), beta=1.0, alpha=SCALE)
    weights = (scores.view(b, h, t, -1) + added_mask(parts)).softmax(-1)
    mixed = torch.bmm(weights.view(b * h, t, -1), value)
    return mixed.view(b, h, t, d)


def with_sinks(parts: Parts) -> torch.Tensor:
    """A learned column that takes attention and gives nothing (GPT-OSS)."""
    key, value = repeated(parts)
    scores = torch.matmul(parts.query, key.transpose(2, 3)) * SCALE
    scores = scores + added_mask(parts)
    sinks = parts.sinks.reshape(1, -1, 1, 1).expand(
        scores.shape[0], -1, scores.shape[-2], -1
    )
    combined = torch.cat([scores, sinks], dim=-1)
    combined = combined - combined.max(dim=-1, keepdim=True).values
    weights = F.softmax(combined, dim=-1)[..., :-1]
    return torch.matmul(weights, value)


def for_all(parts: Parts) -> torch.Tensor:
    """One key head for all queries, by broadcasting."""
    scores = torch.matmul(parts.query, parts.key.transpose(2, 3)) * SCALE
    return torch.matmul((scores + added_mask(parts)).softmax(-1), parts.value)


# --- what they mean ------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """A spelling, and what it does to scores."""

    mix: Callable[[Parts], torch.Tensor]
    shared: int = HEADS
    causal: bool = True
    scale: float = SCALE
    biased: bool = False
    cap: float = 0
    sinks: bool = False
    factors: tuple[float, ...] = ()


SPELLINGS = {
    "fused": Meaning(fused(), causal=False),
    "fused-causal": Meaning(fused(is_causal=True)),
    "fused-bool": Meaning(fused_bool),
    "fused-column": Meaning(fused_column, causal=False),
    "fused-bool-grouped": Meaning(fused_bool, shared=2),
    "fused-added-scaled": Meaning(fused_added, scale=0.3, biased=True),
    "fused-grouped": Meaning(fused_grouped, shared=2),
    "added": Meaning(spelt(lambda s, p: s * SCALE + added_mask(p))),
    "added-grouped": Meaning(spelt(lambda s, p: s * SCALE + added_mask(p)), shared=2),
    "added-first": Meaning(spelt(lambda s, p: added_mask(p) + s / math.sqrt(HEAD))),
    "capped": Meaning(spelt(capped), cap=2.0),
    "written-over": Meaning(spelt(written_over), biased=True),
    "chosen": Meaning(spelt(chosen)),
    "clamped": Meaning(
        spelt(lambda s, p: torch.max(s * SCALE + added_mask(p), torch.tensor(-1e9)))
    ),
    "wide-softmax": Meaning(wide_softmax),
    "flat": Meaning(flat, biased=True),
    "sinks": Meaning(with_sinks, sinks=True, shared=2),
    "for-all": Meaning(for_all, shared=1),
    "head-factors": Meaning(
        spelt(
            lambda s, p: s * SCALE + added_mask(p),
            lambda w: w * torch.tensor([1.0, 0.5, 0.0, 2.0]).view(-1, 1, 1),
        ),
        factors=(1.0, 0.5, 0.0, 2.0),
    ),
}


def reference(
    model: Attend, meaning: Meaning, x: torch.Tensor, rows: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """The attention on longer keys; rows are [b, t, p, g, d]."""
    parts = model.double().parts(x.double())
    key, value = (
        one.repeat_interleave(HEADS // meaning.shared, 1)
        for one in (parts.key, parts.value)
    )
    keys, values = (
        one.double().movedim(-2, 1).repeat_interleave(HEADS // meaning.shared, 1)
        for one in rows
    )
    own = parts.query @ key.mT * meaning.scale
    new = (parts.query.unsqueeze(-2) * keys).sum(-1) * meaning.scale
    if meaning.cap:
        own, new = (meaning.cap * torch.tanh(s / meaning.cap) for s in (own, new))
    if meaning.biased:
        own = own + parts.bias
    if meaning.causal:
        own = own.masked_fill(~parts.seen, -math.inf)
    scores = [new, own]
    if meaning.sinks:
        scores.append(parts.sinks.view(-1, 1, 1).expand(*own.shape[:3], 1))
    weights = torch.cat(scores, -1).softmax(-1)
    if meaning.factors:
        weights = weights * torch.tensor(meaning.factors).view(-1, 1, 1)
    p, s = new.shape[-1], own.shape[-1]
    mixed = weights[..., p : p + s] @ value
    mixed = mixed + (weights[..., :p].unsqueeze(-1) * values).sum(-2)
    return model.after(x, mixed)


def at_attention(shared: int) -> Site:
    sizes = (
        ("hidden", WIDTH),
        ("heads", HEADS),
        ("kv_heads", shared),
        ("key", HEAD * shared),
        ("value", HEAD * shared),
    )
    return Site(f"{OWNER}:attention", "attention", "attention", OWNER, sizes, "float32")


def fixed(name: str, shared: int) -> Program:
    """Rows that are a tensor."""
    target = name[0].lower()
    inputs = (given(name, ROWS, HEAD * shared),)
    return Program(target + name[1:], inputs, (), name)


def per_token(name: str, shared: int) -> Program:
    """(w · u) times a tensor, for each token."""
    width = HEAD * shared
    return program(
        name[0].lower() + name[1:],
        [read("u", WIDTH), given("w", WIDTH), given(name, ROWS, width)],
        step("%0", "ein", "u w", spec="*h,h->*"),
        step("%1", "ein", f"%0 {name}", ROWS, width, spec="*,pk->*pk"),
    )


def per_sample(name: str, shared: int) -> Program:
    """(w · u), summed over tokens, times a tensor."""
    width = HEAD * shared
    return program(
        name[0].lower() + name[1:],
        [read("u", WIDTH), given("w", WIDTH), given(name, ROWS, width)],
        step("%0", "ein", "u w", spec="bth,h->b"),
        step("%1", "ein", f"%0 {name}", ROWS, width, spec="b,pk->bpk"),
        separate=True,
    )


MADE = {"fixed": fixed, "per-token": per_token, "per-sample": per_sample}


def tensors(shared: int, *names: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = {"w": (WIDTH,)}
    return {
        name: torch.randn(
            sizes.get(name, (ROWS, HEAD * shared)), generator=generator
        ).requires_grad_()
        for name in names
    }


def extended(
    meaning: Meaning, programs: list[Program], given: dict[str, torch.Tensor]
) -> tuple[Attend, Rewritten]:
    model = Attend(meaning.mix, meaning.shared).eval()
    at = at_attention(meaning.shared)
    asked = plan(rewrite(at, *programs))
    return model, rewritten(model, asked, {at.key: given}, locate, dynamic=True)


def rows_of(
    made: str, added: dict[str, torch.Tensor], x: torch.Tensor, shared: int
) -> tuple[torch.Tensor, ...]:
    """The rows as [b, t, p, g, d]."""
    weight = torch.ones(x.shape[:2])
    if made != "fixed":
        weight = x @ added["w"]
    if made == "per-sample":
        weight = weight.sum(1, keepdim=True).expand(weight.shape)
    return tuple(
        (weight[..., None, None] * added[name]).unflatten(-1, (shared, HEAD))
        for name in ("K", "V")
    )


VARIED = ("fused-causal", "fused-added-scaled", "fused-grouped", "flat", "sinks")
"""Spellings that are tried with rows of each kind, not only with fixed ones."""


def cases() -> Iterator[Any]:
    for name in SPELLINGS:
        for made in MADE if name in VARIED else ("fixed",):
            is_quick = made == "fixed" and name in (*VARIED, "capped")
            marks = () if is_quick else (pytest.mark.slow,)
            yield pytest.param(name, made, marks=marks, id=f"{name}-{made}")


@pytest.mark.parametrize(("name", "made"), [*cases()])
def test_rows_are_attended_to(name: str, made: str) -> None:
    meaning = SPELLINGS[name]
    names = ("K", "V") if made == "fixed" else ("K", "V", "w")
    added = tensors(meaning.shared, *names)
    programs = [MADE[made](one, meaning.shared) for one in ("K", "V")]
    model, run = extended(meaning, programs, added)
    for size in ((2, 7), (3, 4)):
        x = torch.randn(*size, WIDTH, generator=torch.Generator().manual_seed(1))
        out = run.forward(x)
        got = torch.autograd.grad(out.square().sum(), list(added.values()))
        rows = rows_of(made, added, x, meaning.shared)
        wanted = reference(model, meaning, x, rows)
        wanted_grads = torch.autograd.grad(wanted.square().sum(), list(added.values()))
        model.float()
        torch.testing.assert_close(out, wanted.float(), rtol=2e-5, atol=2e-5)
        for one, other in zip(got, wanted_grads, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-4)
    assert len(run.captures) <= 2


@pytest.mark.parametrize("name", ["fused-causal", "fused-bool-grouped", "capped"])
def test_rows_of_several_methods_stand_in_written_order(name: str) -> None:
    meaning = SPELLINGS[name]
    added = tensors(meaning.shared, "K", "V", "K#2", "V#2")
    programs = [fixed(one, meaning.shared) for one in added]
    model, run = extended(meaning, programs, added)
    x = torch.randn(2, 7, WIDTH)
    keys, values = (
        torch.cat([added[one], added[f"{one}#2"]])
        .unflatten(-1, (meaning.shared, HEAD))
        .expand(2, 7, -1, -1, -1)
        for one in "KV"
    )
    out = run.forward(x)
    wanted = reference(model, meaning, x, (keys, values)).float()
    torch.testing.assert_close(out, wanted, rtol=2e-5, atol=2e-5)


def test_a_causal_call_stays_causal_and_without_mask() -> None:
    _, run = extended(
        SPELLINGS["fused-causal"],
        [fixed(one, HEADS) for one in ("K", "V")],
        tensors(HEADS, "K", "V"),
    )
    run.forward(torch.randn(2, 7, WIDTH))
    (call,) = (
        node
        for node in run.capture.graph.nodes
        if "scaled_dot_product" in str(node.target)
    )
    assert call.kwargs["is_causal"] is True
    assert call.kwargs["attn_mask"] is None


def flexible(parts: Parts) -> torch.Tensor:
    with torch.no_grad():
        out = flex_attention(parts.query, parts.key, parts.value)
    assert isinstance(out, torch.Tensor)
    return out


def per_column(parts: Parts) -> torch.Tensor:
    """Weights times a number for each key: no meaning for keys that are not there."""
    key, value = repeated(parts)
    weights = (parts.query @ key.mT).softmax(-1)
    return (weights * parts.bias.abs()) @ value


@pytest.mark.parametrize(
    ("mix", "code"), [(flexible, "PEFT438"), (per_column, "PEFT439")]
)
def test_what_cannot_be_extended_is_refused(
    mix: Callable[[Parts], torch.Tensor], code: str
) -> None:
    programs = [fixed(one, HEADS) for one in ("K", "V")]
    _, run = extended(Meaning(mix), programs, tensors(HEADS, "K", "V"))
    with pytest.raises(Exception, match=code) as caught, torch.no_grad():
        run.forward(torch.randn(2, 7, WIDTH))
    cause = getattr(caught.value, "inner_exception", caught.value)
    assert isinstance(cause, PeftcError)


def in_windows(parts: Parts) -> torch.Tensor:
    """Attention within halves of the tokens: queries are tokens of a window."""
    query, key, value = (
        one.unflatten(2, (2, -1)).transpose(1, 2).flatten(0, 1)
        for one in (parts.query, parts.key, parts.value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    back: torch.Tensor = mixed.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3)
    return back


def test_queries_that_are_no_tokens_have_no_rows_of_their_own() -> None:
    names = ("K", "V", "w")
    programs = [per_token(one, HEADS) for one in ("K", "V")]
    _, run = extended(Meaning(in_windows), programs, tensors(HEADS, *names))
    with pytest.raises(Exception, match="PEFT440"):
        run.forward(torch.randn(2, 8, WIDTH))
    programs = [fixed(one, HEADS) for one in ("K", "V")]
    _, run = extended(Meaning(in_windows), programs, tensors(HEADS, "K", "V"))
    assert run.forward(torch.randn(2, 8, WIDTH)).isfinite().all()
