"""A compiled model as a program: the same numbers in a process with torch alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch._inductor import config as inductor
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

import peftc
from peftc.runtime import package
from tests import models
from tests.families.cases import model as family
from tests.numerics.runtime.tiny import llama, refused, tokens

if TYPE_CHECKING:
    from pathlib import Path

SIZES = ((3, 11), (2, 5), (7, 29), (1, 8))
SPECS = {
    "llama": "lora(q, v, r=2) + prefix(k, v, p=3)",
    "gpt2": "lora(q, v, r=2) + adapter(ffn, d=3)",
    "bert": "prompt(p=3) + lora(q, r=2)",
    "t5": "lora(q, v, r=2)",
    "mixtral": "lora(q, v, r=2) + quantize(o, kind=nf4)",
}


def mixtral() -> Any:
    facts: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }
    return MixtralForCausalLM(MixtralConfig(**facts)).eval()


def base(name: str) -> Any:
    torch.manual_seed(0)
    if name != "mixtral":
        return getattr(models, name)().eval()
    model = mixtral()
    model.set_experts_implementation("batched_mm")
    return model


def tuned(name: str) -> Any:
    """A compiled model with values everywhere."""
    model = peftc.compile(base(name), SPECS[name])
    generator = torch.Generator().manual_seed(1)
    for path, parameter in model.named_parameters():
        if ".peftc." in path and parameter.requires_grad:
            parameter.data.normal_(generator=generator)
    return model


def inputs(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
    """Arguments of the forward; one sample is padded."""
    ids = tokens(rows, columns)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    if name == "t5":
        given["decoder_input_ids"] = tokens(rows, columns + 3, seed=4)
    return given


ALONE = """
import json, sys
import torch
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("peftc", "transformers"):
            raise ImportError(name)
sys.meta_path.insert(0, Closed())
found = {}
kind, folder, *names = sys.argv[1:]
for name in names:
    cases = torch.load(f"{folder}/{name}/cases.pt")
    if kind == "aoti":
        program = torch._inductor.aoti_load_package(f"{folder}/{name}/compiled.pt2")
    else:
        program = torch.export.load(f"{folder}/{name}/program.pt2").module()
    with torch.no_grad():
        found[name] = [
            (program(**given)["logits"] - logits).abs().max().item()
            for given, logits in cases
        ]
print(json.dumps(found))
"""


def run_alone(folder: Path, *names: str, kind: str = "pt2") -> dict[str, list[float]]:
    """The largest difference of each case, in a process with torch alone."""
    command = [sys.executable, "-c", ALONE, kind, str(folder), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def write(folder: Path, name: str, kind: str = "pt2") -> Path:
    """A program, and what the model says at several sizes."""
    model = tuned(name)
    cases = []
    for rows, columns in SIZES:
        given = inputs(name, rows, columns)
        with torch.no_grad():
            cases.append((given, model(**given).logits))
    shown = {k: v for k, v in inputs(name, 1, 6).items() if k != "decoder_input_ids"}
    more = {"decoder_input_ids": tokens(1, 4)} if name == "t5" else {}
    written: Path = model.peftc.export(folder / name, kind, inputs={**shown, **more})
    torch.save(cases, folder / name / "cases.pt")
    return written


@pytest.mark.slow
def test_programs_run_in_a_process_with_torch_alone(tmp_path: Path) -> None:
    for name in SPECS:
        written = write(tmp_path, name)
        assert written == tmp_path / name / "program.pt2"
        assert {p.name for p in written.parent.iterdir()} == {"program.pt2", "cases.pt"}
    found = run_alone(tmp_path, *SPECS)
    assert found.keys() == SPECS.keys()
    for name, differences in found.items():
        assert len(differences) == len(SIZES)
        assert max(differences) <= 1e-6, name


@pytest.mark.slow
def test_a_compiled_package_runs_in_a_process_with_torch_alone(tmp_path: Path) -> None:
    written = write(tmp_path, "llama", "aoti")
    assert written.name == "compiled.pt2"
    found = run_alone(tmp_path, "llama", kind="aoti")
    assert max(found["llama"]) <= 1e-5


def test_exporting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = peftc.compile(llama(layers=1).train(), "lora(q, r=2)")
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    graphs = model.peftc.captures.count
    model.peftc.export(tmp_path, "pt2")
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    assert model.training
    assert model.peftc.captures.count == graphs
    read = torch.export.load(tmp_path / "program.pt2")
    assert "program.held.model.layers.0.self_attn.q_proj.weight" in read.state_dict


def test_operators_of_other_packages_are_refused_by_name(tmp_path: Path) -> None:
    model = mixtral()
    model.set_experts_implementation("grouped_mm")
    peftc.compile(model, "lora(q, r=2)")
    named = r"PEFT720.*\n.*transformers\.grouped_mm"
    with pytest.raises(peftc.PeftcError, match=named):
        model.peftc.export(tmp_path / "new", "pt2")
    assert not (tmp_path / "new").exists()


class OfOneSize(LlamaForCausalLM):
    """A model whose forward fixes the number of tokens."""

    def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
        if input_ids.shape[1] > 8:
            input_ids = input_ids[:, :8]
        return super().forward(input_ids, **kwargs)


def test_a_forward_that_is_another_for_other_sizes_is_refused(tmp_path: Path) -> None:
    model: Any = OfOneSize(llama(layers=1).config)
    peftc.compile(model.eval(), "lora(q, r=2)")
    untraced = peftc.compile(family("deberta", device="cpu"), "lora(q, r=2)")
    for one in (model, untraced):
        with refused("PEFT721"):
            one.peftc.export(tmp_path, "pt2")
    assert not list(tmp_path.iterdir())


def test_a_model_that_runs_by_several_graphs_or_adapters_is_refused(
    tmp_path: Path,
) -> None:
    without = llama(layers=1).to("meta")
    peftc.compile(without, "lora(q, r=2)")
    with refused("PEFT631"):
        without.peftc.export(tmp_path, "pt2")
    layered = peftc.compile(llama(layers=1), "lora(q, r=2)", entries="layers")
    with refused("PEFT631"):
        layered.peftc.export(tmp_path, "pt2")
    model = peftc.compile(llama(layers=1), "lora(q, r=2)")
    with model.peftc.slots.rows(["default", None]), refused("PEFT631"):
        model.peftc.export(tmp_path, "pt2")
    assert not list(tmp_path.iterdir())


def test_machine_code_needs_a_compiler(tmp_path: Path) -> None:
    model = peftc.compile(llama(layers=1), "lora(q, r=2)")
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}):
        with refused("PEFT722"):
            package.check_compiler()
        with refused("PEFT722"):
            model.peftc.export(tmp_path, "aoti")
    package.check_compiler()
    assert not list(tmp_path.iterdir())


def test_sizes_that_the_model_has_not_are_refused_by_the_program() -> None:
    model = peftc.compile(models.bert(num_hidden_layers=1).eval(), "lora(q, r=2)")
    positions = model.config.max_position_embeddings
    program = package.export_program(model.peftc).module()

    def said(columns: int) -> int:
        ids = tokens(2, columns)
        with torch.no_grad():
            result = program(input_ids=ids, attention_mask=torch.ones_like(ids))
        return len(result["logits"])

    assert said(positions) == 2
    with pytest.raises((AssertionError, RuntimeError)):
        said(positions + 1)
