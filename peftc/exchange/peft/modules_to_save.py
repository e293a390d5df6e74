"""PEFT's modules_to_save: `full` and, at norms, `norm_tuning`, beside any type.

In: methods of a spec, or a folder.  Out: the content of a folder with whole modules in
it; or the folder without them, and what it says about them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftc.exchange.spelling import draft
from peftc.exchange.tuner import PREFIX, Draft, Piece, Written, alone, checked
from peftc.exchange.whole import trained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from peftc.exchange.applied import Applied, Given, Read
    from peftc.exchange.folder import Folder
    from peftc.plan.types import Plan
    from peftc.view import ModelView

METHODS = ("full", "norm_tuning")
"""At linears, and at norms."""
FORM = "PEFT's modules_to_save"
SETTING = "modules_to_save"
SHORT = "base_model."
"""What names begin with in folders of prompts, which wrap the model once less."""


# --- to PEFT ----------------------------------------------------------------------


def write(given: Given, saved: Sequence[Applied], rest: Written) -> Written:
    """The content of a folder with whole modules in it as well."""
    if not saved:
        return rest
    modules = alone(saved, FORM)
    own = all(name.startswith(PREFIX) for name in rest.tensors)
    prefix = PREFIX if own else SHORT
    tensors = dict(rest.tensors)
    for module, one in modules.items():
        if any(name.startswith(f"{prefix}{module}.") for name in rest.tensors):
            raise one.refuse(FORM, f"`{module}` has another method, too")
        for path, value in trained(given, one):
            tensors[f"{prefix}{path}"] = value
    return Written({**rest.config, SETTING: sorted(modules)}, tensors)


# --- from PEFT --------------------------------------------------------------------


def without(folder: Folder) -> tuple[Folder, list[Piece]]:
    """A folder without its whole modules, and these as pieces."""
    names = folder.setting(SETTING, list[Any]())
    rest: dict[str, torch.Tensor] = {}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in folder.tensors.items():
        module, _, name = _path(key).rpartition(".")
        if name in _OURS and any(_is_in(module, str(one)) for one in names):
            found.setdefault(module, {})[_OURS[name]] = tensor
        else:
            rest[key] = tensor
    config = {k: v for k, v in folder.config.items() if k != SETTING}
    pieces = [
        Piece(checked(folder, module), METHODS[0], (), tensors, whole=True)
        for module, tensors in found.items()
    ]
    return replace(folder, config=config, tensors=rest), pieces


_OURS = {"weight": "dW", "bias": "db"}


def _path(key: str) -> str:
    return key.removeprefix(PREFIX if key.startswith(PREFIX) else SHORT)


def _is_in(module: str, name: str) -> bool:
    """Whether a module is one whose path ends so, or inside one."""
    parts = module.split(".")
    around = (".".join(parts[: n + 1]) for n in range(len(parts)))
    return any(path.endswith(name) for path in around)


def _at_norm(piece: Piece) -> Piece:
    names = {"dW": "dg", "db": "dc"}
    tensors = {names[name]: tensor for name, tensor in piece.tensors.items()}
    return replace(piece, method=METHODS[1], tensors=tensors)


def joined(
    folder: Folder, first: Draft, pieces: Sequence[Piece], view: ModelView
) -> Draft:
    """A draft and the whole modules as one."""
    if not pieces:
        return first
    norms = {site.owner for site in view.sites if site.kind == "norm"}
    own = [_at_norm(piece) if piece.module in norms else piece for piece in pieces]
    second = draft(folder, own, view)

    def fill(plan: Plan, read: Read) -> Mapping[str, torch.Tensor]:
        return {**first.fill(plan, read), **second.fill(plan, read)}

    return Draft(f"{first.spec.rstrip()}\n+ {second.spec}", fill)
