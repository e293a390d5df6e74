"""The forward of a compiled model.

In: a module of the user's model and a Recipe.  Out: an `Entry`, set as `forward` of
that instance: the model keeps its class, its modules and its names.  An entry compiles
the original forward with the marker before it, for itself alone, and is opaque to any
other capture: a foreign `torch.compile` that looked inside would drop the marker, and
with it the methods, without a word.
"""

from __future__ import annotations

import copy
import inspect
import threading
import types
import weakref
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._dynamo.exc import (
    BackendCompilerFailed,
    FailOnRecompileLimitHit,
    InternalTorchDynamoError,
    Unsupported,
)

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.runtime import NotOneGraph, RanUnadapted, TooManyGraphs
from peftc.diagnostics.training import Unattended
from peftc.runtime.backend import Backend, check_owners
from peftc.runtime.bind import (
    GIVEN,
    Forward,
    Layout,
    bound,
    inside,
    layout,
    ran_unadapted,
)
from peftc.runtime.fit import check_taken
from peftc.runtime.inserters import inserter_of
from peftc.runtime.names import CHILD
from peftc.runtime.recipe import Captures
from peftc.runtime.several import batch_of
from peftc.runtime.storing import keep_free
from peftc.runtime.tripwire import alone, capturing, ours
from peftc.sites.capture import plain_buffers
from peftc.sites.recording import (
    install_output_hooks,
    lacks_hooks,
    recording_inside,
)
from peftc.sites.tracing import tracing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from peftc.runtime.recipe import Recipe
    from peftc.runtime.several import Several
    from peftc.runtime.tripwire import Switch


class Entry:
    """Callable as the module's forward was; runs the rewritten graph.

    `previous` is the forward that the instance had of its own, if any.
    """

    def __init__(
        self,
        root: nn.Module,
        layout: Layout,
        recipe: Recipe,
        switch: Switch,
        captures: Captures,
    ) -> None:
        self.inserter = inserter_of(recipe.plan, layout, root)
        self.root = root
        self.module = root.get_submodule(layout.within)
        self.layout = layout
        self.recipe = recipe
        self.switch = switch
        self.captures = captures
        self.owners = {p: root.get_submodule(p) for p in dict.fromkeys(layout.owners)}
        self._dynamic = recipe.dynamic
        self.previous: Forward | None = self.module.__dict__.get("forward")
        self.beside: Forward | None = None
        """The forward with a side network, if the plan puts one beside this module."""
        self._compiled: Forward | None = None
        self._lock = threading.Lock()
        self._others: dict[str, Entry] = {}
        """What runs the forward in other ways, made when it is asked for."""

    @property
    def original(self) -> Forward:
        """The forward of the base."""
        if self.previous is not None:
            return self.previous
        return types.MethodType(type(self.module).forward, self.module)

    @property
    def __signature__(self) -> inspect.Signature:
        """The original's: Trainer drops the columns of a data set it does not name."""
        return inspect.signature(self.original)

    @torch._dynamo.disable(  # type: ignore[untyped-decorator]  # torch leaves it so
        reason="peftc runs this model's forward through a capture of its own"
    )
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the base with its methods; the base alone if they are disabled."""
        return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and args[0] is self.module:
            # accelerate rebinds a forward that it had wrapped as a method.
            args = args[1:]
        if self.switch.off or (self.switch.bypassed and not self.layout.stores):
            return self.original(*args, **kwargs)
        keep_free(self.root, self.recipe.plan.stores)
        if self.switch.bypassed:
            return self._base()._captured(args, kwargs)
        self._check_attended()
        several = self.root.__dict__[CHILD].slots.several
        if several is not None:
            return self._at_once(several, args, kwargs)
        if self.inserter is None:
            return self._captured(args, kwargs)
        extended = self.inserter.extend(self.original, args, kwargs)
        return extended.shortened(self._captured((), extended.arguments))

    def _base(self) -> Entry:
        """What runs the base alone, where its weights are to be decoded."""
        with self._lock:
            if "base" not in self._others:
                recipe = self.recipe.without_methods()
                told = layout(recipe.plan, "base", self.root, self.layout.within)
                self._others["base"] = self._other(told, recipe)
            return self._others["base"]

    def by(self, recipe: Recipe) -> Entry:
        """What runs the same forward by another recipe, its captures not counted."""
        other = self._other(self.layout, recipe)
        other.captures, other.beside = Captures(), self.beside
        return other

    def _other(self, told: Layout, recipe: Recipe) -> Entry:
        """What runs the same forward in another way."""
        other = Entry(self.root, told, recipe, self.switch, self.captures)
        other.previous = self.previous
        return other

    def _at_once(
        self, several: Several, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run the graph in which several adapters run at once."""
        told = several.layout(self.layout, self.root)
        with self._lock:
            if told.signature not in self._others:
                self._others[told.signature] = self._other(
                    told, several.recipe(self.recipe)
                )
            other = self._others[told.signature]
        batch = batch_of(self.module, self.original, args, kwargs)
        self.root.__dict__[CHILD].slots.check_lead(several, batch)
        return other._captured(args, {**kwargs, GIVEN: several.given(told, batch)})

    def _captured(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the graph; once more if the model has to be told to give all out."""
        if _records_outputs(self.root, kwargs):
            install_output_hooks(self.root)
        try:
            return self._run(args, kwargs)
        except PeftcError as error:
            if error.__cause__ is None or not lacks_hooks(error.__cause__):
                check_taken(self.root)
                self._forget_after(error)
                raise
        install_output_hooks(self.root)
        return self._run(args, kwargs)

    def _check_attended(self) -> None:
        """Refuse to train without the controls and loss terms of methods."""
        trains = self.module.training and torch.is_grad_enabled()
        if trains and self.root.__dict__[CHILD].unattended:
            raise fail(Unattended())

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with _capture(self.recipe, self.layout), self._recording():
            try:
                return self._forward()(*args, **kwargs)
            except InternalTorchDynamoError:
                if self._dynamic is not None:
                    raise
        self._fix_sizes()
        return self._run(args, kwargs)

    def _recording(self) -> AbstractContextManager[None]:
        if self.layout.kin is None:
            return nullcontext()
        return recording_inside(self.root)

    def _fix_sizes(self) -> None:
        """Capture a graph for each size from now on: some forwards make tensors of
        their sizes, which the tracer cannot follow where these vary."""
        with self._lock:
            self._dynamic, self._compiled = False, None

    def _forget_after(self, error: PeftcError) -> None:
        """Compile anew after a run that Dynamo did not capture.

        It keeps a frame that it was told to skip once on its list of frames to skip.
        """
        if any(isinstance(one, RanUnadapted) for one in error.diagnostics):
            with self._lock:
                self._compiled = None

    def _forward(self) -> Forward:
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
            return self._compiled

    def _compile(self) -> Forward:
        owners = {path: weakref.ref(owner) for path, owner in self.owners.items()}
        check_owners(self.root, owners)
        plain_buffers(self.root)
        model = weakref.ref(self.root)
        backend = Backend(model, owners, self.layout, self.recipe, self.captures)
        forward = self._bound()
        compiled: Forward = torch.compile(
            forward, fullgraph=True, dynamic=self._dynamic, backend=backend
        )
        if compiled is forward:  # what torch.compile does where it may not compile
            raise ran_unadapted()
        return compiled

    def _bound(self) -> Forward:
        if self.layout.kin is not None:
            return inside(self.previous, self.module, self.layout)
        return bound(self.beside or self.original, self.root, self.layout)

    def __deepcopy__(self, memo: dict[int, Any]) -> Entry:
        """An entry of the copied model, which captures anew."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(
            {key: copy.deepcopy(value, memo) for key, value in self._state().items()}
        )
        return twin

    def _state(self) -> dict[str, Any]:
        own = ("_compiled", "_lock")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __getstate__(self) -> dict[str, Any]:
        return self._state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._compiled = None
        self._lock = threading.Lock()


