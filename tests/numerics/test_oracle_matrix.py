"""The generic oracles G1 to G10 on families, dtypes and methods that add rows.

`tests/numerics/matrix.py` says on what they are tried: 8 families, three dtypes.

Tolerances come from the base model: what rounding in a dtype does to its logits, which
is measured against float64.  Where claims are exact, so are the checks, in every dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.expr.evaluate import evaluate, run
from peftc.expr.merge import Merged, derive_merge
from peftc.plan.equations import composed, definitions, environment
from tests.models import randomise, relative, tokens
from tests.numerics.looking import assert_same, site_values, snapshot
from tests.numerics.matrix import DTYPES, FAMILIES, METHODS, build, cells, inputs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.numerics.matrix import Family, Method


@dataclass(frozen=True)
class Case:
    """A compiled model whose tensors have moved.

    One capture serves most oracles: capturing is what takes time here.
    """

    name: str
    family: str
    dtype: torch.dtype
    network: Any
    folder: Path

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def kind(self) -> Family:
        return FAMILIES[self.family]

    @property
    def added(self) -> dict[str, torch.nn.Parameter]:
        groups = self.network.peftc.parameters_by_method().values()
        return {name: p for group in groups for name, p in group.items()}

    @property
    def whole(self) -> bool:
        """Whether all is computed in the dtype."""
        return self.kind.float64 or self.dtype != torch.float64

    @property
    def tolerance(self) -> float:
        return 8 * rounding(self.family, self.dtype if self.whole else torch.float32)

    def base(self) -> Any:
        return build(self.family, self.dtype)


@cache
def rounding(family: str, dtype: torch.dtype) -> float:
    """How far the base's logits in a dtype lie from those in float64."""
    exact, rounded = (logits(build(family, d), family) for d in (torch.float64, dtype))
    return max(relative(rounded.double(), exact), 1e-13)


def logits(network: Any, family: str, **changes: torch.Tensor) -> torch.Tensor:
    """For a cell's usual inputs; the capture is the one for gradients."""
    result: torch.Tensor = network(**(inputs(family) | changes)).logits.detach()
    return result


def loss_of(network: Any, family: str) -> torch.Tensor:
    result: torch.Tensor = network(**inputs(family)).logits.float().square().mean()
    return result


# --- in every cell ------------------------------------------------------------------


def g1_what_the_plan_counts_is_what_exists(case: Case) -> None:
    trainable = [p for p in case.network.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in case.added.values()}
    assert sum(p.numel() for p in trainable) == case.network.peftc.plan.trainable


def g2_only_declared_tensors_are_trained(case: Case) -> None:
    network = case.network
    added, before = case.added, snapshot(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad])
    loss_of(network, case.family).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name in added), name
    reached = {n for n, p in added.items() if p.grad is not None and p.grad.any()}
    assert reached == set(added)
    optimizer.step()
    optimizer.zero_grad()
    for name, parameter in network.named_parameters():
        same = torch.equal(parameter, before[name][0])
        assert same == (name not in added), name


def g3_the_start_is_what_is_claimed(case: Case, base: torch.Tensor) -> None:
    got = logits(case.network, case.family)
    assert torch.equal(got, base) or case.method.start != "exact"
    if case.method.start == "rounding":
        assert relative(got, base) < case.tolerance
    if case.method.start == "apart":
        assert not torch.equal(got, base)


def g8_removing_restores_the_base(
    case: Case, base: torch.Tensor, before: dict[str, tuple[torch.Tensor, bool]]
) -> None:
    network = case.network
    assert not torch.equal(logits(network, case.family), base)
    with network.peftc.disabled():
        assert torch.equal(logits(network, case.family), base)
    network.peftc.remove()
    with torch.no_grad():
        assert torch.equal(logits(network, case.family), base)
    assert_same(network, before)


# --- one of these in each cell ------------------------------------------------------


def g2_in_training_mode(case: Case) -> None:
    case.network.train()
    g2_only_declared_tensors_are_trained(case)
    case.network.eval()


