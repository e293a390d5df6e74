"""What a crash leaves behind: a folder from which it can be seen again.

In: the spec and how far compilation got.  Out: `peftc-reproducer-<hash>/` with the
spec, the plan before the failing pass, the model's configuration, the pipeline,
versions, the traceback and the command that replays it; no weights.  Diagnostics are
not crashes and pass through.
"""

from __future__ import annotations

import hashlib
import json
import platform
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.internal import InternalError
from peftc.passes import PIPELINE
from peftc.plan.print import plan_text
from peftc.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.plan.types import Plan

_raising: ContextVar[bool] = ContextVar("peftc_raising", default=False)

PACKAGES = ("peftc", "torch", "transformers", "lark", "networkx", "safetensors")


@dataclass
class Reproducer:
    """What is known of a compilation, written to a folder if it crashes."""

    spec: str
    model: str = ""
    folder: Path = field(default_factory=Path.cwd)
    plan: Plan | None = None
    config: str = ""
    """The model's configuration as JSON: from it the model is made without weights."""

    @contextmanager
    def around(self, stage: str, plan: Plan | None = None) -> Iterator[None]:
        """Turn a crash inside into PEFT901 with a reproducer.

        Raises:
            PeftcError: PEFT901, from the original error; diagnostics unchanged.
        """
        self.plan = plan or self.plan
        if _raising.get():
            yield
            return
        try:
            yield
        except (PeftcError, BrokenPipeError):
            raise
        except Exception as error:
            folder = self._write(stage, error)
            text = error_text(error)
            raise fail(
                InternalError(error=text, stage=stage, folder=str(folder))
            ) from error

    def _write(self, stage: str, error: Exception) -> Path:
        trace = "".join(traceback.format_exception(error))
        digest = hashlib.sha256((self.spec + trace).encode()).hexdigest()[:10]
        folder = self.folder / f"peftc-reproducer-{digest}"
        folder.mkdir(exist_ok=True)
        facts = {"stage": stage, "error": error_text(error), **self._facts(folder)}
        for name, text in self._contents(facts, trace).items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    def _facts(self, folder: Path) -> Mapping[str, object]:
        return {
            "model": self.model,
            "pipeline": PIPELINE,
            "versions": versions(PACKAGES),
            "python": platform.python_version(),
            "command": f"peftc replay {folder.name}",
        }

    def _contents(self, facts: Mapping[str, object], trace: str) -> Mapping[str, str]:
        files = {
            "spec.peft": self.spec,
            "facts.json": json.dumps(facts, indent=2) + "\n",
            "traceback.txt": trace,
        }
        files |= {"plan.txt": plan_text(self.plan)} if self.plan else {}
        return files | ({"config.json": self.config} if self.config else {})


def error_text(error: Exception) -> str:
    """What an error is known by: its type and all it says."""
    return f"{type(error).__name__}: {error}"


@contextmanager
def raising() -> Iterator[None]:
    """Inside, a crash is raised as it is and leaves no folder: it is looked for."""
    token = _raising.set(True)
    try:
        yield
    finally:
        _raising.reset(token)
