"""The transformer that masked diffusion checkpoints share, and the `Model` around it.

Parameter names are those of Hugging Face's Llama; `families.py` maps a checkpoint's names to them.
Shapes beyond those of `mdmbench.base`: D width of the residual stream, H heads, K key/value heads,
E size of one head, R columns of a head that are rotated, Q positions of a row that go through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdmbench.base import Batch, Forward
from mdmbench.errors import UserError
from mdmbench.models.experts import MLP, Experts, Mixture


@dataclass(frozen=True)
class ModelSpec:
    """Everything that tells one checkpoint from another.

    vocab_rows    rows of the embedding, which may exceed the tokenizer's vocabulary
    ff            inner width of a dense feed-forward
    rotary        R, an even number; the other columns of a head know no position. None: E
    rope_fp32     rotate queries and keys in float32 whatever the model's dtype is
    layer_norm    LayerNorm with a bias instead of RMSNorm
    qk_norm       queries and keys pass an RMSNorm of each head before they are rotated
    tie           the head is the embedding matrix
    shift         row i - 1 predicts the token at position i (models adapted from next-token ones)
    block         a position sees its own block of so many, counted from position 0, and every
                  block before it; None: it sees everything
    experts       the layers that choose among experts; None: every feed-forward is dense
    conditioning  width of the time embedding of a diffusion transformer (`dit.py`); 0: it has none
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
    tie: bool
    mask_id: int
    eos_ids: tuple[int, ...]
    max_length: int
    rotary: int | None = None
    rope_fp32: bool = False
    layer_norm: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    shift: bool = False
    block: int | None = None
    experts: Experts | None = None
    conditioning: int = 0


class RMSNorm(nn.Module):
    """Normalise in float32, cast back, then scale: this order is the checkpoints' own."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` -> `[..., D]`."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def norm(spec: ModelSpec) -> nn.Module:
    """A norm of the residual stream."""
    kind = nn.LayerNorm if spec.layer_norm else RMSNorm
    return kind(spec.width, eps=spec.norm_eps)


def tables(frequencies: Tensor, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[length, R]` of float32 `frequencies` `[R/2]`.

    A table that was made from cast frequencies moves the logits of bfloat16 models.
    """
    position = torch.arange(length, device=frequencies.device).float()
    angle = torch.outer(position, frequencies).repeat(1, 2)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (j, j + R/2) of `x` `[B, H, L, E]` by tables that broadcast to `[..., R]`.

    The dtype of the tables decides the precision: float32 tables promote a bfloat16 `x`.
    """
    turned, still = x.tensor_split([cos.shape[-1]], dim=-1)
    low, high = turned.chunk(2, dim=-1)
    turned = (turned * cos + torch.cat((-high, low), dim=-1) * sin).to(x.dtype)
    return torch.cat((turned, still), dim=-1) if still.shape[-1] else turned


class Memory(Protocol):
    """Keys and values of positions that do not go through.

    length  L: positions that may be attended to
    """

    length: int

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps what a layer makes of the positions that go through, `[B, K, Q, E]`, and gives
        what is kept of all, `[B, K, L, E]`."""
        ...


