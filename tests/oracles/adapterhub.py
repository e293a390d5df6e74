"""Reference outputs of another library, AdapterHub's `adapters` 1.3.0, and their names.

In: `golden/`: per architecture the base model and the inputs, per case the adapter's
tensors, what the model gave, and the gradients of mean(logits ** 2).  Out: per case a
spec that means the same and which tensor of theirs is which of ours.

Where their definition is not the library's of the same name, the spec brings a method
of its own, and a comment says what differs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    Tensors = dict[str, torch.Tensor]

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """A spec, what it trains, and our names for their tensors.

    `names` maps what follows their module's path to what follows `.peftc.ROLE.`;
    `shared` does for what they keep in one place, and we at the first site.
    """

    spec: str
    count: int
    names: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    """Our instance for each adapter of theirs that keeps a prefix of all layers."""


def renamed(
    names: dict[str, str], instance: str, adapter: str = "ad"
) -> dict[str, str]:
    """Names of one adapter's tensors and of one method's."""
    return {f"{adapter}.{k}": f"{instance}.{v}" for k, v in names.items()}


BOTTLENECK = {
    "adapter_down.0.weight": "D",
    "adapter_down.0.bias": "bd",
    "adapter_up.weight": "U",
    "adapter_up.bias": "bu",
}
FIRST, SECOND = (
    {theirs: f"{ours}{n}" for theirs, ours in BOTTLENECK.items()} for n in (1, 2)
)
PHM = {
    "adapter_down.0.W_left": "T1",
    "adapter_down.0.W_right": "S1",
    "adapter_down.0.b": "bd",
    "adapter_up.W_left": "T2",
    "adapter_up.W_right": "S2",
    "adapter_up.b": "bu",
}
RULE = {"shared_parameters.ad.phm_rule": "phm.P"}
LORA = {"lora_A": "A", "lora_B": "B"}
GATE = {"gate.weight": "w", "gate.bias": "c", "weight": "w", "bias": "c"}
FUSION = {
    f"adapter_fusion_layer.a1,a2.{theirs}": f"fused.{ours}"
    for theirs, ours in {
        "query.weight": "Q",
        "query.bias": "bq",
        "key.weight": "K",
        "key.bias": "bk",
        "value.weight": "V",
    }.items()
}

LAYERS = 2
BERT_ATTENTIONS = [
    f"bert.encoder.layer.{i}.attention.output.dense" for i in range(LAYERS)
]
LLAMA_ATTENTIONS = [f"model.layers.{i}.self_attn.o_proj" for i in range(LAYERS)]
SHARED = {"wte.weight": "E", "control_trans.0.weight": "A", "control_trans.0.bias": "a"}
PIECES = {
    "control_trans": "KV",
    "control_trans.2.weight": "KV",
    "control_trans.2.bias": ("k0", "v0"),
}

PLACES = (
    (r"attention\.output\.adapters$", "attention.output.dense.peftc.attn"),
    (r"(layer\.\d+\.output)(\.adapters)?$", r"\1.dense.peftc.ffn"),
    (r"attention_adapters\.adapters$", "self_attn.o_proj.peftc.attn"),
    (r"output_adapters\.adapters$", "mlp.down_proj.peftc.ffn"),
    (r"self\.prefix_tuning\.prefix_gates$", "output.dense.peftc.attention"),
    (r"(query|key|value)\.loras$", lambda m: f"{m[1]}.peftc.{m[1][0]}"),
    (r"([qkv])_proj\.loras$", r"\1_proj.peftc.\1"),
    (r"intermediate\.dense\.loras$", "intermediate.dense.peftc.up"),
    (r"(output\.dense|down_proj)\.loras$", r"\1.peftc.down"),
)
"""Where their modules are and where ours."""

SCALED = """
method scaled(d: size = 16) on hidden {
  param D[d, hidden], bd[d], U[hidden, d], bu[hidden], s[] = 1
  h' = h + s * (U(relu(D(u) + bd)) + bu)
}
scaled(ffn)
"""

DORA = """
method scaled_dora(r: size = 4, alpha: scale = 16) on linear {
  param A[r, in], B[out, r], m[out]
  y' = m / norm(W + B @ A, in) * (y + alpha / r * B(A(x)))
}
scaled_dora(q, v)
"""

VERA = """
method dense_vera(r: size = 4) on linear {
  shared buffer A[r, in] ~ kaiming(0), B[out, r] ~ kaiming(0)
  param L[out, out], D[r, r]
  W' = W + L @ B @ D @ A
}
dense_vera(q, v)
"""

STACKED_LORA = """
method stacked(r: size = 4, alpha: scale = 16) on linear {
  param A1[r, in], B1[out, r], A2[r, out], B2[out, r]
  y' = y + (alpha / r) * (alpha / r) * B2(A2(B1(A1(x))))
}
stacked(q, v)
"""

AVERAGE = """
method average(d: size = 8) on hidden {
  param D1[d, hidden], bd1[d], U1[hidden, d], bu1[hidden]
  param D2[d, hidden], bd2[d], U2[hidden, d], bu2[hidden]
  first = h + U1(relu(D1(n) + bd1)) + bu1
  second = h + U2(relu(D2(n) + bd2)) + bu2
  h' = (0.25 * first + 0.75 * second) / 2
}
average(ffn)
"""

UNIPELT = """
method gated(p: size = 4, mlp: size = 16) on attention {
  shared param E[p, hidden], A[mlp, hidden], a[mlp]
  param K[key, mlp], k0[key], V[value, mlp], v0[value], w[hidden], c[]
  gate = mean(sigmoid(w(u) + c), t)
  k' = outer(gate, K(tanh(A(E) + a)) + k0)
  v' = outer(gate, V(tanh(A(E) + a)) + v0)
}
on linear {
  param A[4, in], B[out, 4], w[in], c[]
  y' = y + mean(sigmoid(w(x) + c), t) * B(A(x))
}
on hidden {
  param D[8, hidden], bd[8], U[hidden, 8], bu[hidden], w[hidden], c[]
  h' = h + mean(sigmoid(w(n) + c), t) * (U(relu(D(n) + bd)) + bu)
}
gated(attention, q, v, ffn)
"""

FUSED = """
method fused(d: size = 8) on hidden {
  param D1[d, hidden], bd1[d], U1[hidden, d], bu1[hidden]
  param D2[d, hidden], bd2[d], U2[hidden, d], bu2[hidden]
  param Q[hidden, hidden], bq[hidden], K[hidden, hidden], bk[hidden], V[hidden, hidden]
  first = U1(relu(D1(n) + bd1)) + bu1
  second = U2(relu(D2(n) + bd2)) + bu2
  q = Q(n) + bq
  p = sigmoid(sum(q * (K(first) + bk), hidden) - sum(q * (K(second) + bk), hidden))
  h' = h + p * V(first) + (1 - p) * V(second)
}
fused(ffn)
"""

NORMED_PHM = """
method normed_phm(terms: size = 4, d: size = 8) on hidden {
  shared param P[terms, terms, terms]
  param S1[terms, d/terms, 1], T1[terms, 1, hidden/terms], bd[d]
  param S2[terms, hidden/terms, 1], T2[terms, 1, d/terms], bu[hidden]
  D = sum[i: terms](kron(P[i], S1[i] @ T1[i]))
  U = sum[i: terms](kron(P[i], S2[i] @ T2[i]))
  h' = h + U(gelu(D(n) + bd)) + bu
}
normed_phm(ffn)
"""

CASES = {
    "bert__pfeiffer": Case(
        "pfeiffer(ffn, reduction=4)", 1104, renamed(BOTTLENECK, "pfeiffer")
    ),
    # Their Houlsby trains no norms.
    "bert__houlsby": Case(
        "adapter(attn, ffn, d=8, act=silu)", 2208, renamed(BOTTLENECK, "adapter")
    ),
    "llama__houlsby": Case(
        "adapter(attn, ffn, d=8, act=silu)", 2208, renamed(BOTTLENECK, "adapter")
    ),
    "bert__parallel": Case(
        "parallel(ffn, d=16)", 2144, renamed(BOTTLENECK, "parallel")
    ),
    "bert__parallel_learned_scale": Case(
        SCALED, 2146, renamed({**BOTTLENECK, "scaling": "s"}, "scaled")
    ),
    "bert__lora": Case("lora(q, v, r=4)", 1024, renamed(LORA, "lora")),
    "llama__lora": Case("lora(q, v, r=4)", 896, renamed(LORA, "lora")),
    "bert__lora_all": Case("lora(q, k, v, up, down, r=4)", 3072, renamed(LORA, "lora")),
    # They scale what `up` gives, before the activation, and in Llama what `down` gives.
    "bert__ia3": Case("ia3(k, v, up)", 256, renamed({"lora_B": "l"}, "ia3")),
    "llama__ia3": Case("ia3(k, v, down)", 128, renamed({"lora_B": "l"}, "ia3")),
    # Their norm is of W + B A without alpha / r and has a gradient; the bias is scaled.
    "bert__dora": Case(DORA, 1152, renamed({**LORA, "m.weight": "m"}, "scaled_dora")),
    # Neither trains norms, and the second reads what the next norm gives.
    "bert__compacter": Case(
        "phm(attn, ffn, terms=4, d=8)", 544, renamed(PHM, "phm"), RULE
    ),
    "llama__compacter": Case(
        "phm(attn, ffn, terms=4, d=8)", 544, renamed(PHM, "phm"), RULE
    ),
    "bert__compacter_pp": Case(
        NORMED_PHM,
        304,
        renamed(PHM, "normed_phm"),
        {"shared_parameters.ad.phm_rule": "normed_phm.P"},
    ),
    # Their diagonals are stored, and trained, as whole matrices.
    "bert__vera": Case(
        VERA,
        4160,
        renamed({"vera_B": "L", "vera_D": "D"}, "dense_vera"),
        renamed(LORA, "dense_vera", "shared_parameters.ad"),
    ),
    "bert__compose_stack_pfeiffer": Case(
        "pfeiffer(ffn, reduction=4) + pfeiffer(ffn, reduction=4)",
        2208,
        renamed(BOTTLENECK, "pfeiffer", "a1") | renamed(BOTTLENECK, "pfeiffer_2", "a2"),
    ),
    # Their stacked LoRAs feed the second with what the first adds.
    "bert__compose_stack_lora": Case(
        STACKED_LORA,
        2048,
        renamed({"lora_A": "A1", "lora_B": "B1"}, "stacked", "a1")
        | renamed({"lora_A": "A2", "lora_B": "B2"}, "stacked", "a2"),
    ),
    # Their average of two divides the weighted sum by two.
    "bert__compose_average_lora": Case(
        "lora(q, v, r=4, alpha=2) + lora(q, v, r=4, alpha=6)",
        2048,
        renamed(LORA, "lora", "a1") | renamed(LORA, "lora_2", "a2"),
    ),
    "bert__compose_average_pfeiffer": Case(
        AVERAGE,
        2208,
        renamed(FIRST, "average", "a1") | renamed(SECOND, "average", "a2"),
    ),
    # They leave the positions of tokens as they are.
    "bert__prefix_flat": Case(
        "prefix(p=5, positions=keep)", 640, prefixes={"ad": "prefix"}
    ),
    "llama__prefix_flat": Case(
        "prefix(p=5, positions=keep)", 320, prefixes={"ad": "prefix"}
    ),
    "bert__prefix_mlp": Case(
        "prefix(p=5, mlp=16, positions=keep)", 2864, prefixes={"ad": "prefix"}
    ),
    "bert__compose_stack_prefix_flat": Case(
        "prefix(p=5, positions=keep) + prefix(p=5, positions=keep)",
        1280,
        prefixes={"a1": "prefix", "a2": "prefix_2"},
    ),
    "bert__mam": Case(
        "prefix(p=5, mlp=16, positions=keep) + parallel(ffn, d=16)",
        5008,
        renamed(BOTTLENECK, "parallel"),
        prefixes={"ad": "prefix"},
    ),
    # Their gates are means over all tokens, padding too.
    "bert__unipelt": Case(
        UNIPELT,
        5224,
        renamed({**LORA, **BOTTLENECK, **GATE}, "gated"),
        prefixes={"ad": "gated"},
    ),
    "bert__compose_fuse_pfeiffer": Case(
        FUSED,
        8480,
        renamed(FIRST, "fused", "a1") | renamed(SECOND, "fused", "a2") | FUSION,
    ),
}

NOT_YET = {
    "bert__compose_batchsplit_pfeiffer": "a method cannot name rows of the batch",
    "bert__compose_parallel_pfeiffer": "a method cannot repeat the batch",
    "bert__compose_split_pfeiffer": "a method cannot name token positions",
    "bert__loreft": "a method cannot name token positions",
    "bert__loreft_tied": "a method cannot name token positions",
    "bert__noreft": "a method cannot name token positions",
    "bert__direft": "a method cannot name token positions",
    "bert__prompt": "its rows stand behind the norm of the embeddings, unplaced",
    "bert__pfeiffer_inv_nice": "no place edits the sequence of embeddings",
}


def base(name: str, attention: str) -> Any:
    """Their base model, and the inputs."""
    architecture = name.partition("__")[0]
    made = MODELS[architecture](attention).eval()
    tensors = load_file(GOLDEN / f"{architecture}.safetensors")
    made.load_state_dict(group(tensors, "base"))
    return made, group(tensors, "in")


def group(tensors: Tensors, name: str) -> Tensors:
    """The tensors of one group, without its name."""
    prefix = f"{name}/"
    return {
        k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)
    }


def case_tensors(name: str) -> Tensors:
    return load_file(GOLDEN / f"{name}.safetensors")


def imported(tensors: Tensors, case: Case, named: Iterable[str]) -> Tensors:
    """Their tensors, or gradients of these, under our names and in our pieces.

    Their factors are those of the transposed matrix; but for the shared ones they have
    one column, and are the same numbers.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        if "prefix_tunings" in name:
            found |= _prefix(name, tensor, case)
        else:
            turned = tensor.mT if name.endswith("phm_rule") else tensor
            found[_ours(name, case, named)] = turned
    return found


