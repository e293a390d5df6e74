"""How our captures of a forward differ from any other `torch.compile`.

In: Dynamo's settings for one capture.  Out: `tracing`, a context around a call that may
capture.  Settings are thread-local, so they are made around every call.
"""

from __future__ import annotations

import functools
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch._dynamo import config, trace_rules
from torch._dynamo.variables import builtin, user_defined
from transformers import PreTrainedConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGING = ("debug", "info", "warning", "error", "warning_once", "info_once")
_here = threading.local()


@contextmanager
def tracing(**settings: Any) -> Iterator[None]:
    """Capture as we do: log calls pass without effect, and gradients are not asked for.

    Transformers logs inside forwards; `_leave_out_requests` says the rest.  Garbage is
    collected when Python finds it time to, not after each capture.
    """
    _leave_out_requests()
    _read_configurations()
    _look_into_attentions()
    known = (getattr(logging.Logger, name, None) for name in _LOGGING)
    ignored = {function for function in known if function}
    before = getattr(_here, "depth", 0)
    _here.depth = before + 1
    try:
        own: dict[str, Any] = {
            "ignore_logging_functions": ignored,
            "run_gc_after_compile": False,
        }
        with config.patch(**own, **settings):
            yield
    finally:
        _here.depth = before


@functools.cache
def _leave_out_requests() -> None:
    """Let `x.requires_grad = True` in a forward pass without effect, in our captures.

    Forwards say so for the sake of reentrant checkpointing.  Dynamo cannot capture it,
    and there is nothing to capture: in a frozen base no one reads that gradient.  Where
    torch has neither of these methods, such a forward is refused.
    """
    for owner, name in _ASSIGNMENTS:
        method = getattr(getattr(builtin, owner, None), name, None)
        if method is not None:
            setattr(getattr(builtin, owner), name, _lenient(method))


def _look_into_attentions() -> None:
    """Let Dynamo trace what `nn.MultiheadAttention` calls, in the whole process.

    It would keep it as one operator, which no product with a weight can be told from.
    What is computed is the same.  `torch._dynamo.reset()` makes the rules anew, so this
    is said before every capture.
    """
    rules = trace_rules.get_torch_obj_rule_map()
    rules.pop(F.multi_head_attention_forward, None)


_ASSIGNMENTS = (
    ("SetAttrBuiltinVariable", "_call_setattr"),
    ("BuiltinVariable", "call_setattr"),
)
"""Dynamo's tracing of `setattr`, by the names it has had."""


def _lenient(method: Any) -> Any:
    @functools.wraps(method)
    def assign(self: Any, tx: Any, obj: Any, name: Any, value: Any) -> Any:
        requested = getattr(_here, "depth", 0) and _asks_for_gradient(obj, name, value)
        return value if requested else method(self, tx, obj, name, value)

    return assign


def _asks_for_gradient(obj: Any, name: Any, value: Any) -> bool:
    if not isinstance(obj, torch._dynamo.variables.TensorVariable):
        return False
    given = [v.as_python_constant() for v in (name, value) if v.is_python_constant()]
    return given == ["requires_grad", True]


@functools.cache
def _read_configurations() -> None:
    """Let Dynamo read attributes of configurations as they are, in our captures.

    Transformers looks them up in two Python methods, `_mapped` says how, and tracing
    those for each attribute takes an eighth of a capture.  The graph is the same.
    """
    owner: Any = user_defined.UserDefinedObjectVariable
    if hasattr(owner, "generic_getattr"):  # where torch has none, they are traced
        owner.var_getattr = _direct(owner.var_getattr)


def _direct(method: Any) -> Any:
    @functools.wraps(method)
    def read(self: Any, tx: Any, name: str) -> Any:
        if getattr(_here, "depth", 0) and _is_plain(self.value):
            return self.generic_getattr(tx, _mapped(self.value, name))
        return method(self, tx, name)

    return read


def _is_plain(value: Any) -> bool:
    """Whether a value is a configuration that looks attributes up in the usual way: in
    one that differs between layers, some must not be read."""
    usual: Any = PreTrainedConfig.__getattribute__
    is_usual = type(value).__getattribute__ is usual
    return is_usual and "_heterogeneity_spec" not in vars(value)


def _mapped(configuration: Any, name: str) -> str:
    """The name under which a configuration keeps an attribute."""
    if name == "attribute_map":
        return name
    kept: str = configuration.attribute_map.get(name, name)
    return kept