class Attention(nn.Module):
    """Attention with rotary positions and, where K < H, shared keys and values."""

    def __init__(self, spec: ModelSpec, index: int) -> None:
        super().__init__()
        self.index = index
        queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.head_dim = spec.head_dim
        self.grouped = spec.kv_heads != spec.heads
        self.q_proj = nn.Linear(spec.width, queries, bias=spec.qkv_bias)
        self.k_proj = nn.Linear(spec.width, keys, bias=spec.qkv_bias)
        self.v_proj = nn.Linear(spec.width, keys, bias=spec.qkv_bias)
        self.o_proj = nn.Linear(queries, spec.width, bias=spec.out_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if spec.qk_norm:
            self.q_norm = RMSNorm(spec.head_dim, spec.norm_eps)
            self.k_norm = RMSNorm(spec.head_dim, spec.norm_eps)

    def split(self, x: Tensor) -> Tensor:
        """`[B, L, H*E]` -> `[B, H, L, E]`."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        seen: Tensor | None,
        memory: Memory | None = None,
    ) -> Tensor:
        """`x` `[B, Q, D]`, `seen` bool that broadcasts to `[B, H, Q, L]` or None -> `[B, Q, D]`."""
        query = rotate(self.q_norm(self.split(self.q_proj(x))), cos, sin)
        key = rotate(self.k_norm(self.split(self.k_proj(x))), cos, sin)
        value = self.split(self.v_proj(x))
        if memory is not None:
            key, value = memory.update(self.index, key, value)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=False, enable_gqa=self.grouped
        )
        return cast(Tensor, self.o_proj(mixed.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Attention and feed-forward, each behind its norm and added to the residual stream."""

    def __init__(self, spec: ModelSpec, index: int) -> None:
        super().__init__()
        self.input_layernorm = norm(spec)
        self.self_attn = Attention(spec, index)
        self.post_attention_layernorm = norm(spec)
        self.mlp: nn.Module
        if spec.experts is None or index in spec.experts.dense_layers:
            self.mlp = MLP(spec.width, spec.ff, spec.mlp_bias)
        else:
            self.mlp = Mixture(spec.width, spec.experts)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        seen: Tensor | None,
        memory: Memory | None = None,
    ) -> Tensor:
        """`[B, Q, D]` -> `[B, Q, D]`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, seen, memory)
        return cast(Tensor, x + self.mlp(self.post_attention_layernorm(x)))


class Net(Protocol):
    """What `NativeModel` needs of a network."""

    spec: ModelSpec
    lm_head: nn.Linear

    def __call__(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Encoder(nn.Module):
    """Tokens to hidden states, hidden states to logits. Call `build_rope` once before use."""

    cos: Tensor
    sin: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_rows, spec.width)
        self.layers = nn.ModuleList(Layer(spec, index) for index in range(spec.layers))
        self.norm = norm(spec)
        self.lm_head = nn.Linear(spec.width, spec.vocab_rows, bias=False)
        self.register_buffer("cos", None, persistent=False)
        self.register_buffer("sin", None, persistent=False)

    def build_rope(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make the rotary tables `[max_length, R]`.

        LLaDA modeling rotates in float32, all others cast the finished tables.
        """
        columns = self.spec.rotary or self.spec.head_dim
        even = torch.arange(0, columns, 2, device=device).float()
        frequencies = 1.0 / self.spec.rope_theta ** (even / columns)
        kept = torch.float32 if self.spec.rope_fp32 else dtype
        self.cos, self.sin = tables(frequencies, self.spec.max_length, kept)

    def seen(
        self, length: int, mask: Tensor | None, queries: Tensor | None = None
    ) -> Tensor | None:
        """Which of `length` keys a query sees, bool `[B or 1, 1, Q or 1, L]`; None: all of them.

        queries  int64 [B, Q], where they stand; None: there is one at every position
        """
        keys = None if mask is None else mask[:, None, None, :]
        if self.spec.block is None or length <= self.spec.block:
            return keys
        block = torch.arange(length, device=self.cos.device) // self.spec.block
        own = block[None] if queries is None else queries // self.spec.block
        grid = (block <= own[..., None])[:, None]
        return grid if keys is None else grid & keys

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        depth: int | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Hidden states `[B, Q, D]` behind the last norm.

        tokens     int64 [B, Q]
        mask       bool [B, L], True where a position may be attended to; None: everywhere
        positions  int64 [B, Q] for the rotary tables; None: 0 to Q - 1 in every row
        depth      layers to run; None: all
        memory     of the other positions: then `positions` says where the tokens stand among its L;
                   None: there are no others, Q is L
        """
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        if positions is not None:
            cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        if memory is None:
            seen = self.seen(tokens.shape[1], mask)
        else:
            seen = self.seen(memory.length, mask, positions)
        x = self.embed_tokens(tokens)
        for layer in islice(self.layers, depth):
            x = layer(x, cos, sin, seen, memory)
        return cast(Tensor, self.norm(x))


class NativeModel:
    """A checkpoint as `mdmbench.base.Model`; the network must be loaded and on its device.

    block  length of the blocks of block-causal attention; None: every position sees every other
    """

    def __init__(self, encoder: Net) -> None:
        self.encoder = encoder
        self.mask_id = encoder.spec.mask_id
        self.eos_ids = encoder.spec.eos_ids
        self.max_length = encoder.spec.max_length
        self.vocab_size = encoder.spec.vocab_rows
        self.block = encoder.spec.block
        self.device = next(encoder.parameters()).device

    def start(self) -> Forward:
        return NativeForward(self)


class NativeForward(Forward):
    """Everything goes through the network; the head runs on the rows that are asked for."""

    def __init__(self, model: NativeModel) -> None:
        self.model, self.net = model, model.encoder
        self._room = torch.empty(0)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """Logits `[B, W, V]` in the model's dtype, see `mdmbench.base.Forward`."""
        tokens, mask = self.seen(batch)
        return self.logits(self.net(tokens, mask), batch.rows)

    def seen(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The tokens, and bool [B, L] where they may be attended to; None: everywhere."""
        length = batch.tokens.shape[1]
        if length > self.model.max_length:
            raise UserError(
                f"a canvas of {length} tokens, the model takes {self.model.max_length} at most",
                "shorten the prompt or the answer region",
            )
        if batch.lengths is None:
            return batch.tokens, None
        mask = torch.arange(length, device=batch.tokens.device) < batch.lengths[:, None]
        # What pads a row need not be a token, and the embedding would refuse such an id.
        return batch.tokens.where(mask, 0), mask

    def logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """`hidden` [B, L, D] -> [B, W, V] at `rows`. The head on all rows would be the largest
        tensor of the whole forward; even so it is made once and used again."""
        source = (rows - 1).clamp(min=0) if self.net.spec.shift else rows
        picked = hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1])).flatten(0, 1)
        head = self.net.lm_head
        if len(self._room) < len(picked) or self._room.dtype != picked.dtype:
            self._room = picked.new_empty(len(picked), self.model.vocab_size)
        logits = self._room[: len(picked)]
        if head.bias is None:
            torch.mm(picked, head.weight.t(), out=logits)
        else:
            torch.addmm(head.bias, picked, head.weight.t(), out=logits)
        logits[:, self.model.mask_id] = -torch.inf
        return logits.view(*rows.shape, -1)
