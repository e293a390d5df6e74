"""Make `storage_codes.safetensors`: codes by bitsandbytes and torchao.

    python -m pip install bitsandbytes==0.50.2 torchao==0.18.0
    python tests/oracles/make_storage_codes.py

The file is kept, so that tests need neither.  Levels and blocks are by bitsandbytes'
operators in torch, its definition of the formats; the kernels that it has for some
processors round single values to a level beside the nearest one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FILE = Path(__file__).parent / "storage_codes.safetensors"
SHAPES = ((24, 80), (7, 9), (9, 256))
BLOCKS = (64, 128)
GROUP = 16


def weight(shape: tuple[int, int]) -> torch.Tensor:
    """Weights with an outlier, a row of zeros, and a block of zeros."""
    generator = torch.Generator().manual_seed(shape[0])
    value = torch.randn(shape, generator=generator) * 0.03
    value[0, 0], value[1] = 0.7, 0
    return value


def blocks(value: torch.Tensor, kind: str, block: int) -> dict[str, torch.Tensor]:
    """What bitsandbytes keeps of a weight in 4 bits."""
    functional = importlib.import_module("bitsandbytes.functional")

    codes, state = functional.quantize_4bit(value, blocksize=block, quant_type=kind)
    again = _plain("quantize_blockwise")
    mean = state.absmax.mean()
    levels = functional.create_dynamic_map()
    codes2, absmax2 = again(state.absmax - mean, levels, 256)
    back = _plain("dequantize_4bit")(
        codes, state.absmax, block, kind, value.shape, value.dtype
    )
    return {
        "codes": codes.reshape(-1),
        "absmax": state.absmax,
        "decoded": back,
        "double.absmax": codes2,
        "double.absmax2": absmax2,
        "double.mean": mean,
    }


def _plain(name: str) -> Any:
    """An operator of bitsandbytes as it is defined in torch."""
    operator = getattr(torch.ops.bitsandbytes, name).default
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    return lambda *args: operator._op_dk(key, *args)


def groups(value: torch.Tensor, symmetric: bool) -> dict[str, torch.Tensor]:
    """What torchao makes of a weight in whole numbers of 4 bits."""
    ao = importlib.import_module("torchao.quantization.quant_primitives")

    kind = ao.MappingType.SYMMETRIC if symmetric else ao.MappingType.ASYMMETRIC
    dtype, *ends = (torch.int8, -7, 7) if symmetric else (torch.uint8, 0, 15)
    size = (1, GROUP)
    scale, zero = ao.choose_qparams_affine(value, kind, size, dtype, *ends)
    codes = ao.quantize_affine(value, size, scale, zero, dtype, *ends)
    back = ao.dequantize_affine(codes, size, scale, zero, dtype, *ends)
    return {"codes": codes, "scale": scale, "zero": zero, "decoded": back}


def rows(value: torch.Tensor) -> dict[str, torch.Tensor]:
    """What bitsandbytes makes of a weight in whole numbers of 8 bits."""
    functional = importlib.import_module("bitsandbytes.functional")

    codes, absmax, _ = functional.int8_vectorwise_quant(value.half())
    return {"codes": codes, "absmax": absmax}


def main() -> None:
    """Write the file."""
    found: dict[str, torch.Tensor] = {}
    for shape in SHAPES:
        value, name = weight(shape), "x".join(map(str, shape))
        made = {"weight": value}
        for kind in ("nf4", "fp4"):
            for block in BLOCKS:
                parts = blocks(value, kind, block)
                made |= {f"{kind}.{block}.{n}": t for n, t in parts.items()}
        made |= {f"int8.{n}": t for n, t in rows(value).items()}
        if shape[1] % GROUP == 0:
            for word, flag in (("symmetric", True), ("zero", False)):
                parts = groups(value, flag)
                made |= {f"int4.{word}.{n}": t for n, t in parts.items()}
        found |= {f"{name}/{n}": t.contiguous().clone() for n, t in made.items()}
    save_file(found, FILE)


if __name__ == "__main__":
    main()
