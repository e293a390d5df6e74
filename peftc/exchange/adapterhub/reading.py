"""A folder of AdapterHub as a spec.

In: a folder, and the view of a model.  Out: a draft: low rank and scales at the paths
of linears, bottlenecks by roles and layers, prefixes at all attentions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.exchange.adapterhub import bottleneck, linears, prefix
from peftc.exchange.adapterhub.parts import parts_of
from peftc.exchange.spelling import call, draft, filling
from peftc.exchange.tuner import Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from peftc.exchange.adapterhub.parts import Part
    from peftc.exchange.tuner import Piece
    from peftc.plan.types import Knob
    from peftc.view import ModelView

    Read: TypeAlias = tuple[list[str], list[Piece]]
    """The calls of a part, and its pieces."""
    Group: TypeAlias = tuple[str, tuple[tuple[str, Knob], ...]]

KINDS = {
    "bottleneck": ("adapters", "shared_parameters"),
    "lora": ("loras",),
    "prefix_tuning": ("prefix_tunings", "prefix_gates"),
}
"""What stands in the names of the tensors of each architecture."""
OWN = ("gated_lora", "gated_adapter", "gated_prefix", "normed_phm")
"""The methods that the library has not, which a spec then defines."""


def read(path: Path, view: ModelView) -> Draft:
    """A folder of AdapterHub as a spec for a model.

    Raises:
        PeftcError: PEFT732 if it is damaged, PEFT733 for what no method here does.
    """
    parts = parts_of(path)
    _check(parts)
    specs: list[str] = []
    pieces: list[Piece] = []
    for part in parts:
        texts, own = _READERS[part.kind](part, view)
        specs += texts
        pieces += own
    used = any(piece.method in OWN for piece in pieces)
    texts = [one.DEFINITIONS for one in (linears, bottleneck, prefix) if used]
    spec = "".join(texts) + "\n+ ".join(specs) + "\n"
    return Draft(spec, filling(parts[0].folder, pieces))


def _check(parts: Sequence[Part]) -> None:
    """Refuse architectures and tensors that nothing below reads."""
    for part in parts:
        if part.kind not in KINDS:
            raise part.refused("architecture")
    kinds = [part.kind for part in parts]
    folder, name = parts[0].folder, parts[0].name
    if len({*kinds}) < len(kinds):
        raise folder.damaged("two of its methods are of one architecture")
    marks = [f".{mark}.{name}." for kind in kinds for mark in KINDS[kind]]
    for key in folder.tensors:
        if not any(mark in key for mark in marks):
            raise folder.damaged(f"`{key}` is not a tensor of its methods")


def _linears(part: Part, view: ModelView) -> Read:
    own = linears.pieces(part)
    return [draft(part.folder, own, view).spec.rstrip()], own


def _prefix(part: Part, view: ModelView) -> Read:
    own = prefix.pieces(part, view)
    return [call(own[0].method, (), own[0].knobs)], own


def _bottleneck(part: Part, view: ModelView) -> Read:
    placed = bottleneck.pieces(part, view)
    groups: dict[Group, dict[int | None, list[str]]] = {}
    for site, piece in placed:
        layers = groups.setdefault((piece.method, piece.knobs), {})
        layers.setdefault(site.layer, []).append(site.role)
    texts = [
        text
        for (method, knobs), layers in groups.items()
        for text in _calls(method, knobs, layers, view.layers)
    ]
    return texts, [piece for _, piece in placed]


def _calls(
    method: str,
    knobs: tuple[tuple[str, Knob], ...],
    layers: Mapping[int | None, list[str]],
    count: int,
) -> Iterator[str]:
    """A method at the same roles of all layers as one call, else one of each layer."""
    roles = {tuple(sorted(found)) for found in layers.values()}
    if len(roles) == 1 and len(layers) == count:
        yield call(method, roles.pop(), knobs)
        return
    for layer, found in sorted(layers.items(), key=lambda pair: str(pair[0])):
        yield f"{call(method, sorted(found), knobs)} @ layers({layer})"


_READERS: Mapping[str, Callable[[Part, ModelView], Read]] = {
    "lora": _linears,
    "bottleneck": _bottleneck,
    "prefix_tuning": _prefix,
}
