"""Linear maps with weights of 8 or 4 bits. They take less memory, not less time."""

from __future__ import annotations

import importlib
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdmbench.errors import UserError

Kind = Literal["int8", "nf4"]
BYTES = {"int8": 1.0, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes of one weight; nf4 has an 8-bit scale for 64 of them, and a float for 256 scales."""


class Int8Linear(nn.Module):
    """Whole numbers from -127 to 127 and a float32 scale for each row of the weight."""

    codes: Tensor
    scale: Tensor

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        self.bias = like.bias
        self.register_buffer("codes", None, persistent=False)
        self.register_buffer("scale", None, persistent=False)

    def pack(self, weight: Tensor) -> None:
        """`[out, in]`; a row of zeros stays one."""
        self.scale = weight.abs().amax(1).float().clamp(min=1e-30) / 127
        self.codes = (weight / self.scale[:, None]).round_().to(torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        y = (F.linear(x, self.codes.to(x.dtype)) * self.scale).to(x.dtype)
        return y if self.bias is None else y + self.bias


class NF4Linear(nn.Module):
    """The 16 levels of NF4 (Dettmers et al. 2023, QLoRA), by bitsandbytes."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        self.bias = like.bias
        self.library = _bitsandbytes()

    def pack(self, weight: Tensor) -> None:
        """`[out, in]`."""
        self.codes, self.state = self.library.quantize_4bit(
            weight, quant_type="nf4", compress_statistics=True
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`."""
        weight = self.library.dequantize_4bit(self.codes, self.state)
        return F.linear(x, cast(Tensor, weight).to(x.dtype), self.bias)


def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes.functional")
    except ImportError as error:
        raise UserError(
            f"quant nf4 needs bitsandbytes: {error}", "pip install 'mdmbench[quant]', or take int8"
        ) from None


def linears(net: nn.Module) -> dict[str, nn.Linear]:
    """The maps that are quantised, by name: those of the layers, never the head or a router."""
    return {
        name: module
        for name, module in net.named_modules()
        if name.startswith("layers.") and isinstance(module, nn.Linear)
    }


def swap(net: nn.Module, kind: Kind) -> dict[str, Int8Linear | NF4Linear]:
    """Put an empty quantised map in the place of each; by the key of the weight it waits for."""
    make = Int8Linear if kind == "int8" else NF4Linear
    empty = {name: make(linear) for name, linear in linears(net).items()}
    for name, module in empty.items():
        net.set_submodule(name, module)
    return {f"{name}.weight": module for name, module in empty.items()}
