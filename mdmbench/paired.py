"""What paired comparisons are made of: an interval, the power and a test."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SEED = 0
EXACT = 15
"""Examples of which every swap of labels is counted: 2**15 of them."""
SWAPS = 10_000
BATCH = 100
"""Resamples that are held in memory together; small enough for the cache."""
LARGE = 2000
"""Examples above which the normal limit stands in for resampling: they no longer differ."""
FEWEST = 6
"""Examples that have to differ before a swap of labels can be significant: 2 / 2**6 < 0.05."""

Floats = NDArray[np.float64]


def tango(gained: float, lost: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The ends of the score interval of `(gained - lost) / n` (Tango 1998, Statistics in Medicine
    17, equations 24 to 26).

    gained, lost  of the n pairs, those that only B, or only A, has
    """
    return _lowest(gained, lost, n, level), -_lowest(lost, gained, n, level)


def _lowest(gained: float, lost: float, n: int, level: float) -> float:
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf((1 + level) / 2)

    def score(change: float) -> float:
        """Above 0 where `change` is too low to be believed."""
        linear = (2 * n - gained + lost) * change - gained - lost
        constant = -lost * change * (1 - change)
        only_a = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * only_a + change * (1 - change))
        return float(gained - lost - n * change - z * math.sqrt(max(0.0, variance)))

    estimate = (gained - lost) / n
    if estimate < -1 + 1e-7:
        return -1.0
    # Just below the estimate: without discordant pairs the score is 0 at the estimate as well.
    return float(brentq(score, -1, estimate - 1e-9))


def detectable(discordant: float, n: int) -> float:
    """Connor (1987), of discordant pairs as observed or as few as the change itself needs."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    def surplus(change: float) -> float:
        """Above 0 where n examples are more than enough."""
        pairs = max(discordant, change)
        null, alternative = math.sqrt(pairs), math.sqrt(max(0.0, pairs - change**2))
        return float(math.sqrt(n) * change - norm.ppf(0.975) * null - norm.ppf(0.8) * alternative)

    change = brentq(surplus, 1e-12, 1) if surplus(1) > 0 else 1.0
    return min(1.0, max(float(change), FEWEST / n))


def by_swapping(signed: Floats) -> float:
    """Two-sided p of a sum whose terms change sign when an example's labels are swapped: of all
    swaps of up to EXACT examples, of SWAPS random ones, or of their normal limit."""
    from scipy.stats import norm

    signed = signed[signed != 0]
    n, total = signed.size, abs(signed.sum())
    if n > LARGE:
        return float(2 * norm.sf(total / math.sqrt((signed**2).sum())))
    bound = total * (1 - 1e-9)  # ties that rounding has parted
    if n <= EXACT:
        swaps = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float((abs(signed.sum() - 2 * swaps @ signed) >= bound).mean())
    rng = np.random.default_rng(SEED)
    batches = (rng.integers(0, 2, (BATCH, n), np.int8) for _ in range(SWAPS // BATCH))
    hits = sum(int((abs(signed.sum() - 2 * (s @ signed)) >= bound).sum()) for s in batches)
    return (hits + 1) / (SWAPS + 1)
