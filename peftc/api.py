"""The Python interface: compile, plan, load, explain.

In: models, specs and adapters.  Out: the same model object with the spec's methods in
its forward, plans, and explanations.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from peftc.driver import (
    Step,
    compile_model,
    imported,
    install_plan,
    plan_model,
    read_spec,
)

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Unpack

    from peftc.driver import CompileOptions, StepOptions
    from peftc.plan.types import Plan

Model = TypeVar("Model", bound="nn.Module")


def compile(
    model: Model,
    spec: str | Path,
    *,
    seed: int = 0,
    dtype: str = "auto",
    backend: str = "eager",
    **more: Unpack[CompileOptions],
) -> Model:
    """Compile a spec into a model.

    Args:
        model: a transformers model; it stays the same object with the same base
            parameters, which are frozen.
        spec: the text of a spec, or the path of a `.peft` file.
        seed: initial values depend on it, the site and the tensor's name alone.
        dtype: of new tensors; `auto` is float32 for a base below float32, else the
            base's.
        backend: what runs the rewritten graph: `eager`, `aot_eager` or `inductor`. In
            training on a CPU linears of one input and their methods are one step of
            autograd, whose forward and backward are planned together; `plain` is
            `eager` without that, each operation for itself.  `triton` runs these steps
            as generated kernels, on a graphics card.  `watched` is for looking for NaN:
            `plain`, one operation at a time, up to the first value that is not finite.
        more: `inputs` are example arguments of the forward, what is not given is made
            up; `keep_base` keeps the values of weights that a spec stores in codes, in
            the memory of the CPU, so that `remove()` can give them back; `entries` says
            what is captured: the `model` as one graph, or each of its `layers`, so that
            FSDP2 can shard them one by one (docs/scale.md); `shard_base` keeps a part
            of every linear's weight in each process of the default group, which gather
            it where it is read;
            `checkpoint_every` is 1 for gradient checkpointing of every block, 2 of
            every second, with the random state of dropout kept, as Transformers' own
            switch does for every layer.

    Returns:
        `model`, with its handle at `model.peftc`.

    Raises:
        PeftcError: with diagnostics; the model is then as it was.
    """
    source = read_spec(spec)
    options: dict[str, Any] = {"dtype": dtype, "backend": backend, **more}
    compile_model(model, source, seed=seed, **options)
    return model


def plan(
    spec: str | Path,
    model: Any,
    *,
    seed: int = 0,
    dtype: str = "auto",
    **step: Unpack[StepOptions],
) -> Plan:
    """What a spec would do to a model; nothing is changed and no weights are needed.

    Args:
        spec: the text of a spec, or the path of a `.peft` file.
        model: a model, a transformers configuration, or the path of a folder or
            config.json; the latter two are built without values.
        dtype: of new tensors, as in `compile`.
        step: the training step whose memory is counted: `batch` samples (8) of
            `tokens` (512, or fewer if the model has fewer positions); `inputs` are
            example arguments of the forward, what is not given is made up.

    Raises:
        PeftcError: with diagnostics.
    """
    source = read_spec(spec)
    return plan_model(source, model, Step(**step), seed=seed, dtype=dtype)


def load(
    model: Model,
    folder: str | Path,
    *,
    any_base: bool = False,
    backend: str = "eager",
    entries: str = "model",
    checkpoint_every: int = 0,
) -> Model:
    """Put a saved adapter on its base model.

    Args:
        folder: what `model.peftc.save` wrote, or a folder of Hugging Face PEFT or
            AdapterHub.
        any_base: take a base whose weights differ from those the adapter was made on.
        entries, checkpoint_every: as in `compile`.

    Raises:
        PeftcError: if the file is damaged or the base is another; the model is then as
            it was.
    """
    from peftc.exchange.folder import is_folder
    from peftc.plan.parse import parse_plan
    from peftc.runtime.state import read_adapter

    path = Path(folder)
    if is_folder(path):
        read, adapter = imported(model, path)
    else:
        adapter = read_adapter(path)
        read = parse_plan(adapter.plan, "<plan of the adapter>")
    options: dict[str, Any] = {"backend": backend, "entries": entries}
    options |= {"any_base": any_base, "checkpoint_every": checkpoint_every}
    install_plan(model, read, adapter.spec, adapter=adapter, **options)
    return model
