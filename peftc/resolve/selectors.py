"""Which sites of a model a selector means.

In: a site name or path glob with its scopes, and a ModelView.  Out: sites in the
model's order.  A selector that matches nothing is an error unless it is optional.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import compress
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostic, fail, suggestion
from peftc.diagnostics.resolve import BadLayers, NoSuchSite, UnknownTarget
from peftc.view import GROUPS, MODEL, ROLES, ModelView, Site

if TYPE_CHECKING:
    from peftc.syntax.source import Span

NAMES = (*ROLES, *GROUPS)


@dataclass(frozen=True)
class Selector:
    """`q`, `gate?` or `"*.c_attn"`, as written."""

    target: str
    span: Span
    glob: bool = False
    optional: bool = False

    def __str__(self) -> str:
        text = f'"{self.target}"' if self.glob else self.target
        return text + "?" * self.optional


@dataclass(frozen=True)
class Restriction:
    """One `@ scope`: `layers` with its ranges (both ends included), or a stack name."""

    name: str
    span: Span
    ranges: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    """Of `spindle`: ranges of groups, counted from 1."""
    within: tuple[tuple[str, int, int], ...] = ()
    """The layers of these groups, once the model is known: stack, first, last."""

    def admits(self, site: Site) -> bool:
        """Whether the site lies in this scope."""
        if self.name == "layers":
            layer = -1 if site.layer is None else site.layer
            return any(first <= layer <= last for first, last in self.ranges)
        if self.name == "spindle":
            at = (-1 if site.layer is None else site.layer, site.stack)
            return any(s == at[1] and a <= at[0] <= b for s, a, b in self.within)
        if self.name in ("self", "cross"):
            return site.cross == (self.name == "cross")
        return site.stack == self.name

    def __str__(self) -> str:
        every = self.ranges or self.groups
        spans = (str(a) if a == b else f"{a}..{b}" for a, b in every)
        return f"{self.name}({', '.join(spans)})" if every else self.name


def check_name(selector: Selector) -> None:
    """Refuse a name that is a site of no model.

    Raises:
        PeftcError: PEFT201.
    """
    if selector.glob or selector.target in NAMES:
        return
    near = suggestion(selector.target, NAMES)
    hint = (
        near or f'sites are {", ".join(NAMES)}; a path is written "*.{selector.target}"'
    )
    raise fail(UnknownTarget(span=selector.span, target=selector.target, hint=hint))


def select(
    selector: Selector, scopes: tuple[Restriction, ...], view: ModelView
) -> tuple[Site, ...]:
    """The sites of the model that the selector means within all the scopes.

    Raises:
        PeftcError: PEFT203 if there is none and the selector is not optional.
    """
    if selector.target == MODEL.role and not (selector.glob or scopes):
        return (MODEL,)
    if selector.target == "side":
        return _beside(selector, scopes, view)
    matching = [site for site in view.sites if _means(selector, site)]
    inside = [s for s in matching if all(scope.admits(s) for scope in scopes)]
    if not inside and not selector.optional:
        raise fail(_nothing(selector, scopes, view, bool(matching)))
    return tuple(inside)


def _beside(
    selector: Selector, scopes: tuple[Restriction, ...], view: ModelView
) -> tuple[Site, ...]:
    """The sides of the model, reading those of their layers that the scopes admit."""
    found = []
    for side in view.sides:
        at = [replace(side, layer=layer) for layer in range(len(side.taps))]
        admitted = [all(scope.admits(one) for scope in scopes) for one in at]
        taps = tuple(compress(side.taps, admitted))
        found += [replace(side, taps=taps)] if taps else []
    if not found:
        raise fail(_nothing(selector, scopes, view, bool(view.sides)))
    return tuple(found)


def check_layers(scopes: tuple[Restriction, ...], view: ModelView) -> None:
    """Refuse layer ranges beyond the model's last layer.

    Raises:
        PeftcError: PEFT205.
    """
    for scope in scopes:
        for _, last in scope.ranges:
            if last >= view.layers:
                raise fail(
                    BadLayers(
                        span=scope.span,
                        problem=f"layer {last} of a model with {view.layers} layers",
                        hint=f"its layers are 0..{view.layers - 1}",
                    )
                )


def _means(selector: Selector, site: Site) -> bool:
    if selector.glob:
        owns = site.kind != "hidden" and site.rows is None
        return owns and fnmatchcase(site.owner, selector.target)
    if selector.target == "linear":
        inside = site.kind == "linear" and site.in_block and not site.fused
        return inside and site.role != "router"
    return site.role == selector.target and not site.fused


def _nothing(
    selector: Selector,
    scopes: tuple[Restriction, ...],
    view: ModelView,
    elsewhere: bool,
) -> Diagnostic:
    within = " within " + " @ ".join(map(str, scopes)) if scopes and elsewhere else ""
    return NoSuchSite(
        span=selector.span,
        target=selector.target,
        model=view.architecture,
        within=within,
        reason=reasons(selector.target, view),
        hint=_known(selector, view),
    )


def reasons(role: str, view: ModelView) -> str:
    """What the dataflow did not tell about the sites of a role, or nothing."""
    unresolved = (u for u in view.unresolved if role in u.roles)
    return "; ".join(dict.fromkeys(f"{u.what}: {u.why}" for u in unresolved))


def _known(selector: Selector, view: ModelView) -> str:
    if not selector.glob:
        return f"its sites are {', '.join(view.roles)}, linear"
    owners = {s.owner for s in view.sites}
    near = suggestion(selector.target.replace("*", "").strip("."), owners)
    some = ", ".join(sorted(owners)[:3])
    return near or f"globs match whole module paths such as {some}"
