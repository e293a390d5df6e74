"""A forward whose tokens have rows of methods among them.

In: the arguments of a forward as its user gives them.  Out: `Extended`: the arguments
with a place for each row, and what makes of the result one of the tokens alone.  At a
place of a row stands a token that means nothing; the captured graph puts the row there.
Rows are put in once: a call that goes on from a cache only has its mask and positions
moved.

Arguments are known by their names, which are transformers' public interface.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import CannotInsert
from peftc.rewrite.inputs import NUMBERS
from peftc.runtime.arrangement import arrange
from peftc.runtime.shortening import Shortening

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.expr.insertion import Places
    from peftc.runtime.arrangement import Arrangement

Arguments = dict[str, Any]

FILLS = {
    "attention_mask": 1,
    "token_type_ids": 0,
    "mm_token_type_ids": 0,
    "special_tokens_mask": 0,
    "global_attention_mask": 0,
    "langs": 0,
}
"""Arguments with a number for each token, and that of a row."""
LABELS = ("labels", "shift_labels")
IGNORED = -100
"""What losses of transformers pass over."""
PLACED = ("start_positions", "end_positions")
"""Arguments that are places of tokens."""
OTHERS = ("decoder_", "encoder_", "past_", "cross_", "head_mask", "pixel_")
"""Beginnings of the names of arguments that are not of these tokens."""
CACHES = ("past_key_values", "cache_params")


@dataclass(frozen=True)
class Extended:
    """Arguments of the forward, and what shortens its result."""

    arguments: Arguments
    shortening: Shortening | None = None

    def shortened(self, result: Any) -> Any:
        """The result as the base would shape it."""
        return result if self.shortening is None else self.shortening.of(result)


@dataclass(frozen=True)
class Inserter:
    """What one forward needs to know of the rows that stand among its tokens.

    `filler` stands where rows do; `part` says that the forward is an encoder whose
    result a decoder reads: it keeps the rows' places.
    """

    site: str
    places: Places
    causal: bool
    filler: int
    encodes: bool = False
    part: bool = False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(count for _, count in self.places)

    def extend(
        self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Arguments
    ) -> Extended:
        """The arguments with places for the rows.

        Raises:
            PeftcError: PEFT445, PEFT446 if the rows cannot be put among the tokens.
        """
        given = _named(forward, args, kwargs)
        if self.encodes and given.get("encoder_outputs") is not None:
            return self._decoded(given)
        if given.get("input_ids") is None:
            raise fail(self._refused("`input_ids` is not given"))
        if given["input_ids"].dim() != 2:
            raise fail(self._refused("`input_ids` is not [samples, tokens]"))
        self._check_mask(given)
        if not self.encodes and _seen(given):
            return self._continued(given)
        return self._prefilled(given)

    def _refused(self, problem: str) -> CannotInsert:
        return CannotInsert(site=self.site, problem=problem)

    def _check_mask(self, given: Arguments) -> None:
        mask = given.get("attention_mask")
        if mask is not None and getattr(mask, "ndim", 0) != 2:
            raise fail(self._refused("`attention_mask` is not [samples, tokens]"))

    def _arranged(self, given: Arguments, like: torch.Tensor) -> Arrangement:
        mask = given.get("attention_mask")
        real = torch.ones_like(like) if mask is None else mask
        return arrange(real, self.places)

    # --- the three kinds of calls -----------------------------------------------------

    def _prefilled(self, given: Arguments) -> Extended:
        """Tokens that nothing was seen before."""
        ids = given["input_ids"]
        found = self._arranged(given, ids)
        new = {n: self._spread(n, v, ids, found) for n, v in given.items()}
        new["input_ids"] = found.spread(ids, self.filler)
        new[NUMBERS] = found.numbers
        keep = _shortened_logits(new, self.rows)
        if self.part:
            return Extended(new)
        return Extended(
            _with_names(new, forward_names=given),
            Shortening(found, self.causal, self.encodes, keep, _is_tuple(given)),
        )

    def _continued(self, given: Arguments) -> Extended:
        """Tokens behind those, and the rows, that a cache holds."""
        new = dict(given)
        mask = given.get("attention_mask")
        for name in ("position_ids", "cache_position"):
            if given.get(name) is not None:
                new[name] = given[name] + self.rows
        if mask is None:
            return Extended(new)
        found = arrange(mask, self.places)
        new["attention_mask"] = found.spread(mask, 1)
        return Extended(new, Shortening(found, self.causal, is_tuple=_is_tuple(given)))

    def _decoded(self, given: Arguments) -> Extended:
        """A decoder that reads what the encoder made of tokens and rows before."""
        mask = given.get("attention_mask")
        if mask is None:
            return Extended(given)
        self._check_mask(given)
        states = given["encoder_outputs"][0]
        if states.shape[1] != mask.shape[1] + self.rows:
            raise fail(
                self._refused("`encoder_outputs` are not those of the adapted encoder")
            )
        found = arrange(mask, self.places)
        new = {**given, "attention_mask": found.spread(mask, 1)}
        shortening = Shortening(found, self.causal, True, is_tuple=_is_tuple(given))
        return Extended(new, shortening)

    def _spread(
        self, name: str, value: Any, ids: torch.Tensor, found: Arrangement
    ) -> Any:
        """An argument with places for the rows, if it has places at all."""
        if not isinstance(value, torch.Tensor) or name.startswith(OTHERS):
            return value
        if name in PLACED and value.dim() == 1:
            return found.kept.gather(1, value[:, None]).squeeze(1)
        if name == "cache_position":
            return torch.arange(found.order.shape[1], device=value.device)
        if name == "position_ids":
            if value.dim() > 2:
                raise fail(self._refused("positions have several numbers for a token"))
            return found.positions(value.view(-1, ids.shape[1]))
        if value.shape[:2] != ids.shape or (self.encodes and name in LABELS):
            return value
        if name in LABELS:
            whole = value.dim() == 2 and not value.is_floating_point()
            return found.spread(value, IGNORED) if whole else value
        if name not in (*FILLS, "input_ids") or value.dim() != 2:
            raise fail(self._refused(f"what `{name}` is for a row is not known"))
        return found.spread(value, FILLS.get(name, 0))


def _named(
    forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Arguments
) -> Arguments:
    """All arguments of a call by name."""
    signature = inspect.signature(forward)
    found = dict(signature.bind_partial(*args, **kwargs).arguments)
    for name, said in signature.parameters.items():
        if said.kind is said.VAR_KEYWORD:
            found |= found.pop(name, {})
        elif said.kind is said.VAR_POSITIONAL and found.get(name):
            raise TypeError(f"arguments of {name} have no name")
    return found


def _with_names(new: Arguments, forward_names: Mapping[str, Any]) -> Arguments:
    """With a result whose parts have names, where the caller wants a tuple."""
    if forward_names.get("return_dict") is False:
        return {**new, "return_dict": True}
    return new


def _is_tuple(given: Mapping[str, Any]) -> bool:
    return given.get("return_dict") is False


def _shortened_logits(new: Arguments, rows: int) -> Any:
    """What of the logits is kept; of a number, as many more as there may be rows."""
    keep = new.get("logits_to_keep", 0)
    if isinstance(keep, torch.Tensor):
        new["logits_to_keep"] = 0
    elif keep:
        new["logits_to_keep"] = keep + rows
    return keep


def _seen(given: Mapping[str, Any]) -> bool:
    """Whether a cache holds tokens already."""
    for name in CACHES:
        cache = given.get(name)
        if cache is None:
            continue
        if hasattr(cache, "get_seq_length"):
            return int(cache.get_seq_length()) > 0
        return bool(getattr(cache, "has_previous_state", True))
    return False


def filler(config: Any, vocabulary: int) -> int:
    """A token that a model takes for an ordinary one.

    Some models look for padding, or for the end of a sample, in the tokens they are
    given.
    """
    special = set(_special(config))
    return next((n for n in range(vocabulary) if n not in special), 0)


def _special(config: Any) -> list[int]:
    """The tokens that a configuration, or one of its parts, names."""
    said = config.to_dict() if hasattr(config, "to_dict") else config or {}
    found: list[int] = []
    for name, value in said.items():
        if isinstance(value, dict):
            found += _special(value)
        elif str(name).endswith(("_token_id", "_token_index", "_idx")):
            found += [
                n
                for n in (value if isinstance(value, list) else [value])
                if n is not None
            ]
    return found
