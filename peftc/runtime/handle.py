"""The handle of a compiled model: `model.peftc`.

In: a model that `install` has compiled.  Out: everything one may ask of it or do with
it.  The handle belongs to the instance and is copied and stored with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import fail
from peftc.diagnostics.runtime import WrongState
from peftc.exchange.exporting import export
from peftc.plan.training import training_plan
from peftc.runtime import adapters, merge, removal, storing
from peftc.runtime.adapter_slots import Slots
from peftc.runtime.export import exported
from peftc.runtime.hub import card
from peftc.runtime.once import run_once
from peftc.runtime.package import PROGRAMS, write_program
from peftc.runtime.parameters import added
from peftc.runtime.sharding import is_sharded, writing
from peftc.runtime.shared_copy import base_of_its_own
from peftc.runtime.state import FILE, Adapter, read_adapter, write_adapter
from peftc.runtime.verify import verify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from torch import nn

    from peftc.plan.training import TrainingPlan
    from peftc.plan.types import Application, Plan
    from peftc.runtime.entry import Entry
    from peftc.runtime.parameters import Attached
    from peftc.runtime.recipe import Captures, Recipe
    from peftc.runtime.storing import StoredBase
    from peftc.runtime.tripwire import Switch
    from peftc.runtime.verify import Check
    from peftc.view import Site


class Handle:
    """What was done to a model, and what can be done with it now."""

    def __init__(
        self,
        model: nn.Module,
        spec: str,
        attached: Attached,
        entries: tuple[Entry, ...],
        base: StoredBase | None = None,
    ) -> None:
        self.model = model
        self.spec = spec
        self.entries = entries
        self.attached = attached
        self.base = base
        """What is known of a base whose weights are kept in codes."""
        self.any_base = False
        self.unattended = self.plan.controlled
        """Training would miss what methods ask for: no run has been started."""
        self.own: dict[str, Any] = {}
        """What the instance had of its own before, of what it was given."""
        self.merged: merge.Merged | None = None
        self.removed = False
        self.slots = Slots(self)
        """The adapters that the model has, of which one is active."""

    @property
    def recipe(self) -> Recipe:
        """The plan and how it runs."""
        return self.entries[0].recipe

    @property
    def plan(self) -> Plan:
        """The plan that was compiled."""
        return self.recipe.plan

    @property
    def switch(self) -> Switch:
        """Whether the methods run."""
        return self.entries[0].switch

    @property
    def captures(self) -> Captures:
        """How often the model was captured."""
        return self.entries[0].captures

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that are rewritten, in the model's order."""
        return tuple(rewrite.site for rewrite in self.plan.rewrites)

    def training_plan(self) -> TrainingPlan:
        """What training these methods takes beyond a step: controls and loss terms.

        Data only; `peftc.training` runs it.
        """
        return training_plan(self.plan)

    def parameters_by_method(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """The trainable tensors of each method by path; a shared one only once."""
        found: dict[str, dict[str, nn.Parameter]] = {}
        for rewrite, tensor, path in added(self.plan):
            if tensor.kind == "param":
                method = _owner(rewrite.applications, tensor.name)
                found.setdefault(method, {})[path] = self.model.get_parameter(path)
        return found

    def graph(self, inputs: Mapping[str, Any] | None = None) -> str:
        """The rewritten graphs as text, the latest last.

        A model that has not run yet is captured once, on `inputs` and, for arguments
        that these lack, on made-up ones.
        """
        if not self.captures.texts:
            self.require_apart()
            run_once(self.model, inputs)
        return "\n".join(self.captures.texts)

    def verify(self, inputs: Mapping[str, Any] | None = None) -> tuple[Check, ...]:
        """Try on the model what is promised of it; it is as it was afterwards.

        Identity at the start where it is claimed, gradients at every site, merged
        equals unmerged, cached generation equals full recomputation, padding changes
        nothing.

        Args:
            inputs: example arguments of the forward; what is not given is made up.

        Raises:
            PeftcError: PEFT631 while merged or removed.
        """
        self._require_one()
        self.require_whole()
        return verify(self, inputs)

    def report(self) -> dict[str, Any]:
        """Counts and state as plain data."""
        counts = {
            method: sum(p.numel() for p in parameters.values())
            for method, parameters in self.parameters_by_method().items()
        }
        return {
            "architecture": self.plan.model.architecture,
            "base": sum(p.numel() for p in self.model.parameters()) - self._added(),
            "trainable": sum(counts.values()),
            "trainable_by_method": counts,
            "sites": len(self.plan.rewrites),
            "backend": self.recipe.backend,
            "graphs": self.captures.count,
            "merged": self.merged is not None,
            "any_base": self.any_base,
            **storing.report(self),
        }

    def _added(self) -> int:
        parameters = (t for _, t, _ in added(self.plan) if t.kind == "param")
        return sum(t.count for t in parameters)

    # --- running ---------------------------------------------------------------------

    def disabled(self) -> AbstractContextManager[None]:
        """Run the base, bit for bit, in a `with` block; in this thread or task only.

        Weights that are kept in codes are those that they decode to.
        """
        return self.switch.disabled()

    def reference(self) -> nn.Module:
        """The base as a model of its own, which shares its tensors with this one.

        For trainers that compare with what the model was, such as TRL's DPOTrainer, by
        `ref_model=model.peftc.reference()`: no weight is in memory twice.
        """
        self.require_apart()
        return base_of_its_own(self.model)

    def original(self) -> AbstractContextManager[None]:
        """Run the base as it was before its weights went into codes, in a `with` block.

        For all threads, and all values are in memory meanwhile.

        Raises:
            PeftcError: PEFT643 if they were not kept.
        """
        return storing.original(self)

    def check_originals(self) -> None:
        """Raise `PeftcError` (PEFT643) if `original` cannot be run."""
        storing.check_originals(self)

    def remove(self, *, decoded: bool = False) -> None:
        """Give the base model back as it was before compiling, bit for bit.

        Of weights that are kept in codes, `decoded` gives back what they decode to.

        Raises:
            PeftcError: PEFT640 if those were not kept, and without `decoded`.
        """
        self._require_present()
        self.require_whole()
        storing.check_removal(self, decoded)
        if self.merged:
            self.unmerge()
        storing.fill_for_good(self)
        removal.remove(self)
        self.removed = True

    # --- files -----------------------------------------------------------------------

    def save(self, folder: str | Path, *, record: bool = False) -> Path:
        """Write `folder/adapter.safetensors`; returns its path.

        With `record`, the tensors say which plan and base they belong to, so that
        `load_state_dict` can check it: for training checkpoints.

        Every process of a sharded model has to ask; the first writes the file, whole.

        Raises:
            PeftcError: PEFT624, PEFT627, or PEFT631 while merged.
        """
        self._require_one()
        whole = adapters.adapter_of(self, Path(folder))
        with writing(self.model) as is_writer:
            if is_writer:
                write_adapter(Path(folder), whole, record=record)
        return Path(folder) / FILE

    def export(
        self,
        folder: str | Path,
        to: str = "peftc",
        *,
        inputs: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write an adapter without what only training needs; returns its path.

        What methods compute from their own tensors is computed, where the result is
        smaller, and stands in their place: a prefix's rows for its hidden layer.

        Args:
            to: `peftc`, our own format; `peft`, a folder of Hugging Face PEFT;
                `portable`, one with plain low-rank products only, for servers; `pt2`,
                the whole rewritten forward as a program that torch alone runs; `aoti`,
                that as machine code.
            inputs: of a program, example arguments of the forward; which there are is
                how it is called.

        Raises:
            PeftcError: as `save`, PEFT730 to PEFT735 for other formats, and PEFT720 to
                PEFT722 for a program.
        """
        self._require_one()
        self.require_whole()
        if to in PROGRAMS:
            return write_program(self, Path(folder), to, inputs)
        whole, target = adapters.adapter_of(self, Path(folder)), Path(folder)
        if to == "peftc":
            return write_adapter(target, exported(whole))
        base = str(getattr(self.model, "name_or_path", ""))
        return export(whole, target, to, self.model.get_parameter, base)

    def card(self, results: Mapping[str, float] | None = None) -> str:
        """A model card: the spec, what it adds, how to use it, `results`."""
        return card(self, results or {})

    def load(self, folder: str | Path, *, any_base: bool = False) -> None:
        """Take the tensors of an adapter that was made with the same plan.

        Raises:
            PeftcError: PEFT620 to PEFT626; nothing is changed then.
        """
        self._require_one()
        self.take(read_adapter(Path(folder)), any_base=any_base)

    def take(self, adapter: Adapter, *, any_base: bool = False) -> None:
        """Take the tensors of an adapter that was read."""
        storing.check_adapter(self, adapter, any_base=any_base)
        adapters.copy_into(self.model, adapter)
        self.any_base = adapter.any_base or any_base

    # --- merging ---------------------------------------------------------------------

    def merge(self, *, into_codes: bool = False) -> None:
        """Write the methods into the weights; the model then runs as a plain one.

        Weights that are kept in codes become dense: those that they decode to, with the
        methods in them.  With `into_codes` they are encoded again, which loses some of
        what was trained; `report()` says how much.

        Raises:
            PeftcError: PEFT630 with every reason, or PEFT641; nothing is changed then.
        """
        self._require_present()
        self.require_whole()
        self._require(not self.merged, "the model is merged already")
        self.slots.check_one()
        if into_codes:
            storing.check_into_codes(self)
        self.merged = storing.merged(self, into_codes)
        self.switch.off, self.switch.coded = not into_codes, into_codes

    def unmerge(self) -> None:
        """Put the weights back, bit for bit, and run the methods again."""
        merged = self.merged
        self._require(merged is not None, "the model is not merged")
        assert merged is not None
        storing.unmerge(self, merged)
        self.merged = None
        self.switch.off = self.switch.coded = False

    def _require_present(self) -> None:
        self._require(not self.removed, "the methods were removed from the model")

    def require_apart(self) -> None:
        """Refuse (PEFT631) unless the methods are there, and not in the weights."""
        self._require_present()
        self._require(not self.merged, "the model is merged", "call `unmerge()` first")

    def _require_one(self) -> None:
        """The methods are in the model, and what runs is one adapter."""
        self.require_apart()
        self.slots.check_one()

    def require_whole(self) -> None:
        """Raise `PeftcError` (PEFT631) if several processes share the parameters."""
        hint = "save the adapter, and load it in a process that has the whole model"
        self._require(not is_sharded(self.model), "the model is sharded", hint)

    def _require(self, condition: bool, what: str, hint: str = "") -> None:
        if not condition:
            raise fail(WrongState(what=what, hint=hint))

    def __repr__(self) -> str:
        state = ", merged" if self.merged else ""
        return f"<peftc: {len(self.plan.rewrites)} sites{state}>"


def _owner(applications: tuple[Application, ...], tensor: str) -> str:
    """The method that declares a tensor, wrapped ones included."""
    for application in applications:
        if any(t.name == tensor for t in application.tensors):
            return application.method
        if any(t.name == tensor for t in application.all_tensors):
            return _owner(application.wraps, tensor)
    raise AssertionError("every tensor of a rewrite belongs to an application")
