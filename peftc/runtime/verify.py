"""Does a compiled model keep its promises?  Each is tried on the model itself.

In: a handle.  Out: one `Check` for each promise: identity at the start, gradients,
merging, cached generation, padding.  The model is as it was afterwards.  Where the
added tensors have their first values, they are moved a little for all checks but the
first, which would else hold of the base as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from peftc.diagnostics.core import PeftcError
from peftc.expr.ir import Leaf, walk
from peftc.expr.start import starts_as_base
from peftc.plan.equations import composed, definitions, environment, same_shape
from peftc.plan.training import losses_of
from peftc.runtime.names import tensor_path
from peftc.runtime.trial import Trial, difference, first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peftc.plan.types import Plan
    from peftc.runtime.handle import Handle

Verdict: TypeAlias = Literal["ok", "failed", "skipped"]

PROMPT, NEW = 6, 6
"""Tokens that are generated from, and that are generated."""
PADDING = 3
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Of differences relative to the largest value, by the base's dtype."""
COARSE = 0.05
"""The limit below float32, where equal sums differ by their order."""


@dataclass(frozen=True)
class Check:
    """One promise: what was found, and the limit it was held to.

    `number` is None where nothing was measured; `note` says of what, or why not.
    """

    name: str
    verdict: Verdict
    number: float | None = None
    limit: float | None = None
    note: str = ""


def verify(handle: Handle, given: Mapping[str, Any] | None = None) -> tuple[Check, ...]:
    """Try every promise; see `Handle.verify`."""
    trial = Trial(handle, given or {})
    return tuple(_tried(trial, name) for name in CHECKS)


def _tried(trial: Trial, name: str) -> Check:
    """The outcome of a check; that the model cannot run for it is a failure too."""
    with trial.as_it_was():
        try:
            if name != "identity":
                trial.move_from_the_start()
            return CHECKS[name](trial)
        except PeftcError as error:
            return Check(name, "failed", note=str(error.diagnostics[0]))


def _judged(trial: Trial, name: str, number: float, note: str) -> Check:
    limit = _limit(trial)
    return Check(name, "ok" if number <= limit else "failed", number, limit, note)


def _limit(trial: Trial) -> float:
    return LIMITS.get(next(iter(trial.model.parameters())).dtype, COARSE)


def _identity(trial: Trial) -> Check:
    """With all first values, the output of the captured base to the bit."""
    unclaimed = _not_the_base_at_first(trial.handle.plan)
    if unclaimed:
        note = f"not claimed: `{unclaimed[0]}` starts as something else"
        return Check("identity", "skipped", note=note)
    trial.put(trial.first_values())
    inputs = trial.inputs()
    got, wanted = trial.said(inputs), trial.said_by_the_base(inputs)
    number = difference(got, wanted)
    verdict: Verdict = "ok" if torch.equal(got, wanted) else "failed"
    with trial.handle.disabled():
        same = torch.equal(got, trial.said(inputs))
    note = "the base to the bit" if same else "the base to the bit, as it is captured"
    return Check("identity", verdict, number, 0.0, note)


def _not_the_base_at_first(plan: Plan) -> list[str]:
    methods = definitions(plan)
    return [
        one.site.place
        for one, *_ in same_shape(plan.rewrites).values()
        if not starts_as_base(
            composed(one, methods), environment(one), bool(one.site.bias)
        )
    ]


def _gradients(trial: Trial) -> Check:
    """Every trained tensor gets a gradient, and a step of AdamW moves it.

    One that a method adds to the loss may be moved by that alone.
    """
    trained, model = trial.trained(), trial.model
    if not trained:
        return Check("gradients", "skipped", note="nothing is trained")
    before = {path: p.detach().clone() for path, p in trained.items()}
    model.zero_grad()
    first(model(**trial.inputs())).float().square().mean().backward()
    bad = {path for path, p in trained.items() if p.grad is None or not p.grad.any()}
    torch.optim.AdamW(trained.values(), lr=1e-2).step()
    bad |= {path for path, p in trained.items() if torch.equal(p, before[path])}
    bad -= set(_in_losses(trial.handle.plan))
    moved = len(trained) - len(bad)
    bad |= {n for n, p in model.named_parameters() if p.grad is not None} - set(trained)
    note = f"of {len(trained)} trained tensors at {len(trial.handle.sites)} sites"
    if bad:
        note += f"; wrong at {min(bad)}"
    if bad and trial.handle.unattended:
        note += "; its training plan has not begun: start a `peftc.training.Run`"
        return Check("gradients", "skipped", moved, len(trained), note)
    verdict: Verdict = "failed" if bad else "ok"
    return Check("gradients", verdict, moved, len(trained), note)


