"""Folders of AdapterHub's `adapters`, whose outputs are known from that library itself.

The tensors and outputs are those of `tests/oracles`; the settings are what the library
writes beside such tensors.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import peftc
from peftc.diagnostics.core import PeftcError
from tests.numerics.runtime.tiny import refused
from tests.numerics.test_adapterhub import assert_outputs
from tests.oracles import adapterhub as hub

if TYPE_CHECKING:
    from pathlib import Path

SEQ: dict[str, Any] = {
    "mh_adapter": False,
    "output_adapter": True,
    "reduction_factor": 4,
    "non_linearity": "relu",
    "original_ln_before": True,
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "init_weights": "bert",
    "is_parallel": False,
    "scaling": 1.0,
    "use_gating": False,
    "residual_before_ln": True,
    "adapter_residual_before_ln": False,
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "cross_adapter": False,
    "leave_out": [],
    "dropout": 0.0,
    "phm_layer": False,
    "phm_dim": 4,
    "factorized_phm_W": True,
    "shared_W_phm": False,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "phm_c_init": "normal",
    "phm_init_range": 0.0001,
    "learn_phm": True,
    "hypercomplex_nonlinearity": "glorot-uniform",
    "phm_rank": 1,
    "phm_bias": True,
    "stochastic_depth": 0.0,
}
DOUBLE = {**SEQ, "original_ln_before": False, "mh_adapter": True}
SWISH = {**DOUBLE, "non_linearity": "swish"}
GELU_PHM = {"non_linearity": "gelu", "phm_layer": True}
PARALLEL = {**SEQ, "original_ln_before": False, "is_parallel": True, "scaling": 4.0}
LORA: dict[str, Any] = {
    "architecture": "lora",
    "selfattn_lora": True,
    "intermediate_lora": False,
    "output_lora": False,
    "leave_out": [],
    "r": 4,
    "alpha": 16,
    "dropout": 0.0,
    "attn_matrices": ["q", "v"],
    "composition_mode": "add",
    "init_weights": "lora",
    "use_gating": False,
    "use_dora": False,
    "vera_d": None,
    "dtype": None,
}
IA3 = {**LORA, "r": 1, "alpha": 1, "composition_mode": "scale", "init_weights": "ia3"}
PREFIX: dict[str, Any] = {
    "architecture": "prefix_tuning",
    "encoder_prefix": True,
    "cross_prefix": True,
    "leave_out": [],
    "flat": True,
    "prefix_length": 5,
    "bottleneck_size": 16,
    "non_linearity": "tanh",
    "dropout": 0.0,
    "use_gating": False,
    "shared_gating": True,
}
MADE = {**PREFIX, "flat": False}


def union(*configs: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": "union", "configs": list(configs)}


UNIPELT = union(
    {**MADE, "prefix_length": 4, "use_gating": True},
    {**SEQ, "use_gating": True},
    {**LORA, "use_gating": True},
)
CONFIGS = {
    "bert__pfeiffer": SEQ,
    "bert__houlsby": SWISH,
    "llama__houlsby": SWISH,
    "bert__parallel": PARALLEL,
    "bert__lora": LORA,
    "llama__lora": LORA,
    "bert__lora_all": {**LORA, "intermediate_lora": True, "output_lora": True},
    "bert__ia3": IA3,
    "llama__ia3": IA3,
    "bert__compacter": {**DOUBLE, **GELU_PHM},
    "llama__compacter": {**DOUBLE, **GELU_PHM},
    "bert__compacter_pp": {**SEQ, **GELU_PHM},
    "bert__prefix_flat": PREFIX,
    "llama__prefix_flat": PREFIX,
    "bert__prefix_mlp": MADE,
    "bert__mam": union(MADE, PARALLEL),
    "bert__unipelt": UNIPELT,
}


def folder(path: Path, name: str, config: Any, version: str = "1.3.0") -> Path:
    path.mkdir(exist_ok=True)
    facts = {"config": config, "name": "ad", "version": f"adapters.{version}"}
    more = {"model_type": name.partition("__")[0], "hidden_size": 32}
    (path / "adapter_config.json").write_text(json.dumps({**facts, **more}))
    tensors = hub.group(hub.case_tensors(name), "adapter")
    save_file(tensors, path / "adapter.safetensors")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_says_what_it_said_there(name: str, tmp_path: Path) -> None:
    model, inputs = hub.base(name, "eager")
    peftc.load(model, folder(tmp_path, name, CONFIGS[name]))
    wanted = hub.group(hub.case_tensors(name), "out")
    assert_outputs(model(**inputs, output_hidden_states=True), wanted)


OTHER = [
    ("bert__pfeiffer", "inv_adapter", "nice"),
    ("bert__pfeiffer", "ln_before", True),
    ("bert__pfeiffer", "non_linearity", "gelu_new"),
    ("bert__pfeiffer", "a_setting_of_the_future", 1),
    ("bert__houlsby", "original_ln_before", True),
    ("bert__parallel", "scaling", "learned"),
    ("bert__compacter", "shared_W_phm", True),
    ("bert__lora", "use_dora", True),
    ("bert__lora", "vera_d", 0.1),
    ("bert__ia3", "alpha", 2),
    ("bert__lora", "architecture", "reft"),
]


@pytest.mark.parametrize(("name", "setting", "value"), OTHER)
def test_what_no_method_does_is_refused_by_name(
    name: str, setting: str, value: Any, tmp_path: Path
) -> None:
    config = {**CONFIGS[name], setting: value}
    with pytest.raises(PeftcError, match=setting) as caught:
        peftc.load(hub.base(name, "eager")[0], folder(tmp_path, name, config))
    assert [d.code for d in caught.value.diagnostics] == ["PEFT733"]


def test_tensors_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    model = hub.base("bert__mam", "eager")[0]
    configs: tuple[Any, ...] = (MADE, PARALLEL, union(MADE, MADE), [], {})
    for config in configs:
        with refused("PEFT732"):
            peftc.load(model, folder(tmp_path, "bert__mam", config))


SHAPED = ["bert__pfeiffer", "bert__compacter", "bert__prefix_mlp", "bert__unipelt"]


@pytest.mark.parametrize("name", SHAPED)
def test_tensors_of_any_shape_end_with_a_diagnostic(name: str, tmp_path: Path) -> None:
    model = hub.base(name, "eager")[0]
    path = folder(tmp_path, name, CONFIGS[name])
    tensors = load_file(path / "adapter.safetensors")
    first = {key.split(".")[-1]: key for key in sorted(tensors)}
    for key in first.values():
        for shape in ((), (0,), (1, 1), (3, 3, 3)):
            torn = {**tensors, key: torch.zeros(shape)}
            save_file(torn, path / "adapter.safetensors")
            with pytest.raises(PeftcError) as caught:
                peftc.load(model, path)
            assert {d.code[:5] for d in caught.value.diagnostics} <= {"PEFT6", "PEFT7"}


def test_early_versions_scaled_by_one(tmp_path: Path) -> None:
    path = folder(tmp_path, "bert__lora", LORA, version="1.0.1")
    model = peftc.load(hub.base("bert__lora", "eager")[0], path)
    assert "r=4, alpha=4)" in model.peftc.spec
