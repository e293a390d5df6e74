"""What must hold of every method, whatever it is: the generic oracles G1 to G10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.expr.evaluate import evaluate, run
from peftc.expr.merge import Merged, derive_merge
from peftc.plan.equations import composed, definitions, environment
from tests.models import model, randomise, relative, tokens
from tests.numerics.looking import assert_same, site_values, snapshot

if TYPE_CHECKING:
    from pathlib import Path


METHODS = {
    "lora": "lora(q, v, r=3)",
    "lora-linear": "lora(linear, r=2, alpha=4, dropout=0.1)",
    "rslora": "rslora(r=3)",
    "ia3": "ia3(k, v, ffn)",
    "bitfit": "bitfit(linear, create=true) + bitfit(norm?)",
    "krona": "krona(q, o, s=2)",
    "houlsby": "houlsby(d=5)",
    "pfeiffer": "pfeiffer(ffn, reduction=16)",
    "parallel": "parallel(ffn, d=6)",
    "gate": "gate(lora(q, v, r=3))",
    "dora": "dora(q, down, r=3)",
    "loha": "loha(v, up, r=2)",
    "mixed": "lora(q, v) + ia3(k, ffn) + adapter(ffn, d=4) + bitfit(o, create=true)",
}
DEEP = ("lora", "houlsby", "mixed")
"""What is tried in two layers, the others in one: no program knows of other layers, and
`test_learning.py` trains them in four."""
NOT_MERGEABLE = {"houlsby", "pfeiffer", "parallel", "gate", "mixed"}
FAMILIES = ("llama", "gpt2", "bert")
DECODERS = ("llama", "gpt2")
LAYERS = {"llama": "num_hidden_layers", "gpt2": "n_layer", "bert": "num_hidden_layers"}
PADDING, NEW, END = 4, 6, 2


def spec_for(method: str, family: str) -> str:
    """RMS norms have no offset for bitfit to train."""
    spec = METHODS[method]
    return spec.removesuffix(" + bitfit(norm?)") if family == "llama" else spec


@dataclass(frozen=True)
class Case:
    """A compiled model whose tensors have moved, and the base it came from.

    One capture serves most oracles: capturing is what takes time here.
    """

    method: str
    family: str
    network: Any
    folder: Path

    @property
    def spec(self) -> str:
        return spec_for(self.method, self.family)

    @property
    def added(self) -> dict[str, torch.nn.Parameter]:
        groups = self.network.peftc.parameters_by_method().values()
        return {name: p for group in groups for name, p in group.items()}

    def base(self) -> Any:
        return base_of(self.method, self.family)


def base_of(method: str, family: str) -> Any:
    return model(family, **{LAYERS[family]: 2 if method in DEEP else 1})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_oracles(method: str, family: str, tmp_path: Path) -> None:
    base = logits(base_of(method, family), tokens())
    network = base_of(method, family)
    before = snapshot(network)
    peftc.compile(network, spec_for(method, family))
    case = Case(method, family, network, tmp_path)
    g3_identity_at_the_start_is_exact(case, base)
    randomise(network)
    for oracle in ORACLES:
        oracle(case)
    g8_removing_restores_the_base(case, base, before)


def logits(network: Any, ids: torch.Tensor, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = network(ids, **more).logits
    return result


def loss_of(network: Any, ids: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = network(ids).logits.square().mean()
    return result


def g1_what_the_plan_counts_is_what_exists(case: Case) -> None:
    trainable = [p for p in case.network.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in case.added.values()}
    assert sum(p.numel() for p in trainable) == case.network.peftc.plan.trainable


def g2_only_declared_tensors_are_trained(case: Case) -> None:
    network = case.network.train()
    added, before = case.added, snapshot(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    loss_of(network, tokens()).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name in added), name
    reached = {n for n, p in added.items() if p.grad is not None and p.grad.any()}
    assert reached == set(added)
    optimizer.step()
    optimizer.zero_grad()
    for name, parameter in network.named_parameters():
        same = torch.equal(parameter, before[name][0])
        assert same == (name not in added), name
    network.eval()


def g3_identity_at_the_start_is_exact(case: Case, base: torch.Tensor) -> None:
    got = logits(case.network, tokens())
    if case.method == "dora":  # its norm is computed: m / norm is 1 up to rounding
        assert relative(got, base) < 1e-6
    else:
        assert torch.equal(got, base)


def g4_merged_equals_unmerged(case: Case) -> None:
    network, unmerged = case.network, logits(case.network, tokens())
    before = snapshot(network)
    if case.method in NOT_MERGEABLE:
        with pytest.raises(peftc.PeftcError, match="PEFT630"):
            network.peftc.merge()
    else:
        network.peftc.merge()
        assert relative(logits(network, tokens()), unmerged) < 1e-5
        network.peftc.unmerge()
    assert torch.equal(logits(network, tokens()), unmerged)
    assert_same(network, before)


def g5_padding_does_not_reach_real_tokens(case: Case) -> None:
    """BERT's absolute positions move with left padding in the base too."""
    for side in ("right",) if case.family == "bert" else ("left", "right"):
        ids, pad = tokens(), torch.zeros(2, PADDING, dtype=torch.long)
        masks = [torch.zeros_like(pad), torch.ones_like(ids)]
        parts = [pad, ids]
        if side == "right":
            parts, masks = parts[::-1], masks[::-1]
        padded = masked(case, torch.cat(parts, 1), torch.cat(masks, 1))
        if case.family != "bert":
            is_left = side == "left"
            padded = padded[:, PADDING:] if is_left else padded[:, : ids.shape[1]]
        assert relative(padded, logits(case.network, ids)) < 2e-5, side