def g4_merged_equals_unmerged(case: Case) -> None:
    network = case.network
    unmerged, before = logits(network, case.family), snapshot(network)
    if not case.method.merges:
        with pytest.raises(peftc.PeftcError, match="PEFT630"):
            network.peftc.merge()
    else:
        network.peftc.merge()
        assert relative(logits(network, case.family), unmerged) < case.tolerance
        network.peftc.unmerge()
    assert torch.equal(logits(network, case.family), unmerged)
    assert_same(network, before)
    g9_branch_mode_equals_weight_mode(case)


def g5_padding_does_not_reach_real_tokens(case: Case) -> None:
    for side in ("left", "right") if case.kind.left and case.whole else ("right",):
        more, real = padded(case, side)
        got = logits(case.network, case.family, **more)[:, real]
        assert relative(got, logits(case.network, case.family)) < case.tolerance, side


def padded(case: Case, side: str) -> tuple[dict[str, torch.Tensor], slice]:
    """The usual inputs with four tokens of padding, and where the logits are."""
    ids, pad = tokens(), torch.zeros(2, 4, dtype=torch.long)
    parts, masks = [pad, ids], [torch.zeros_like(pad), torch.ones_like(ids)]
    if side == "right":
        parts, masks = parts[::-1], masks[::-1]
    mask = torch.cat(masks, 1)
    more = {"input_ids": torch.cat(parts, 1), "attention_mask": mask}
    if case.kind.kind == "decoder":
        more["position_ids"] = positions(mask)
    if case.kind.kind == "pair":
        return more, slice(None)
    return more, slice(4, None) if side == "left" else slice(0, ids.shape[1])


def positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


def g6_cached_generation_equals_recomputation(case: Case, **options: Any) -> None:
    """The logits of each step are those of one forward over all that was generated."""
    if case.kind.kind == "encoder":
        return
    torch.manual_seed(0)
    made = generate(case, output_logits=True, **options)
    steps = torch.stack(made.logits, 1)
    ids = made.sequences
    if case.kind.kind == "pair":
        more = prompt(case) | {"decoder_input_ids": ids}
    else:
        mask = torch.cat([prompt(case)["attention_mask"], torch.ones(2, 4)], 1).long()
        more = {"input_ids": ids, "attention_mask": mask}
        more["position_ids"] = positions(mask)
    whole = logits(case.network, case.family, **more)[:, -5:-1].float()
    assert relative(steps, whole) < max(case.tolerance, 1e-6)  # steps are float32


def g6_static_cache_sampling_and_beams(case: Case) -> None:
    """In bfloat16 beams tie, and rounding decides: samples are drawn instead."""
    if case.kind.kind == "encoder":
        return
    g6_cached_generation_equals_recomputation(case, cache_implementation="static")
    if case.dtype == torch.bfloat16:
        g6_cached_generation_equals_recomputation(case, do_sample=True)
    else:
        kept, anew = (generate(case, num_beams=3, use_cache=c) for c in (True, False))
        assert torch.equal(kept.sequences, anew.sequences)


