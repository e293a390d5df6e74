"""Errors of models that several processes or devices share (608, 609, 615, 616,
619).

In: nothing.  Out: the diagnostic classes of entries for layers and of sharding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class NeedsWholeModel(Diagnostic):
    """A method needs the forward of the whole model, and layers are captured alone.

    With `entries="layers"` each layer is a graph of its own, so that a sharded model
    can gather one layer at a time.  What begins before the first layer, or reads
    several, cannot be put into such a graph: rows among the tokens, positions that move
    (`prefix(positions=keep)` leaves them), a network beside the model.  Compile with
    `entries="model"`, or choose a method that stays inside of layers.
    """

    code: ClassVar[str] = "PEFT615"
    title: ClassVar[str] = "a method needs the whole model"
    label: ClassVar[str] = "`{site}`: {why}"
    help: ClassVar[str] = 'compile with `entries="model"`, or leave this method out'
    exit_code: ClassVar[int] = 3
    site: str
    why: str


@dataclass(frozen=True, kw_only=True)
class UnknownEntries(Diagnostic):
    """`compile` was asked for entries that there are not.

    `entries="model"` captures the model's forward as one graph, `entries="layers"` each
    of its layers.
    """

    code: ClassVar[str] = "PEFT616"
    title: ClassVar[str] = "unknown entries"
    label: ClassVar[str] = "`{name}` is none of {known}"
    exit_code: ClassVar[int] = 3
    name: str
    known: str


@dataclass(frozen=True, kw_only=True)
class OutsideOfLayer(Diagnostic):
    """A layer would have to read a tensor that another module holds.

    With `entries="layers"` a layer finds its weights and its added tensors inside
    itself, so that no layer can run with those of another.  A weight that the layer
    shares with a module before it is found there.  Compile with `entries="model"`, or
    untie the weights.
    """

    code: ClassVar[str] = "PEFT619"
    title: ClassVar[str] = "a tensor is not inside the layer that reads it"
    label: ClassVar[str] = "`{tensor}` is not part of `{layer}`"
    help: ClassVar[str] = 'compile with `entries="model"`'
    exit_code: ClassVar[int] = 3
    tensor: str
    layer: str


@dataclass(frozen=True, kw_only=True)
class PartitionedBase(Diagnostic):
    """DeepSpeed has partitioned the parameters: ZeRO of stage 3.

    It gathers a parameter in a hook before each module that reads it, and replaces the
    functions that read them; neither can be captured, and the sites of the methods
    would not be found.  Stages 1 and 2, which partition gradients and states of the
    optimizer only, work.  To partition the base as well, use FSDP2 with
    `entries="layers"`, or keep the base in codes: `quantize`.
    """

    code: ClassVar[str] = "PEFT608"
    title: ClassVar[str] = "the parameters are partitioned by DeepSpeed ZeRO-3"
    label: ClassVar[str] = "`{parameter}` is partitioned"
    help: ClassVar[str] = (
        'use ZeRO-1 or ZeRO-2, or FSDP2 with `entries="layers"` (docs/scale.md)'
    )
    exit_code: ClassVar[int] = 3
    parameter: str


@dataclass(frozen=True, kw_only=True)
class DispatchedBase(Diagnostic):
    """Accelerate has spread the model over devices, or keeps weights elsewhere.

    `from_pretrained(device_map="auto")`, `dispatch_model` and `cpu_offload` put hooks
    around modules that move their inputs and weights when they run.  They cannot be
    captured, and outside of a capture the methods would be missing.  Load the model on
    one device, where `quantize` makes a base small, or let several processes share it:
    FSDP2 with `entries="layers"`.
    """

    code: ClassVar[str] = "PEFT609"
    title: ClassVar[str] = "the model is dispatched by accelerate"
    label: ClassVar[str] = "`{module}` has a hook that moves tensors when it runs"
    help: ClassVar[str] = (
        "load it without `device_map`, or shard it by FSDP2 (docs/scale.md)"
    )
    exit_code: ClassVar[int] = 3
    module: str


@dataclass(frozen=True, kw_only=True)
class NoProcesses(Diagnostic):
    """A base is to be shared by several processes, and there is one.

    `shard_base=True` keeps a part of every linear's weight in each process of the
    default group of torch.distributed, which has to be there when a model is compiled.

    Example: `peftc.compile(model, spec, shard_base=True)` without `torchrun`.

    Fix: `torch.distributed.init_process_group()` first, under `torchrun`; or compile
    without it.
    """

    code: ClassVar[str] = "PEFT644"
    title: ClassVar[str] = "no processes to share the base"
    label: ClassVar[str] = "{count} processes are in the default group"
    help: ClassVar[str] = "call `init_process_group` first, under `torchrun`"
    exit_code: ClassVar[int] = 3
    count: int
