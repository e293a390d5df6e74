"""The result of a forward without what is of rows among its tokens.

In: what a forward gave for tokens and rows.  Out: the same with the shapes that it has
for the tokens alone: hidden states, attentions and logits are cut, all else is as it
was.  Where tokens see no later ones the logits of a token are those of the rows behind
it, if there are any: they say what the next token is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftc.runtime.arrangement import chosen

if TYPE_CHECKING:
    from peftc.runtime.arrangement import Arrangement

SPANS = ("start_logits", "end_logits")
"""Results of two axes of which one is the tokens."""
KEPT = ("past_key_values", "cache_params", "loss")


@dataclass(frozen=True)
class Shortening:
    """`encodes`: the tokens are an encoder's, and the result is a decoder's too; `keep`
    says of which tokens there are logits (the last so many, or these); `is_tuple`: the
    parts of the result have no names for its reader."""

    found: Arrangement
    causal: bool
    encodes: bool = False
    keep: Any = 0
    is_tuple: bool = False

    def of(self, result: Any) -> Any:
        """The result, shortened."""
        if not isinstance(result, dict):  # as ModelOutput is
            return self._any(result)
        for name in list(result.keys()):
            if name not in KEPT:
                result[name] = self._part(name, result[name])
        return tuple(result.values()) if self.is_tuple else result

    def _any(self, value: Any) -> Any:
        """A part without a name."""
        if isinstance(value, tuple | list):
            return type(value)(self._any(one) for one in value)
        return self._states(value)

    def _part(self, name: str, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._part(name, one) for one in value)
        if not isinstance(value, torch.Tensor):
            return value
        if "attentions" in name:
            return self._attention(name, value)
        if self.encodes and not name.startswith("encoder_"):
            return value
        if name == "logits" and value.dim() > 2:
            return self._logits(value)
        if name in SPANS:
            return self.found.tokens(value)
        return self._states(value)

    def _states(self, value: Any) -> Any:
        """[b, n, ...] as [b, t, ...]."""
        if not isinstance(value, torch.Tensor) or value.dim() < 3:
            return value
        if value.shape[:2] != self.found.order.shape:
            return value
        return self.found.tokens(value)

    def _attention(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """[b, heads, n, n] as [b, heads, t, t]; across, only what is looked at."""
        count = self.found.order.shape[1]
        of_tokens = not self.encodes or name.startswith("encoder_")
        if not of_tokens and not name.startswith("cross_"):
            return value
        if value.dim() == 4 and value.shape[-1] == count:
            value = self.found.tokens(value, 3)
        if of_tokens and value.dim() == 4 and value.shape[-2] == count:
            value = self.found.tokens(value, 2)
        return value

    def _logits(self, value: torch.Tensor) -> torch.Tensor:
        """The logits of the tokens, or of those of them that are kept."""
        count = self.found.order.shape[1]
        places = self.found.ends if self.causal else self.found.kept
        if isinstance(self.keep, torch.Tensor):
            return chosen(value, places[:, self.keep])
        if self.keep:
            places = places[:, -self.keep :] - (count - value.shape[1])
        elif value.shape[1] != count:
            return value
        return chosen(value, places)
