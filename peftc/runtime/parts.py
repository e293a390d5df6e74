"""The models inside a model that run by themselves.

In: a model.  Out: the paths of those that people and `generate()` call, beside the
model itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def parts(model: Any) -> Iterator[str]:
    """The models inside the model that people and `generate()` run by themselves.

    Its base, encoder, decoder and towers: what Transformers makes as a model of its
    own, and what it names as encoder or decoder.  A layer called by itself is refused
    by its tripwires.
    """
    from transformers import PreTrainedModel

    named = [getattr(model, name, None) for name in ("get_encoder", "get_decoder")]
    parts = {id(get()) for get in named if get is not None}
    for path, module in model.named_modules():
        if path and (isinstance(module, PreTrainedModel) or id(module) in parts):
            yield path
