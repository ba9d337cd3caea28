"""Models for tests: exact, tiny, and sensitive to every token of the canvas."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdmbench import noise
from mdmbench.base import Batch, Forward


@dataclass
class HashModel(Forward):
    """Logits are a hash of the whole canvas and the position: integer arithmetic, so they are the
    same to the bit in every batch, and a single changed token changes all of them."""

    vocab_size: int = 7
    sharpness: float = 2.0
    mask_id: int = 0
    eos_ids: tuple[int, ...] = (1,)
    max_length: int = 64
    block: int | None = None
    calls: int = 0

    device = torch.device("cpu")

    def start(self) -> "HashModel":
        return self

    def __call__(self, batch: Batch) -> Tensor:
        self.calls += 1
        tokens, rows, lengths = batch.tokens, batch.rows, batch.lengths
        place = torch.arange(tokens.shape[1])
        inside = place < (tokens.shape[1] if lengths is None else lengths[:, None])
        state = (((tokens + 1) * 1_000_003 + place * 7_919) ** 2 * inside).sum(1)
        v = torch.arange(self.vocab_size)
        u = noise.uniform(state[:, None, None], rows[..., None], v)
        return (self.sharpness * u.log() * -1).index_fill(2, torch.tensor(self.mask_id), -torch.inf)
