"""How many positions a count schedule asks for at a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mdmbench.errors import UserError, unknown

if TYPE_CHECKING:
    from mdmbench.step import Step


@dataclass(frozen=True)
class Schedule:
    """Spreads a block's masks over `steps` forwards; the last of them asks for all that is left.

    linear     LLaDA generate.py: equal parts, the first ones get the remainder
    cosine     MaskGIT: after step j a share cos(pi/2 j/steps) is masked
    dream      Dream generation_utils.py: times fall from 1 to `eps`; may ask for nothing at a step
    ancestral  Dream alg=origin: each mask is revealed with the probability of the dream schedule
    """

    name: str
    steps: int
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise unknown("schedule", self.name, SCHEDULES)
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}", "a schedule needs at least one step a block")

    def __call__(self, step: Step) -> Tensor:
        """float64 [B]: positions wanted now; what was missed earlier is asked for again."""
        asked = SCHEDULES[self.name](self, step)
        return torch.where(step.block_index >= self.steps - 1, step.left.double(), asked)


def _linear(s: Schedule, step: Step) -> Tensor:
    done, masks = step.block_index + 1, step.block_masks
    target = done * (masks // s.steps) + torch.minimum(done, masks % s.steps)
    return (target - (masks - step.left)).clamp(min=1).double()


def _cosine(s: Schedule, step: Step) -> Tensor:
    share = torch.cos((step.block_index + 1).double() / s.steps * (pi / 2))
    return (step.left - (step.block_masks * share).floor()).clamp(min=1)


def _share(s: Schedule, step: Step) -> Tensor:
    fall = (1 - s.eps) / s.steps
    time = 1 - step.block_index.double() * fall
    return fall / time


def _dream(s: Schedule, step: Step) -> Tensor:
    return step.left * _share(s, step)


def _ancestral(s: Schedule, step: Step) -> Tensor:
    revealed = (step.noise < _share(s, step)[:, None]) & step.eligible
    return revealed.sum(1).double()


SCHEDULES: dict[str, Callable[[Schedule, Step], Tensor]] = {
    "linear": _linear,
    "cosine": _cosine,
    "dream": _dream,
    "ancestral": _ancestral,
}
