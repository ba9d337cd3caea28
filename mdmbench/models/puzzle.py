"""The puzzle model: a small bidirectional transformer that is looped, with relational attention."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from mdmbench.base import Batch, Forward
from mdmbench.errors import UserError
from mdmbench.models import relations
from mdmbench.models.checkpoint import assign, read_config, read_tensors

ARCHITECTURE = "PuzzleMDM"
LARGEST = 16_384


@dataclass(frozen=True)
class PuzzleSpec:
    """The shape of a puzzle model, as its config.json holds it.

    symbols  what the tokens stand for, in order of their ids; the mask id follows them
    layout   the canvas, by keyword arguments of `relations.build`
    layers   blocks with weights of their own; they are run `loops` times in a row
    """

    symbols: tuple[str, ...]
    end_symbols: tuple[str, ...]
    layout: dict[str, Any]
    width: int = 96
    layers: int = 4
    loops: int = 3
    heads: int = 4
    ff: int = 192

    def __post_init__(self) -> None:
        for name in ("width", "layers", "loops", "heads", "ff"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise UserError(f"{name} is {value!r}", f"it is a number from 1 to {LARGEST}")
        if self.width % self.heads:
            raise UserError(f"width {self.width} does not divide into {self.heads} heads")
        for name in ("symbols", "end_symbols"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(s, str) for s in value):
                raise UserError(f"{name} is {value!r}", "it is a list of texts")
        if len(set(self.symbols)) < len(self.symbols) or not set(self.end_symbols) <= {
            *self.symbols
        }:
            raise UserError("symbols stand twice, or end_symbols are not among them")


class Block(nn.Module):
    """Pre-norm attention with one learned bias per relation class and head, then an MLP."""

    def __init__(self, spec: PuzzleSpec, start: Tensor) -> None:
        super().__init__()
        d = spec.width
        self.heads = spec.heads
        self.attention_norm = nn.RMSNorm(d, eps=1e-6)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.bias = nn.Parameter(torch.zeros(spec.heads, start.shape[1]))
        self.out = nn.Linear(d, d, bias=False)
        self.mlp_norm = nn.RMSNorm(d, eps=1e-6)
        self.up = nn.Linear(d, spec.ff)
        self.down = nn.Linear(spec.ff, d)
        with torch.no_grad():
            self.bias[: len(start)] = start[: spec.heads]

    def forward(self, x: Tensor, pairs: Tensor) -> Tensor:
        """`x` [B, L, D], `pairs` [L, L] -> [B, L, D]."""
        b, length, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, length, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q * (d // self.heads) ** -0.5 @ k.transpose(-1, -2) + self.bias[:, pairs]
        mixed = scores.softmax(-1).to(v.dtype) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(b, length, d))
        return cast(Tensor, x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh")))


class PuzzleNet(nn.Module):
    """Tokens in, a prediction for every position out."""

    pairs: Tensor

    def __init__(self, spec: PuzzleSpec) -> None:
        super().__init__()
        known = relations.build(**spec.layout)
        self.spec = spec
        self.length = len(known.pairs)
        self.embed = nn.Embedding(len(spec.symbols) + 1, spec.width)
        if known.ordered:
            self.positions = nn.Embedding(self.length, spec.width)
        self.blocks = nn.ModuleList(Block(spec, known.start) for _ in range(spec.layers))
        self.norm = nn.RMSNorm(spec.width, eps=1e-6)
        self.head = nn.Linear(spec.width, len(spec.symbols))
        self.register_buffer("pairs", known.pairs, persistent=False)

    def hidden(self, tokens: Tensor) -> Tensor:
        """`tokens` [B, L] -> [B, L, D]; every loop but the first sees the input again."""
        first = cast(Tensor, self.embed(tokens))
        if hasattr(self, "positions"):
            first = first + self.positions.weight
        x = first
        for loop in range(self.spec.loops):
            if loop:
                x = x + first
            for block in self.blocks:
                x = block(x, self.pairs)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """`hidden` [..., D] -> [..., symbols]; the mask has no column."""
        return cast(Tensor, self.head(self.norm(hidden)))


class PuzzleModel:
    """A puzzle net as `mdmbench.base.Model`. All its canvases have the length it was made for."""

    def __init__(self, net: PuzzleNet) -> None:
        self.net = net
        self.symbols, self.end_symbols = net.spec.symbols, net.spec.end_symbols
        self.mask_id = len(self.symbols)
        self.eos_ids = tuple(self.symbols.index(s) for s in net.spec.end_symbols)
        self.max_length = net.length
        self.block: int | None = None
        self.vocab_size = len(self.symbols) + 1
        self.device = net.embed.weight.device

    def start(self) -> Forward:
        return PuzzleForward(self)


class PuzzleForward(Forward):
    def __init__(self, model: PuzzleModel) -> None:
        self._net = model.net

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """Logits `[B, W, symbols]`, see `mdmbench.base.Forward`."""
        net, tokens, rows = self._net, batch.tokens, batch.rows
        if tokens.shape[1] != net.length or batch.lengths is not None:
            raise UserError(
                f"the canvas has {tokens.shape[1]} positions, the model is made for {net.length}",
                "choose the model that belongs to this task",
            )
        hidden = net.hidden(tokens)
        return net.logits(hidden.gather(1, rows[..., None].expand(-1, -1, hidden.shape[-1])))


def save(net: PuzzleNet, folder: Path) -> None:
    """Writes config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": [ARCHITECTURE], **asdict(net.spec)}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(
        {k: v.contiguous() for k, v in net.state_dict().items()}, folder / "model.safetensors"
    )


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> PuzzleModel:
    """The puzzle model in `folder`; raises UserError for anything missing, extra or misshapen."""
    config = read_config(folder)
    config.pop("architectures", None)
    known = {f.name for f in fields(PuzzleSpec)}
    if set(config) != known:
        odd = ", ".join(sorted(set(config) ^ known))
        raise UserError(f"{folder}/config.json has missing or unknown fields: {odd}")
    lists = {k: tuple(v) for k, v in config.items() if isinstance(v, list)}
    try:
        net = PuzzleNet(PuzzleSpec(**{**config, **lists})).to(device)
    except UserError as error:
        raise UserError(f"{folder}/config.json: {error.message}", error.hint) from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}/config.json makes no model: {error}") from error
    assign(net, read_tensors(folder), folder, device=device, dtype=dtype)
    return PuzzleModel(net.eval().requires_grad_(False))
