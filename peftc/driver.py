"""The stages in order, one line each; the only file that knows them all.

In: a spec (text or path) and a model, a configuration or its path.  Out: requests, a
plan, or the compiled model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from peftc.diagnostics.cli import PassesOutOfOrder, UnknownPass
from peftc.diagnostics.core import Diagnostics, PeftcError, fail, suggestion
from peftc.diagnostics.plan import BadStepSize
from peftc.diagnostics.resolve import CannotUse
from peftc.passes import GRAPH_PIPELINE, PLAN_PIPELINE
from peftc.passes.estimate_memory import BATCH, TOKENS
from peftc.pipeline import Fact, Guard, Manager, Watcher, check_order, facts_of, load
from peftc.plan.build import build
from peftc.reproducer import Reproducer
from peftc.resolve.files import gather
from peftc.resolve.requests import Request, requests
from peftc.resolve.space import OneOf, first, space_of
from peftc.resolve.spec import apply_to
from peftc.syntax.read import read_source
from peftc.syntax.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from peftc.plan.types import Plan
    from peftc.resolve.space import Choice, Space
    from peftc.runtime.handle import Handle
    from peftc.runtime.state import Adapter
    from peftc.view import ModelView


def read_spec(spec: str | Path) -> Source:
    """A spec as a source: the file if it is a path to one, else the text itself.

    Raises:
        PeftcError: PEFT270 if it looks like a file and cannot be read as one.
    """
    if isinstance(spec, str) and not _is_path(spec):
        return Source("<spec>", spec)
    try:
        return read_source(Path(spec))
    except OSError as error:
        problem = f"the spec file `{spec}` cannot be read: {error.strerror}"
        raise fail(CannotUse(problem=problem)) from None


def _is_path(text: str) -> bool:
    """A one-word text that ends in .peft names a file."""
    return text.endswith(".peft") and len(text) < 4096 and "\n" not in text


def _root(source: Source) -> Path:
    """The folder a spec may read from: its own; of a text, the current one."""
    return Path() if source.name.startswith("<") else Path(source.name).parent


def check(source: Source) -> tuple[Request, ...]:
    """Text to requests: all that can be known without a model."""
    return requests(gather(source, _root(source)))


def check_space(source: Source) -> Space:
    """Text to a design space, of which every alternative checks by itself.

    Raises:
        PeftcError: with the errors of the choices, else of the alternatives.
    """
    space, errors = space_of(gather(source, _root(source))), Diagnostics()
    for one in space.choices.values():
        for index in range(len(one.options) if isinstance(one, OneOf) else 1):

            def decide(choice: Choice, one: Choice = one, index: int = index) -> float:
                return index if choice is one and index else first(choice)

            try:
                requests(space.decided(decide))
            except PeftcError as error:
                errors.absorb(error)
    errors.check()
    return space


def make_plan(
    source: Source,
    view: ModelView,
    *,
    seed: int = 0,
    dtype: str = "auto",
    watch: Watcher | None = None,
    config: str = "",
) -> Plan:
    """Text and view to the refined plan; `config` is the model's, for a reproducer.

    Raises:
        PeftcError: with the errors of the first stage that found any.
    """
    reproducer = Reproducer(source.text, view.architecture, config=config)
    with reproducer.around("front end"):
        asked = check(source)
        spec = apply_to(asked, view)
        built = build(spec, view, seed=seed, dtype=dtype)
        if watch:
            watch("build", built)
    passes = load(PLAN_PIPELINE)
    return Manager(passes, watch, guard=reproducer.around).refine(built)


def refine_plan(
    plan: Plan, passes: tuple[str, ...] = PLAN_PIPELINE, watch: Watcher | None = None
) -> Plan:
    """Run passes over a plan, as `peftc opt` does over one that was read.

    Raises:
        PeftcError: PEFT665 for what is no pass over plans, PEFT666 in a wrong order,
            or what a pass raises.
    """
    for name in passes:
        if name not in PLAN_PIPELINE:
            hint, known = suggestion(name, PLAN_PIPELINE), ", ".join(PLAN_PIPELINE)
            raise fail(UnknownPass(name=name, known=known, hint=hint))
    guard: Guard = Reproducer("", plan.model.architecture).around
    manager, given = Manager(load(passes), watch, guard), facts_of(plan)
    try:
        check_order(manager.passes, given)
    except ValueError as error:
        raise fail(PassesOutOfOrder(problem=str(error))) from None
    return manager.refine(plan, given)


class StepOptions(TypedDict, total=False):
    """The fields of a Step, for those who pass them on."""

    batch: int
    tokens: int | None
    inputs: Mapping[str, Any] | None


class CompileOptions(TypedDict, total=False):
    """What `compile` may be told for some models and specs only."""

    inputs: Mapping[str, Any] | None
    keep_base: bool
    checkpoint_every: int
    entries: str
    shard_base: bool


@dataclass(frozen=True)
class Step:
    """The training step whose memory a plan tells.

    `tokens` of each of `batch` samples; TOKENS if not told, or fewer if the model has
    fewer positions.  `inputs` are arguments of the forward that cannot be made up.
    """

    batch: int = BATCH
    tokens: int | None = None
    inputs: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Raise `PeftcError` (PEFT311) unless both are whole numbers from 1."""
        for name, size in (("batch", self.batch), ("tokens", self.tokens)):
            if size is not None and not (isinstance(size, int) and size >= 1):
                raise fail(BadStepSize(name=name, size=str(size)))


