"""Models of a checkpoint's shape with random weights: what a step costs does not depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from mdmbench import memory, resolve
from mdmbench.errors import UserError, unknown
from mdmbench.models import checkpoint
from mdmbench.models.encoder import Encoder, ModelSpec, NativeModel

SPREAD = 0.02
"""Standard deviation of a weight."""

SHAPES = {
    "llada-8b": ModelSpec(
        vocab_rows=126_464,
        width=4096,
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=128,
        ff=12_288,
        norm_eps=1e-5,
        rope_theta=500_000,
        rope_fp32=True,
        tie=False,
        mask_id=126_336,
        eos_ids=(126_081,),
        max_length=4096,
    ),
    "dream-7b": ModelSpec(
        vocab_rows=152_064,
        width=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        head_dim=128,
        ff=18_944,
        norm_eps=1e-6,
        rope_theta=1_000_000,
        qkv_bias=True,
        shift=True,
        tie=False,
        mask_id=151_666,
        eos_ids=(151_643,),
        max_length=2048,
    ),
    "tiny-vocab126k": ModelSpec(
        vocab_rows=126_464,
        width=256,
        layers=4,
        heads=4,
        kv_heads=4,
        head_dim=64,
        ff=768,
        norm_eps=1e-5,
        rope_theta=500_000,
        rope_fp32=True,
        tie=False,
        mask_id=126_336,
        eos_ids=(126_081,),
        max_length=4096,
    ),
}
"""GSAI-ML/LLaDA-8B-Base, Dream-org/Dream-v0-Base-7B, and one that two cores can run, whose steps
are spent on a real vocabulary."""

KNOBS = ("vocab_rows", "width", "layers")


def described(name: str, knobs: Mapping[str, Any]) -> ModelSpec:
    """The shape of this name, with other numbers of `KNOBS` where `knobs` (-M) say so.

    Heads and feed-forward follow the width; the mask and EOS of a smaller vocabulary are its last
    two rows. Raises UserError for an unknown shape or knob, or numbers that make no model.
    """
    if name not in SHAPES:
        raise unknown("shape", name, SHAPES)
    spec = SHAPES[name]
    for knob in knobs:
        if knob not in KNOBS:
            raise unknown(f"knob of shape {name}", knob, KNOBS)
    given = {knob: resolve.convert(knob, value, int) for knob, value in knobs.items()}
    for knob, value in given.items():
        if value < (4 if knob == "vocab_rows" else 1):
            raise UserError(f"{knob} is {value}", "a model needs more than that")
    width = given.get("width", spec.width)
    whole = [width * part % spec.width for part in (spec.heads, spec.kv_heads, spec.ff)]
    if any(whole):
        step = spec.width // spec.kv_heads
        raise UserError(
            f"width {width} does not divide into heads as {name} has them",
            f"choose a multiple of {step}",
        )
    parts = ("heads", "kv_heads", "ff")
    given |= {part: getattr(spec, part) * width // spec.width for part in parts}
    rows = given.get("vocab_rows", spec.vocab_rows)
    if rows <= spec.mask_id:
        return replace(spec, **given, mask_id=rows - 1, eos_ids=(rows - 2,))
    return replace(spec, **given)


def empty(spec: ModelSpec) -> Encoder:
    """The network without memory."""
    with torch.device("meta"), checkpoint.Blank():
        return Encoder(spec)


def parameters(spec: ModelSpec) -> int:
    return sum(p.numel() for p in empty(spec).parameters())


def build(
    spec: ModelSpec, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> NativeModel:
    """The model with normal weights, biases too, and norms of 1, made where they are to lie.

    The same seed gives the same weights on the same kind of device. Raises UserError, before
    anything is made, where the weights do not fit.
    """
    net = empty(spec).to(dtype)
    need, (free, _) = dtype.itemsize * parameters(spec), memory.free(device)
    if need > free:
        raise UserError(
            f"the weights need {memory.gb(need)}, and {memory.gb(free)} are free on {device}",
            "choose a smaller shape, a narrower --dtype, or fewer layers by -M layers=N",
        )
    net.to_empty(device=device)
    source = torch.Generator(device).manual_seed(seed)
    for name, weights in net.named_parameters():
        if "norm" in name:
            nn.init.ones_(weights)
        else:
            nn.init.normal_(weights, std=SPREAD, generator=source)
    net.build_rope(device, dtype)
    return NativeModel(net.eval().requires_grad_(False))
