"""Step: what a sampler sees of one forward. Statistics are computed on first use."""

from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Literal

import torch
from torch import Tensor

from mdmbench import noise
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


class Step:
    """One forward's outcome for the batch. Scores are float64 and exact far into saturation.

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
        """`logits` fp32 [B, W, V]; `keys` int64 [B] seed each example's noise."""
        self.tokens, self.positions, self.eligible = tokens, positions, eligible
        self.index, self.block_index, self.block_masks = index, block_index, block_masks
        self._raw, self._keys, self._draw, self._schedule = logits, keys, draw, schedule
        if draw.never:
            self._raw = _without(logits, draw.never)

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

    @cached_property
    def proposal(self) -> Tensor:
        """int64 [B, W]: the token that would be written."""
        if not self._draw.temperature:
            return self._raw.argmax(-1) if self._draw.late else self._statistics[0]
        v = torch.arange(self._cut.shape[-1], device=self._cut.device)
        keys, index = self._keys[:, None, None], self.index[:, None, None]
        gumbel = noise.gumbel(keys, noise.TOKEN, index, self.positions[..., None], v)
        return (self._cut + gumbel).argmax(-1)

    @cached_property
    def confidence(self) -> Tensor:
        """float64 [B, W]: the probability of the proposal."""
        _, peak, rest, _ = self._statistics
        top = 1 / (1 + rest)
        if not self._draw.temperature and not self._draw.late:
            return top
        value = self._scored.gather(-1, self.proposal[..., None])[..., 0]
        return torch.exp((value - peak).double()) * top

    @cached_property
    def entropy(self) -> Tensor:
        """float64 [B, W], nats."""
        _, _, rest, spread = self._statistics
        value = torch.log1p(rest) + spread / (1 + rest)
        return value.masked_fill(self._late, log(self._raw.shape[-1])) if self._draw.late else value

    @cached_property
    def margin(self) -> Tensor:
        """float64 [B, W]: the largest probability minus the second largest."""
        best, peak, rest, _ = self._statistics
        second = self._scored.scatter(-1, best[..., None], -torch.inf).amax(-1)
        value = -torch.expm1((second - peak).double()) / (1 + rest)
        return value.masked_fill(self._late, -1) if self._draw.late else value

    @cached_property
    def _late(self) -> Tensor:
        """bool [B, W]: where a token is proposed that is to come last."""
        return torch.isin(self.proposal, torch.tensor(self._draw.late, device=self.proposal.device))

    @cached_property
    def logprobs(self) -> Tensor:
        """fp32 [B, W, V], -inf at the mask. Costs a tensor as large as the logits."""
        return self._scored.log_softmax(-1)

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
    def _cut(self) -> Tensor:
        """Logits `[B, W, V]` that tokens are drawn from: tempered, then cut."""
        draw, z = self._draw, self._raw
        if draw.temperature:
            z = z / draw.temperature
        if draw.top_p is not None and draw.top_p < 1:
            z = _top_p(z, draw.top_p)
        if draw.top_k is not None and draw.top_k < z.shape[-1]:
            z = z.masked_fill(z < z.topk(draw.top_k).values[..., -1:], -torch.inf)
        return z

    @cached_property
    def _scored(self) -> Tensor:
        known = self._cut if self._draw.filtered else self._raw
        return _without(known, self._draw.late) if self._draw.late else known

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return statistics(self._scored)


def statistics(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """best int64, peak, rest float64, spread float64, all [...], of `logits` [..., V].

    With e_v = exp(l_v - peak): rest = sum of e_v over v != best, spread = sum of e_v (peak - l_v).
    Nothing is subtracted from 1, so confidence = 1 / (1 + rest), entropy = log1p(rest) + spread /
    (1 + rest) keep their relative precision where a softmax rounds to 1 and an entropy to 0.
    """
    peak, best = logits.max(-1)
    # The clamp keeps 0 * inf out of the spread where a logit is -inf.
    gap = (peak[..., None] - logits).clamp_(max=1e4)
    e = torch.exp(-gap).scatter_(-1, best[..., None], 0)
    return best, peak, e.sum(-1).double(), e.mul_(gap).sum(-1).double()


def _without(logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
    return logits.index_fill(-1, torch.tensor(tokens, device=logits.device), -torch.inf)


def _top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the fewest likeliest tokens whose mass exceeds `p` (Dream, generation_utils.py)."""
    values, index = logits.sort(-1, descending=True)
    before = values.softmax(-1).cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    cut = torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before > p)
    return logits.masked_fill(cut, -torch.inf)