def masked(case: Case, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The logits of tokens of which some are padding."""
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    more = {} if case.family == "bert" else positions
    return logits(case.network, ids, attention_mask=mask, **more)


def g6_cached_generation_equals_recomputation(case: Case) -> None:
    """Each step has the logits of one forward over all that was generated, and every
    token is the likeliest there but for the end: so generating without a cache gives
    the same tokens.  As long as what is padded in `g5`, whose capture serves here."""
    if case.family not in DECODERS:
        return
    ids = tokens(length=tokens().shape[1] + PADDING - NEW)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    options |= {"output_logits": True, "return_dict_in_generate": True}
    made = case.network.generate(ids, attention_mask=torch.ones_like(ids), **options)
    whole = masked(case, made.sequences, torch.ones_like(made.sequences))
    steps, told = torch.stack(made.logits, 1), slice(-NEW - 1, -1)
    assert relative(steps, whole[:, told]) < 2e-5
    going_on = whole[:, told].index_fill(-1, torch.tensor(END), -torch.inf)
    assert torch.equal(made.sequences[:, -NEW:], going_on.argmax(-1))
    assert relative(steps, logits(case.base(), made.sequences)[:, told]) > 1e-3


def g7_saved_and_loaded_it_is_the_same(case: Case) -> None:
    case.network.peftc.save(case.folder)
    again = peftc.load(case.base(), case.folder)
    assert torch.equal(logits(again, tokens()), logits(case.network, tokens()))
    assert again.peftc.plan == case.network.peftc.plan


def g8_removing_restores_the_base(
    case: Case, base: torch.Tensor, before: dict[str, tuple[torch.Tensor, bool]]
) -> None:
    network = case.network
    assert not torch.equal(logits(network, tokens()), base)
    with network.peftc.disabled():
        assert torch.equal(logits(network, tokens()), base)
    network.peftc.remove()
    assert torch.equal(logits(network, tokens()), base)
    assert_same(network, before)


def g9_branch_mode_equals_weight_mode(case: Case) -> None:
    """Each linear's program against the weight its equation derives, in float64."""
    plan = case.network.peftc.plan
    methods = definitions(plan)
    for rewrite in plan.rewrites:
        whole, env = composed(rewrite, methods), environment(rewrite)
        merged = derive_merge(whole, env, rewrite.site)
        if rewrite.site.kind != "linear" or not isinstance(merged, Merged):
            assert case.method in NOT_MERGEABLE | {"bitfit"}
            continue
        values = site_values(rewrite)
        roots = [r for r in (merged.weight, merged.bias) if r is not None]
        weight, *bias = evaluate(roots, values, env)
        wanted = torch.nn.functional.linear(values["x"], weight, *bias)
        assert relative(run(rewrite.programs[0], values), wanted) < 1e-11


def g10_compiled_equals_the_eager_graph(case: Case) -> None:
    if case.family != "llama":
        return
    eager, ids = case.network, tokens()
    other = peftc.compile(case.base(), case.spec, backend="aot_eager")
    other.load_state_dict(eager.state_dict())
    losses = [loss_of(network, ids) for network in (other, eager)]
    assert relative(*losses) < 1e-6
    for loss in losses:
        loss.backward()
    wanted = case.added
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            grad = wanted[name].grad
            assert grad is not None
            assert relative(parameter.grad, grad) < 1e-4, name
    eager.zero_grad()


ORACLES = (
    g1_what_the_plan_counts_is_what_exists,
    g2_only_declared_tensors_are_trained,
    g4_merged_equals_unmerged,
    g5_padding_does_not_reach_real_tokens,
    g6_cached_generation_equals_recomputation,
    g7_saved_and_loaded_it_is_the_same,
    g9_branch_mode_equals_weight_mode,
    g10_compiled_equals_the_eager_graph,
)
