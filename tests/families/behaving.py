"""What a family's model does when compiled.

In: a family.  Out: a `Row`, which is what the cases and expectations say, for
docs/models.md; and a `Behaviour`, which is what a model does, for the test that both
agree.  All weights are drawn at random, large enough for logits that differ; the first
tokens of a text are padding.
"""

from __future__ import annotations

import copy
import inspect
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers as hf
from torch.utils import _pytree as pytree

import peftc
from peftc.sites.inputs import example_inputs
from peftc.view import ROLES
from tests.families.cases import CASES, model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

EXPECTED = Path(__file__).parent / "expected"

PLACE = re.compile(r"(enc\.|dec\.)?(layers\.[^.]+\.)?(cross\.)?")
"""What stands before a role in an expectation."""
SPEC = "lora(q?, k?, v?, o?, r=2) + ia3(up?, down?)"
PREFIX = "prefix(attention, p=2, positions=keep)"
NEW, PADDED = 4, 3
SPREAD = 0.1
NOT_INPUTS = ("decoder_input_ids", "use_cache")
"""What `generate` is not given."""


@dataclass(frozen=True)
class Row:
    """What docs/models.md says of a family."""

    family: str
    model: str
    roles: tuple[str, ...]
    """The roles found, in the order of the language's table."""
    unresolved: tuple[str, ...]
    """What is reported instead."""
    prefix: str
    """Whether attentions can be extended; the code of the refusal."""
    generates: bool
    differs: str
    uncached: str
    notes: str


def row(family: str) -> Row:
    """What the case and the expectation of a family say."""
    case = CASES[family]
    text = (EXPECTED / f"{family}.sites").read_text(encoding="utf-8")
    first = [line.split()[0] for line in text.splitlines()[1:] if line.strip()]
    found = {PLACE.sub("", word) for word in first}
    said = [line[2:].strip(" :") for line in text.splitlines() if line[:1] == "?"]
    extended = "yes" if "attention" in found else "not told"
    return Row(
        family=family,
        model=case.model,
        roles=tuple(role for role in ROLES if role in found),
        prefix=case.prefix or extended,
        unresolved=tuple(said),
        generates=case.generates and getattr(hf, case.model).can_generate(),
        differs=case.differs,
        uncached=case.uncached,
        notes=case.notes,
    )


@dataclass(frozen=True)
class Behaviour:
    """What a compiled model of a family does."""

    is_eager: bool
    """It starts with the bits that its base gives without compilation."""
    is_capture: bool
    """It starts with those that its base gives when compiled without methods."""
    cached: float | None
    """How far logits of cached generation are from those of full recomputation; None if
    the model does not generate; infinite if the tokens differ."""


def behaviour(family: str) -> Behaviour:
    """Compile a model of a family, run it, and let it generate, with a prefix too."""
    base = with_weights(family)
    inputs = inputs_of(family, base)
    made = peftc.compile(copy.deepcopy(base), SPEC, inputs=own_inputs(family, base))
    given = outputs(made, inputs)
    is_eager = same(given, outputs(base, inputs))
    is_capture = is_eager or same(given, outputs(captured(base), inputs))
    if row(family).prefix == "yes":
        made = peftc.compile(copy.deepcopy(base), f"{SPEC} + {PREFIX}")
    move(made)
    steps = cached(made, inputs) if row(family).generates else None
    return Behaviour(is_eager, is_capture, steps)


def with_weights(family: str) -> Any:
    """A model of a family, frozen as a compiled one is: on the CPU a convolution takes
    another kernel where its weight may get a gradient."""
    made = model(family, device="cpu").requires_grad_(False)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(SPREAD * torch.randn_like(parameter))
    return made


def own_inputs(family: str, made: Any) -> dict[str, Any] | None:
    """The inputs that a case makes for its models."""
    make = CASES[family].inputs
    return None if make is None else make(made)


def inputs_of(family: str, made: Any) -> dict[str, Any]:
    """Inputs of the case; of a text tokens of which some are padding."""
    own = own_inputs(family, made)
    inputs = example_inputs(made, own)
    if own is not None or "input_ids" not in inputs:
        return inputs
    for name, value in inputs.items():
        if name.endswith("input_ids"):
            inputs[name] = torch.randint(3, 96, value.shape)
    if "attention_mask" in inspect.signature(made.forward).parameters:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["attention_mask"][0, :PADDED] = 0
    return inputs


@torch.no_grad()
def outputs(made: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that a forward gives."""
    torch.manual_seed(0)
    given = pytree.tree_leaves(tuple(made(**inputs).values()))
    return [value for value in given if isinstance(value, torch.Tensor)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether there are as many tensors, of equal bits."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def captured(base: Any) -> Any:
    """The base, compiled without methods."""

    def backend(gm: fx.GraphModule, _: object) -> Callable[..., Any]:
        return gm.forward

    words = ("info", "warning", "warning_once", "info_once")
    methods = (getattr(logging.Logger, word, None) for word in words)
    torch._dynamo.reset()
    torch._dynamo.config.ignore_logging_functions |= {m for m in methods if m}
    return torch.compile(base, backend=backend, fullgraph=True)


@torch.no_grad()
def move(made: Any) -> None:
    """Change what the methods have added."""
    for name, tensor in made.named_parameters():
        if ".peftc." in name:
            tensor.add_(SPREAD * torch.randn_like(tensor))


@torch.no_grad()
def cached(made: Any, inputs: dict[str, Any]) -> float:
    """The distance between cached generation and recomputation."""
    given = {name: v for name, v in inputs.items() if name not in NOT_INPUTS}
    with_cache, without = (generated(made, given, use) for use in (True, False))
    if not torch.equal(with_cache.sequences, without.sequences):
        return float("inf")
    pairs = zip(with_cache.logits, without.logits, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def generated(made: Any, given: dict[str, Any], use_cache: bool) -> Any:
    made.generation_config.pad_token_id = 0
    return made.generate(
        **given,
        use_cache=use_cache,
        do_sample=False,
        min_new_tokens=NEW,
        max_new_tokens=NEW,
        return_dict_in_generate=True,
        output_logits=True,
    )
