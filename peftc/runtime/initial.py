"""Initial values of added tensors.

In: the canonical text of an initial value, a shape, and what makes the value unique.
Out: a tensor.  It depends on (seed, site key or shared group, tensor name) alone:
never on the other tensors of a spec, on global random state, or on the device, since
every draw is made in float32 on the CPU by a generator of its own.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch

from peftc.plan.types import AddedTensor

Evaluate: TypeAlias = Callable[[AddedTensor, torch.Generator], torch.Tensor]
"""Gives the initial value of a tensor whose `init` is an expression over the base, rows
of its embeddings or what an adapter holds, from a random stream."""

Draw: TypeAlias = Callable[..., torch.Tensor]

_CALL = re.compile(
    r"(kaiming|glorot|normal|uniform|orthogonal|signs|permutation|places)(?:\((.*)\))?"
)
_COPIES = re.compile(r'copies\("([^"@]*)@?([^"]*)", (\d+), (\d+), (.*)\)')
"""Of a tensor and its share group: from which axis, along how many, and its start."""
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


def generator(seed: int, owner: str, name: str) -> torch.Generator:
    """The random stream of one tensor; `owner` is a site key or a shared group."""
    text = "\0".join((str(seed), owner, name))
    digest = hashlib.sha256(text.encode()).digest()
    stream = torch.Generator(device="cpu")
    stream.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return stream


def _kaiming(shape: tuple[int, ...], g: torch.Generator, a: float) -> torch.Tensor:
    """U(-b, b), b = sqrt(6 / ((1 + a) fan_in)); fan_in is the last axis."""
    bound = math.sqrt(6 / ((1 + a) * shape[-1]))
    return _uniform(shape, g, -bound, bound)


def _glorot(shape: tuple[int, ...], g: torch.Generator, gain: float) -> torch.Tensor:
    """U(-b, b), b = gain sqrt(6 / (fan_in + fan_out)); the fans are the last axes."""
    bound = gain * math.sqrt(6 / sum(shape[-2:]))
    return _uniform(shape, g, -bound, bound)


def _normal(shape: tuple[int, ...], g: torch.Generator, std: float) -> torch.Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float32) * std


def _uniform(
    shape: tuple[int, ...], g: torch.Generator, low: float, high: float
) -> torch.Tensor:
    return torch.rand(shape, generator=g, dtype=torch.float32) * (high - low) + low


def _orthogonal(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """Orthonormal rows or columns, whichever are fewer, uniform over all such."""
    *batch, rows, columns = shape
    tall = torch.randn(*batch, max(rows, columns), min(rows, columns), generator=g)
    q, r = torch.linalg.qr(tall)
    signed: torch.Tensor = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return signed if rows >= columns else signed.mT


def _signs(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """1 or -1, each as likely."""
    return torch.randint(0, 2, shape, generator=g).float() * 2 - 1


def _permutation(shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """The numbers from 0 along the last axis in random order, for each row anew."""
    *batch, size = shape
    rows = [torch.randperm(size, generator=g) for _ in range(math.prod(batch))]
    return torch.stack(rows).view(shape)


def _places(shape: tuple[int, ...], _: torch.Generator) -> torch.Tensor:
    """The numbers from 0 along the last axis in order."""
    return torch.arange(shape[-1]).expand(shape).contiguous()


_DRAWS: dict[str, Draw] = {
    "kaiming": _kaiming,
    "glorot": _glorot,
    "normal": _normal,
    "uniform": _uniform,
    "orthogonal": _orthogonal,
    "signs": _signs,
    "permutation": _permutation,
    "places": _places,
}


def initial_value(
    tensor: AddedTensor,
    seed: int,
    site_key: str,
    dtype: torch.dtype,
    evaluate: Evaluate | None = None,
) -> torch.Tensor:
    """The initial value, on the CPU.

    Raises:
        ValueError: if the text is an expression and nothing evaluates it.
    """
    with torch.device("cpu"):
        value = _value(tensor, seed, tensor.shared or site_key, evaluate)
    return value.to(dtype) if value.is_floating_point() else value


def _copies(
    tensor: AddedTensor,
    said: re.Match[str],
    seed: int,
    owner: str,
    evaluate: Evaluate | None,
) -> torch.Tensor:
    """Another tensor's initial value, repeated along some axes."""
    name, group, first, count, init = said.groups()
    start, end = int(first), int(first) + int(count)
    shape = (*tensor.shape[:start], *tensor.shape[end:])
    one = replace(tensor, name=name, shape=shape, init=init, shared=group)
    value = _value(one, seed, group or owner, evaluate)
    spread = (*shape[:start], *(1,) * int(count), *shape[start:])
    return value.view(spread).expand(tensor.shape).contiguous()


def _value(
    tensor: AddedTensor, seed: int, owner: str, evaluate: Evaluate | None
) -> torch.Tensor:
    if copied := _COPIES.fullmatch(tensor.init):
        return _copies(tensor, copied, seed, owner, evaluate)
    if _NUMBER.fullmatch(tensor.init):
        return torch.full(tensor.shape, float(tensor.init), dtype=torch.float32)
    if call := _CALL.fullmatch(tensor.init):
        numbers = [float(text) for text in (call[2] or "").split(",") if text.strip()]
        stream = generator(seed, owner, tensor.name)
        return _DRAWS[call[1]](tensor.shape, stream, *numbers)
    if tensor.init == "embedded(uniform)":
        return _uniform(tensor.shape, generator(seed, owner, tensor.name), -0.5, 0.5)
    if evaluate is None:
        raise ValueError(f"`{tensor.init}` reads the base, and nothing evaluates it")
    value = (
        evaluate(tensor, generator(seed, owner, tensor.name))
        .detach()
        .to("cpu", torch.float32)
    )
    return value.expand(tensor.shape).contiguous()
