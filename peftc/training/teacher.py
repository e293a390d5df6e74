"""The model that another one learns from.

In: a run and the name that a spec gives.  Out: a `Teacher`: the model itself without
its methods (`base`), and also without codes (`base_fp`); a model that the caller gave
the run by this name; or the model of a folder.  It evaluates, without gradients.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.schedules import TeacherUnfit
from peftc.runtime.modes import evaluating
from peftc.sites.load import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.training.control import Batch
    from peftc.training.run import Run

BASE, BASE_FLOAT = "base", "base_fp"
"""The model without methods, and without codes too."""


class Teacher:
    """A teacher; a model of its own is frozen and evaluates from here on."""

    def __init__(self, run: Run, name: str) -> None:
        """Find it.

        Raises:
            PeftcError: PEFT699 if there is none by this name, PEFT643 if the weights
                of `base_fp` are gone, or why the model of a folder cannot be loaded.
        """
        self.run = run
        self.name = name
        if name == BASE_FLOAT:
            run.handle.check_originals()
        found = self._other() if name not in (BASE, BASE_FLOAT) else None
        self.other = found.requires_grad_(False).eval() if found is not None else None

    def _other(self) -> Any:
        given = self.run.teachers.get(self.name)
        if given is not None:
            return given
        if not Path(self.name).is_dir():
            raise self.unfit("no such folder, and none was given by this name")
        device = next(self.run.model.parameters()).device
        return load(self.name).model.to(device)

    def unfit(self, problem: str) -> Exception:
        """What to raise about it."""
        return fail(TeacherUnfit(teacher=self.name, problem=problem))

    @property
    def model(self) -> Any:
        """The model that runs."""
        return self.run.model if self.other is None else self.other

    @torch.no_grad()
    def outputs(self, batch: Batch, asked: Mapping[str, Any] | None = None) -> Any:
        """What it says of a batch; `asked` are more arguments of its forward."""
        inputs = {**batch, **(asked or {})}
        if not getattr(self.run.model.config, "is_encoder_decoder", False):
            inputs.pop("labels", None)
        with self._alone():
            return self.model(**inputs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While it runs."""
        if self.other is not None:
            yield
            return
        handle = self.run.handle
        bare = handle.original() if self.name == BASE_FLOAT else handle.disabled()
        with evaluating(self.run.model), bare:
            yield
