"""Step: what a sampler sees of one forward. Statistics are computed on first use."""

from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mdmbench import noise, vocabulary
from mdmbench.schedule import Schedule

Proxy = Literal["confidence", "entropy", "margin"]


@dataclass(frozen=True)
class Draw:
    """How tokens are proposed, and which distribution is scored.

    temperature  0: the most likely token; above: a draw from softmax(logits / temperature)
    top_p top_k  cut the distribution, in this order, after the temperature (Dream)
    filtered     score the tempered and cut distribution (Dream) instead of softmax(logits) (LLaDA)
    never        tokens that are not written: their logits are -inf (LLaDA's logits_eos_inf)
    late         tokens that scores know nothing of: a position that proposes one counts as wholly
                 unsure, and comes last (LLaDA's confidence_eos_eot_inf, as it is at temperature 0)
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    filtered: bool = False
    never: tuple[int, ...] = ()
    late: tuple[int, ...] = ()


class Seen(NamedTuple):
    """What a pass over the vocabulary says of each position, all [B, W] or [N]."""

    proposal: Tensor
    confidence: Tensor
    entropy: Tensor
    margin: Tensor


class Step:
    """One forward's outcome for the batch. Scores are float64 and exact far into saturation.

    It is of use until the sampler returns: the next forward's logits take the place of these.

    tokens       int64 [B, L]: the canvases before this step
    positions    int64 [B, W]: the gathered positions, ascending; only where `eligible` is True
    eligible     bool [B, W]: masked and in the row's current block; the rest is padding
    index        int64 [B]: forwards this example has had before this one
    block_index  int64 [B]: the same, counted within the current block
    block_masks  int64 [B]: masks the current block began with
    """

    def __init__(
        self,
        logits: Tensor,
        tokens: Tensor,
        positions: Tensor,
        eligible: Tensor,
        *,
        index: Tensor,
        block_index: Tensor,
        block_masks: Tensor,
        keys: Tensor,
        draw: Draw,
        schedule: Schedule | None,
    ) -> None:
        """`logits` [B, W, V] of any float dtype; `keys` int64 [B] seed each example's noise."""
        self.tokens, self.positions, self.eligible = tokens, positions, eligible
        self.index, self.block_index, self.block_masks = index, block_index, block_masks
        self._raw, self._keys, self._draw, self._schedule = logits, keys, draw, schedule

    @cached_property
    def asked(self) -> Tensor:
        """float64 [B]: how many positions the schedule wants now; 1 without a schedule."""
        if self._schedule is None:
            return torch.ones_like(self.index, dtype=torch.float64)
        return self._schedule(self)

    @cached_property
    def quota(self) -> Tensor:
        """int64 [B]: whole positions that the schedule asks for; 0 asks to wait."""
        return self.asked.floor().long()

    @cached_property
    def left(self) -> Tensor:
        """int64 [B]: how many positions are eligible."""
        return self.eligible.sum(1)

    @cached_property
    def noise(self) -> Tensor:
        """Uniform float64 [B, W], the example's own for this step and position."""
        where = self._keys[:, None], noise.ORDER, self.index[:, None], self.positions
        return noise.uniform(*where)

    @property
    def proposal(self) -> Tensor:
        """int64 [B, W]: the token that would be written."""
        return self._seen.proposal

    @property
    def confidence(self) -> Tensor:
        """float64 [B, W]: the probability of the proposal."""
        return self._seen.confidence

    @property
    def entropy(self) -> Tensor:
        """float64 [B, W], nats."""
        return self._seen.entropy

    @property
    def margin(self) -> Tensor:
        """float64 [B, W]: the largest probability minus the second largest."""
        return self._seen.margin

    @cached_property
    def logprobs(self) -> Tensor:
        """fp32 [B, W, V], -inf at the mask. Costs a tensor as large as the logits."""
        return self._views(self._raw.float())[2].log_softmax(-1)

    def score(self, proxy: Proxy) -> Tensor:
        """float64 [B, W], larger is surer: confidence, negative entropy, or margin."""
        if proxy == "entropy":
            return -self.entropy
        return self.confidence if proxy == "confidence" else self.margin

    def order(self, score: Tensor) -> Tensor:
        """int64 [B, W]: columns by falling `score`, the left one first in a tie, padding last."""
        padded = score.masked_fill(~self.eligible, -torch.inf)
        return padded.argsort(dim=1, descending=True, stable=True)

    def top(self, score: Tensor, k: Tensor | int) -> Tensor:
        """bool [B, W]: the `k` (or `k` [B]) eligible positions with the largest score."""
        rank = torch.arange(score.shape[1], device=score.device)
        most = k[:, None] if isinstance(k, Tensor) else k
        return self.pick(self.order(score), (rank < most).expand_as(self.eligible))

    def pick(self, order: Tensor, chosen: Tensor) -> Tensor:
        """bool [B, W] by column, from `chosen` by rank: rank r of a row is column `order[r]`."""
        return torch.zeros_like(self.eligible).scatter(1, order, chosen) & self.eligible

    @cached_property
    def _seen(self) -> Seen:
        """Made a few rows at a time, so that nothing but the logits is as large as they are."""
        flat = self._raw.flatten(0, 1)
        reader = vocabulary.Reader()
        parts = [self._look(flat[rows].float(), rows, reader) for rows in vocabulary.chunks(flat)]
        return Seen(*(torch.cat(x).view(self.eligible.shape) for x in zip(*parts, strict=True)))

    def _look(self, logits: Tensor, rows: slice, reader: vocabulary.Reader) -> Seen:
        """What is said of these `rows` of the positions, float32 `logits` [N, V]."""
        raw, cut, scored = self._views(logits)
        reading, draw = reader(scored), self._draw
        if not draw.temperature and not draw.late:
            return Seen(reading.best, reading.confidence, reading.entropy, reading.margin)
        if draw.temperature:
            proposal = (cut + self._gumbel(rows, cut.shape[1])).argmax(1)
        else:
            proposal = raw.argmax(1)
        value = scored.gather(1, proposal[:, None])[:, 0]
        confidence = torch.exp((value - reading.peak).double()) * reading.confidence
        late = torch.isin(proposal, torch.tensor(draw.late, device=proposal.device))
        entropy = reading.entropy.masked_fill(late, log(logits.shape[1]))
        return Seen(proposal, confidence, entropy, reading.margin.masked_fill(late, -1))

    def _gumbel(self, rows: slice, vocab: int) -> Tensor:
        """float64 [N, V], each position's own."""
        width = self.positions.shape[1]
        key, index = (x.repeat_interleave(width)[rows, None] for x in (self._keys, self.index))
        v = torch.arange(vocab, device=key.device)
        return noise.gumbel(key, noise.TOKEN, index, self.positions.flatten()[rows, None], v)

    def _views(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[..., V]`: of what may be written, tempered and cut for drawing, for scores."""
        draw = self._draw
        if draw.never:
            raw = _without(raw, draw.never)
        cut = raw / draw.temperature if draw.temperature else raw
        if draw.top_p is not None and draw.top_p < 1:
            cut = _top_p(cut, draw.top_p)
        if draw.top_k is not None and draw.top_k < cut.shape[-1]:
            cut = cut.masked_fill(cut < cut.topk(draw.top_k).values[..., -1:], -torch.inf)
        scored = cut if draw.filtered else raw
        return raw, cut, _without(scored, draw.late) if draw.late else scored


def _without(logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
    return logits.index_fill(-1, torch.tensor(tokens, device=logits.device), -torch.inf)


def _top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the fewest likeliest tokens whose mass exceeds `p` (Dream, generation_utils.py)."""
    values, index = logits.sort(-1, descending=True)
    before = values.softmax(-1).cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    cut = torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before > p)
    return logits.masked_fill(cut, -torch.inf)
