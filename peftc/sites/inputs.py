"""Inputs that lead a model through its forward, made up from what it says of itself.

In: a model, and what its user gives.  Out: keyword arguments of its forward, of the
kind (device, dtype; real or fake) of its parameters: each argument of a known name
whose sizes the configuration tells.
"""

from __future__ import annotations

import inspect
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch._subclasses.fake_tensor import FakeTensor

from peftc.diagnostics.capture import UnsupportedInput
from peftc.diagnostics.core import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

BATCH, TOKENS, TARGETS, FRAMES = 2, 8, 6, 13
"""Example sizes.  All differ, so no axis is mistaken for another."""
HEIGHT, WIDTH = 64, 96
"""Of images whose size the model leaves free."""
STRIDES = (5, 2, 2, 2, 2, 2, 2)
"""From samples of sound to frames, where the configuration does not tell."""

Sizes: TypeAlias = "tuple[int, ...] | None"
"""Of a tensor; None if the configuration does not tell them."""


def example_inputs(
    model: nn.Module, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Inputs that lead a model through its whole forward, on its device.

    Args:
        given: arguments of the forward, taken as they are in place of made-up ones.

    Raises:
        PeftcError: an argument that the forward needs cannot be made up.
    """
    given = given or {}
    accepted = inspect.signature(model.forward).parameters
    main = _main(model)
    like = next(model.parameters(), torch.empty(0))
    config = getattr(model, "config", None)
    caches = ("use_cache",) if _said(config, "use_cache") is not None else ()
    known = _known(accepted, (*main, *caches))
    made = _made(config, known - given.keys(), like)
    if "use_cache" in known:
        made["use_cache"] = False
    made |= {name: _alike(value, like) for name, value in given.items()}
    needed = [name for name, said in accepted.items() if _is_needed(said)]
    # Instead of the main input another may be given (embeddings).
    needed += () if given else main
    missing = [name for name in dict.fromkeys(needed) if name not in made]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        raise fail(UnsupportedInput(architecture=type(model).__name__, names=names))
    return made


def _known(
    accepted: Mapping[str, inspect.Parameter], others: tuple[str, ...]
) -> set[str]:
    """The arguments that a forward takes by name, the others if it hands on any."""
    takes_any = any(said.kind is said.VAR_KEYWORD for said in accepted.values())
    return {*accepted, *(others if takes_any else ())}


def _main(model: Any) -> tuple[str, ...]:
    main = getattr(model, "main_input_name", "input_ids")
    return (main,) if isinstance(main, str) else tuple(main)


def _is_needed(said: inspect.Parameter) -> bool:
    is_many = said.kind in (said.VAR_POSITIONAL, said.VAR_KEYWORD)
    return said.default is said.empty and not is_many


def _made(config: Any, wanted: set[str], like: torch.Tensor) -> dict[str, Any]:
    real = like.dtype if like.is_floating_point() else torch.float32
    return {
        name: like.new_ones(sizes, dtype=torch.long if is_token else real)
        for name, (maker, is_token) in _KNOWN.items()
        if name in wanted and (sizes := maker(config)) is not None
    }


def _alike(value: Any, like: torch.Tensor) -> Any:
    """A given tensor without values where the model has none."""
    if not isinstance(value, torch.Tensor):
        return value
    if isinstance(like, FakeTensor):
        return like.new_empty(value.shape, dtype=value.dtype)
    return value.to(like.device) if like.is_meta else value


# --- what a configuration says ----------------------------------------------------


def _parts(config: Any) -> Iterator[Any]:
    """A configuration and those of its parts, breadth first."""
    todo = [config]
    while todo:
        part = todo.pop(0)
        yield part
        inner = getattr(part, "sub_configs", None) or ()
        todo += [c for name in inner if (c := getattr(part, name, None)) is not None]


def _said(config: Any, *names: str) -> Any:
    """The first of several names that has a value, in the nearest part; or None."""
    values = (getattr(part, n, None) for part in _parts(config) for n in names)
    return next((value for value in values if value is not None), None)


# --- the sizes of each argument ---------------------------------------------------


def _tokens(config: Any) -> Sizes:
    return BATCH, TOKENS


def _targets(config: Any) -> Sizes:
    return (BATCH, TARGETS) if _said(config, "is_encoder_decoder") else None


def _image(config: Any) -> Sizes:
    """Images; films where there are frames.  None where tokens say where they are: how
    many of them an image takes is known to its processor alone."""
    channels, size = (
        _said(config, "num_channels"),
        _said(config, "image_size", "crop_size"),
    )
    has_tokens = _said(config, "image_token_id", "image_token_index") is not None
    if has_tokens or channels is size is None:
        return None
    size = size or (HEIGHT, WIDTH)
    height, width = (size, size) if isinstance(size, int) else size
    frames = _said(config, "num_frames")
    return (BATCH, *([frames] if frames else []), channels or 3, height, width)


def _sound(config: Any) -> Sizes:
    """Samples; a spectrogram where patches are cut from one."""
    if _said(config, "frequency_stride"):
        return BATCH, _said(config, "max_length"), _said(config, "num_mel_bins")
    return BATCH, FRAMES * prod(_said(config, "conv_stride") or STRIDES)


def _features(config: Any) -> Sizes:
    """Frames of features; as channels first and a fixed number where all positions
    are filled."""
    bins = _said(config, "num_mel_bins")
    positions = _said(config, "max_source_positions")
    if bins and positions:
        return BATCH, bins, 2 * positions
    width = bins or _said(
        config, "input_feat_per_channel", "feature_projection_input_dim"
    )
    return (BATCH, 4 * FRAMES, width) if width else None


def _series(config: Any) -> Sizes:
    length = _said(config, "context_length")
    channels = _said(config, "num_input_channels")
    return (BATCH, length, channels) if length and channels else None


_KNOWN: dict[str, tuple[Callable[[Any], Sizes], bool]] = {
    "input_ids": (_tokens, True),
    "decoder_input_ids": (_targets, True),
    "pixel_values": (_image, False),
    "pixel_values_videos": (_image, False),
    "input_values": (_sound, False),
    "input_features": (_features, False),
    "past_values": (_series, False),
}
"""How the arguments of a forward are made, and whether they are numbers of tokens."""
