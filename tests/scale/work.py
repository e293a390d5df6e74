"""What one process of several does in the tests of scale: run in each rank.

Every process makes the same model from a seed and takes its own samples of one batch.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from peftc.api import compile
from peftc.storage import shards
from tests.numerics.runtime.tiny import llama, refused, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SPEC = "lora(q, v, r=2)"
BATCH = 4


def adapted(spec: str = SPEC, layers: int = 2, **options: Any) -> Any:
    """A compiled model of whose added tensors none is zero."""
    model = compile(llama(layers=layers), spec, **options)
    shake(model)
    return model


def base_model(dtype: torch.dtype) -> Any:
    """A base that is not compiled, in training."""
    return llama().to(dtype).train()


def shake(model: nn.Module) -> None:
    """Move added parameters away from where they begin, each in a way of its own."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".peftc." in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise)


def samples() -> torch.Tensor:
    """This process's samples of the batch."""
    batch = tokens(BATCH, 8)
    if not dist.is_initialized():
        return batch
    return batch.chunk(dist.get_world_size())[dist.get_rank()]


def loss_of(model: Any, ids: torch.Tensor | None = None) -> torch.Tensor:
    """The loss of this process's samples, or of other ones."""
    ids = samples() if ids is None else ids
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    assert isinstance(loss, torch.Tensor)
    return loss


def gradients(model: nn.Module) -> Mapping[str, torch.Tensor]:
    """The gradients of the trained parameters."""
    return {
        name.removeprefix("module."): parameter.grad.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is not None
    }


def mean_gradients(model: nn.Module, parts: int = 2) -> Mapping[str, torch.Tensor]:
    """The gradients of the batch in one process, added up as `parts` processes do."""
    for ids in tokens(BATCH, 8).chunk(parts):
        (loss_of(model, ids) / parts).backward()
    return gradients(model)


def all_data_parallel(cases: Sequence[tuple[str, bool, str]]) -> list[Any]:
    """What `data_parallel` says of each case."""
    return [data_parallel(*case) for case in cases]


def data_parallel(spec: str, optimize: bool, backend: str) -> Any:
    """Two steps under DDP: gradients of the last, and how many graphs there were."""
    torch._dynamo.config.optimize_ddp = optimize
    model = adapted(spec, backend=backend)
    # Many buckets, of which the graph would be split if torch were let to.
    parallel = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.001)
    for _ in range(2):
        parallel.zero_grad()
        loss_of(parallel).backward()
    return gradients(parallel), model.peftc.captures.count


def shard(model: Any, by_layer: bool = True) -> Any:
    """The model under FSDP2, each layer for itself or only the whole."""
    for layer in model.model.layers if by_layer else ():
        fully_shard(layer)
    return fully_shard(model)


def whole(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sharded tensors, gathered; every process has to ask."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in tensors.items()
    }


