"""The transformer that dense masked diffusion checkpoints share, and the `Model` around it.

Parameter names are those of Hugging Face's Llama; `families.py` maps a checkpoint's names to them.
Shapes beyond those of `mdmbench.base`: D width of the residual stream, H heads, K key/value heads,
E size of one head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdmbench.base import Forward
from mdmbench.errors import UserError


@dataclass(frozen=True)
class ModelSpec:
    """Everything that tells one dense checkpoint from another.

    vocab_rows  rows of the embedding, which may exceed the tokenizer's vocabulary
    rope_fp32   rotate queries and keys in float32 whatever the model's dtype is
    tie         the head is the embedding matrix
    shift       row i - 1 predicts the token at position i (models adapted from next-token ones)
    """

    vocab_rows: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    norm_eps: float
    rope_theta: float
    rope_fp32: bool
    qkv_bias: bool
    tie: bool
    mask_id: int
    eos_ids: tuple[int, ...]
    max_length: int
    shift: bool


class RMSNorm(nn.Module):
    """Normalise in float32, cast back, then scale: this order is the checkpoints' own."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (j, j + E/2) of `x` `[B, H, L, E]` by tables that broadcast to it.

    The dtype of the tables decides the precision: float32 tables promote a bfloat16 `x`.
    """
    low, high = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-high, low), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Bidirectional attention with rotary positions and, where K < H, shared keys and values."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.head_dim = spec.head_dim
        self.grouped = spec.kv_heads != spec.heads
        self.q_proj = nn.Linear(spec.width, queries, bias=spec.qkv_bias)
        self.k_proj = nn.Linear(spec.width, keys, bias=spec.qkv_bias)
        self.v_proj = nn.Linear(spec.width, keys, bias=spec.qkv_bias)
        self.o_proj = nn.Linear(queries, spec.width, bias=False)

    def split(self, x: Tensor) -> Tensor:
        """`[B, L, H*E]` -> `[B, H, L, E]`."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """`x` `[B, L, D]`, `mask` bool `[B, 1, 1, L]` or None -> `[B, L, D]`."""
        query = rotate(self.split(self.q_proj(x)), cos, sin)
        key = rotate(self.split(self.k_proj(x)), cos, sin)
        value = self.split(self.v_proj(x))
        seen = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=False, enable_gqa=self.grouped
        )
        return cast(Tensor, self.o_proj(seen.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """SiLU-gated feed-forward."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(spec.width, spec.ff, bias=False)
        self.up_proj = nn.Linear(spec.width, spec.ff, bias=False)
        self.down_proj = nn.Linear(spec.ff, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`."""
        return cast(Tensor, self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class Layer(nn.Module):
    """Attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(spec.width, spec.norm_eps)
        self.self_attn = Attention(spec)
        self.post_attention_layernorm = RMSNorm(spec.width, spec.norm_eps)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return cast(Tensor, x + self.mlp(self.post_attention_layernorm(x)))


class Encoder(nn.Module):
    """Tokens to hidden states, hidden states to logits. Call `build_rope` once before use."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_rows, spec.width)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.norm = RMSNorm(spec.width, spec.norm_eps)
        self.lm_head = nn.Linear(spec.width, spec.vocab_rows, bias=False)
        self.register_buffer("cos", None, persistent=False)
        self.register_buffer("sin", None, persistent=False)

    def build_rope(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the rotary tables `[max_length, E]`, always from integers in float32.

        A table that was cast, or made from cast frequencies, moves logits of bfloat16 models.
        LLaDA modeling rotates in float32, Dream modeling casts the finished tables.
        """
        even = torch.arange(0, self.spec.head_dim, 2, device=device).float()
        inverse = 1.0 / self.spec.rope_theta ** (even / self.spec.head_dim)
        position = torch.arange(self.spec.max_length, device=device).float()
        angle = torch.outer(position, inverse).repeat(1, 2)
        kept = torch.float32 if self.spec.rope_fp32 else dtype
        self.cos, self.sin = angle.cos().to(kept), angle.sin().to(kept)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Hidden states `[B, L, D]` behind the last norm.

        tokens     int64 [B, L]
        mask       bool [B, L], True where a position may be attended to; None: everywhere
        positions  int64 [B, L] for the rotary tables; None: 0 to L - 1 in every row
        """
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        if positions is not None:
            cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        keys = None if mask is None else mask[:, None, None, :]
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, keys)
        return cast(Tensor, self.norm(x))

    def head(self, hidden: Tensor) -> Tensor:
        """`[..., D]` -> `[..., V]`, raw: neither shifted nor without the mask id."""
        return cast(Tensor, self.lm_head(hidden))


class NativeModel:
    """A checkpoint as `mdmbench.base.Model`; the encoder must be loaded and on its device."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.mask_id = encoder.spec.mask_id
        self.eos_ids = encoder.spec.eos_ids
        self.max_length = encoder.spec.max_length
        self.vocab_size = encoder.spec.vocab_rows
        self.device = encoder.embed_tokens.weight.device

    def start(self) -> Forward:
        return self._forward

    @torch.inference_mode()
    def _forward(self, tokens: Tensor, rows: Tensor, lengths: Tensor | None) -> Tensor:
        """Float32 logits `[B, W, V]`, see `mdmbench.base.Forward`."""
        length = tokens.shape[1]
        if length > self.max_length:
            raise UserError(
                f"a canvas of {length} tokens, the model takes {self.max_length} at most",
                "shorten the prompt or the answer region",
            )
        mask = None
        if lengths is not None:
            mask = torch.arange(length, device=tokens.device) < lengths[:, None]
            # What pads a row need not be a token, and the embedding would refuse such an id.
            tokens = tokens.where(mask, 0)
        hidden = self.encoder(tokens, mask)
        source = (rows - 1).clamp(min=0) if self.encoder.spec.shift else rows
        # The head on all rows would be the largest tensor of the whole forward.
        picked = hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1]))
        logits = self.encoder.head(picked).float()
        logits[..., self.mask_id] = -torch.inf
        return logits
