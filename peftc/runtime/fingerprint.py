"""Which base is this?

In: a model.  Out: a `Fingerprint`: the hash of its configuration and of every tensor's
name, shape, dtype and content, as plain text.  The added tensors take no part, and the
device makes no difference.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import xxhash
from torch import nn

from peftc.runtime.names import CHILD
from peftc.runtime.sharding import whole
from peftc.sites.view import config_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Fingerprint:
    """`config` is a hash; `tensors` maps names to `dtype[shape] hash`."""

    config: str
    tensors: Mapping[str, str]

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps({"config": self.config, "tensors": dict(self.tensors)})

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Read what `text` wrote.

        Raises:
            ValueError: if it is anything else.
        """
        read = json.loads(text)
        if not isinstance(read, dict) or not isinstance(read.get("tensors"), dict):
            raise ValueError("no fingerprint")
        tensors = {str(name): str(value) for name, value in read["tensors"].items()}
        return cls(str(read.get("config")), tensors)

    def difference(self, other: Fingerprint) -> str:
        """What tells `other` apart most, for people; empty if nothing does.

        A tensor too many or too few says more than another type, and that more than
        other values.
        """
        names = sorted(self.tensors.keys() | other.tensors.keys())
        told = [_told(n, self.tensors.get(n), other.tensors.get(n)) for n in names]
        if told:
            rank, text = min(told, key=lambda one: one[0])
            if rank < _EQUAL:
                return text
        return "" if self.config == other.config else "its configuration differs"


_EQUAL = 3


def _told(name: str, mine: str | None, its: str | None) -> tuple[int, str]:
    """How grave a difference is (the smaller the graver), and what to say of it."""
    if mine is None or its is None:
        return 0, f"`{name}` is {'not expected' if mine is None else 'missing'}"
    wanted, found = mine.partition(" ")[0], its.partition(" ")[0]
    if wanted != found:
        return 1, f"`{name}` is {found}, not {wanted}"
    return (_EQUAL, "") if mine == its else (2, f"the values of `{name}` differ")


def fingerprint(
    model: nn.Module, state: Mapping[str, torch.Tensor] | None = None
) -> Fingerprint:
    """Read every parameter and buffer of the base once; from `state` what it has."""
    seen: dict[int, str] = {}
    tensors, given = {}, state or {}
    for name, tensor in base_state(model):
        if id(tensor) not in seen:
            seen[id(tensor)] = told(whole(given.get(name, tensor)))
        tensors[name] = seen[id(tensor)]
    return Fingerprint(config_hash(getattr(model, "config", None)), tensors)


def vocabulary_difference(made_on: Fingerprint, model: Any) -> str:
    """That a model has more or fewer tokens than a base had, for people; or "".

    It tells more than the shapes of all that depends on it.
    """
    ask = getattr(model, "get_input_embeddings", None)
    table = getattr(ask(), "weight", None) if ask is not None else None
    paths = [name for name, tensor in base_state(model) if tensor is table]
    known = re.match(r"\w+\[(\d+),", made_on.tensors.get(paths[0], "") if paths else "")
    if table is None or known is None or int(known[1]) == table.shape[0]:
        return ""
    was = f"{known[1]} tokens in its vocabulary, not {table.shape[0]}"
    return f"that has {was}: the tokenizer was changed"


def base_state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The state of the base: what is saved of it, without the added tensors."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if CHILD not in name.split(".") and isinstance(tensor, torch.Tensor):
            yield name, tensor


def told(tensor: torch.Tensor) -> str:
    """A tensor's type, shape and content."""
    return f"{_kind(tensor)} {_content(tensor)}"


def _kind(tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype}[{','.join(map(str, tensor.shape))}]"


def _content(tensor: torch.Tensor) -> str:
    """The hash of the bytes in memory order; of a meta tensor there are none."""
    if tensor.is_meta:
        return "meta"
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    data: Any = flat.view(torch.uint8).numpy()
    return xxhash.xxh3_128_hexdigest(data)
