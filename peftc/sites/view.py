"""The ModelView of a model: what the front end knows of it.

In: a model (its weights are not read) or a configuration.  Out: `ModelView`, in forward
order, the same for equal models whatever the device, the mode, and the dropout.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.capture import NoSites
from peftc.diagnostics.core import fail
from peftc.sites.anchors import LinearAnchor
from peftc.sites.capture import capture, ties
from peftc.sites.cores import Cores
from peftc.sites.flow import Flow
from peftc.sites.load import sketch
from peftc.sites.locate import survey
from peftc.sites.rows import RowFinder, ranges
from peftc.sites.sides import Sides
from peftc.view import ModelView, ParameterFact, Unresolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import nn

    from peftc.sites.locate import Found
    from peftc.view import Site

_NOT_THE_MODEL = re.compile(
    r"_|transformers_version$|architectures$|(torch_)?dtype$|use_cache$|output_"
    r"|.*drop|.*token_id$|return_dict$|problem_type$|id2label$|label2id$"
)
"""Keys of a configuration that do not change what a forward in evaluation computes from
tokens: trainers, loaders and forwards write them."""


def view_from_config(
    source: str | Path | Any, inputs: Mapping[str, Any] | None = None
) -> ModelView:
    """The view of a model of which only the configuration is there.

    Args:
        source: a folder, a config.json, a hub name, or a configuration.
        inputs: as of `model_view`.

    Raises:
        PeftcError: no such model, or its forward cannot be captured.
    """
    return model_view(sketch(source), inputs)


def model_view(model: nn.Module, inputs: Mapping[str, Any] | None = None) -> ModelView:
    """Capture the forward of a model and find its sites.

    Args:
        inputs: arguments of the forward; what is not given is made up.

    Raises:
        PeftcError: the forward is not one graph, or there is nothing in it to adapt.
    """
    captured = capture(model, inputs)
    told = survey(captured.graph, captured.names, ties(model))
    name = type(model).__name__
    if not told.found:
        raise fail(NoSites(architecture=name))
    flow = Flow.of(captured.graph)
    sites, unresolved = _with_rows(told.found, flow)
    cores = Cores.of(told.found, flow, told.ends)
    sides = Sides.of(model, sites)
    return ModelView(
        architecture=name,
        sites=tuple(cores.completed(sites)),
        parameters=tuple(_facts(model)),
        layers=told.layers,
        unresolved=(*told.unresolved, *unresolved, *cores.unresolved),
        sides=sides.sites,
        networks=sides,
        config_hash=config_hash(getattr(model, "config", None)),
    )


def _facts(model: nn.Module) -> Iterator[ParameterFact]:
    for path, parameter in model.named_parameters():
        dtype = str(parameter.dtype).removeprefix("torch.")
        yield ParameterFact(path, tuple(parameter.shape), dtype)


def config_hash(config: Any) -> str:
    """SHA-256 over what a configuration says of the model; "" without one."""
    if config is None:
        return ""
    said = _said(config.to_dict())
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _said(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = ((str(k), _said(v)) for k, v in value.items())
    return {k: v for k, v in items if not _NOT_THE_MODEL.match(k)}


@dataclass(frozen=True)
class _Slice:
    """A site of some rows."""

    found: Found
    rows: tuple[int, ...]


def _with_rows(
    found: tuple[Found, ...], flow: Flow
) -> tuple[tuple[Site, ...], tuple[Unresolved, ...]]:
    """Put the rows to the sites of fused weights."""
    sites = [f.located.site for f in found if f.located.site.kind == "linear"]
    fused = {site.weight for site in sites if site.fused or site.rows}
    finder = RowFinder(flow)
    slices: dict[str, list[_Slice]] = defaultdict(list)
    for one in found:
        site = one.located.site
        if site.weight in fused and site.role and site.kind == "linear":
            slices[site.weight].append(_Slice(one, _rows(one, finder)))
    unresolved = tuple(u for s in slices.values() for u in _conflicts(s))
    refused = {u.what for u in unresolved}
    rows = {s.found.located.site.key: s.rows for one in slices.values() for s in one}
    sites = [_sliced(f.located.site, rows) for f in found]
    whole = {s.weight for s in sites if s.key in rows and s.rows is None} - refused
    return tuple(_settled(sites, fused, refused, whole)), unresolved


def _settled(
    sites: list[Site], fused: set[str], refused: set[str], whole: set[str]
) -> Iterator[Site]:
    """Of a fused weight keep the whole and the slices; of one whose rows could not be
    told, or all belong to one role, only the whole."""
    for site in sites:
        if site.kind != "linear" or site.weight not in fused:
            yield site
        elif site.weight in refused:
            if site.fused:
                yield replace(site, fused=False)
        elif not (site.fused and site.weight in whole):
            yield site


def _rows(found: Found, finder: RowFinder) -> tuple[int, ...]:
    """The rows that all uses of a site have; none if they differ."""
    anchors = [a for a in found.located.anchors if isinstance(a, LinearAnchor)]
    told = {
        tuple(anchor.first + row for row in finder.rows(anchor.y, value))
        for anchor, value in zip(anchors, found.values, strict=True)
    }
    return told.pop() if len(told) == 1 else ()


def _conflicts(slices: list[_Slice]) -> Iterator[Unresolved]:
    """Roles of one weight must be disjoint sets of rows."""
    site = slices[0].found.located.site
    roles = tuple(s.found.located.site.role for s in slices)
    numbers = [row for s in slices for row in s.rows]
    if len(set(numbers)) != len(numbers):
        yield Unresolved(site.weight, f"the same rows are {' and '.join(roles)}", roles)
    elif not all(s.rows for s in slices):
        why = "its rows differ between uses, or numbers in a tensor choose them"
        yield Unresolved(site.weight, why, roles)


def _sliced(site: Site, rows: dict[str, tuple[int, ...]]) -> Site:
    numbers = rows.get(site.key)
    if numbers is None or len(numbers) == site.size("out"):
        return site
    sizes = tuple((a, len(numbers) if a == "out" else n) for a, n in site.sizes)
    return replace(site, rows=ranges(numbers), sizes=sizes)
