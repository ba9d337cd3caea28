"""Values with 95 % intervals. Resampling is seeded: the same records give the same digits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 2000
BATCH = 100
"""Resamples that are held in memory together; small enough for the cache."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval, in the unit of the estimate."""

    value: float
    low: float
    high: float


def wilson(successes: int, n: int) -> Interval:
    """The share `successes / n` with Wilson's score interval (without continuity correction)."""
    from scipy.stats import binomtest

    ends = binomtest(successes, n).proportion_ci(method="wilson")
    return _around(successes / n, ends.low, ends.high)


def mean(values: Sequence[float]) -> Interval:
    """The mean of scores in [0, 1]: a proportion where every score is 0 or 1."""
    array = _array(values)
    if np.isin(array, (0, 1)).all():
        return wilson(int(array.sum()), array.size)
    return resampled(values)


def resampled(values: Sequence[float]) -> Interval:
    """The mean of any quantity, by bootstrap: counts that all happen to be 1 are no proportion."""
    array = _array(values)
    value = float(array.mean())
    if np.ptp(array) == 0:
        return Interval(float(array[0]), float(array[0]), float(array[0]))
    return _around(value, *_bootstrap(np.mean, array))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that one of k samples passes, drawn without replacement from n of which `correct`
    do: the unbiased estimate of 2107.03374, section 2.1."""
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """Mean of the numerators over mean of the denominators; entry i of both is one example.

    None where there is no such number: the denominators of the sample, or of resamples that
    reach into the interval, are all 0, or a value is not finite.
    """
    above, below = _array(numerators), _array(denominators)
    if above.shape != below.shape:
        raise ValueError(f"{above.size} numerators for {below.size} denominators")
    total = below.sum()
    if total == 0 or not np.isfinite(above.sum() + total):
        return None
    value = float(above.sum() / total)
    if np.ptp(above) == 0 and np.ptp(below) == 0:
        return Interval(value, value, value)
    ends = _bootstrap(_ratio_of_means, above, below)
    return _around(value, *ends) if np.isfinite(ends).all() else None


def _ratio_of_means(above: Floats, below: Floats, axis: int) -> Any:
    return above.mean(axis) / below.mean(axis)


def _bootstrap(statistic: Callable[..., Any], *paired: Floats) -> tuple[float, float]:
    """The ends by BCa; by percentiles where BCa is undefined (all resamples on one side)."""
    from scipy.stats import bootstrap

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scipy warns of the degenerate cases handled here
        rng = np.random.default_rng(SEED)
        options: dict[str, Any] = {"paired": True, "vectorized": True, "batch": BATCH, "rng": rng}
        found = bootstrap(paired, statistic, n_resamples=RESAMPLES, method="BCa", **options)
        if not np.isfinite(found.confidence_interval).all():
            found = bootstrap(
                paired,
                statistic,
                n_resamples=0,
                method="percentile",
                bootstrap_result=found,
                **options,
            )
    low, high = found.confidence_interval
    return float(low), float(high)


def _around(value: float, low: float, high: float) -> Interval:
    """Rounding may put an end of a narrow interval on the wrong side of the value."""
    return Interval(value, min(float(low), value), max(float(high), value))


def _array(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values")
    return array
