"""An attention with keys beside it against one softmax over all keys, written by hand.

The reference puts scores side by side in float64 and knows of no log-sum-exp.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from peftc.diagnostics.core import PeftcError
from peftc.rewrite import merged
from peftc.rewrite.attention_kernels import KERNELS, Kernel, Scores
from peftc.rewrite.merged import Merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

HEADS, WIDTH, SCALE, ROWS = 4, 8, 0.3, 5


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short keys too are left where they are."""
    monkeypatch.setattr(merged, "LEAST", 0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel was asked for."""
    seen: list[str] = []
    own = KERNELS["cpu"]

    def forward(*given: Any) -> Any:
        seen.append("forward")
        return own.forward(*given)

    def backward(*given: Any) -> Any:
        seen.append("backward")
        return own.backward(*given)

    monkeypatch.setitem(
        KERNELS, "cpu", replace(own, forward=forward, backward=backward)
    )
    return seen


def hidden(kind: str, queries: int, count: int) -> Tensor | None:
    """What no query sees, [b, 1, t, s]: of the first sample one query sees nothing."""
    if kind in ("none", "causal"):
        return None
    after = torch.arange(count) > torch.arange(queries)[:, None] + count - queries
    found = after.expand(2, 1, queries, count).clone()
    found[0, :, :, :2] = True
    found[0, :, 0] = True
    return found


def mask(kind: str, off: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if off is None or kind == "bool":
        return None if off is None else ~off
    low = -math.inf if kind == "infinite" else torch.finfo(dtype).min
    return torch.zeros(off.shape, dtype=dtype).masked_fill(off, low)


def tensors(
    queries: int, count: int, shared: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Query, key, value as linears give them, and the rows."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, queries, HEADS), (2, count, shared), (2, count, shared)]
    own = [torch.randn(*s, WIDTH, generator=generator).transpose(1, 2) for s in sizes]
    rows = [torch.randn(shared, ROWS, WIDTH, generator=generator) for _ in "kv"]
    return [one.to(dtype).requires_grad_() for one in (*own, *rows)]


def run(given: Sequence[Tensor], is_causal: bool, mask: Tensor | None = None) -> Tensor:
    query, key, value, keys, values = given
    return Merged(SCALE, is_causal)(query, key, value, keys, values, mask)


def by_hand(given: Sequence[Tensor], off: Tensor | None, is_causal: bool) -> Tensor:
    query, *others = (one.double() for one in given)
    key, value, keys, values = (
        one.repeat_interleave(HEADS // one.shape[-3], -3) for one in others
    )
    own = query @ key.mT * SCALE
    if is_causal:
        off = torch.ones(own.shape[-2:], dtype=torch.bool).triu(1)
    if off is not None:
        own = own.masked_fill(off, -math.inf)
    weights = torch.cat([query @ keys.mT * SCALE, own], -1).softmax(-1)
    mixed: Tensor = weights[..., :ROWS] @ values + weights[..., ROWS:] @ value
    return mixed


def gradients(out: Tensor, given: Sequence[Tensor]) -> Sequence[Tensor]:
    slopes = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return torch.autograd.grad(out, given, slopes)


KINDS = ("none", "causal", "bool", "lowest", "infinite")


@pytest.mark.parametrize("shared", [HEADS, 2])
@pytest.mark.parametrize(("queries", "count"), [(7, 7), (1, 6), (40, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_all_keys_are_in_one_softmax(
    kind: str, queries: int, count: int, shared: int, runs: list[str]
) -> None:
    given = tensors(queries, count, shared)
    off, is_causal = hidden(kind, queries, count), kind == "causal"
    count = queries if is_causal else count
    given[1:3] = (one[:, :, :count] for one in given[1:3])
    out = run(given, is_causal, mask(kind, off, torch.float64))
    due = by_hand(given, off, is_causal)
    torch.testing.assert_close(out, due, rtol=0, atol=1e-12)
    found, wanted = (gradients(one, given) for one in (out, due))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert runs == ["forward", "backward"]


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32(kind: str) -> None:
    given = tensors(40, 40, 2, torch.float32)
    off, is_causal = hidden(kind, 40, 40), kind == "causal"
    out = run(given, is_causal, mask(kind, off, torch.float32))
    due = by_hand(given, off, is_causal)
    torch.testing.assert_close(out, due.float(), rtol=2e-5, atol=2e-6)
    found, wanted = (gradients(one, given) for one in (out, due))
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=5e-6)


def test_checkpointed(runs: list[str]) -> None:
    given = tensors(7, 7, 2)
    out = checkpoint(lambda *one: run(one, True), *given, use_reentrant=False)
    found, wanted = (gradients(o, given) for o in (out, by_hand(given, None, True)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert runs == ["forward", "forward", "backward"]


def test_large_scores_do_not_overflow() -> None:
    given = [one * 40 for one in tensors(7, 7, HEADS, torch.float32)]
    for one in (given, [*given[:3], given[3] * 40, given[4]]):
        out = run(one, True)
        due = by_hand(one, None, True).float()
        torch.testing.assert_close(out, due, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_nothing_is_kept_and_the_result_is_the_same(
    kind: str,
) -> None:
    given = tensors(7, 7, 2)
    off, is_causal = hidden(kind, 7, 7), kind == "causal"
    seen = mask(kind, off, torch.float64)
    with torch.no_grad():
        out = run(given, is_causal, seen)
    assert not out.requires_grad
    torch.testing.assert_close(out, by_hand(given, off, is_causal), rtol=0, atol=1e-12)


def test_the_kernel_has_no_backward_where_only_rows_learn(runs: list[str]) -> None:
    given = tensors(7, 7, 2)
    fixed = [one.detach() for one in given[:3]]
    found, wanted = (
        gradients(out, given[3:])
        for out in (
            run([*fixed, *given[3:]], True),
            by_hand([*fixed, *given[3:]], None, True),
        )
    )
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert runs == ["forward"]


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_kernel_is_not_to_be_used_keys_are_put_longer(
    kind: str, runs: list[str]
) -> None:
    """Gradients of gradients are to be had there."""
    given = tensors(7, 7, 2)
    off, is_causal = hidden(kind, 7, 7), kind == "causal"
    with sdpa_kernel(SDPBackend.MATH):
        out = run(given, is_causal, mask(kind, off, torch.float64))
        found = second(out, given)
    due = by_hand(given, off, is_causal)
    torch.testing.assert_close(out, due, rtol=0, atol=1e-12)
    torch.testing.assert_close(found, second(due, given), rtol=0, atol=1e-11)
    assert runs == []


def second(out: Tensor, given: Sequence[Tensor]) -> Sequence[Tensor]:
    first = torch.autograd.grad(out.square().sum(), given, create_graph=True)
    size = torch.stack([one.square().sum() for one in first]).sum()
    return torch.autograd.grad(size, given)


def test_gradients_of_gradients_are_refused_with_a_kernel() -> None:
    given = tensors(7, 7, 2)
    with pytest.raises(PeftcError, match="PEFT446"):
        second(run(given, True), given)


def test_a_mask_that_learns(runs: list[str]) -> None:
    given = tensors(1, 6, 2)
    bias = torch.randn(2, 1, 1, 6, dtype=torch.float64).requires_grad_()
    (found,) = gradients(run(given, False, bias), [bias])
    assert found.abs().min() > 0
    assert runs == []


def test_short_keys_of_one_query_are_put_longer(
    monkeypatch: pytest.MonkeyPatch, runs: list[str]
) -> None:
    monkeypatch.setattr(merged, "LEAST", 2 * 2 * 6 * WIDTH)
    for count, kernels in ((5, 0), (6, 1)):
        given = tensors(1, count, 2)
        out = run(given, False)
        torch.testing.assert_close(out, by_hand(given, None, False), rtol=0, atol=1e-12)
        assert len(runs) == kernels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_entry_of_cuda_gives_tensors_of_these_sizes(dtype: torch.dtype) -> None:
    """As far as that is to be known without a device."""
    kernel: Kernel = KERNELS["cuda"]
    with FakeTensorMode():
        query, key, value = (
            torch.empty(2, HEADS, 16, 64, device="cuda", dtype=dtype) for _ in "qkv"
        )
        scores = Scores(SCALE, is_causal=True)
        out, size = kernel.forward((query, key, value), scores)
        found = kernel.backward(out, (query, key, value), (out, size), scores)
    assert (out.shape, size.shape) == (query.shape, query.shape[:-1])
    assert [one.shape for one in found] == [query.shape] * 3
