"""`backend="triton"`: sites as generated kernels, checked before they are believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import torch

from tests.kernels import running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kernels.conftest import Interpreted

SPECS = {
    "lora": ("lora(linear, r=4)", 8),
    "dora": ("dora(q, down, r=4)", 4),
    "ia3": ("ia3(k, v, ffn)", 4),
    "stack": ("lora(q, r=2) + ia3(q) + krona(q)", 2),
    "codes": ("qlora(r=4)", 8),
    "beside others": ("lora(q, v, r=4) + prefix(p=3) + adapter(ffn, d=8)", 4),
}
"""Specs, and how many nodes their sites are in a llama with two layers."""
FAULTY = {"wrong": "hira", "nan": "loha", "raises": "vera"}
"""One for each fault: equal functions have one operator, and that one's verdicts."""
FAULTS = {"wrong": "is wrong by", "nan": "is wrong by inf", "raises": "out of shared"}


@pytest.mark.parametrize("name", list(SPECS))
def test_a_model_trains_and_generates_as_by_separate_operations(
    name: str, interpreted: Interpreted
) -> None:
    spec, nodes = SPECS[name]
    told = ("llama", spec, torch.float32, torch.float32)
    assert interpreted(running.alike, *told) == nodes


@pytest.mark.parametrize("added", [torch.bfloat16, torch.float32], ids=str)
def test_types_of_sixteen_bits(added: torch.dtype, interpreted: Interpreted) -> None:
    told = ("llama", SPECS["lora"][0], torch.bfloat16, added)
    assert interpreted(running.alike, *told) == SPECS["lora"][1]


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_other_families(family: str, interpreted: Interpreted) -> None:
    """Weights that are stored turned, biases, encoders."""
    told = (family, "lora(o, down, r=2)", torch.float32, torch.float32)
    assert cast("int", interpreted(running.alike, *told)) > 0


def test_dropout_is_checked_too_and_drawn_anew(interpreted: Interpreted) -> None:
    found = interpreted(running.dropped, "lora(q, o, r=4, dropout=0.3)")
    assert found == (0, False)


def test_without_a_card_it_is_said(interpreted: Interpreted) -> None:
    assert "PEFT447" in cast("str", interpreted(running.on_a_cpu, "lora(q)"))


@pytest.mark.parametrize("name", ["lora", "dora", "lora_dropout"])
def test_gradients_of_gradients_are_those_of_torch(
    name: str, interpreted: Interpreted
) -> None:
    found = cast("float", interpreted(running.twice_derived, name))
    assert (found < 1e-12) == (name != "lora_dropout")


@pytest.mark.parametrize("name", ["lora", "ia3", "lora_dropout"])
def test_operators_are_well_formed(name: str, interpreted: Interpreted) -> None:
    interpreted(running.opcheck, name)


def test_compilers_and_exporters_see_one_operation(interpreted: Interpreted) -> None:
    found = interpreted(running.traced, "lora")
    compiled, exported, graph = cast("tuple[float, float, str]", found)
    assert max(compiled, exported) == 0
    assert graph.count("torch.ops.peftc.k") == 1


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_faulty_kernel_is_refused(
    fault: str, tmp_path: Path, interpreted: Interpreted
) -> None:
    found = interpreted(running.refused, FAULTY[fault], str(tmp_path), fault)
    error, said, again = cast("tuple[float, list[str], set[str]]", found)
    assert error < 1e-6
    assert [text.count("PEFT448") for text in said] == [1, 1]
    assert all(FAULTS[fault] in text for text in said)
    assert again == {"gone"}
    left = sorted(path.name for path in next(tmp_path.iterdir()).iterdir())
    assert left == ["facts.json", "kernel.py", "plan.txt", "tensors.safetensors"]


@pytest.mark.parametrize("seed", [0, 12345, 2**40 + 7, 2**62 - 1])
@pytest.mark.parametrize("start", [0, 2**33 + 5])
def test_torch_draws_what_kernels_draw(
    seed: int, start: int, interpreted: Interpreted
) -> None:
    assert interpreted(running.same_numbers, seed, start)


def test_masks_are_those_of_the_kernels(interpreted: Interpreted) -> None:
    found = interpreted(running.same_masks, "lora_dropout")
    kept, error = cast("tuple[float, float]", found)
    assert 0.7 < kept < 1
    assert error < 1e-6