def sharded(spec: str, base: torch.dtype, checkpointing: bool) -> Any:
    """Two steps under FSDP2: gradients, graphs, what a process holds of the base."""
    model = compile(base_model(base), spec, entries="layers")
    shake(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    shard(model)
    for _ in range(2):
        model.zero_grad()
        loss_of(model).backward()
    frozen = (p for p in model.parameters() if not p.requires_grad)
    held = sum(p.to_local().numel() for p in frozen)
    return whole(gradients(model)), model.peftc.captures.count, held


def steps(model: Any, count: int, optimizer: Any = None) -> Any:
    """Train on the batch for some steps; the optimizer."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer or torch.optim.AdamW(trained, lr=0.01)
    for _ in range(count):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    return optimizer


def started(sharding: str) -> Any:
    """A compiled model, sharded if several processes train it."""
    model = adapted(entries=sharding).train()
    return shard(model, sharding == "layers") if dist.is_initialized() else model


def train_and_save(folder: str, sharding: str) -> Any:
    """Train two steps and write a checkpoint; what the trained tensors are now."""
    model = started(sharding)
    optimizer = steps(model, 2)
    path = model.peftc.save(folder)
    states = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    save(states, checkpoint_id=f"{folder}/optimizer")
    assert path.is_file()
    return values(model)


def resume(folder: str, sharding: str) -> Any:
    """Go on from a checkpoint for two steps; what the trained tensors are now."""
    model = started(sharding)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    model(input_ids=samples())  # what this has gathered must not be written to
    model.peftc.load(folder)
    optimizer = steps(model, 0)
    states = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    load(states, checkpoint_id=f"{folder}/optimizer")
    set_optimizer_state_dict(model, optimizer, states["optimizer"])
    steps(model, 2, optimizer)
    return values(model)


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    """The trained tensors as they are."""
    named = model.named_parameters()
    return whole({n: p.detach().clone() for n, p in named if p.requires_grad})


def save_as_trainer_does(folder: str) -> Any:
    """One process is given the gathered state and saves; then all of them save."""
    model = started("layers")
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    first = dist.get_rank() == 0
    if first:
        model.save_pretrained(f"{folder}/given", state_dict=state)
    dist.barrier()
    model.save_pretrained(f"{folder}/asked", is_main_process=first)
    with refused("PEFT631"):
        model.peftc.merge()
    return values(model)


def compile_late() -> None:
    """Sharding comes first: refused."""
    model = shard(llama())
    with refused("PEFT611"):
        compile(model, SPEC)


def engine(model: Any, stage: int) -> Any:
    """DeepSpeed's engine around a model."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    trained = [p for p in model.parameters() if p.requires_grad]
    settings = {
        "train_micro_batch_size_per_gpu": BATCH // dist.get_world_size(),
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    deepspeed.init_distributed("gloo")
    return deepspeed.initialize(model=model, config=settings, optimizer=optimizer)[0]


def zero(stages: Sequence[int]) -> Any:
    """Two steps under each ZeRO; what is trained, and how many graphs there were."""
    found = []
    for stage in stages:
        model = adapted()
        trainer = engine(model, stage)
        for _ in range(2):
            trainer.backward(loss_of(trainer))
            trainer.step()
        found.append((values(model), model.peftc.captures.count))
    return found


def zero_3() -> None:
    """ZeRO-3 takes a model that is compiled already, and may have run."""
    model = adapted()
    with torch.no_grad():
        loss_of(model)
    trainer = engine(model, 3)
    with refused("PEFT608"):
        loss_of(trainer)


@contextmanager
def counted() -> Iterator[list[float]]:
    """The bytes of each gather and each sum that FSDP2 asks for in a block, in a ring.

    Of both the whole is what is larger: what is gathered, and what is summed up.
    """
    sent: list[float] = []
    share = 1 - 1 / dist.get_world_size()

    def noting(collective: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            given = (*args, *options.values())
            tensors = (one for one in given if isinstance(one, torch.Tensor))
            sent.append(share * max(one.nbytes for one in tensors))
            return collective(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for new, old in _COLLECTIVES:
            name = new if hasattr(dist, new) else old
            patch.setattr(dist, name, noting(getattr(dist, name)))
        yield sent


_COLLECTIVES = (
    ("all_gather_single", "all_gather_into_tensor"),
    ("reduce_scatter_single", "reduce_scatter_tensor"),
)
"""What FSDP2 calls, by the names that torch has and had."""


def costs() -> tuple[int, float]:
    """Bytes that a process keeps under FSDP2, and those that it sends in a step."""
    model = shard(adapted(entries="layers")).train()
    optimizer = steps(model, 1)
    with counted() as sent:
        steps(model, 1, optimizer)
    states = (s for state in optimizer.state.values() for s in state.values())
    kept = [*model.parameters(), *states]
    local = (one.to_local() if isinstance(one, DTensor) else one for one in kept)
    return sum(one.nbytes for one in local if one.ndim), sum(sent)


@contextmanager
def gathers() -> Iterator[list[int]]:
    """Counts how often a weight is gathered inside."""
    own, count = shards.decode, [0]

    def counted(*args: Any) -> torch.Tensor:
        count[0] += 1
        return own(*args)

    shards.decode = counted  # type: ignore[assignment]  # it takes the same
    try:
        yield count
    finally:
        shards.decode = own


def kept_by(model: Any) -> tuple[torch.Tensor, int]:
    """The loss of this process's samples, and the bytes kept for its backward."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(model)
    own = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    return loss, sum(size for place, size in kept.items() if place not in own)


def base_in_shards(
    spec: str, base: torch.dtype, backend: str, share: bool = True
) -> Any:
    """Two steps under DDP on a base of which each process has a part.

    The gradients of the last, the bytes kept for its backward, how often a weight was
    gathered in the forward and in all, and the bytes of linears that a process has.
    """
    model = compile(base_model(base), spec, shard_base=share, backend=backend)
    shake(model)
    parallel = nn.parallel.DistributedDataParallel(model)
    loss_of(parallel).backward()
    parallel.zero_grad()
    with gathers() as count:
        loss, kept = kept_by(parallel)
        forward = count[0]
        loss.backward()
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    weights = sum(m.weight.untyped_storage().nbytes() for m in linears)
    held = weights + sum(b.nbytes for m in linears for b in m.buffers())
    return gradients(parallel), kept, (forward, count[0]), held


def several_in_shards(cases: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What `base_in_shards` says of each case."""
    return [base_in_shards(*case) for case in cases]


def shards_and_files(folder: str) -> Any:
    """What a model in shards says; by itself, disabled, loaded, given back; and what it
    writes."""
    model: Any = compile(base_model(torch.float32).eval(), SPEC, shard_base=True)
    shake(model)
    ids = tokens(2, 6)
    model.peftc.save(f"{folder}/{dist.get_rank()}")
    said = [model(ids).logits]
    with model.peftc.disabled():
        said.append(model(ids).logits)
    written = model.generate(ids, max_new_tokens=4, do_sample=False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    model.peftc.load(f"{folder}/{dist.get_rank()}")
    said.append(model(ids).logits)
    model.peftc.remove()
    said.append(model(ids).logits)
    return [one.detach() for one in said], written