def plan_model(
    source: Source,
    model: Any,
    step: Step,
    *,
    seed: int = 0,
    dtype: str = "auto",
    watch: Watcher | None = None,
) -> Plan:
    """Text and a model, a configuration or its path, to the plan with all its memory.

    Raises:
        PeftcError: with the errors of the first stage that found any.
    """
    step.check()

    from torch import nn

    from peftc.runtime.memory import fake_copy
    from peftc.sites.load import sketch
    from peftc.sites.view import model_view

    known = model if isinstance(model, nn.Module) else sketch(model)
    view = model_view(known, step.inputs)
    options: dict[str, Any] = {"watch": watch, "config": _config(known)}
    plan = make_plan(source, view, seed=seed, dtype=dtype, **options)
    guard: Guard = _reproducer(source.text, plan, known).around
    with guard("memory", plan):
        return _with_memory(plan, fake_copy(model) if known is model else known, step)


def _with_memory(plan: Plan, model: nn.Module, step: Step) -> Plan:
    """The plan with what a training step of the model without values holds."""
    from peftc.runtime.memory import positions, training_inputs, training_step

    assert plan.memory is not None
    tokens = step.tokens or min(TOKENS, positions(model) or TOKENS)
    manager = Manager(load(GRAPH_PIPELINE))
    try:
        inputs = training_inputs(model, (step.batch, tokens), step.inputs)
        held = training_step(model, plan, manager, inputs)
    except PeftcError as error:
        note = f"activations of the base are not counted: {error.diagnostics[0]}"
        return replace(plan, notes=(*plan.notes, note))
    peak = plan.memory.lasting + held.peak
    counted = {"activations": held.activations, "peak": peak}
    return replace(
        plan, memory=replace(plan.memory, batch=step.batch, tokens=tokens, **counted)
    )


def compile_model(
    model: nn.Module,
    source: Source,
    *,
    seed: int = 0,
    dtype: str = "auto",
    inputs: Mapping[str, Any] | None = None,
    watch: Watcher | None = None,
    **options: Any,
) -> Handle:
    """Plan a spec for a model and install it; the model keeps its identity.

    `inputs` are example arguments of the forward; `options` go to `runtime.install`
    (backend, ...).

    Raises:
        PeftcError: the model is then as it was.
    """
    from peftc.runtime.fit import check_model
    from peftc.sites.view import model_view

    check_model(model)
    view = model_view(model, inputs)
    told: dict[str, Any] = {"watch": watch, "config": _config(model)}
    plan = make_plan(source, view, seed=seed, dtype=dtype, **told)
    return install_plan(model, plan, source.text, watch=watch, **options)


def imported(model: nn.Module, folder: Path) -> tuple[Plan, Adapter]:
    """A folder of another tool to the plan of its spec for a model, and an adapter.

    Raises:
        PeftcError: if the folder is damaged, or asks for what is not known here.
    """
    from peftc.exchange.importing import adapter_of, draft_of
    from peftc.runtime.fit import check_model
    from peftc.sites.view import model_view

    check_model(model)
    view = model_view(model)
    draft = draft_of(folder, view)
    source = Source("<spec>", draft.spec)
    plan = make_plan(source, view, config=_config(model))
    return plan, adapter_of(folder, draft, plan, model)


def install_plan(
    model: nn.Module,
    plan: Plan,
    spec: str,
    *,
    watch: Watcher | None = None,
    **options: Any,
) -> Handle:
    """Install a finished plan, new or read from an adapter."""
    import torch

    from peftc.runtime.install import install

    guard: Guard = _reproducer(spec, plan, model).around
    manager = Manager(load(GRAPH_PIPELINE), watch, guard=guard)
    with torch.inference_mode(False):  # parameters made inside could never be trained
        return install(model, plan, spec, manager, **options)


# --- crashes, and seeing them again ---------------------------------------------------


def _reproducer(spec: str, plan: Plan, model: nn.Module) -> Reproducer:
    return Reproducer(spec, plan.model.architecture, config=_config(model))


def _config(model: Any) -> str:
    """The configuration of a model as JSON, naming its class; "" if it has none."""
    tell: Callable[[], dict[str, Any]]
    tell = getattr(getattr(model, "config", None), "to_dict", dict)
    said = tell()
    named = {**said, "architectures": [type(model).__name__]}
    return json.dumps(named, indent=2, default=str) if said else ""


def plan_again(source: Source, config: Path) -> None:
    """Run the front end and the plan passes as for the model of a configuration."""
    from peftc.sites.view import view_from_config

    make_plan(source, view_from_config(config))


def refine_again(plan: Plan, name: str) -> None:
    """Run one plan pass on a plan as it was before that pass."""
    Manager(load((name,))).refine(plan, Fact)


def rewrite_again(plan: Plan, config: Path) -> None:
    """Run the graph passes on the model of a configuration, without weights."""
    from peftc.runtime.memory import training_inputs, training_step
    from peftc.sites.load import sketch

    model = sketch(config)
    inputs = training_inputs(model, (2, 8))
    training_step(model, plan, Manager(load(GRAPH_PIPELINE)), inputs)