def _prefix(name: str, tensor: torch.Tensor, case: Case) -> Tensors:
    """Of each layer the keys and the values, which they keep side by side."""
    where, _, part = name.partition("prefix_tunings.")[2].partition(".self_prefix.")
    attentions = BERT_ATTENTIONS if name.startswith("bert") else LLAMA_ATTENTIONS
    instances = [
        f"{owner}.peftc.attention.{case.prefixes[where]}" for owner in attentions
    ]
    if part in SHARED:
        return {f"{instances[0]}.{SHARED[part]}": tensor}
    if part == "control_trans":
        pieces = tensor.view(5, LAYERS, 2, -1).movedim(0, 2)
    else:
        pieces = tensor.view(LAYERS, 2, -1, *tensor.shape[1:])
    return {
        f"{instance}.{ours}": pieces[layer, kind]
        for layer, instance in enumerate(instances)
        for kind, ours in enumerate(PIECES[part])
    }


def _ours(name: str, case: Case, named: Iterable[str]) -> str:
    """Our name, among those of all tensors, of one of theirs."""
    for key, suffix in case.shared.items():
        if name.endswith(f".{key}"):
            return next(own for own in named if own.endswith(f".{suffix}"))
    key = next(key for key in case.names if name.endswith(f".{key}"))
    owner = name.removesuffix(f".{key}")
    for pattern, place in PLACES:
        owner = re.sub(pattern, place, owner)
    return f"{owner}.{case.names[key]}"


def _bert(attention: str) -> Any:
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=128,
        max_position_embeddings=64,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    return BertForMaskedLM._from_config(config, attn_implementation=attention)


def _llama(attention: str) -> Any:
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=128,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation=attention)


MODELS = {"bert": _bert, "llama": _llama}