def prompt(case: Case) -> dict[str, torch.Tensor]:
    """The second sample is shorter; a decoder is padded before it, an encoder after."""
    ids = tokens(length=5)
    mask = torch.ones_like(ids)
    if case.kind.kind == "pair":
        mask[1, 3:] = 0
    elif case.whole:
        mask[1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(case: Case, **options: Any) -> Any:
    usual = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    return case.network.generate(
        **prompt(case), return_dict_in_generate=True, **(usual | options)
    )


def g7_saved_and_loaded_it_is_the_same(case: Case) -> None:
    case.network.peftc.save(case.folder)
    again = peftc.load(case.base(), case.folder)
    assert torch.equal(logits(again, case.family), logits(case.network, case.family))
    assert again.peftc.plan == case.network.peftc.plan


def g9_branch_mode_equals_weight_mode(case: Case) -> None:
    """Each linear's program against the weight its equation derives, in float64."""
    plan = case.network.peftc.plan
    methods = definitions(plan)
    for rewrite in (r for r in plan.rewrites if r.site.kind == "linear"):
        whole, env = composed(rewrite, methods), environment(rewrite)
        merged = derive_merge(whole, env, rewrite.site)
        if not isinstance(merged, Merged):
            continue
        values = site_values(rewrite)
        roots = [r for r in (merged.weight, merged.bias) if r is not None]
        weight, *bias = evaluate(roots, values, env)
        wanted = torch.nn.functional.linear(values["x"], weight, *bias)
        assert relative(run(rewrite.programs[0], values), wanted) < 1e-11


def g10_compiled_equals_the_eager_graph(case: Case) -> None:
    eager = case.network
    spec = case.method.spec_for(case.family)
    other = peftc.compile(case.base(), spec, backend="aot_eager")
    other.load_state_dict(eager.state_dict())
    near, networks = case.tolerance, (other, eager)
    assert relative(*(logits(network, case.family) for network in networks)) < near
    for network in networks:
        loss_of(network, case.family).backward()
    wanted = case.added
    for name, parameter in other.named_parameters():
        if parameter.requires_grad:
            grad = wanted[name].grad
            assert grad is not None
            assert relative(parameter.grad, grad) < 10 * near, name
    eager.zero_grad()


def later_tokens_change_nothing(case: Case) -> None:
    """Methods keep causal what is causal; and samples of a batch do not meet."""
    name = "decoder_input_ids" if case.kind.kind == "pair" else "input_ids"
    ids = inputs(case.family)[name]
    other = ids.clone()
    other[0, 4:] += 1
    one, two = (logits(case.network, case.family, **{name: x}) for x in (ids, other))
    assert relative(two[1], one[1]) < case.tolerance
    if case.kind.kind != "encoder":
        assert relative(two[0, :4], one[0, :4]) < case.tolerance
    assert not torch.equal(two[0, 4:], one[0, 4:])


pytestmark = pytest.mark.slow

COSTLY = (
    g2_in_training_mode,
    g4_merged_equals_unmerged,
    g5_padding_does_not_reach_real_tokens,
    g6_cached_generation_equals_recomputation,
    g6_static_cache_sampling_and_beams,
    g7_saved_and_loaded_it_is_the_same,
    g10_compiled_equals_the_eager_graph,
    later_tokens_change_nothing,
)
ALWAYS = (
    g5_padding_does_not_reach_real_tokens,
    g6_cached_generation_equals_recomputation,
    later_tokens_change_nothing,
)
"""For methods that read or add to what tokens see."""
CELLS = list(cells(len(COSTLY)))


@pytest.mark.parametrize(
    ("name", "family", "dtype", "costly"),
    [
        pytest.param(*cell, id=f"{cell[0]}-{cell[1]}-{str(cell[2])[6:]}")
        for cell in CELLS
    ],
)
def test_oracles(
    name: str, family: str, dtype: torch.dtype, costly: int, tmp_path: Path
) -> None:
    network = build(family, dtype)
    before = snapshot(network)
    with torch.no_grad():  # what asks for no gradient, as in the frozen base
        base = logits(network, family)
    peftc.compile(network, METHODS[name].spec_for(family))
    case = Case(name, family, dtype, network, tmp_path)
    g1_what_the_plan_counts_is_what_exists(case)
    g3_the_start_is_what_is_claimed(case, base)
    randomise(network)
    g2_only_declared_tensors_are_trained(case)
    for oracle in dict.fromkeys(
        (COSTLY[costly], *(ALWAYS if case.method.always else ()))
    ):
        oracle(case)
    g8_removing_restores_the_base(case, base, before)


def test_families_methods_dtypes_and_oracles_all_occur() -> None:
    oracles = range(len(COSTLY))
    assert {cell[0] for cell in CELLS} == set(METHODS)
    for family, case in FAMILIES.items():
        dtypes = set(DTYPES) - ({torch.float64} if case.exactly else set())
        assert {cell[2] for cell in CELLS if cell[1] == family} == dtypes
    for oracle in oracles:
        assert len({cell[1] for cell in CELLS if cell[3] == oracle}) >= 2
