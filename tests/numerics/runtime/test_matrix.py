"""Every way of running a compiled model is adapted or an error: none is silent.

The cells: the stance of torch.compile; a foreign compile around the call, or none; our
backend; the whole model, a model inside it, or an adapted linear; called before or not;
and all that again after a hook was added and after the linear was replaced.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from peftc.diagnostics.core import PeftcError
from tests.numerics.runtime.tiny import compiled, hooked, llama, t5, tokens, twin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODELS: dict[str, Callable[[], Any]] = {"llama": lambda: llama(layers=1), "t5": t5}
STANCES = ("default", "force_eager", "eager_on_recompile", "fail_on_recompile")
OUTER: dict[str, dict[str, Any]] = {
    "none": {},
    "eager": {"backend": "eager"},
    "fullgraph": {"backend": "aot_eager", "fullgraph": True},
}
CHANGES = ("none", "late hook", "replaced layer")


# --- what is called -----------------------------------------------------------------


def linear(model: Any) -> str:
    """The path of an adapted linear."""
    paths: Iterator[str] = (path for path, _ in model.named_modules())
    return next(path for path in paths if path.endswith(("q_proj", ".q")))


ENTRIES: dict[str, Callable[[Any], Any]] = {
    "whole": lambda model: model,
    "part": lambda model: getattr(model, "model", None) or model.get_encoder(),
    "linear": lambda model: model.get_submodule(linear(model)),
}


def inputs(module: Any) -> dict[str, Any]:
    if isinstance(module, nn.Linear):
        return {"input": torch.linspace(-1, 1, 64).view(1, 2, 32)}
    if hasattr(module, "lm_head") and module.config.is_encoder_decoder:
        return {"input_ids": tokens(), "decoder_input_ids": tokens(2, 4)}
    return {"input_ids": tokens()}


def call(module: Any, outer: str) -> Any:
    """What a module gives, or the error it raises."""
    run = torch.compile(module, **OUTER[outer]) if OUTER[outer] else module
    try:
        with torch.no_grad():
            given = run(**inputs(module))
    except (PeftcError, RuntimeError) as error:
        return error
    return given if isinstance(given, torch.Tensor) else given[0]


def change(model: Any, what: str) -> None:
    if what == "late hook":
        module = model.get_submodule(linear(model))
        module.register_forward_hook(lambda module, args, output: output * 2)
    if what == "replaced layer":
        torch.manual_seed(8)
        model.set_submodule(linear(model), nn.Linear(32, 32, bias=False))


# --- what is allowed ----------------------------------------------------------------


TORCHS = (
    "peftc runs this",
    "peftc: decides at run time",
    "stance is 'fail_on_recompile'",
)
"""What torch says where a compile with `fullgraph` meets what we keep from it, and
where it must not compile anew."""


def is_refusal(error: Exception) -> bool:
    """Whether an error is ours, or one of torch's that are the answer."""
    if isinstance(error, PeftcError):
        codes = {one.code for one in error.diagnostics}
        return codes <= {"PEFT600", "PEFT601", "PEFT603"}
    return any(reason in str(error) for reason in TORCHS)


def has_to_run(stance: str, outer: str, entry: str, warm: bool, changed: str) -> bool:
    """Cells in which an error would be a loss; elsewhere it is the answer."""
    usual = stance == "default" and changed != "replaced layer"
    warmed = stance.endswith("_recompile") and warm and changed == "none"
    plain = outer == "none" or (entry == "whole" and stance == "default")
    return entry != "linear" and plain and (usual or warmed)


def cells() -> list[Any]:
    """A quick run has one outer compile or stance at a time."""
    chosen = [*itertools.product(("llama",), ("eager",), STANCES, OUTER)]
    chosen += itertools.product(("t5",), ("eager",), STANCES, ("none",))
    chosen += itertools.product(("llama",), ("aot_eager",), ("default",), OUTER)
    quick = {("llama", "eager", stance, "none") for stance in STANCES[:3]}
    return [
        pytest.param(
            *one,
            marks=() if one in quick else pytest.mark.slow,
            id="-".join(one),
        )
        for one in chosen
    ]


@pytest.mark.parametrize(("name", "backend", "stance", "outer"), cells())
def test_adapted_or_an_error(name: str, backend: str, stance: Any, outer: str) -> None:
    base = MODELS[name]()
    for entry, warm in itertools.product(ENTRIES, (False, True)):
        model = twin(base)
        compiled(model, backend=backend)
        reference = hooked(twin(base), model)
        if warm:
            call(ENTRIES[entry](model), "none")
        for changed in CHANGES:
            change(model, changed)
            change(reference, changed)
            with torch.compiler.set_stance(stance):
                found = call(ENTRIES[entry](model), outer)
            cell = f"{entry}, called before: {warm}, {changed}: {found}"
            if isinstance(found, Exception):
                assert is_refusal(found), cell
                assert not has_to_run(stance, outer, entry, warm, changed), cell
            else:
                # A replaced linear that is called by itself is its owner's own.
                assert entry == "linear" or changed != "replaced layer", cell
                expected = call(ENTRIES[entry](reference), "none")
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
