"""The training plan: what the methods of a plan ask for while they are trained.

In: a plan.  Out: `TrainingPlan`, plain data in the order of the spec: the controls with
the tensors they work on at each site, and the sites that add to the loss.  Derived from
the plan whenever it is needed, as equations are, so that it can never differ from it.
`peftc.training` does what it says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from peftc.expr.ir import Leaf
from peftc.expr.wrap import over_tensors
from peftc.plan.equations import (
    composed,
    definitions,
    equation_of,
    equations_of,
    wrapper_of,
)
from peftc.view import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.expr.controls import Control
    from peftc.expr.ir import Node
    from peftc.plan.types import Application, Knob, Plan
    from peftc.syntax.ast import Method
    from peftc.view import Site


@dataclass(frozen=True)
class Place:
    """One site that a control works at.

    `operands` are names of added tensors (`adalora.P`), of base weights (`W`), or the
    text of an expression over them; `nodes` their meaning, which is no part of the
    data.
    """

    site: str
    operands: tuple[str, ...]
    nodes: tuple[Node, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class ControlPlan:
    """One control of one application in the spec, at all its sites.

    `name` is unique in the training plan: under it the control's state is saved.
    """

    name: str
    control: str
    options: tuple[tuple[str, Knob], ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that training does beyond a step of the optimizer."""

    controls: tuple[ControlPlan, ...] = ()
    losses: tuple[str, ...] = ()
    """The sites at which methods add to the loss."""

    def as_data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        controls = [_data(control) for control in self.controls]
        return {"controls": controls, "losses": list(self.losses)}

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.controls or self.losses)


def _data(control: ControlPlan) -> dict[str, Any]:
    places = [{"site": p.site, "operands": list(p.operands)} for p in control.places]
    shown = asdict(replace(control, places=()))
    return {**shown, "options": dict(control.options), "places": places}


def training_plan(plan: Plan) -> TrainingPlan:
    """The training plan of a plan."""
    methods = definitions(plan)
    found: dict[object, ControlPlan] = {}
    for site, application in _applications(plan):
        for control in _controls(application, site, methods):
            key = control.key
            known = found.get(key)
            places = (*(known.places if known else ()), control.place)
            found[key] = ControlPlan("", control.name, control.options, places)
    losses = (r.site.key for r in plan.rewrites if losses_of(r, methods))
    return TrainingPlan(tuple(_named(list(found.values()))), tuple(losses))


def losses_of(rewrite: Any, methods: Mapping[str, Method]) -> tuple[Node, ...]:
    """The terms that the methods at a site add to the loss."""
    if not rewrite.applications:
        return ()
    return composed(rewrite, methods).losses


@dataclass(frozen=True)
class _Found:
    """A control at one site."""

    group: str
    name: str
    options: tuple[tuple[str, Knob], ...]
    place: Place
    number: object
    """Which of the statements of its method it is."""

    @property
    def key(self) -> tuple[object, ...]:
        """What controls that are one have in common."""
        return self.group, self.name, self.options, self.number


def _applications(plan: Plan) -> Iterator[tuple[Site, Application]]:
    """All applications whose training is controlled, those to the whole model first."""
    for application in plan.whole:
        yield MODEL, application
    for rewrite in plan.rewrites:
        for application in rewrite.applications:
            yield rewrite.site, application


def _controls(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> Iterator[_Found]:
    """The controls of an application, and of what it wraps."""
    own = _own_controls(application, site, methods) if application.group else ()
    for number, control in own:
        operands = tuple(map(_text, control.operands, control.texts))
        place = Place(site.key, operands, control.operands)
        options = tuple(control.options.items())
        yield _Found(application.group, control.name, options, place, number)
    for part in application.wraps:
        yield from _controls(part, site, methods)


def _own_controls(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> Iterator[tuple[object, Control]]:
    """The controls of an application alone, each with what tells it from the others."""
    method = methods[application.method]
    if over_tensors(method):
        wrapper = wrapper_of(application, site, method)
        for part in application.wraps:
            for equation in equations_of(part, site, methods):
                yield from wrapper.controls(equation)
        return
    alone = equation_of(replace(application, wraps=()), site, methods)
    whole = equation_of(application, site, methods).controls
    yield from enumerate(whole[: len(alone.controls)])


def _text(node: Node, text: str) -> str:
    return node.name if isinstance(node, Leaf) else text


def _named(controls: Sequence[ControlPlan]) -> Iterator[ControlPlan]:
    """The controls with names: the control, and a number where it stands again."""
    seen: dict[str, int] = {}
    for one in controls:
        count = seen[one.control] = seen.get(one.control, 0) + 1
        name = one.control if count == 1 else f"{one.control}#{count}"
        yield replace(one, name=name)
