"""The diffusion transformer of MDLM (Sahoo et al. 2024; kuleshov-group/mdlm, models/dit.py).

Its norms are scaled and shifted by a time embedding. The published checkpoint does not condition on
time: the embedding is always that of noise level 0, so the logits depend on the tokens alone.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdmbench.models.encoder import ModelSpec, rotate, tables

FREQUENCIES = 256


class ScaleNorm(nn.Module):
    """LayerNorm in float32, without a bias."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """`x` `[B, L, D]`, `shift` and `scale` `[D]` -> `[B, L, D]`."""
        plain = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight
        return plain * (1 + scale) + shift


class Block(nn.Module):
    """Attention and feed-forward, each behind a modulated norm and through a gate."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        d = spec.width
        self.heads = spec.heads
        self.attention_norm = ScaleNorm(d, spec.norm_eps)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.mlp_norm = ScaleNorm(d, spec.norm_eps)
        self.up = nn.Linear(d, spec.ff)
        self.down = nn.Linear(spec.ff, d)
        self.modulation = nn.Linear(spec.conditioning, 6 * d)

    def forward(
        self, x: Tensor, time: Tensor, cos: Tensor, sin: Tensor, seen: Tensor | None
    ) -> Tensor:
        """`x` `[B, L, D]`, `time` `[C]` -> `[B, L, D]`."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(time).chunk(6)
        qkv = self.qkv(self.attention_norm(x, shift, scale))
        query, key, value = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            rotate(query, cos, sin), rotate(key, cos, sin), value, attn_mask=seen, is_causal=False
        )
        x = x + gate * self.out(mixed.transpose(1, 2).flatten(2))
        inner = F.gelu(self.up(self.mlp_norm(x, mlp_shift, mlp_scale)), approximate="tanh")
        return cast(Tensor, x + mlp_gate * self.down(inner))


class DiT(nn.Module):
    """Tokens to hidden states, hidden states to raw logits. Call `build_rope` once before use.

    The published code keeps float32 weights under bfloat16 autocast; here all is of one dtype.
    """

    cos: Tensor
    sin: Tensor
    frequencies: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_rows, spec.width)
        self.time_in = nn.Linear(FREQUENCIES, spec.conditioning)
        self.time_out = nn.Linear(spec.conditioning, spec.conditioning)
        self.layers = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = ScaleNorm(spec.width, spec.norm_eps)
        self.modulation = nn.Linear(spec.conditioning, 2 * spec.width)
        self.lm_head = nn.Linear(spec.width, spec.vocab_rows)
        self.register_buffer("frequencies", torch.empty(spec.head_dim // 2))
        self.register_buffer("cos", None, persistent=False)
        self.register_buffer("sin", None, persistent=False)

    def build_rope(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the rotary tables `[max_length, E]` of the checkpoint's own frequencies."""
        self.cos, self.sin = tables(self.frequencies.to(device), self.spec.max_length, dtype)

    def time(self) -> Tensor:
        """The embedding `[C]` of noise level 0, whose sinusoids are ones, then zeros."""
        wave = torch.zeros_like(self.time_in.weight[0])
        wave[: FREQUENCIES // 2] = 1
        return F.silu(self.time_out(F.silu(self.time_in(wave))))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states `[B, L, D]` behind the last norm, see `Encoder.forward`."""
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        seen = None if mask is None else mask[:, None, None, :]
        time = self.time()
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, time, cos, sin, seen)
        shift, scale = self.modulation(time).chunk(2)
        return cast(Tensor, self.norm(x, shift, scale))
