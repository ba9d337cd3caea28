"""A test of a quality margin that may be looked at after every example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BETS = np.geomspace(0.005, 0.99, 16)
"""Stakes, as shares of the largest that cannot ruin; the wealth is the average over all of them."""


def verdict(
    differences: Sequence[float] | NDArray[np.float64], margin: float, alpha: float = 0.05
) -> Literal["within", "beyond"] | None:
    """Whether the mean of B - A lies above -margin ("within"), below it ("beyond"), or neither yet.

    differences  scores in [0, 1] of B minus those of A, in the order in which they were seen

    Someone bets against each side, with alpha / 2 to either (Waudby-Smith and Ramdas, 2010.09686):
    while the mean is what he bets against, his wealth grows 2 / alpha-fold at any time with a
    chance of alpha / 2 (Ville). A verdict may so be asked for at every example, and the first one
    stands: it is wrong with a chance of at most alpha, however often one looks and whatever the
    distribution. It does assume that each example is as good a draw as the next: an order by
    difficulty, or one that was chosen by the scores, says anything. Of a mean that differs from
    -margin it assumes nothing, and one that lies close to it may never get a verdict.

    Raises ValueError for a margin outside [0, 1) or a difference outside [-1, 1].
    """
    excess = np.asarray(differences, dtype=np.float64) + margin
    if not 0 <= margin < 1:
        raise ValueError(f"the margin {margin} is not in [0, 1)")
    if not (abs(excess - margin) <= 1 + 1e-9).all():
        raise ValueError("a difference is not in [-1, 1]")
    within = _first(excess / (1 - margin), alpha / 2)
    beyond = _first(-excess / (1 + margin), alpha / 2)
    if within == beyond:
        return None
    return "within" if within < beyond else "beyond"


def _first(gains: NDArray[np.float64], alpha: float) -> float:
    """The example by which a gambler has 1 / alpha of what he began with; inf where none is.

    gains  at least -1 each, and of a mean of at most 0 if he is wrong
    """
    wealth = np.full(gains.size, -np.inf)
    for bet in BETS:
        wealth = np.logaddexp(wealth, np.cumsum(np.log1p(bet * gains)))
    rich = wealth - math.log(BETS.size) >= -math.log(alpha)
    return float(rich.argmax()) if rich.any() else math.inf


def place(example: str) -> bytes:
    """Where an example stands in an order that says nothing of what it is like."""
    return sha256(example.encode()).digest()
