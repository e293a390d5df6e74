"""Prefixes in every family against transformers itself, with another attention.

An untouched copy of the model runs with an attention function of this test, which knows
nothing of graphs: it puts the rows of its layer before the keys and values.  Families
that do not call attention functions are compared with a prompt: a prefix made of the
keys and values that a cache holds of some tokens does what those tokens did.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.sites.inputs import example_inputs
from tests.families.cases import CASES, model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

P = 3
SPEC = f"prefix(attention, p={P}, positions=keep)"
SHIFTED = f"prefix(attention, p={P})"
NAME = "with_rows"


@dataclass
class Rows:
    """The rows of each attention call, in the order of the calls."""

    given: list[tuple[torch.Tensor, torch.Tensor]]
    used: int = 0

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.used += 1
        return self.given[self.used - 1]


ROWS = Rows([])


def heads(rows: torch.Tensor, like: torch.Tensor, count: int) -> torch.Tensor:
    """[p, shared heads * d] as [count, p, d], where `like` is [..., d]."""
    own: torch.Tensor = rows.unflatten(-1, (-1, like.shape[-1])).transpose(0, 1)
    return own.repeat_interleave(count // own.shape[0], 0)


def with_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention on longer keys and values, as transformers calls it."""
    count = query.shape[1]
    rows = (heads(r, x, count) for r, x in zip(ROWS.next(), (key, value), strict=True))
    keys, values = rows
    key, value = (x.repeat_interleave(count // x.shape[1], 1) for x in (key, value))
    scaling = more.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = [query @ x.mT * scaling for x in (keys, key)]
    if more.get("softcap"):
        cap = more["softcap"]
        scores = [cap * torch.tanh(x / cap) for x in scores]
    for bias in (attention_mask, more.get("position_bias")):
        if bias is not None:
            scores[1] = scores[1] + bias
    if more.get("s_aux") is not None:
        sinks = more["s_aux"].reshape(1, -1, 1, 1)
        scores.append(sinks.expand(*scores[0].shape[:3], 1))
    weights = torch.cat(scores, -1).softmax(-1)
    new, own, *_ = weights.split([x.shape[-1] for x in scores], -1)
    return (new @ values + own @ value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(NAME, with_rows)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])

OWN = {
    "bark",
    "big-bird",
    "bigbird-pegasus",
    "blip",
    "bloom",
    "codegen",
    "convbert",
    "deberta",
    "deberta-v2",
    "falcon",
    "falcon-alibi",
    "falcon-new",
    "flaubert",
    "gpt-neo",
    "gptj",
    "ibert",
    "llava",
    "longt5",
    "luke",
    "megatron-bert",
    "mpnet",
    "mpt",
    "musicgen",
    "mvp",
    "openai-gpt",
    "prophetnet",
    "pvt_v2",
    "rembert",
    "roformer",
    "siglip",
    "timesformer",
    "vit_mae",
    "wavlm",
    "xglm",
    "xlm",
}
"""Families that call no attention function, or not everywhere, or in layers too whose
results are not read."""

BY_PROMPT = ("codegen", "falcon", "falcon-new", "gpt-neo", "gptj", "xglm")
"""Of these, families whose attention knows positions by rotation or by a table only: a
bias by distance would be of the prompt too, and is not of a prefix."""

WINDOWS = {"gpt-neo": 4}
"""How many tokens see each other at most; a prefix drops out of no window."""

COMPUTED = ("xglm",)
"""Of these, families whose positions are computed, so that none can be moved."""

REFUSED = {family: case.prefix for family, case in CASES.items() if case.prefix}

QUICK = ("llama", "gpt2", "gemma2")
EXPECTED = Path(__file__).parent / "expected"


def inputs(made: Any, case: Any) -> dict[str, Any]:
    """Inputs of a forward; tokens of the second sample have padding on the left."""
    given = dict(case.inputs(made) if case.inputs else example_inputs(made))
    generator = torch.Generator().manual_seed(2)
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            given[name] = torch.randn(value.shape, generator=generator)
    ids = given.get("input_ids")
    if ids is not None and not case.inputs:
        given["input_ids"] = torch.randint(3, 90, ids.shape, generator=generator)
        mask = torch.ones_like(ids)
        mask[1, :2] = 0
        given["attention_mask"] = mask
    if "use_cache" in inspect.signature(made.forward).parameters:
        given["use_cache"] = False
    return given


def compiled(family: str, spec: str = SPEC) -> tuple[Any, Any]:
    """A model with random rows, and an untouched copy."""
    made = model(family, device="cpu").float()
    untouched = copy.deepcopy(made)
    peftc.compile(made, spec)
    torch.manual_seed(1)
    for parameter in made.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    return made, untouched


def rows_of(made: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of each use of each attention, in the order of the sites."""
    named = dict(made.named_parameters())
    for site in made.peftc.sites:
        if site.kind == "attention":
            own = f"{site.owner}.peftc.attention.prefix."
            for _ in range(site.calls):
                yield named[f"{own}K"], named[f"{own}V"]


def compare(got: Any, wanted: Any, given: Mapping[str, Any]) -> None:
    """Outputs are the same, but at padding.

    Every logit is a float32 sum of terms as large as the largest one, so that one
    bounds the rounding of all.
    """
    one, other = got[0], wanted[0]
    mask = given.get("attention_mask")
    if mask is not None and one.shape[:2] == mask.shape:
        one, other = (x * mask[..., None] for x in (one, other))
    near = max(2e-6, 5e-7 * float(other.abs().max()))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=near)


def cases() -> Iterator[Any]:
    """Families that call attention functions and in which attentions are found."""
    for family in CASES:
        text = (EXPECTED / f"{family}.sites").read_text(encoding="utf-8")
        if family not in OWN and " heads " in text:
            marks = () if family in QUICK else (pytest.mark.slow,)
            yield pytest.param(family, marks=marks)


@pytest.mark.parametrize("family", [*cases()])
def test_a_prefix_is_rows_before_the_keys(family: str) -> None:
    made, untouched = compiled(family)
    given = inputs(made, CASES[family])
    ROWS.given, ROWS.used = list(rows_of(made)), 0
    untouched.set_attn_implementation(NAME)
    with torch.no_grad():
        got, wanted = made(**given), untouched(**given)
    assert ROWS.used == len(ROWS.given)
    compare(got, wanted, given)


def distinct(cached: torch.Tensor, width: int) -> torch.Tensor:
    """[heads, p, d] as [p, width], of heads that are repeated only the first."""
    step = cached.shape[0] * cached.shape[-1] // width
    return cached[::step].transpose(0, 1).flatten(1)


def prompts() -> Iterator[Any]:
    """Families with positions given; and with positions shifted, as is usual."""
    for family in (*BY_PROMPT, "llama"):
        yield pytest.param(family, SPEC, marks=pytest.mark.slow)
    for family in (*BY_PROMPT, "gpt2", "gpt-neox", "opt", "qwen3", "llama"):
        marks = () if family in QUICK else (pytest.mark.slow,)
        if family not in COMPUTED:
            yield pytest.param(family, SHIFTED, marks=marks)


@pytest.mark.parametrize(("family", "spec"), [*prompts()])
def test_a_prefix_of_cached_keys_is_a_prompt(family: str, spec: str) -> None:
    made, untouched = compiled(family, spec)
    prompt = torch.tensor([[7, 11, 5]])
    ids = torch.tensor([[3, 9, 14, 20, 8], [4, 4, 31, 6, 2]])
    ids = ids[:, : WINDOWS.get(family, 8) - P]
    places = torch.arange(P, P + ids.shape[1]).expand(ids.shape)
    given = {"position_ids": places} if spec == SPEC else {}
    with torch.no_grad():
        cache = untouched(prompt, use_cache=True).past_key_values
        for rows, layer in zip(rows_of(made), cache.layers, strict=True):
            for row, cached in zip(rows, (layer.keys, layer.values), strict=True):
                row.copy_(distinct(cached[0], row.shape[1]))
        got = made(input_ids=ids, **given, use_cache=False).logits
        whole = torch.cat([prompt.expand(2, -1), ids], 1)
        wanted = untouched(input_ids=whole, use_cache=False).logits[:, P:]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("family", [*REFUSED])
def test_what_multiplies_scores_is_refused(family: str) -> None:
    made, _ = compiled(family)
    with pytest.raises(PeftcError, match=REFUSED[family]):
        made(input_ids=torch.tensor([[3, 9, 14]]))


@pytest.mark.parametrize("family", COMPUTED)
def test_computed_positions_are_not_moved(family: str) -> None:
    with pytest.raises(PeftcError, match="PEFT321"):
        compiled(family, SHIFTED)
