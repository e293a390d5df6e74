"""Norms are found as one operator and spelt out, with their gain and offset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from peftc.sites import ops
from peftc.sites.flow import strip
from peftc.sites.norms import find_norms
from tests.unit.sites.toys import Function, graph_of

if TYPE_CHECKING:
    from peftc.sites.norms import Norm


def found(function: Any, **shapes: tuple[int, ...]) -> tuple[tuple[Norm, ...], Any]:
    captured = graph_of(Function(function, **shapes))
    return find_norms(captured.graph, captured.names), captured.names


def groups(m: Any, x: Any) -> Any:
    each = x.view(2, 5, 2, 4)
    return m.g * (each * root(each)).view(2, 5, 8).to(x.dtype)


def root(x: Any) -> Any:
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def layer_norm_by_hand(m: Any, x: Any) -> Any:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return m.g * ((x - mean) * torch.rsqrt(variance + 1e-5)).to(x.dtype)


def layer_norm_by_division(m: Any, x: Any) -> Any:
    y = x.float()
    mean = y.mean(-1, keepdim=True)
    variance = (y - mean).pow(2).mean(-1, keepdim=True)
    y = (y - mean) / torch.sqrt(variance + 1e-5)
    return m.g * y.to(x.dtype) + m.c


ONE = {"g": (8,)}
TWO = {"g": (8,), "c": (8,)}

SPELLINGS = {
    "layer_norm": (lambda m, x: F.layer_norm(x, (8,), m.g, m.c), TWO),
    "without offset": (lambda m, x: F.layer_norm(x, (8,), m.g), ONE),
    "shifted gain": (lambda m, x: F.layer_norm(x, (8,), m.g + 1, m.c), TWO),
    "rms_norm": (lambda m, x: F.rms_norm(x, (8,), m.g), ONE),
    "torch.rms_norm": (lambda m, x: torch.rms_norm(x, (8,), m.g), ONE),
    "by hand": (lambda m, x: m.g * (x * root(x)), ONE),
    "in double": (lambda m, x: m.g * (x * root(x.double())).to(x.dtype), ONE),
    "times": (lambda m, x: x * torch.rsqrt((x * x).mean(-1, True) + 1e-6) * m.g, ONE),
    "square": (lambda m, x: m.g * (x * (x.square().mean(-1, True) + 1) ** -0.5), ONE),
    "one plus": (
        lambda m, x: (x.float() * root(x.float()) * (1.0 + m.g.float())).type_as(x),
        ONE,
    ),
    "layer norm by hand": (layer_norm_by_hand, ONE),
    "groups": (groups, ONE),
    "by division": (layer_norm_by_division, TWO),
    "rms norm and offset": (lambda m, x: m.g * (x * root(x)) + m.c, TWO),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling(name: str) -> None:
    function, shapes = SPELLINGS[name]
    (norm,), names = found(function, **shapes)
    assert norm.gain is not None
    assert names[norm.gain] == "g"
    assert (norm.offset is not None) is ("c" in shapes)
    assert [user.op for user in norm.y.users] == ["output"]


def test_a_centred_norm_reads_what_it_centres() -> None:
    for function in (layer_norm_by_hand, layer_norm_by_division):
        (norm,), _ = found(function, **TWO)
        assert strip(norm.x, ops.CASTS).op == "placeholder"


def test_an_offset_that_something_else_reads_past_is_none() -> None:
    def function(m: Any, x: Any) -> Any:
        y = m.g * (x * root(x))
        return y + m.c, y

    (norm,), _ = found(function, **TWO)
    assert norm.offset is None


def test_a_norm_without_gain_has_none() -> None:
    (norm,), _ = found(lambda m, x: x * root(x))
    assert norm.gain is None


NO_NORM = {
    "another value": lambda m, x: m.g * (x[:1] * root(x)),
    "third power": lambda m, x: m.g * x * torch.rsqrt(x.pow(3).mean(-1, True)),
    "a matrix": lambda m, x: (x * root(x)) @ m.w,
    "only the root": lambda m, x: m.g * root(x),
    "divided the other way": lambda m, x: (
        m.g * (torch.sqrt(x.pow(2).mean(-1, True)) / x)
    ),
    "times the root": lambda m, x: m.g * (x * torch.sqrt(x.pow(2).mean(-1, True))),
}


@pytest.mark.parametrize("name", NO_NORM)
def test_no_norm_with_a_gain(name: str) -> None:
    norms, _ = found(NO_NORM[name], g=(8,), w=(8, 8))
    assert all(norm.gain is None for norm in norms)
