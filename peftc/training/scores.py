"""How much each element of a tensor matters, for masks and selections.

In: what a control works at, a run, and batches.  Out: one tensor of scores for each
place, in the shape of its mask.  A mask multiplies what it masks, so that at ones the
gradient by the mask is the value times its own gradient: gradient scores of any masked
tensor are read off its mask.

magnitude   |w|                             Han et al. 2015
random, er  uniform                         (er: densities by shape, see `densities`)
snip        |w dL/dw|, of the batches' sum  Lee et al. 2019
taylor      the same, a mean of |.| over batches
movement    -w dL/dw, gathered in training  Sanh et al. 2020
grasp       w (H dL/dw)                     Wang et al. 2020
wanda       |w_oj| ||x_j||                  Sun et al. 2023
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from peftc.rewrite.step import twice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from peftc.plan.training import Place
    from peftc.training.control import Batch
    from peftc.training.run import Run

Removable: TypeAlias = "torch.utils.hooks.RemovableHandle"


def magnitude(run: Run, places: Sequence[Place], _: Sequence[Batch]) -> list[Tensor]:
    """The absolute value of what is masked."""
    with torch.no_grad():
        return [run.values.value(place, 1).abs() for place in places]


def random(run: Run, places: Sequence[Place], _: Sequence[Batch]) -> list[Tensor]:
    """Uniform numbers that depend on the seed and the place."""
    found = []
    for place in places:
        stream = run.generator("scores", place.site, *place.operands)
        mask = run.values.tensor(place)
        found.append(torch.rand(mask.shape, generator=stream).to(mask.device))
    return found


def snip(run: Run, places: Sequence[Place], batches: Sequence[Batch]) -> list[Tensor]:
    """The size of what the loss loses with an element, to first order."""
    return [g.abs() for g in _total(_gradients(run, places, batches))]


def taylor(run: Run, places: Sequence[Place], batches: Sequence[Batch]) -> list[Tensor]:
    """The same for each batch apart, summed."""
    parts = ([g.abs() for g in each] for each in _gradients(run, places, batches))
    return _total(parts)


def grasp(run: Run, places: Sequence[Place], batches: Sequence[Batch]) -> list[Tensor]:
    """What gradient flow gains from an element; needs gradients of gradients."""
    tensors = [run.values.tensor(place, 1) for place in places]
    with sdpa_kernel(SDPBackend.MATH), twice():
        loss = torch.stack([run.task_loss(batch) for batch in batches]).sum()
        first = torch.autograd.grad(loss, tensors, create_graph=True)
        flow = torch.stack([(g * g.detach()).sum() for g in first]).sum()
        second = torch.autograd.grad(flow, tensors)
    return [t.detach() * h for t, h in zip(tensors, second, strict=True)]


def wanda(run: Run, places: Sequence[Place], batches: Sequence[Batch]) -> list[Tensor]:
    """|W| by the norms of its inputs, gathered on the base."""
    norms = input_norms(run, [place.site for place in places], batches)
    sizes = magnitude(run, places, ())
    return [s * norms[p.site] for s, p in zip(sizes, places, strict=True)]


def input_norms(
    run: Run, sites: Sequence[str], batches: Sequence[Batch]
) -> dict[str, Tensor]:
    """The norm over all tokens of each input of each site's linear, on the base."""
    squares: dict[str, Tensor] = {}
    hooks = [_watch(run, site, squares) for site in sites]
    try:
        with torch.no_grad(), run.handle.disabled():
            for batch in batches:
                run.forward(run.batch(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return {site: total.sqrt() for site, total in squares.items()}


def _watch(run: Run, site: str, squares: dict[str, Tensor]) -> Removable:
    owner = run.model.get_submodule(run.values.rewrite(site).site.owner)

    def add(_: object, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float().flatten(0, -2)
        squares[site] = squares.get(site, 0) + x.square().sum(0)

    hook: Removable = owner.register_forward_pre_hook(add)
    return hook


def _gradients(
    run: Run, places: Sequence[Place], batches: Sequence[Batch]
) -> Iterator[list[Tensor]]:
    """For each batch, the gradients of the loss by the masks."""
    masks = [run.values.tensor(place) for place in places]
    with differentiable(masks):
        for batch in batches:
            yield list(torch.autograd.grad(run.task_loss(batch), masks))


@contextmanager
def differentiable(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give buffers gradients for a while."""
    for tensor in tensors:
        tensor.requires_grad_(True)
    try:
        yield
    finally:
        for tensor in tensors:
            tensor.requires_grad_(False)


def _total(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    total: list[Tensor] | None = None
    for part in parts:
        total = (
            part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        )
    return total or []


SCORES: dict[str, Callable[[Run, Sequence[Place], Sequence[Batch]], list[Tensor]]] = {
    "magnitude": magnitude,
    "random": random,
    "er": random,
    "snip": snip,
    "taylor": taylor,
    "grasp": grasp,
    "wanda": wanda,
}
"""By the words of a control's option; movement is gathered while training."""

NEED_DATA = frozenset(("snip", "taylor", "grasp", "wanda"))