class SubEntry(Entry):
    """The entry of a part that `generate()` may run by itself, such as an encoder.

    Inside a capture of the whole model it is the original forward, whose sites the
    whole model's marker binds; so unlike an Entry it lets Dynamo look inside.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the part: as part of a capture under way, or by its own."""
        if torch.compiler.is_dynamo_compiling() and ours():
            if self.beside is not None and not alone():
                return self.beside(*args, **kwargs)
            if self.previous is not None:
                return self.previous(*args, **kwargs)
            # A bound method, as `original` makes one, cannot be captured.
            return type(self.module).forward(self.module, *args, **kwargs)
        return self._by_itself(args, kwargs)

    @torch._dynamo.disable(  # type: ignore[untyped-decorator]  # torch leaves it so
        reason="peftc runs this encoder's forward through a capture of its own"
    )
    def _by_itself(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._call(args, kwargs)


def _settings(limit: int) -> Any:
    """Around a capture: our settings.

    `optimize_ddp` would split the graph before we see it; without the hook guards a
    hook that is added later is ignored.
    """
    return tracing(
        optimize_ddp=False,
        skip_nnmodule_hook_guards=False,
        recompile_limit=limit,
        fail_on_recompile_limit_hit=True,
        suppress_errors=False,
    )


@contextmanager
def _capture(recipe: Recipe, layout: Layout) -> Iterator[None]:
    """Around a call that may capture: our settings, our mark, our errors.

    Where a cache is given, each layer reads its own part of it by a number of its own.
    """
    limit, bare = recipe.limit, not recipe.plan.rewrites
    limit *= layout.kin.size if layout.kin is not None else 1
    with _translated(limit), _settings(limit), capturing(alone=bare):
        yield


@contextmanager
def _translated(limit: int) -> Iterator[None]:
    """Raise our errors as they are, and torch's about capturing as ours."""
    try:
        yield
    except BackendCompilerFailed as error:
        if isinstance(error.inner_exception, PeftcError):
            raise error.inner_exception from None
        raise
    except FailOnRecompileLimitHit as error:
        raise fail(TooManyGraphs(limit=limit)) from error
    except Unsupported as error:
        raise fail(NotOneGraph(reason=_reason(error))) from error


def _records_outputs(model: nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether a call asks Transformers for hidden states, attentions and the like."""
    config = getattr(model, "config", None)
    return any(
        value for name, value in kwargs.items() if name.startswith("output_")
    ) or any(getattr(config, name, False) for name in _RECORDED)


def _reason(error: Unsupported) -> str:
    """What torch could not capture: its first two lines, and the last place."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    places = [line for line in lines if line.startswith("File ")]
    return "; ".join((*lines[:2], *places[-1:]))


_RECORDED = ("output_hidden_states", "output_attentions", "output_router_logits")
