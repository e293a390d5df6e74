"""From the MODEL argument to a torch model.

In: a folder with config.json and weights, a config.json, a hub name, or a configuration
object.  Out: `Loaded`.  Everything that can be wrong is checked before memory is spent,
and every failure is a diagnostic.  Code that comes with a model is never run.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, PretrainedConfig

from peftc.diagnostics import capture as errors
from peftc.diagnostics.core import fail, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from transformers import PreTrainedModel

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SHOWN = 5
"""How many names a message lists."""


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, and what there is to say about how it was loaded."""

    model: PreTrainedModel
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A checked MODEL argument: its configuration, and where its weights are, if."""

    name: str
    config: PretrainedConfig
    weights: str | None


def load(
    source: str | os.PathLike[str] | PretrainedConfig,
    *,
    meta: bool = False,
    random_init: int | None = None,
    classes: Sequence[str] = (),
) -> Loaded:
    """Load a model in evaluation mode.

    Args:
        source: a folder, a config.json, a hub name, or a configuration.
        meta: build it on the meta device, without weights.
        random_init: the seed for weights that the source does not have.
        classes: load it as a classifier; these are the names of its classes, unless it
            is one already and has its own.

    Raises:
        PeftcError: exit code 3; nothing has been allocated unless weights turn out to
            be missing.
    """
    found = _find(source)
    if classes:
        _classify(found, classes)
    model_class = architecture(found.config, found.name)
    on_meta = _build(model_class, found, torch.device("meta"))
    if meta:
        return Loaded(on_meta.eval())
    if found.weights is None and random_init is None:
        raise fail(errors.MissingWeights(path=found.name))
    _check_memory(on_meta, found.name)
    del on_meta
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if random_init is None else random_init)
        if found.weights is None:
            return Loaded(_build(model_class, found, torch.device("cpu")).eval())
        return _read(model_class, found, random_init)


def sketch(source: str | os.PathLike[str] | PretrainedConfig) -> PreTrainedModel:
    """A model without weights whose tensors say that they are on the CPU.

    Unlike one on the meta device it can be captured even if its forward makes tensors
    of its own on the CPU.

    Raises:
        PeftcError: exit code 3.
    """
    found = _find(source)
    model_class = architecture(found.config, found.name)
    shapes_only = FakeTensorMode(allow_non_fake_inputs=True)
    model = _build(model_class, found, shapes_only)
    model.eval()
    return model


def _find(source: str | os.PathLike[str] | PretrainedConfig) -> _Source:
    if isinstance(source, PretrainedConfig):
        return _Source(f"a {type(source).__name__}", source, None)
    path = Path(source)
    if path.is_dir():
        config = _config(path / "config.json")
        return _Source(str(path), config, _weights(path))
    if path.is_file():
        return _Source(str(path), _config(path), None)
    return _hub(str(source))


def _hub(name: str) -> _Source:
    if not _HUB_NAME.fullmatch(name):
        reason = "there is no such file or folder"
        raise fail(errors.ModelNotFound(source=name, reason=reason))
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = f"no such file or folder, and the hub gave: {_first_line(error)}"
        raise fail(errors.ModelNotFound(source=name, reason=reason)) from error
    return _Source(name, config, name)


def _config(path: Path) -> PretrainedConfig:
    """Read a config.json; only then let transformers see it."""
    if not path.is_file():
        reason = "the folder has no config.json"
        raise fail(errors.ModelNotFound(source=str(path.parent), reason=reason))
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = _first_line(error)
        raise fail(errors.UnreadableConfig(path=str(path), reason=reason)) from error
    if not isinstance(said, dict) or not isinstance(said.get("model_type"), str):
        reason = "it is not an object with a `model_type`"
        raise fail(errors.UnreadableConfig(path=str(path), reason=reason))
    return _known(said, path)


def _known(said: dict[str, Any], path: Path) -> PretrainedConfig:
    name = said["model_type"]
    if name not in transformers.CONFIG_MAPPING:
        hint = suggestion(name, transformers.CONFIG_MAPPING.keys())
        if "auto_map" in said:
            hint = "it needs code from its repository, which peftc never runs"
        raise fail(errors.UnknownModelType(path=str(path), name=name, hint=hint))
    config_class = transformers.CONFIG_MAPPING[name]
    try:
        config = config_class.from_dict(said)
    except Exception as error:
        # Configurations check themselves and raise what they like.
        reason = _first_line(error)
        raise fail(errors.BadConfiguration(path=str(path), reason=reason)) from error
    assert isinstance(config, PretrainedConfig)
    return config


def architecture(config: PretrainedConfig, path: str) -> type[PreTrainedModel]:
    """The class of the model that a configuration is of.

    Raises:
        PeftcError: it names none and several fit, or it names one that is unknown.
    """
    named = list(config.architectures or ())
    known = [n for n in named if isinstance(getattr(transformers, n, None), type)]
    if named and not known:
        hint = suggestion(named[0], dir(transformers))
        raise fail(errors.UnknownModelType(path=path, name=named[0], hint=hint))
    fitting = known or _fitting(config)
    if len(fitting) > 1:
        names = ", ".join(f"`{name}`" for name in fitting)
        raise fail(errors.AmbiguousArchitecture(path=path, names=names))
    model_class: type[PreTrainedModel] = getattr(transformers, fitting[0])
    return model_class


def _classify(source: _Source, classes: Sequence[str]) -> None:
    """Make a configuration one of a classifier, if it is not."""
    from transformers.models.auto import modeling_auto as auto

    config = source.config
    known = auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if any(name in known.values() for name in config.architectures or ()):
        return
    if config.model_type not in known:
        reason = f"transformers has no classifier of the kind `{config.model_type}`"
        raise fail(errors.BadConfiguration(path=source.name, reason=reason))
    config.architectures = [known[config.model_type]]
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}


def _fitting(config: PretrainedConfig) -> list[str]:
    """The classes that a configuration without `architectures` can be of: its language
    models, or its bare model if it has none."""
    from transformers.models.auto import modeling_auto as auto

    by_kind = (
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )
    kind = config.model_type
    if config.is_encoder_decoder and kind in by_kind[0]:
        return [by_kind[0][kind]]
    found = [names[kind] for names in by_kind if kind in names]
    bare = auto.MODEL_MAPPING_NAMES.get(kind)
    if found or not isinstance(bare, str):
        return found or [type(config).__name__]
    return [bare]


def _build(
    model_class: type[PreTrainedModel],
    source: _Source,
    context: AbstractContextManager[Any],
) -> PreTrainedModel:
    try:
        with context:
            model: PreTrainedModel = model_class._from_config(source.config)
    except Exception as error:
        # The constructors of models raise what they like on bad sizes.
        reason = _first_line(error)
        raise fail(errors.BadConfiguration(path=source.name, reason=reason)) from error
    empty = [name for name, p in model.named_parameters() if p.numel() == 0]
    if empty:
        reason = f"a size is 0, so these are empty: {_list(empty)}"
        raise fail(errors.BadConfiguration(path=source.name, reason=reason))
    return model


def _check_memory(model: PreTrainedModel, path: str) -> None:
    need = sum(p.numel() * p.element_size() for p in model.parameters())
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        gib = [f"{size / 2**30:.1f}" for size in (need, have)]
        raise fail(errors.ModelTooLarge(path=path, need=gib[0], have=gib[1]))


def _weights(folder: Path) -> str | None:
    """The folder if it has weights, each file of them checked; else None."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file():
        _check_safetensors(single)
        return str(folder)
    if index.is_file():
        for name in _shards(index):
            _check_safetensors(folder / name)
        return str(folder)
    return str(folder) if any(folder.glob("pytorch_model*.bin")) else None


