"""How many bytes of tensors are held while something runs.

In: code that runs inside a Meter, on real or on fake tensors.  Out: the bytes of the
storages that operations in there made and that are still held, now and at most.  A
storage that was there before, such as a parameter's, does not count, nor does a view of
one.  What a kernel takes and gives back inside one operation is not seen.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Meter(TorchDispatchMode):
    """Counts inside `with` blocks; what is freed later is taken off wherever that is.

    `held`: bytes held now; `peak`: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it so
        self.held = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def around(self, code: Callable[..., Any]) -> Callable[..., Any]:
        """The same code, counted; its arguments are there before."""

        def counted(*args: Any) -> Any:
            self.ignore(tree_leaves(args))
            with self:
                return code(*args)

        return counted

    def ignore(self, values: Iterable[Any]) -> None:
        """Do not count these tensors."""
        for storage in _storages(values):
            self._note(storage, 0)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = operation(*args, **(kwargs or {}))
        for storage in _storages(tree_leaves(made)):
            self._note(storage, storage.nbytes())
        return made

    def _note(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return

        def gone(_: object) -> None:
            del self._known[key]
            self.held -= size

        self._known[key] = weakref.ref(storage, gone)
        self.held += size
        self.peak = max(self.peak, self.held)


def _storages(values: Iterable[Any]) -> Iterable[torch.UntypedStorage]:
    return (v.untyped_storage() for v in values if isinstance(v, torch.Tensor))
