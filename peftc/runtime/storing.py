"""What a handle does differently when weights are kept in codes.

In: a handle.  Out: merging, removing, loading and reporting for a base whose values
are in its codes.  What the base was is known by the fingerprint taken before.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import fail
from peftc.diagnostics.stored import FloatsGone, NothingStored, OriginalsGone
from peftc.runtime import adapters, merge
from peftc.runtime.codes import (
    codes_in,
    decode,
    encode,
    fill,
    free,
    free_one,
    has_no_values,
    is_free,
)
from peftc.runtime.fingerprint import Fingerprint, fingerprint
from peftc.runtime.names import code_path
from peftc.storage.table import form_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from torch import nn

    from peftc.plan.types import Plan, StoredWeight
    from peftc.runtime.handle import Handle
    from peftc.runtime.merge import Merged
    from peftc.runtime.state import Adapter


@dataclass(frozen=True)
class StoredBase:
    """The base before its weights were encoded; `originals` if they were kept."""

    fingerprint: Fingerprint
    originals: Mapping[str, torch.Tensor] = field(default_factory=dict)


def stored_base(model: nn.Module, plan: Plan, *, keep: bool) -> StoredBase | None:
    """What is to be known of the base; None if all of it stays as it is."""
    if not plan.stores:
        return None
    kept = plan.stores if keep else ()
    originals = {
        s.weight: model.get_parameter(s.weight).detach().to("cpu", copy=True)
        for s in kept
    }
    known = not any(map(has_no_values, model.parameters()))
    return StoredBase(fingerprint(model) if known else Fingerprint("", {}), originals)


def keep_free(model: nn.Module, stores: Sequence[StoredWeight]) -> None:
    """Free weights again that were copied or moved: then they hold NaN in full."""
    for stored in stores:
        parameter = model.get_parameter(stored.weight)
        if not is_free(parameter):
            free_one(parameter)


def check_adapter(handle: Handle, adapter: Adapter, *, any_base: bool) -> None:
    """Refuse an adapter that does not fit; see `adapters.check`."""
    base = handle.base.fingerprint if handle.base else None
    adapters.check(adapter, handle.model, handle.plan, any_base=any_base, base=base)


# --- removing ---------------------------------------------------------------------


def check_removal(handle: Handle, decoded: bool) -> None:
    """Raise `PeftcError` (PEFT640) if the base cannot be given back."""
    lossy = _lossy(handle)
    if lossy and not decoded and not (handle.base and handle.base.originals):
        raise fail(OriginalsGone(count=lossy))


def _lossy(handle: Handle) -> int:
    """How many weights are kept as something that they cannot be made of again."""
    return sum(bool(form_of(stored.form).error) for stored in handle.plan.stores)


def fill_for_good(handle: Handle) -> None:
    """Give stored weights the values they had, or those they decode to."""
    stores = handle.plan.stores
    fill(handle.model, stores, handle.base.originals if handle.base else {})
    forget_hooks(handle.model)


# --- running as it was ------------------------------------------------------------


def check_originals(handle: Handle) -> None:
    """Raise `PeftcError` (PEFT643) if the values before encoding are gone."""
    lossy = _lossy(handle)
    if lossy and not (handle.base and handle.base.originals):
        raise fail(FloatsGone(count=lossy))


@contextmanager
def original(handle: Handle) -> Iterator[None]:
    """With the base as it was before it was encoded, in every thread."""
    check_originals(handle)
    model, stores, switch = handle.model, handle.plan.stores, handle.switch
    off = switch.off
    fill(model, stores, handle.base.originals if handle.base else {})
    switch.off = True
    try:
        yield
    finally:
        switch.off = off
        free(model, stores)


# --- merging ----------------------------------------------------------------------


def merged(handle: Handle, into_codes: bool) -> Merged:
    """Merge into dense weights; with `into_codes`, encode these.

    Raises:
        PeftcError: PEFT630; nothing is changed then.
    """
    model, stores = handle.model, handle.plan.stores
    fill(model, stores, {})
    try:
        result = merge.merge(model, handle.plan)
    except BaseException:
        free(model, stores)
        raise
    for stored in stores:
        result.originals.pop(stored.weight, None)  # decoded again from the codes
    if into_codes:
        _encode_again(handle, result)
    return result


def check_into_codes(handle: Handle) -> None:
    """Raise `PeftcError` (PEFT641) if some merged weight is not kept in codes."""
    stored = {s.weight for s in handle.plan.stores}
    dense = {r.site.weight for r in handle.plan.rewrites} - stored
    if dense or not stored:
        first = sorted(dense)[:1] or ["nothing"]
        more = f" and {len(dense) - 1} more" if len(dense) > 1 else ""
        are = "are" if len(dense) > 1 else "is"
        raise fail(NothingStored(weights=f"`{first[0]}`{more}", are=are))


def _encode_again(handle: Handle, result: Merged) -> None:
    model, stores = handle.model, handle.plan.stores
    new, old = encode(model, stores), codes_in(model, stores)
    for stored in stores:
        parameter = model.get_parameter(stored.weight)
        lost = decode(stored, new[stored.weight]).float() - parameter.detach().float()
        norm = parameter.detach().float().norm()
        result.errors[stored.weight] = float(lost.norm() / norm) if norm else 0.0
        result.codes[stored.weight] = {
            n: t.clone() for n, t in old[stored.weight].items()
        }
    _put(old, new)
    free(model, stores)


def _put(
    into: Mapping[str, Mapping[str, torch.Tensor]],
    values: Mapping[str, Mapping[str, torch.Tensor]],
) -> None:
    for weight, parts in values.items():
        for name, value in parts.items():
            into[weight][name].copy_(value)


def unmerge(handle: Handle, result: Merged) -> None:
    """Put the weights back as they were, in codes."""
    model, stores = handle.model, handle.plan.stores
    merge.unmerge(model, result)
    _put(codes_in(model, stores), result.codes)
    free(model, stores)


# --- state ------------------------------------------------------------------------


class LeaveOut:
    """A hook after a model's state was collected; a class, so that models can be
    pickled."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = paths

    def __call__(
        self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Leave out weights that hold nothing; their codes are there."""
        for path in self.paths:
            if is_free(module.get_parameter(path)):
                state.pop(prefix + path, None)


class NotMissing:
    """A hook after a state was loaded into a model, which says what was missing."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = paths

    def __call__(self, module: nn.Module, lacking: Any) -> None:
        """Weights that hold nothing were not saved, and are not missed."""
        own = {path for path in self.paths if is_free(module.get_parameter(path))}
        found = [key for key in lacking.missing_keys if key not in own]
        lacking.missing_keys[:] = found


def forget_states(model: nn.Module, stores: Sequence[StoredWeight]) -> None:
    """Hook a model so that its state has the codes in place of the weights."""
    if stores:
        paths = tuple(stored.weight for stored in stores)
        model.register_state_dict_post_hook(LeaveOut(paths))
        model.register_load_state_dict_post_hook(NotMissing(paths))


NOT_SENT = "_ddp_params_and_buffers_to_ignore"
"""What DistributedDataParallel reads from a model: names that it leaves alone."""


def not_sent(model: nn.Module, stores: Sequence[StoredWeight]) -> list[str]:
    """The names for NOT_SENT: weights that hold nothing, into which nothing can be
    written, and their codes, which every process has or has its own part of."""
    codes = (code_path(stored, p.name) for stored in stores for p in stored.parts)
    weights = (stored.weight for stored in stores)
    return [*getattr(model, NOT_SENT, ()), *weights, *codes]


def forget_hooks(model: nn.Module) -> None:
    """Take these hooks back."""
    for hooks in (model._state_dict_hooks, model._load_state_dict_post_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(hook, LeaveOut | NotMissing):
                del hooks[key]


def report(handle: Handle) -> dict[str, Any]:
    """What is kept in codes, and what merging into them lost."""
    stores = handle.plan.stores
    if not stores:
        return {}
    found: dict[str, Any] = {
        "stored": {s.weight: s.form for s in stores},
        "stored_bytes": sum(s.bytes for s in stores),
        "bits_per_weight": {s.form: form_of(s.form).bits(s.coded) for s in stores},
    }
    if handle.merged and handle.merged.errors:
        found["merge_error"] = dict(handle.merged.errors)
    return found
