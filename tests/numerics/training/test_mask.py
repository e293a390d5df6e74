"""Masks: counts are exact, scores are what they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.training import Run, choice
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches

if TYPE_CHECKING:
    from torch import Tensor

METHOD = """
method masked(score: magnitude | snip | taylor | grasp | movement = snip,
              sparsity: fraction = 0.3, until: fraction = 0) on linear {
  param A[out, in] ~ normal(0.05)
  buffer m[out, in] = 1
  W' = W + m * A
  train mask(m, A, score=score, sparsity=sparsity, until=until)
}
"""


def masked(options: str = "", **more: Any) -> Run:
    model = peftc.compile(llama(), f"{METHOD} masked(q, v{options})").train()
    return Run(model, steps=6, calibration=batches()[:2], **more)


def named(run: Run, name: str) -> dict[str, Tensor]:
    state = run.model.state_dict()
    return {path: t for path, t in state.items() if path.endswith(f"masked.{name}")}


def trained(run: Run) -> Run:
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.01, weight_decay=0.1))
    for batch in batches():
        run.loss(batch).backward()
        run.optimize(optimizer)
    run.finalize()
    return run


# --- choosing ------------------------------------------------------------------------

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)
shares = st.integers(0, 19).map(lambda n: n / 20)


@given(sizes, shares, st.integers(0, 2), st.integers(1, 3))
def test_all_tensors_together(
    counts: list[int], share: float, least: int, values: int
) -> None:
    stream = torch.Generator().manual_seed(sum(counts))
    scores = [torch.randint(values, (n, 3), generator=stream).float() for n in counts]
    total = 3 * sum(counts)
    keep = max(total - choice.removed(share, total), least * len(counts))
    masks = choice.together(scores, keep, least)
    assert sum(int(mask.sum()) for mask in masks) == keep
    assert all(int(mask.sum()) >= min(least, mask.numel()) for mask in masks)
    if not least:
        kept = [s[m > 0].min() for s, m in zip(scores, masks, strict=True) if m.any()]
        gone = [
            s[m == 0].max() for s, m in zip(scores, masks, strict=True) if (m < 1).any()
        ]
        assert not kept or not gone or min(kept) >= max(gone)


@given(sizes, shares, st.floats(0.1, 10))
def test_each_tensor_for_itself(counts: list[int], share: float, scale: float) -> None:
    """What a tensor keeps does not depend on its scale."""
    stream = torch.Generator().manual_seed(sum(counts))
    scores = [torch.rand(n, 3, generator=stream) for n in counts]
    masks = choice.by_tensor(scores, share)
    wanted = [3 * n - choice.removed(share, 3 * n) for n in counts]
    assert [int(mask.sum()) for mask in masks] == wanted
    again = choice.by_tensor([scale * s for s in scores], share)
    assert all(map(torch.equal, masks, again))


def test_equal_scores_are_told_apart_by_their_order() -> None:
    mask = choice.largest(torch.ones(2, 3), 4)
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_groups_and_rows() -> None:
    scores = torch.tensor([[1.0, 4, 2, 3, 0, 0, 1, 0], [4, 3, 2, 1, 1, 2, 3, 4]])
    two_of_four = choice.by_group(scores, 4, 0.5)
    assert two_of_four.tolist() == [[0, 1, 0, 1, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0, 1, 1]]
    (rows,) = choice.by_row([scores], 0.75)
    assert rows.tolist() == [[0, 1, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]]


def test_densities_by_shape() -> None:
    """The golden numbers of the field reference, at 0.6 of all elements."""
    shapes = [(64, 768), (768, 64), (768, 3072)]
    found = choice.densities(shapes, 0.6)
    assert found == pytest.approx([1, 1, 0.58333], abs=1e-5)
    scores = [torch.rand(8, 16), torch.rand(16, 32)]
    masks = choice.by_shape(scores, 0.4)
    assert sum(int(mask.sum()) for mask in masks) == round(0.4 * (128 + 512))


# --- scores --------------------------------------------------------------------------


def gradients(run: Run, batch: Any) -> dict[str, Tensor]:
    parameters = run.trained()
    loss = run.model(**batch).loss
    found = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def assert_kept(run: Run, scores: dict[str, Tensor]) -> None:
    """The masks are the largest of the scores, of all sites together."""
    masks = torch.cat([m.flatten() for m in named(run, "m").values()])
    flat = torch.cat([scores[path].flatten() for path in named(run, "A")])
    gone = choice.removed(0.3, len(flat))
    assert int((masks == 0).sum()) == gone
    assert flat[masks == 0].max() <= flat[masks == 1].min()


def test_snip_is_the_size_of_weight_times_gradient() -> None:
    run = masked()
    plain = masked(", score=magnitude, sparsity=0")
    total: dict[str, Tensor] = {}
    for batch in batches()[:2]:
        for path, g in gradients(plain, batch).items():
            total[path] = total.get(path, torch.zeros_like(g)) + g
    values = named(plain, "A")
    assert_kept(run, {path: (values[path] * g).abs() for path, g in total.items()})


def test_grasp_is_weight_times_hessian_times_gradient() -> None:
    run = masked(", score=grasp")
    plain = masked(", score=magnitude, sparsity=0")
    parameters = plain.trained()
    tensors = list(parameters.values())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = torch.stack([plain.model(**b).loss for b in batches()[:2]]).sum()
        first = torch.autograd.grad(loss, tensors, create_graph=True)
    product = sum((g * g.detach()).sum() for g in first)
    second = torch.autograd.grad(product, tensors)  # type: ignore[arg-type]
    pairs = zip(parameters.items(), second, strict=True)
    assert_kept(run, {path: p.detach() * h for (path, p), h in pairs})


def test_masks_stay_and_what_is_masked_has_no_effect() -> None:
    run = masked()
    before = {path: m.clone() for path, m in named(run, "m").items()}
    trained(run)
    assert all(torch.equal(before[path], m) for path, m in named(run, "m").items())
    run.model.eval()
    with torch.no_grad():
        first = run.model(**batches()[0]).logits
        for path, mask in named(run, "m").items():
            values = run.model.get_parameter(path[:-1] + "A")
            values += (1 - mask) * torch.randn(mask.shape)
        assert torch.equal(run.model(**batches()[0]).logits, first)


def test_scores_that_tell_nothing_are_refused() -> None:
    text = METHOD.replace("normal(0.05)", "normal(0.05), B[out, out] = 0")
    text = text.replace("m * A", "B @ (m * A)")
    model = peftc.compile(llama(), f"{text} masked(q)").train()
    with pytest.raises(PeftcError, match="PEFT330"):
        Run(model, calibration=batches()[:1])


def test_the_cubic_schedule() -> None:
    """Sparsity S (1 - (1 - t/n)^3) after step t, whole from step n on."""
    run = masked(", score=magnitude, until=0.5")
    optimizer = torch.optim.SGD(run.parameter_groups(lr=0.01))
    counts = []
    for batch in batches():
        run.loss(batch).backward()
        run.optimize(optimizer)
        counts.append(sum(int((m == 0).sum()) for m in named(run, "m").values()))
    total = sum(m.numel() for m in named(run, "m").values())
    shares = [0.3 * (1 - (1 - t / 3) ** 3) for t in (1, 2, 3, 3, 3, 3)]
    assert counts == [choice.removed(share, total) for share in shares]


def test_movement_is_gathered_and_resumed() -> None:
    run = masked(", score=movement, until=0.5")
    total = {path: torch.zeros_like(t) for path, t in named(run, "A").items()}
    always = {path: torch.ones_like(t) for path, t in total.items()}
    optimizer = torch.optim.SGD(run.parameter_groups(lr=0.01))
    for batch in batches()[:3]:
        values = {path: t.clone() for path, t in named(run, "A").items()}
        masks = {p[:-1] + "A": m.detach().clone() for p, m in named(run, "m").items()}
        run.loss(batch).backward()
        for path, parameter in run.trained().items():
            gradient = parameter.grad
            assert gradient is not None
            # The gradient by the value is the mask times that by the product.
            total[path] -= values[path] * gradient
            always[path] *= masks[path]
        run.optimize(optimizer)
    state = run.state_dict()
    for index, path in enumerate(total):
        kept = always[path] > 0
        torch.testing.assert_close(
            state[f"mask.{index}"][kept], total[path][kept], rtol=1e-4, atol=1e-6
        )
    again = masked(", score=movement, until=0.5")
    again.load_state_dict(state)
    assert all(torch.equal(state[name], v) for name, v in again.state_dict().items())


def test_groups_have_to_divide() -> None:
    model = peftc.compile(llama(), "prune(q, of=5)")
    with pytest.raises(PeftcError, match="PEFT331"):
        Run(model)
