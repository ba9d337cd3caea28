"""What a step has to know of each position's distribution over the vocabulary, in one pass.

At a vocabulary of 100,000 this is where samplers lose their time: rows are read in chunks that stay
in the processor's cache, and nothing as large as the logits is made.
"""

from collections.abc import Iterator
from math import e as EULER
from math import inf, log2
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Logits that are read at a time: 4 MB in float32 on a CPU, 256 MB on a GPU."""

SPAN = 256
"""Neighbouring logits whose maximum is taken first: torch finds maxima by far faster than it finds
where they are."""


LARGE = 1 << 13
"""From so many tokens on exp2 takes the place of exp. On a CPU it is four times as fast, but its
last bit depends on where in memory a number stands. That of exp does not, and so no answer of a
small model on its batch."""

LOG2_E = log2(EULER)


class Reading(NamedTuple):
    """Of each row of logits. With e_v = exp(l_v - peak):

    best    int64: the likeliest token, the first of several
    peak    float32: its logit
    second  float32: the largest logit of the others
    rest    float64: sum of e_v over v != best
    spread  float64: sum of e_v (peak - l_v)

    Nothing is subtracted from 1, so confidence = 1 / (1 + rest), entropy = log1p(rest) + spread /
    (1 + rest) keep their relative precision where a softmax rounds to 1 and an entropy to 0.
    """

    best: Tensor
    peak: Tensor
    second: Tensor
    rest: Tensor
    spread: Tensor

    @property
    def confidence(self) -> Tensor:
        return 1 / (1 + self.rest)

    @property
    def entropy(self) -> Tensor:
        """In nats."""
        return torch.log1p(self.rest) + self.spread / (1 + self.rest)

    @property
    def margin(self) -> Tensor:
        """The largest probability minus the second largest."""
        return -torch.expm1((self.second - self.peak).double()) / (1 + self.rest)


def chunks(logits: Tensor) -> Iterator[slice]:
    """Which rows of `logits` [N, V] are read together: as many as CHUNK allows."""
    rows = max(2, CHUNK.get(logits.device.type, CHUNK["cuda"]) // logits.shape[1])
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


class Reader:
    """Reads logits; the room that it needs is made once, for chunks of one shape."""

    def __init__(self) -> None:
        self._room = torch.empty(0)

    def __call__(self, logits: Tensor) -> Reading:
        """The reading of each row of float32 `logits` [N, V]."""
        if self._room.shape != (2, *logits.shape):
            self._room = logits.new_empty(2, *logits.shape)
        gap, e = self._room
        best, peak, second = top2(logits)
        torch.sub(logits, peak[:, None], out=gap)
        if logits.shape[1] < LARGE:
            torch.exp(gap, out=e)
        else:
            torch.exp2(torch.mul(gap, LOG2_E, out=e), out=e)
        e.scatter_(1, best[:, None], 0)
        rest = e.sum(1).double()
        # Where a logit is -inf the product is 0 * inf, which has no share in the sum.
        return Reading(best, peak, second, rest, -e.mul_(gap).nansum(1).double())


def top2(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of `x` [N, V]: where its largest value is first, that value, the second one."""
    whole = x.shape[1] // SPAN * SPAN
    if whole <= SPAN:
        peak, best = x.max(1)
        second = x.scatter(1, best[:, None], -inf).amax(1)
        return best, peak, second
    heads = x[:, :whole].view(len(x), -1, SPAN).amax(2)
    tail = x[:, whole:]
    if tail.shape[1]:
        heads = torch.cat([heads, tail.amax(1, keepdim=True)], 1)
    span = heads.argmax(1, keepdim=True)
    place = span * SPAN + torch.arange(SPAN, device=x.device)
    inside = x.gather(1, place.clamp(max=x.shape[1] - 1))
    inside = inside.masked_fill(place >= x.shape[1], -inf)
    peak, at = inside.max(1)
    others = heads.scatter(1, span, -inf).amax(1)
    second = inside.scatter(1, at[:, None], -inf).amax(1).maximum(others)
    return span[:, 0] * SPAN + at, peak, second
