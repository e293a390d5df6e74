"""The configuration of a narrow model of the same class.

In: a backbone and by what its sizes are divided.  Out: a configuration whose widths are
narrower and whose numbers of heads are the same; or an error that names the size that
does not divide.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import Diagnostics, fail
from peftc.diagnostics.networks import NoSideNetwork, NotDivided, OddRotation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.networks.interface import Beside

WIDTHS = (
    *("hidden_size", "d_model", "n_embd", "dim"),
    *("word_embed_proj_dim", "embedding_size"),
)
INNER = (
    *("intermediate_size", "ffn_dim", "d_ff", "n_inner", "hidden_dim"),
    *("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "dim_feedforward"),
    *("moe_intermediate_size", "shared_expert_intermediate_size"),
)
HEADS = ("head_dim", "d_kv", "v_head_dim", "rotary_dim")
"""What configurations call the sizes that a narrow model has less of."""


def reduced(beside: Beside, reduction: int) -> Any:
    """The configuration of the narrow model: the sizes of WIDTHS, INNER and HEADS
    divided, one layer for each that is read, no vocabulary.

    Raises:
        PeftcError: PEFT350 for each size that does not divide, PEFT351 for an odd head
            that is rotated, PEFT455 if the configuration does not tell its sizes.
    """
    config = copy.deepcopy(beside.config)
    known = config.to_dict()
    sizes = {n: known[n] for n in (*WIDTHS, *INNER, *HEADS) if known.get(n)}
    _check(beside, sizes, reduction)
    for name, size in sizes.items():
        setattr(config, name, size // reduction)
    kept = [int(path.rpartition(".")[2]) for path in beside.layers]
    for name, value in known.items():
        if isinstance(value, list | tuple) and len(value) == beside.depth:
            setattr(config, name, [value[layer] for layer in kept])
    config.num_hidden_layers = len(kept)
    config.vocab_size = 1
    config.pad_token_id = 0 if getattr(config, "pad_token_id", None) else None
    # It is not in what a configuration writes, and decides how masks are made.
    config._attn_implementation = beside.config._attn_implementation
    return config


def _check(beside: Beside, sizes: dict[str, int], reduction: int) -> None:
    if not any(name in sizes for name in WIDTHS):
        reason = "its configuration tells none of its widths"
        raise fail(NoSideNetwork(model=beside.model_class.__name__, reason=reason))
    errors = Diagnostics()
    for name, size in (*sizes.items(), *_heads(beside.config, sizes)):
        if size % reduction:
            errors.add(NotDivided(name=name, size=size, reduction=reduction))
    errors.check()
    for _, size in _rotated(beside.config, sizes):
        if size // reduction % 2:
            raise fail(OddRotation(size=size // reduction, reduction=reduction))


def _heads(config: Any, sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The size of a head, where the configuration leaves it to the width."""
    heads = getattr(config, "num_attention_heads", None)
    if heads and not any(name in sizes for name in HEADS):
        yield "head size", config.hidden_size // heads


def rotates(config: Any) -> bool:
    """Whether a model of this configuration rotates queries and keys."""
    known = config.to_dict()
    return any(v for n, v in known.items() if "rope" in n or "rotary" in n)


def _rotated(config: Any, sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """How many numbers of a head are rotated, in a model that rotates any."""
    if not rotates(config):
        return
    names: tuple[str, ...] = ("rotary_dim", "head_dim", "d_kv")
    told = [(name, sizes[name]) for name in names if name in sizes]
    yield (told or list(_heads(config, sizes)))[0]
