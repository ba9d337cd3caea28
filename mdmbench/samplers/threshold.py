"""Rules that take every position that is sure enough. The loop forces the surest one if none is."""

from dataclasses import dataclass

import torch

from mdmbench.base import Choice
from mdmbench.samplers.knobs import at_least
from mdmbench.step import Step


@dataclass(frozen=True)
class Threshold:
    """Confidence >= threshold. Fast-dLLM 2505.22618 (inclusive, as in its llada/generate.py).

    capped  among the surest `quota` positions only: with the linear schedule, whose missed
            positions are asked for again, this is Fast-dLLM's Dream port (uncached)
    """

    threshold: float = 0.9
    capped: bool = False

    def __post_init__(self) -> None:
        at_least("threshold", self.threshold, 0)

    def __call__(self, step: Step) -> Choice:
        sure = step.confidence >= self.threshold
        if self.capped:
            sure &= step.top(step.confidence, step.quota)
        return Choice(sure)


@dataclass(frozen=True)
class EntropyThreshold:
    """Entropy <= threshold, nats: dParallel's decode rule, 2509.26488."""

    threshold: float = 0.5

    def __post_init__(self) -> None:
        at_least("threshold", self.threshold, 0)

    def __call__(self, step: Step) -> Choice:
        return Choice(step.entropy <= self.threshold, order=-step.entropy)


@dataclass(frozen=True)
class Factor:
    """The n surest with (n + 1)(1 - c_n) <= factor, n as large as possible. Fast-dLLM 2505.22618.

    The bar rises with the rank while the confidence falls, so the passing ranks are a prefix.

    slip  as published: where only the last eligible rank fails, it is taken all the same
    """

    factor: float = 1.0
    slip: bool = False

    def __post_init__(self) -> None:
        at_least("factor", self.factor, 0)

    def __call__(self, step: Step) -> Choice:
        order = step.order(step.confidence)
        rank = torch.arange(1, order.shape[1] + 1, device=order.device)
        sure = (rank + 1) * (1 - step.confidence.gather(1, order)) <= self.factor
        sure[:, 0] = True
        passing = (sure & step.eligible.gather(1, order)).sum(1)
        if self.slip:
            passing = passing + (passing == step.left - 1).long()
        return Choice(step.top(step.confidence, passing))
