"""`generate()` of a model whose tokens have rows among them.

In: a compiled model and its inserter.  Out: what is set on the instance in place of two
steps of `generate()`.  It makes static caches, which have to hold the rows too, and for
these a mask of four axes, which rows cannot be put into: the forward gets the mask it
was made from, and makes its own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import CannotInsert

if TYPE_CHECKING:
    from peftc.runtime.insertion import Inserter

PREPARE = "prepare_inputs_for_generation"
STATIC = "_prepare_static_cache"
MASK = "attention_mask"


class _Step:
    """One method of a model's class, called with the instance."""

    name = ""

    def __init__(self, model: Any, inserter: Inserter) -> None:
        self.model = model
        self.inserter = inserter

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the bound method: `generate()` looks at it."""
        method = getattr(type(self.model), self.name)
        return inspect.signature(method.__get__(self.model))

    def base(self, *args: Any, **kwargs: Any) -> Any:
        """What the class does."""
        return getattr(type(self.model), self.name)(self.model, *args, **kwargs)


class PlainMask(_Step):
    """Hands the forward the mask of [samples, tokens] that a step begins with."""

    name = PREPARE

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The inputs of one step.

        Raises:
            PeftcError: PEFT445 where rows behind the last token would move with it.
        """
        if kwargs.get("use_cache") is False and self._is_moving():
            problem = "without a cache, rows behind the last token move at every step"
            raise fail(CannotInsert(site=self.inserter.site, problem=problem))
        inputs = self.base(*args, **kwargs)
        if getattr(inputs.get(MASK), "ndim", 2) != 2 or isinstance(
            inputs.get(MASK), dict
        ):
            inputs[MASK] = kwargs.get(MASK)
        return inputs

    def _is_moving(self) -> bool:
        causal = not self.inserter.encodes
        return causal and any(at < 0 for at, _ in self.inserter.places)


class LongerCache(_Step):
    """Makes static caches longer by the rows."""

    name = STATIC

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The cache for so many tokens and all rows."""
        given = self.__signature__.bind(*args, **kwargs).arguments
        if not self.inserter.encodes:
            given["max_cache_len"] += self.inserter.rows
        return self.base(**given)


def steps(model: Any, inserter: Inserter | None) -> dict[str, Any]:
    """What the instance gets, by name."""
    if inserter is None:
        return {}
    classes = (PlainMask, LongerCache)
    return {c.name: c(model, inserter) for c in classes if hasattr(model, c.name)}
