"""PEFT's PREFIX_TUNING: `prefix`.

In: rows at every attention of a model, or a folder of the type.  Out: the folder, or
the spec.  PEFT puts the rows of all layers side by side, [p, layers * 2 * width], and
makes a cache of them; tokens begin at position p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.exchange.spelling import call
from peftc.exchange.tuner import Draft, Tuner, Written, task_of
from peftc.runtime.names import tensor_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.exchange.applied import Applied, Given, Read
    from peftc.exchange.folder import Folder
    from peftc.plan.types import Plan
    from peftc.view import ModelView, Site

FORM = "PEFT's PREFIX_TUNING"
KEY = "prompt_embeddings"
READ = ("num_virtual_tokens", "num_layers", "token_dim", "num_attention_heads")
IDLE = (
    *("prefix_projection", "encoder_hidden_size", "init_weights"),
    "num_transformer_submodules",
)
"""A folder holds rows, however they were made."""
OTHER_STACK = (
    "in an encoder-decoder PEFT gives layers each other's rows, or biases of distance"
)


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, applied: Sequence[Applied]) -> Written:
    """A folder of PREFIX_TUNING."""
    first, layers = applied[0], given.plan.model.layers
    if problem := _problem([one.site for one in applied], layers):
        raise first.refuse(FORM, problem)
    kept = next((one for one in applied if one.knobs["positions"] != "shift"), None)
    if kept is not None:
        raise kept.refuse(FORM, "there, tokens always begin behind the rows")
    rows = [row for one in applied for row in one.tensors.values()]
    if len({row.shape for row in rows}) > 1:
        raise first.refuse(FORM, "its rows differ in number or width")
    count, width = rows[0].shape
    config = {
        "peft_type": "PREFIX_TUNING",
        "task_type": task_of(given.plan.model.architecture) or "FEATURE_EXTRACTION",
        "num_virtual_tokens": count,
        "num_layers": layers,
        "token_dim": width,
        "num_attention_heads": first.site.size("kv_heads"),
        "num_transformer_submodules": 1,
        "prefix_projection": False,
    }
    return Written(config, {KEY: torch.cat(rows, dim=1)})


def _problem(sites: Sequence[Site], layers: int) -> str:
    """Why these attentions are not those that PEFT extends."""
    if any(site.stack == "dec" or site.cross for site in sites):
        return OTHER_STACK
    if [site.layer for site in sites] != list(range(layers)):
        return "there, every layer has rows, once"
    return ""


# --- from PEFT --------------------------------------------------------------------


def read(folder: Folder, view: ModelView) -> Draft:
    """A folder of PREFIX_TUNING as a spec."""
    folder.only(READ, IDLE)
    if folder.tensors.keys() != {KEY}:
        raise folder.damaged(f"it should hold `{KEY}` and nothing else")
    sites = [site for site in view.sites if site.kind == "attention"]
    problem = _problem(sites, view.layers)
    if problem:
        raise folder.refused("peft_type", problem)
    rows, widths = folder.tensors[KEY], [_width(site) for site in sites]
    if rows.ndim != 2 or {*widths} != {rows.shape[1] / (2 * len(sites))}:
        raise folder.damaged("its rows are not as wide as the model's keys and values")
    if len(rows) != folder.setting("num_virtual_tokens", 0):
        raise folder.damaged(f"it has {len(rows)} rows, and others by the settings")
    pieces = rows.reshape(len(rows), 2 * len(sites), -1).unbind(1)
    return Draft(call("prefix", (), (("p", len(rows)),)) + "\n", _Fill(pieces))


def _width(site: Site) -> float:
    """The width of both keys and values; NaN, which nothing equals, if they differ."""
    return site.size("key") if site.size("key") == site.size("value") else float("nan")


class _Fill:
    """Gives the rows of keys and values of one layer after the other."""

    def __init__(self, pieces: Sequence[torch.Tensor]) -> None:
        self.pieces = pieces

    def __call__(self, plan: Plan, read: Read) -> Mapping[str, torch.Tensor]:
        """The tensors of a plan by path."""
        paths = [
            tensor_path(rewrite.site, tensor)
            for rewrite in plan.rewrites
            for tensor in rewrite.tensors
        ]
        return dict(zip(paths, self.pieces, strict=True))


TUNER = Tuner("PREFIX_TUNING", ("prefix",), write, read)
