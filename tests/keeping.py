"""Views that are found once for all models that are equal.

In: the models that a test compiles.  Out: `keep_views`, after which compiling one like
another takes the view that the first one gave.  Models are equal if they are of one
class, configuration, mode and dtype, with modules of the same forwards, and share the
same tensors; of one without a configuration, or that was changed by hooks or a forward
of its own, no view is kept.  What a view says is tested where none is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from peftc.sites import view

if TYPE_CHECKING:
    from typing import TypeAlias

    import pytest

    from peftc.view import ModelView

    Key: TypeAlias = tuple[Any, ...]

_find = view.model_view
_kept: dict[Key, ModelView] = {}


def keep_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look views up while a test runs; those for inputs of its own are found anew."""

    def model_view(model: Any, inputs: Any = None) -> ModelView:
        if inputs is not None or not hasattr(model, "config") or _is_changed(model):
            return _find(model, inputs)
        key = _key(model)
        if key not in _kept:
            _kept[key] = _find(model)
        return _kept[key]

    monkeypatch.setattr(view, "model_view", model_view)


def _is_changed(model: Any) -> bool:
    """Whether a forward may be another than its classes say."""
    own = ("forward", "_forward_hooks", "_forward_pre_hooks")
    return any(vars(one).get(name) for one in model.modules() for name in own)


def _key(model: Any) -> Key:
    """All that a view may depend on."""
    named = list(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, tensor in named:
        first.setdefault(id(tensor), name)
    tensors = [
        (n, first[id(t)], tuple(t.shape), str(t.dtype), str(t.device)) for n, t in named
    ]
    modules = [(n, m.extra_repr(), m.training) for n, m in model.named_modules()]
    forwards = tuple((type(m), type(m).forward) for m in model.modules())
    config, ways = model.config.to_dict(), _ways(model.config)
    graded = torch.is_grad_enabled()
    told = json.dumps([config, ways, tensors, modules, graded], default=str)
    return type(model), forwards, told


def _ways(config: Any) -> dict[str, str]:
    """How attention and experts are computed, which a configuration does not write."""
    names = ("_attn_implementation", "_experts_implementation")
    return {name: str(getattr(config, name, "")) for name in names}
