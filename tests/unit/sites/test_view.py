"""The view of a model: facts, fingerprint of the configuration, time and memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from peftc.diagnostics.core import PeftcError
from peftc.sites.view import config_hash, model_view
from peftc.view import ParameterFact
from tests.models import bert, gpt2, llama
from tests.unit.sites.toys import WIDTH, Model


def test_parameters_are_facts_in_order_once_each() -> None:
    made = gpt2()
    view = model_view(made)
    assert view.architecture == "GPT2LMHeadModel"
    assert [p.name for p in view.parameters] == [n for n, _ in made.named_parameters()]
    first = ParameterFact("transformer.wte.weight", (128, 64), "float32")
    assert view.parameters[0] == first


def test_dtypes_are_those_of_the_weights() -> None:
    view = model_view(llama().to(torch.bfloat16))
    assert {site.dtype for site in view.sites} == {"bfloat16"}
    assert {p.dtype for p in view.parameters} == {"bfloat16"}


@pytest.mark.parametrize("make", [llama, gpt2, bert])
def test_a_view_is_the_same_every_time(make: Any) -> None:
    made = make()
    assert model_view(made) == model_view(made) == model_view(made.train())


class Slices(nn.Module):
    """Attention of which queries and keys are the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.out = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        qk, v = self.both(x).chunk(2, -1)
        mixed = nn.functional.scaled_dot_product_attention(qk, qk, v)
        return x + self.out(mixed)


def test_rows_of_two_roles_are_said_and_the_matrix_stays_whole() -> None:
    view = model_view(Model(Slices()))
    (site,) = [s for s in view.sites if s.owner == "layers.0.both"]
    assert (site.role, site.rows, site.fused) == ("", None, False)
    (said,) = view.unresolved
    assert said.what == "layers.0.both.weight"
    assert said.why == "the same rows are q and k and v"
    assert said.roles == ("q", "k", "v")


class Gated(nn.Module):
    """Queries and a gate of the output from one matrix, half of it each."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.k = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.v, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        gate, q = self.two(x).chunk(2, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, self.k(x), self.v(x))
        return x + self.out(mixed * gate.sigmoid())


def test_rows_of_no_role_stay_with_the_whole_matrix() -> None:
    sites = {s.key: s for s in model_view(Model(Gated())).sites}
    assert sites["layers.0.two:q"].rows == ((WIDTH, 2 * WIDTH),)
    assert sites["layers.0.two:q"].size("out") == WIDTH
    assert sites["layers.0.two:"].fused
    assert "layers.0.k:" not in sites


def test_a_model_without_products_has_no_sites() -> None:
    """PEFT412."""

    class Nothing(nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return input_ids.float().cumsum(-1)

    with pytest.raises(PeftcError) as error:
        model_view(Nothing())
    (found,) = error.value.diagnostics
    assert (found.code, found.exit_code) == ("PEFT412", 3)


def test_the_hash_is_of_what_the_model_computes() -> None:
    base = hf.LlamaConfig()
    same = hf.LlamaConfig(
        attention_dropout=0.5, use_cache=False, dtype="bfloat16", pad_token_id=7
    )
    same.architectures = ["LlamaForCausalLM"]
    same._attn_implementation = "eager"
    assert config_hash(base) == config_hash(same)
    for other in (
        hf.LlamaConfig(hidden_size=2048),
        hf.LlamaConfig(rms_norm_eps=1e-5),
        hf.LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
        hf.MistralConfig(),
    ):
        assert config_hash(base) != config_hash(other)
    assert config_hash(None) == ""
    assert len(config_hash(base)) == 64


def test_the_hash_survives_saving(tmp_path: Any) -> None:
    made = bert()
    made.save_pretrained(tmp_path)
    again = hf.AutoConfig.from_pretrained(tmp_path)
    assert config_hash(again) == config_hash(made.config)


LARGE = """
import time
import transformers as hf
from peftc.sites import locate as places
from peftc.sites.view import view_from_config
config = hf.LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, vocab_size=128256,
)
seconds = []
real = places.survey
def timed(*args):
    start = time.process_time()  # not what others take of the processor
    told = real(*args)
    seconds.append(time.process_time() - start)
    return told
import peftc.sites.view as view_module
view_module.survey = timed
start = time.perf_counter()
view = view_from_config(config)
total = time.perf_counter() - start
with open("/proc/self/status") as status:  # ru_maxrss would count the parent's
    peak = next(int(x.split()[1]) for x in status if x.startswith("VmHWM")) / 2**10
print(len(view.sites), view.layers, total, seconds[0], peak)
"""


@pytest.mark.slow
def test_eight_billion_weights_need_seconds_and_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True
    )
    sites, layers, total, locating, peak = map(float, done.stdout.split())
    assert (sites, layers) == (420, 32)
    assert total < 60
    assert locating < 1
    assert peak < 1024, "MiB"
