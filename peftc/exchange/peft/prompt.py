"""PEFT's PROMPT_TUNING: `prompt`, before the first token.

In: rows at a model's input, or a folder of the type.  Out: the folder, or the spec.
PEFT's rows stand before all that is in a batch, padding too; behind padding on the left
the two put them at different places.  In an encoder they stand before the first token,
which is `at=0` here and not the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.spelling import call
from peftc.exchange.tuner import Draft, Tuner, Written, task_of
from peftc.runtime.names import tensor_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from peftc.exchange.applied import Applied, Given, Read
    from peftc.exchange.folder import Folder
    from peftc.plan.types import Knob, Plan
    from peftc.view import ModelView, Site

KEY = "prompt_embeddings"
READ = ("num_virtual_tokens", "num_transformer_submodules")
IDLE = (
    *("num_layers", "token_dim", "num_attention_heads", "prompt_tuning_init"),
    *("prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
    *("encoder_reparameterization_type", "encoder_hidden_size"),
    *("encoder_num_layers", "encoder_dropout"),
)
"""A folder holds rows, however they were made."""


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of PROMPT_TUNING."""
    return written("PROMPT_TUNING", given, applied)


def written(type: str, given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of a type whose tensor is rows before the first token."""
    first, form = applied[0], f"PEFT's {type}"
    if len(applied) > 1:
        raise applied[1].refuse(form, "there are rows at one place only")
    if not _is_first(first.site, first.knobs["at"]):
        hint = "`at=0` puts rows before the first token"
        raise first.refuse(form, f"its rows stand elsewhere; {hint}")
    (rows,) = first.tensors.values()
    config = {
        "peft_type": type,
        "task_type": task_of(given.plan.model.architecture) or "FEATURE_EXTRACTION",
        "num_virtual_tokens": len(rows),
        "token_dim": rows.shape[1],
        "num_layers": given.plan.model.layers,
        "num_attention_heads": 1,
        "num_transformer_submodules": 1,
    }
    return Written(config, {KEY: rows})


def _is_first(site: Site, at: Knob) -> bool:
    """Whether a place is before the first token."""
    return str(at) == "0" or (at == "auto" and not _is_encoder(site))


def _is_encoder(site: Site) -> bool:
    """Whether its stack is an encoder with no decoder behind it."""
    return not site.causal and not site.stack


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of PROMPT_TUNING as a spec."""
    return drafted(folder, view, "prompt", ())


def drafted(
    folder: Folder, view: ModelView, method: str, knobs: Sequence[tuple[str, Knob]]
) -> Draft:
    """A spec of rows before the first token."""
    folder.only(READ, IDLE)
    if folder.tensors.keys() != {KEY}:
        raise folder.damaged(f"it should hold `{KEY}` and nothing else")
    rows, count = folder.tensors[KEY], folder.setting("num_virtual_tokens", 0)
    if rows.ndim != 2 or count < 1 or len(rows) not in (count, 2 * count):
        found = list(rows.shape)
        raise folder.damaged(f"its rows are {found}, and {count} by the settings")
    sites = [site for site in view.sites if site.kind == "input"]
    first: list[tuple[str, Knob]] = [("at", 0)] if any(map(_is_encoder, sites)) else []
    spec = call(method, (), (("p", count), *knobs, *first))
    return Draft(f"{spec}\n", _Fill(rows[:count]))


class _Fill:
    """Gives the rows; PEFT keeps rows for a decoder too, and does not use them."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __call__(self, plan: Plan, read: Read) -> Mapping[str, torch.Tensor]:
        """The tensors of a plan by path."""
        return {
            tensor_path(r.site, t): self.rows for r in plan.rewrites for t in r.tensors
        }


TUNER = Tuner("PROMPT_TUNING", ("prompt",), write, read)