def _in_losses(plan: Plan) -> Iterator[str]:
    """The paths of tensors that terms of the loss read."""
    methods = definitions(plan)
    for rewrite in plan.rewrites:
        read = {
            n.name for n in walk(*losses_of(rewrite, methods)) if isinstance(n, Leaf)
        }
        for tensor in rewrite.tensors:
            if tensor.name in read:
                yield tensor_path(rewrite.site, tensor)


def _merging(trial: Trial) -> Check:
    """Merged weights say what the methods say; unmerging gives the base back."""
    for rewrite in trial.handle.plan.rewrites:
        if rewrite.merge.kind == "none":
            note = f"`{rewrite.site.place}` does not merge: {rewrite.merge.reason}"
            return Check("merging", "skipped", note=note)
    inputs = trial.inputs()
    apart = trial.said(inputs)
    base = {n: t.detach().clone() for n, t in _values(trial.model)}
    trial.handle.merge()
    try:
        merged = trial.said(inputs)
    finally:
        trial.handle.unmerge()
    restored = dict(_values(trial.model))
    same = base.keys() == restored.keys() and all(
        _same(p, base[n]) for n, p in restored.items()
    )
    if not same:
        return Check("merging", "failed", note="unmerging does not restore the base")
    return _judged(trial, "merging", difference(merged, apart), "merged, unmerged")


def _values(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bit for bit, or both without values as stored weights are."""
    return torch.equal(one, other) or bool(one.isnan().all() and other.isnan().all())


def _generation(trial: Trial) -> Check:
    """Logits of generating with a cache are those of running all tokens again."""
    model, inputs = trial.model, trial.inputs()
    can = getattr(model, "can_generate", None)
    if can is None or not can() or set(inputs) - set(_READ):
        return Check("generation", "skipped", note="it does not generate from text")
    ids = inputs["input_ids"][:, :PROMPT]
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    told = made.sequences[:, :-1]
    decodes = model.config.is_encoder_decoder
    again = (
        {"input_ids": ids, "decoder_input_ids": told}
        if decodes
        else {"input_ids": told}
    )
    full = trial.said({**again, "use_cache": False})[:, -NEW:]
    number = difference(torch.stack(made.logits, 1), full)
    return _judged(trial, "generation", number, "cached, all tokens again")


_READ = ("input_ids", "decoder_input_ids", "use_cache")


def _padding(trial: Trial) -> Check:
    """Padding on a side changes no real token, where it changes none of the base."""
    name, inputs = "padding", trial.inputs()
    if set(inputs) - set(_READ) or "attention_mask" not in trial.parameters():
        return Check(name, "skipped", note="it does not read padded text alone")
    with trial.handle.disabled():
        base = {side: _padded(trial, side) for side in ("left", "right")}
    sides = [side for side, number in base.items() if number <= _limit(trial)]
    if not sides:
        return Check(name, "skipped", note="it changes real tokens of the base itself")
    number = max(_padded(trial, side) for side in sides)
    return _judged(trial, name, number, " and ".join(sides))


def _padded(trial: Trial, side: str) -> float:
    """How much padding on a side changes what is said of real tokens."""
    inputs = trial.inputs()
    ids = inputs.pop("input_ids")
    pads = ids.new_zeros((len(ids), PADDING))
    step = -1 if side == "left" else 1
    longer = torch.cat([ids, pads][::step], 1)
    mask = torch.cat([torch.ones_like(ids), pads][::step], 1)
    wanted = trial.said({**inputs, **_told(trial, ids, torch.ones_like(ids))})
    got = trial.said({**inputs, **_told(trial, longer, mask)})
    if got.shape[1:2] == mask.shape[1:]:
        got = got[mask.bool()].view(wanted.shape)
    return difference(got, wanted)


def _told(trial: Trial, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """What a model is told of padded tokens, positions included if it takes any."""
    told = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in trial.parameters():
        told["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return told


CHECKS: Mapping[str, Callable[[Trial], Check]] = {
    "identity": _identity,
    "gradients": _gradients,
    "merging": _merging,
    "generation": _generation,
    "padding": _padding,
}
"""The promises, in the order they are tried."""
