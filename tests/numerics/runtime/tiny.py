"""Tiny models, plans for them made by hand, and the same methods as hooks: for tests.

The plans add `y' = y + 0.5 B (A x)` to linears; `hooked` computes that outside peftc,
by forward hooks on an untouched copy, so that compiled models have something to agree
with.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from peftc.diagnostics.core import PeftcError
from peftc.passes import GRAPH_PIPELINE
from peftc.pipeline import Manager, load
from peftc.plan.types import AddedTensor, Application, ModelFacts, Plan, Rewrite
from peftc.runtime.install import install
from peftc.view import Site
from tests.capturing import given, program, step, token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftc.expr.program import Program
    from peftc.runtime.handle import Handle

R, SCALE, SPEC = 2, 0.5, "low(q, v)"
ROLES = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "q": "q", "k": "k", "v": "v"}


def llama(seed: int = 0, layers: int = 2, **changes: Any) -> Any:
    """A Llama of width 32 with grouped keys."""
    torch.manual_seed(seed)
    facts = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**{**facts, **changes})).eval()


def t5(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    facts: dict[str, Any] = {"decoder_start_token_id": 0}
    config = T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=1,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=None,
        **facts,
    )
    return T5ForConditionalGeneration(config).eval()


def bart(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
        max_position_embeddings=64,
    )
    return BartForConditionalGeneration(config).eval()


def tokens(rows: int = 2, columns: int = 6, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, 64, (rows, columns), generator=generator)


# --- plans ------------------------------------------------------------------------


def linears(model: nn.Module, roles: Sequence[str]) -> list[tuple[str, nn.Linear]]:
    """The linears of these roles, in order."""
    return [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and ROLES.get(path.split(".")[-1]) in roles
    ]


def low_rank(out: int, into: int, dropout: float = 0) -> Program:
    """y' = y + 0.5 B (A drop(x))."""
    return program(
        "y",
        [
            *(token("x", into), token("y", out)),
            *(given("low.A", R, into), given("low.B", out, R)),
        ],
        step("%0", "call", "x", into, fn="drop", attrs=(dropout,)),
        step("%1", "linear", "%0 low.A", R),
        step("%2", "linear", "%1 low.B", out),
        step("%3", "add", "y %2", out, coefs=(1.0, SCALE)),
    )


def rewrite(
    path: str, module: nn.Linear, dropout: float = 0, **changes: Any
) -> Rewrite:
    """Low rank at one linear."""
    role = ROLES[path.split(".")[-1]]
    out, into = module.weight.shape
    site = Site(
        key=f"{path}:{role}",
        role=role,
        kind="linear",
        owner=path,
        sizes=(("in", into), ("out", out)),
        dtype=str(module.weight.dtype).removeprefix("torch."),
        weight=f"{path}.weight",
        bias=f"{path}.bias" if module.bias is not None else "",
    )
    tensors = (
        AddedTensor("low.A", (R, into), "param", "kaiming(5)"),
        AddedTensor("low.B", (out, R), "param", changes.pop("init", "0")),
    )
    application = Application("low", "low", 0, (("r", R),), tensors, "spec.peft:1:1")
    return Rewrite(site, (application,), programs=(low_rank(out, into, dropout),))


def plan_for(
    model: Any, roles: Sequence[str] = ("q", "v"), seed: int = 0, **changes: Any
) -> Plan:
    """Low rank at every linear of these roles; `init` is that of B."""
    found = [rewrite(path, one, **changes) for path, one in linears(model, roles)]
    count = sum(p.numel() for p in model.parameters())
    facts = ModelFacts(type(model).__name__, "", count, 2)
    return Plan(facts, seed, "auto", (), tuple(found))


def compiled(
    model: Any,
    roles: Sequence[str] = ("q", "v"),
    *,
    plan: Plan | None = None,
    **options: Any,
) -> Handle:
    """The model with low rank in it; B is not zero, so that it shows."""
    chosen = plan or plan_for(model, roles, init="normal(0.5)")
    return install(model, chosen, SPEC, Manager(load(GRAPH_PIPELINE)), **options)


# --- the same by hooks ------------------------------------------------------------


def hooked(model: Any, like: Any) -> Any:
    """An untouched `model` with the adapters of the compiled `like` as hooks."""
    for path, module in linears(model, ("q", "k", "v")):
        slot = getattr(like.get_submodule(path), "peftc", None)
        if slot is not None:
            (low,) = (m for name, m in slot.named_modules() if name.endswith("low"))
            module.register_forward_hook(_hook(low))
    return model


def _hook(low: Any) -> Any:
    def add(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output + SCALE * F.linear(F.linear(args[0], low.A), low.B)

    return add


def added(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The added parameters of a compiled model."""
    return ((n, p) for n, p in model.named_parameters() if ".peftc." in n)


def snapshot(model: Any) -> dict[str, Any]:
    """All that compiling may change in a model and removing has to give back."""
    modules = dict(model.named_modules())
    return {
        "state": {n: t.clone() for n, t in model.state_dict().items()},
        "identity": {n: id(p) for n, p in model.named_parameters()},
        "flags": {n: p.requires_grad for n, p in model.named_parameters()},
        "modules": {n: type(m) for n, m in modules.items()},
        "hooks": {n: dict(m._forward_pre_hooks) for n, m in modules.items()},
        "later hooks": {n: dict(m._forward_hooks) for n, m in modules.items()},
        "loading": dict(model._load_state_dict_pre_hooks),
        "own": {n: set(m.__dict__) for n, m in modules.items()},
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two snapshots are equal, tensors bit for bit."""
    assert one.keys() == other.keys()
    assert one["state"].keys() == other["state"].keys()
    for name, tensor in one["state"].items():
        assert torch.equal(tensor, other["state"][name]), name
    for part in one.keys() - {"state"}:
        assert one[part] == other[part], part


def twin(model: Any) -> Any:
    """A copy of a base model, before it is compiled."""
    return copy.deepcopy(model)


@contextmanager
def refused(*codes: str) -> Iterator[None]:
    """The block ends in exactly these diagnostics."""
    with pytest.raises(PeftcError) as caught:
        yield
    assert tuple(d.code for d in caught.value.diagnostics) == codes


def logits(model: Any, ids: torch.Tensor | None = None, **inputs: Any) -> torch.Tensor:
    """What a model says, without gradients."""
    with torch.no_grad():
        found = model(input_ids=tokens() if ids is None else ids, **inputs).logits
    assert isinstance(found, torch.Tensor)
    return found
