"""Values and paired comparisons with 95 % intervals.

Resampling is seeded: the same records give the same digits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

SEED = 0
RESAMPLES = 2000
SWAPS = 10_000
BATCH = 100
"""Resamples that are held in memory together; small enough for the cache."""
LARGE = 2000
"""Examples from which on the normal limit stands in for resampling: they no longer differ."""
FEWEST = 6
"""Examples that must differ before a swap of labels can be significant: 2 / 2**6 < 0.05."""

Floats = NDArray[np.float64]


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
    array = _array(values)
    if np.ptp(array) == 0:
        return Interval(float(array[0]), float(array[0]), float(array[0]))
    value = float(array.mean())
    if array.size > LARGE:
        return _normal(value, array - value)
    return _around(value, *_bootstrap(np.mean, array, method="BCa"))


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
    gained, lost = int((after > before).sum()), int((after < before).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    change = tango(gained, lost, before.size)
    return Test(change, p, _detectable_share((gained + lost) / before.size, before.size))


def paired_means(a: Sequence[float], b: Sequence[float]) -> Test:
    """Scores in [0, 1]: bootstrap of the differences, and a test that swaps labels at random.

    Equal differences have no spread to resample; their interval is that of shares, which no score
    in [0, 1] exceeds.
    """
    before, after = _pair(a, b)
    if np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        return paired_shares(a, b)
    differences = after - before
    n = differences.size
    if np.ptp(differences) == 0:
        gained, lost = differences.clip(min=0).sum(), -differences.clip(max=0).sum()
        change = tango(gained, lost, n)
    else:
        change = resampled(differences)  # type: ignore[arg-type]
    detectable = _powered(change) if n >= FEWEST else 1.0
    return Test(change, _by_swapping(differences), min(1.0, detectable))


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
    p = _by_swapping((above_b - above_a) / tops - (below_b - below_a) / bottoms)
    possible = above_a.size >= FEWEST and change.value > 0
    return Test(change, p, _powered(change) / change.value if possible else math.inf)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted for all of them being looked at (Holm 1979); in the order given."""
    order = np.argsort(ps, kind="stable")
    factors = np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.maximum.accumulate(np.minimum(1, factors * np.asarray(ps)[order]))
    return [float(p) for p in adjusted]


def tango(gained: float, lost: float, n: int, level: float = 0.95) -> Interval:
    """The score interval of `(gained - lost) / n`, of Tango (1998), equations 24 to 26.

    gained, lost  of the n pairs, those that only B, or only A, has
    """
    low = _tango_low(gained, lost, n, level)
    return _around((gained - lost) / n, low, -_tango_low(lost, gained, n, level))


def _tango_low(gained: float, lost: float, n: int, level: float) -> float:
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

    if lost == n:
        return -1.0
    # Just below the estimate: without discordant pairs the score is 0 at the estimate as well.
    return float(brentq(score, -1, (gained - lost) / n - 1e-9))


def _detectable_share(discordant: float, n: int) -> float:
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


def _powered(change: Interval) -> float:
    """The change that 80 % of intervals as wide as this one would tell from nothing."""
    from scipy.stats import norm

    return (change.high - change.low) / 2 * float(1 + norm.ppf(0.8) / norm.ppf(0.975))


def _by_swapping(signed: Floats) -> float:
    """Two-sided p of a sum whose terms change sign when an example's labels are swapped: of all
    swaps where they are few, of SWAPS random ones, or of their normal limit."""
    from scipy.stats import norm

    n, total = signed.size, abs(signed.sum())
    if not signed.any():
        return 1.0
    if n > LARGE:
        return float(2 * norm.sf(total / math.sqrt((signed**2).sum())))
    bound = total * (1 - 1e-9)  # ties that rounding has parted
    if 2**n <= SWAPS:
        swaps = np.arange(2**n)[:, None] >> np.arange(n) & 1
        return float((abs((1 - 2 * swaps) @ signed) >= bound).mean())
    rng = np.random.default_rng(SEED)
    batches = (rng.integers(0, 2, (BATCH, n)) for _ in range(SWAPS // BATCH))
    hits = sum(int((abs((1 - 2 * swaps) @ signed) >= bound).sum()) for swaps in batches)
    return (hits + 1) / (SWAPS + 1)


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
    ends = _bootstrap(_quotient, *columns, method="percentile")
    return _around(value, *ends) if np.isfinite(ends).all() else None


def _quotient(*columns: Floats, axis: int) -> Any:
    return math.prod(
        above.mean(axis) / below.mean(axis)
        for above, below in zip(columns[::2], columns[1::2], strict=True)
    )


def _bootstrap(
    statistic: Any, *paired: Floats, method: Literal["BCa", "percentile"]
) -> tuple[float, float]:
    """The ends at a level that makes up for the narrowness of small samples (Hesterberg 2015,
    2107...); by percentiles where BCa is undefined (all resamples on one side)."""
    from scipy.stats import bootstrap, norm, t

    n = paired[0].size
    level = 1 - 2 * norm.sf(t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1)))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scipy warns of the degenerate cases handled here
        rng = np.random.default_rng(SEED)
        options: dict[str, Any] = {"paired": True, "vectorized": True, "batch": BATCH, "rng": rng}
        options["confidence_level"] = level
        found = bootstrap(paired, statistic, n_resamples=RESAMPLES, method=method, **options)
        if method == "BCa" and not np.isfinite(found.confidence_interval).all():
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