def _shards(index: Path) -> list[str]:
    try:
        shards = json.loads(index.read_bytes())["weight_map"].values()
        names = sorted({str(name) for name in shards})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = f"it is not an index of shards ({_first_line(error)})"
        raise fail(errors.UnreadableWeights(path=str(index), reason=reason)) from error
    for name in names:
        if Path(name).name != name:
            reason = f"the shard `{name}` is outside the folder"
            raise fail(errors.UnreadableWeights(path=str(index), reason=reason))
    return names


def _check_safetensors(path: Path) -> None:
    """Opening checks that the header describes exactly the bytes of the file."""
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        reason = _first_line(error)
        raise fail(errors.UnreadableWeights(path=str(path), reason=reason)) from error


def _read(
    model_class: type[PreTrainedModel], source: _Source, random_init: int | None
) -> Loaded:
    # With loading info a pair comes back, which the annotation does not say.
    pretrained: Callable[..., tuple[PreTrainedModel, dict[str, Any]]]
    pretrained = model_class.from_pretrained  # type: ignore[assignment]
    try:
        model, told = pretrained(
            source.weights,
            config=source.config,
            output_loading_info=True,
            trust_remote_code=False,
            dtype="auto",
            ignore_mismatched_sizes=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = _first_line(error)
        raise fail(errors.UnreadableWeights(path=source.name, reason=reason)) from error
    shapes = [str(name[0]) for name in told["mismatched_keys"]]
    if shapes:
        raise fail(_incomplete(source, "of another shape", shapes))
    missing = sorted(told["missing_keys"])
    base = [name for name in missing if _is_base(model, name)]
    if base and random_init is None:
        raise fail(_incomplete(source, "missing", base))
    return Loaded(model.eval(), tuple(_notes(missing, told["unexpected_keys"])))


def _incomplete(
    source: _Source, what: str, names: list[str]
) -> errors.IncompleteWeights:
    return errors.IncompleteWeights(
        path=source.name, count=len(names), what=what, names=_list(names)
    )


def _is_base(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight is of the pretrained body, not of a head on it."""
    prefix = model.base_model_prefix
    return not hasattr(model, prefix) or name.startswith(f"{prefix}.")


def _notes(missing: list[str], unexpected: Iterable[str]) -> Iterable[str]:
    if missing:
        yield f"drawn at random, as the checkpoint lacks them: {_list(missing)}"
    if unexpected:
        yield f"in the checkpoint but not in the model: {_list(sorted(unexpected))}"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:_SHOWN]) + more


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
