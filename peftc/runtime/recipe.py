"""What one compiled model is made by, and what its captures left behind.

`Recipe` never changes and holds no model, so copies of a model share it; `Captures`
counts and prints, for one model, whatever thread captures.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftc.pipeline import Manager, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peftc.plan.types import Plan
    from peftc.runtime.backend import Code

GRAPHS = 64
"""How many graphs one forward may have; torch's own limit of 8 is too near."""
KEPT = 8
"""How many printed graphs are kept; training with evaluation makes about four."""


@dataclass(frozen=True)
class Recipe:
    """A plan and how to run it.

    `backend` is a key of `backend.RUNNERS`; `dynamic` is torch.compile's; `limit` is
    how many graphs one entry may have; of `checkpoint_every` blocks one computes its
    values again in the backward, of 0 none does.
    """

    plan: Plan
    manager: Manager
    backend: str = "eager"
    dynamic: bool | None = None
    limit: int = GRAPHS
    around: Callable[[Code], Code] | None = None
    """Wraps what runs each graph, in this process only."""
    checkpoint_every: int = 0

    def without_methods(self) -> Recipe:
        """The same way to run the base, its weights decoded."""
        return replace(self, plan=replace(self.plan, rewrites=()))

    def __deepcopy__(self, memo: object) -> Recipe:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle passes by name; whoever watched them stays behind."""
        names = tuple(one.name for one in self.manager.passes)
        kept = ("backend", "dynamic", "limit", "checkpoint_every")
        return _recipe, (names, self.plan, {name: getattr(self, name) for name in kept})


def _recipe(names: tuple[str, ...], plan: Plan, options: dict[str, Any]) -> Recipe:
    return Recipe(plan, Manager(load(names)), **options)


class Captures:
    """How often a model was captured, and the last rewritten graphs as text.

    `readers` are the keys of the last graph's linears, by the activation they read.
    """

    def __init__(self) -> None:
        self.count = 0
        self.readers: tuple[tuple[str, ...], ...] = ()
        self._texts: deque[str] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def add(self, text: str, readers: Iterable[tuple[str, ...]] = ()) -> None:
        """Note one rewritten graph, and which of its linears read one activation."""
        with self._lock:
            self.count += 1
            self.readers = tuple(readers)
            self._texts.append(text)

    @property
    def texts(self) -> tuple[str, ...]:
        """The last rewritten graphs, oldest first."""
        with self._lock:
            return tuple(self._texts)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copied or stored model has captured nothing yet."""
        return Captures, ()
