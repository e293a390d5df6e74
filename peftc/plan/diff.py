"""What differs between two plans, in what they do and in what they cost.

In: two plans.  Out: `Change`s in the order of the sites; where a text was written, and
programs that follow from unequal equations, take no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.syntax.print import print_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.plan.types import AddedTensor, Application, Plan, Rewrite

Kind: TypeAlias = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Change:
    """One difference: at a site (its place) or, if that is empty, of the whole plan.

    `what` names the part (`lora.r`, `merge`, `trainable`); `old` and `new` are its
    values as text, empty where there is none.
    """

    kind: Kind
    site: str
    layer: int | None
    what: str
    old: str = ""
    new: str = ""


def difference(old: Plan, new: Plan) -> tuple[Change, ...]:
    """Every change from one plan to another; none if they do and cost the same."""
    return (*_changes(_facts(old), _facts(new), "", None), *_sites(old, new))


def _facts(plan: Plan) -> dict[str, str]:
    """What a plan says as a whole, by name."""
    model = {f"model {name}": str(value) for name, value in vars(plan.model).items()}
    memory = vars(plan.memory) if plan.memory else {}
    return {
        **model,
        "seed": str(plan.seed),
        "dtype": plan.dtype,
        **{f"method {m.name}": print_method(m).rstrip("\n") for m in plan.methods},
        "sites": str(len(plan.rewrites)),
        "trainable": str(plan.trainable),
        **{f"store {s.weight}": s.form for s in plan.stores},
        **{f"memory {name}": str(value) for name, value in memory.items()},
    }


def _sites(old: Plan, new: Plan) -> Iterator[Change]:
    before = {r.site.key: r for r in old.rewrites}
    after = {r.site.key: r for r in new.rewrites}
    for key in dict.fromkeys((*before, *after)):
        yield from _site(before.get(key), after.get(key))


def _site(old: Rewrite | None, new: Rewrite | None) -> Iterator[Change]:
    shown = new or old
    assert shown is not None
    at = _place(shown), shown.site.layer
    was, now = _applications(old), _applications(new)
    for name in dict.fromkeys((*was, *now)):
        if name in was and name in now:
            yield from _changes(_details(was[name]), _details(now[name]), *at)
        else:
            kind: Kind = "added" if name in now else "removed"
            texts = [
                _call(group[name]) if name in group else "" for group in (was, now)
            ]
            yield Change(kind, *at, name, *texts)
    yield from _changes(_facts_of(old), _facts_of(new), *at)


def _place(rewrite: Rewrite) -> str:
    """The site without its layer."""
    place, layer = rewrite.site.place, rewrite.site.layer
    return place if layer is None else place.replace(f"layers.{layer}.", "", 1)


def _applications(rewrite: Rewrite | None) -> dict[str, Application]:
    """The applications at a site by instance, wrapped ones after what wraps them."""
    found: dict[str, Application] = {}
    todo = list(rewrite.applications) if rewrite else []
    while todo:
        one = todo.pop(0)
        found[one.instance] = one
        todo = [*one.wraps, *todo]
    return found


def _facts_of(rewrite: Rewrite | None) -> dict[str, str]:
    """What is said of a rewritten site as a whole."""
    if rewrite is None:
        return {}
    merge = rewrite.merge
    sizes = " x ".join(f"{axis} {n}" for axis, n in rewrite.site.sizes)
    return {
        "shape": sizes,
        "dtype": rewrite.site.dtype,
        "merge": merge.kind + f": {merge.reason}" * bool(merge.reason),
    }


def _call(application: Application) -> str:
    """An application in a line: its knobs, and how much it adds."""
    knobs = ", ".join(f"{name}={value}" for name, value in application.knobs)
    count = sum(tensor.count for tensor in application.tensors)
    return f"{application.method}({knobs}), {count:,} scalars"


def _details(application: Application) -> dict[str, str]:
    name = application.instance
    knobs = {f"{name}({knob})": str(value) for knob, value in application.knobs}
    return {
        name: f"{application.method}, clause {application.clause}",
        **knobs,
        **{tensor.name: _tensor(tensor) for tensor in application.tensors},
    }


def _tensor(tensor: AddedTensor) -> str:
    shape = ", ".join(map(str, tensor.shape))
    shared = " shared" if tensor.shared else ""
    return f"{tensor.kind} [{shape}]{shared} ~ {tensor.init}"


def _changes(
    old: Mapping[str, str], new: Mapping[str, str], site: str, layer: int | None
) -> Iterator[Change]:
    """Changes of named values."""
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        kind: Kind = "changed"
        if was is None or now is None:
            kind = "added" if was is None else "removed"
        yield Change(kind, site, layer, name, was or "", now or "")
