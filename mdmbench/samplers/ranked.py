"""Rules that take a count of positions, in some order. LLaDA 2502.09992, Dream 2508.15487.

The count is `k`, or what the schedule asks for when k is None: one a step without a schedule.
"""

from dataclasses import dataclass

from torch import Tensor

from mdmbench.base import Choice
from mdmbench.samplers.knobs import at_least, one_of
from mdmbench.step import Proxy, Step


def _count(k: int | None, step: Step) -> Tensor | int:
    return step.quota if k is None else k


@dataclass(frozen=True)
class TopK:
    """The k surest positions by confidence, entropy or margin; k = 1 is the quality reference.

    alg_temp  above 0: positions are drawn without replacement from softmax(score / alg_temp)
              instead of ranked (Dream generation_utils.py), by the Gumbel top-k trick
    """

    k: int | None = None
    proxy: Proxy = "confidence"
    alg_temp: float = 0.0

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        one_of("proxy", self.proxy, Proxy)
        at_least("alg_temp", self.alg_temp, 0)

    def __call__(self, step: Step) -> Choice:
        score = step.score(self.proxy)
        if self.alg_temp:
            score = score / self.alg_temp - (-step.noise.log()).log()
        return Choice(step.top(score, _count(self.k, step)))


@dataclass(frozen=True)
class Random:
    """k positions by chance. With the `ancestral` schedule this is Dream's alg=origin."""

    k: int | None = None

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)

    def __call__(self, step: Step) -> Choice:
        return Choice(step.top(-step.noise, _count(self.k, step)))


@dataclass(frozen=True)
class LeftToRight:
    """The k left-most positions."""

    k: int | None = None

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)

    def __call__(self, step: Step) -> Choice:
        return Choice(step.top(-step.positions.double(), _count(self.k, step)))
