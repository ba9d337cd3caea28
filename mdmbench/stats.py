"""Values and paired comparisons with 95 % intervals.

Resampling is seeded: the same records give the same digits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mdmbench.paired import (
    BATCH,
    FEWEST,
    LARGE,
    SEED,
    Floats,
    by_swapping,
    detectable,
    tango,
)

RESAMPLES = 2000


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % confidence interval, in the unit of the estimate."""

    value: float
    low: float
    high: float


class Test(NamedTuple):
    """A paired comparison of B with A: example i of one is example i of the other.

    change      B - A for means and shares, B / A for ratios
    p           two-sided, of "no difference"
    detectable  the smallest true change, |B - A| or |B / A - 1|, that so many examples show with
                80 % power; inf where they show none
    """

    change: Interval
    p: float
    detectable: float


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
    return _resampled(_array(values))


def _resampled(array: Floats) -> Interval:
    if np.ptp(array) == 0:
        return Interval(float(array[0]), float(array[0]), float(array[0]))
    value = float(array.mean())
    if array.size > LARGE:
        return _normal(value, array - value)
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
    return _quotient_interval(above, below)


def paired_shares(a: Sequence[float], b: Sequence[float]) -> Test:
    """Scores that are 0 or 1: the exact test of McNemar, the interval of Tango (1998)."""
    from scipy.stats import binomtest

    before, after = _pair(a, b)
    n = before.size
    gained, lost = int((after > before).sum()), int((after < before).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    change = _around((gained - lost) / n, *tango(gained, lost, n))
    return Test(change, p, detectable((gained + lost) / n, n))


def paired_means(a: Sequence[float], b: Sequence[float]) -> Test:
    """Scores in [0, 1]: bootstrap of the differences, and a test that swaps labels at random.

    Equal differences have no spread to resample: theirs is the interval of shares that gain and
    lose as much. So it is of many differences, in a unit in which it also has their spread.
    """
    before, after = _pair(a, b)
    if np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        return paired_shares(a, b)
    differences = after - before
    n, equal = differences.size, np.ptp(differences) == 0
    if n > LARGE or equal:
        size = abs(differences)
        unit = 1.0 if equal else float((size**2).sum() / size.sum())
        gained, lost = (
            float(side.clip(min=0).sum()) / unit for side in (differences, -differences)
        )
        low, high = tango(gained, lost, n)
        change = _around(float(differences.mean()), unit * low, unit * high)
    else:
        change = _resampled(differences)
    power = min(1.0, _powered(change)) if n >= FEWEST else 1.0
    return Test(change, by_swapping(differences), power)


def paired_ratio(
    tops_a: Sequence[float],
    bottoms_a: Sequence[float],
    tops_b: Sequence[float],
    bottoms_b: Sequence[float],
) -> Test | None:
    """`sum(tops_b) / sum(bottoms_b)` over the same of A; None where there is no such number."""
    above_a, below_a = _pair(tops_a, bottoms_a)
    above_b, below_b = _pair(tops_b, bottoms_b)
    _pair(tops_a, tops_b)
    change = _quotient_interval(above_b, below_b, below_a, above_a)
    if change is None:
        return None
    # Swapping an example's labels changes the sign of its entry and leaves both totals alone.
    tops, bottoms = (above_a + above_b).sum(), (below_a + below_b).sum()
    p = by_swapping((above_b - above_a) / tops - (below_b - below_a) / bottoms)
    possible = above_a.size >= FEWEST and change.value > 0
    return Test(change, p, _powered(change) / change.value if possible else math.inf)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted for all of them being looked at (Holm 1979); in the order given."""
    order = np.argsort(ps, kind="stable")
    factors = np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.maximum.accumulate(np.minimum(1, factors * np.asarray(ps)[order]))
    return [float(p) for p in adjusted]


def _powered(change: Interval) -> float:
    """The change that 80 % of intervals as wide as this one would tell from nothing."""
    from scipy.stats import norm

    return (change.high - change.low) / 2 * float(1 + norm.ppf(0.8) / norm.ppf(0.975))


def _quotient_interval(*columns: Floats) -> Interval | None:
    """The means of the even columns over those of the odd ones, by bootstrap of the examples."""
    sums = [float(column.sum()) for column in columns]
    if 0 in sums[1::2] or not np.isfinite(sums).all():
        return None
    value = math.prod(sums[::2]) / math.prod(sums[1::2])
    if all(np.ptp(column) == 0 for column in columns):
        return Interval(value, value, value)
    n = columns[0].size
    if n > LARGE:
        shares = [column / total for column, total in zip(columns, sums, strict=True)]
        return _normal(value, n * value * (np.sum(shares[::2], 0) - np.sum(shares[1::2], 0)))
    ends = _bootstrap(_quotient, *columns)
    return _around(value, *ends) if np.isfinite(ends).all() else None


def _quotient(*columns: Floats, axis: int) -> Any:
    return math.prod(
        above.mean(axis) / below.mean(axis)
        for above, below in zip(columns[::2], columns[1::2], strict=True)
    )


def _bootstrap(statistic: Callable[..., Any], *paired: Floats) -> tuple[float, float]:
    """The ends by percentiles or by BCa, whichever lies farther out: small skewed samples make
    either too narrow, and few different values BCa much so. Both at the level that makes up for
    the sample's own spread being too small (Hesterberg 2015, The American Statistician 69)."""
    from scipy.stats import bootstrap, norm, t

    n = paired[0].size
    level = 1 - 2 * norm.sf(t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1)))
    options: dict[str, Any] = {"paired": True, "vectorized": True, "batch": BATCH}
    options["confidence_level"] = level
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of where BCa is undefined: all resamples on one side
        found = bootstrap(
            paired,
            statistic,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(SEED),
            **options,
        )
        options |= {"n_resamples": 0, "bootstrap_result": found}
        low, high = bootstrap(paired, statistic, method="BCa", **options).confidence_interval
    wide = found.confidence_interval
    return float(np.fmin(low, wide.low)), float(np.fmax(high, wide.high))


def _normal(value: float, influence: Floats) -> Interval:
    """The delta method: `influence` is what each example adds to the value, times their number."""
    from scipy.stats import norm

    half = float(norm.ppf(0.975)) * float(influence.std()) / math.sqrt(influence.size)
    return _around(value, value - half, value + half)


def _around(value: float, low: float, high: float) -> Interval:
    """Rounding may put an end of a narrow interval on the wrong side of the value."""
    return Interval(value, min(float(low), value), max(float(high), value))


def _pair(a: Sequence[float], b: Sequence[float]) -> tuple[Floats, Floats]:
    first, second = _array(a), _array(b)
    if first.shape != second.shape:
        raise ValueError(f"{first.size} values are paired with {second.size}")
    return first, second


def _array(values: Sequence[float]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values")
    return array
