"""An exported adapter runs as the whole one does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

import peftc
from peftc.cli.main import app
from peftc.diagnostics.core import PeftcError
from peftc.runtime.export import exported
from peftc.runtime.state import read_adapter, write_adapter
from tests.numerics.runtime.tiny import llama, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OWN = """
method turned(m: size = 40) on linear {
  param P[out, m] ~ normal(1), q[m] ~ normal(1)
  a = tanh(P) @ q
  y' = y + a * y
}
"""
SPECS = {
    "hidden layer": "prefix(p=3, mlp=16, embed=8) + lora(q, r=2)",
    "own": f"{OWN} turned(q) + gate(turned(v))",
}


def assert_equal(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_an_export_gives_the_same(name: str, tmp_path: Path) -> None:
    model = llama(layers=1)
    peftc.compile(model, SPECS[name])
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.3 * drawn)
    expected = model(input_ids=tokens()).logits
    model.peftc.export(tmp_path / "out")

    loaded = llama(layers=1)
    peftc.load(loaded, tmp_path / "out")
    assert loaded.peftc.plan.trainable < model.peftc.plan.trainable
    torch.testing.assert_close(
        loaded(input_ids=tokens()).logits, expected, rtol=1e-5, atol=1e-5
    )

    model.peftc.save(tmp_path / "whole")
    arguments = ["export", str(tmp_path / "whole"), "-o", str(tmp_path / "by-command")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    one, other = (read_adapter(tmp_path / place) for place in ("out", "by-command"))
    assert one.plan == other.plan
    assert_equal(one.tensors, other.tensors)


def test_what_does_not_fold_is_exported_whole(tmp_path: Path) -> None:
    model = llama(layers=1)
    peftc.compile(model, "lora(q, r=2)")
    model.peftc.export(tmp_path / "out")
    model.peftc.save(tmp_path / "whole")
    one, other = (read_adapter(tmp_path / place) for place in ("out", "whole"))
    assert one.plan == other.plan
    assert_equal(one.tensors, other.tensors)


def test_tensors_of_another_shape_are_refused(tmp_path: Path) -> None:
    model = llama(layers=1)
    peftc.compile(model, "prefix(p=3, mlp=16)")
    path = model.peftc.save(tmp_path / "whole")
    adapter = read_adapter(path)
    name = next(n for n in adapter.tensors if n.endswith("prefix.E"))
    wrong = {**adapter.tensors, name: torch.zeros(2, 2)}
    write_adapter(tmp_path / "wrong", replace(adapter, tensors=wrong))
    with pytest.raises(PeftcError, match="has shape"):
        exported(read_adapter(tmp_path / "wrong"))
