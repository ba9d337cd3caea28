"""Intervals: against published numbers."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.paired import LARGE
from mdmbench.stats import Interval, mean, ratio, resampled, wilson

NUMBERS = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombe_1998(successes: int, n: int, low: float, high: float) -> None:
    """Statistics in Medicine 17, 857-872, table I, method 3."""
    found = wilson(successes, n)
    assert found.value == successes / n
    assert [round(found.low, 4), round(found.high, 4)] == [low, high]


def test_the_mean_of_zeros_and_ones_is_a_proportion() -> None:
    assert mean([1, 0, 0, 0] * 5) == wilson(5, 20)
    assert mean([1, 1, 1]).low < 0.5
    assert mean([1, 0, 0.5]) == resampled([1, 0, 0.5])


def test_counts_that_all_happen_to_be_one_are_no_proportion() -> None:
    assert resampled([1, 1, 1]) == Interval(1, 1, 1)


def test_two_values_in_equal_parts_span_the_interval() -> None:
    """Of 4 values 1 in 16 resamples holds only the lower two: more than the 2.5 % cut off."""
    assert resampled([3, 3, 7, 7]) == Interval(5, 3, 7)
    assert mean([0.25, 0.25, 0.75, 0.75]) == Interval(0.5, 0.25, 0.75)
    assert ratio([48] * 4, [6, 6, 12, 12]) == pytest.approx(Interval(48 / 9, 4, 8))


@pytest.mark.parametrize("values", [[0.4], [0.1] * 7, [40, 40]])
def test_values_without_spread_have_an_interval_without_width(values: list[float]) -> None:
    assert mean(values) == resampled(values) == Interval(values[0], values[0], values[0])


def test_a_ratio_to_itself_is_one_whatever_the_spread() -> None:
    assert ratio([3, 1, 4, 1, 5], [3, 1, 4, 1, 5]) == Interval(1, 1, 1)
    assert ratio([6], [4]) == Interval(1.5, 1.5, 1.5)


def test_pairing_takes_out_what_examples_have_in_common() -> None:
    """Two runs whose examples differ 1:20 in size, and whose ratio hardly differs at all."""
    below = np.arange(1, 21)
    found = ratio(list(2 * below + 0.1 * (below % 2)), list(below))
    assert found and found.high - found.low < 0.02


@pytest.mark.parametrize(
    ("numerators", "denominators"),
    [([1, 2], [0, 0]), ([1, 2], [0, 1]), ([1, float("nan")], [1, 1]), ([1, 1], [1, float("inf")])],
)
def test_a_ratio_that_does_not_exist_is_none(
    numerators: list[float], denominators: list[float]
) -> None:
    """[0, 1]: a quarter of the resamples divides by zero, so the interval has no upper end."""
    assert ratio(numerators, denominators) is None


def test_misuse_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 numerators for 2 denominators"):
        ratio([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="no values"):
        mean([])


@given(NUMBERS, st.data())
@settings(max_examples=40, deadline=None)
def test_the_value_lies_in_its_interval(values: list[float], data: st.DataObject) -> None:
    same_size = st.lists(st.floats(0.1, 100), min_size=len(values), max_size=len(values))
    for found in (resampled(values), ratio(values, data.draw(same_size))):
        assert found and found.low <= found.value <= found.high


def test_rounding_does_not_put_the_value_outside() -> None:
    below = [0.9, 0.7, 0.9, 0.8, 0.1]
    found = ratio([0.12 * x for x in below], below)
    assert found and found.low <= found.value <= found.high
    assert found == pytest.approx(Interval(0.12, 0.12, 0.12))


def test_nothing_depends_on_chance() -> None:
    values = list(np.random.default_rng(5).normal(20, 5, 50))
    first = resampled(values), ratio(values, values[::-1])
    np.random.default_rng().random(10)
    assert (resampled(values), ratio(values, values[::-1])) == first


@pytest.mark.parametrize("seed", range(3))
def test_where_resampling_ends_the_normal_limit_says_the_same(seed: int) -> None:
    """Skewed values, one example more than is resampled: no end moves by 6 % of the width."""
    above, below = np.random.default_rng(seed).exponential(10, (2, LARGE + 1)) + 5
    for few, many in (
        (resampled(above[1:]), resampled(above)),  # type: ignore[arg-type]
        (ratio(above[1:], below[1:]), ratio(above, below)),  # type: ignore[arg-type]
    ):
        assert few and many
        assert few == pytest.approx(many, abs=0.06 * (many.high - many.low))


def test_a_million_examples_are_no_matter() -> None:
    """Nothing is larger than a few copies of them."""
    values = np.arange(1.0, 1e6 + 1)
    tracemalloc.start()
    mean, half = resampled(values), ratio(values, 2 * values)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mean.value == 500000.5 and half == pytest.approx(Interval(0.5, 0.5, 0.5))
    assert peak < 100e6


def test_the_wider_of_two_bootstraps_counts() -> None:
    """Of 20 values 17 are 0: BCa alone would end at 0.01, percentiles alone at 0.11."""
    found = resampled([0.0] * 17 + [0.2, 0.4, 0.4])
    assert found.low == 0 and found.high > 0.15


def test_few_examples_have_wider_intervals_than_percentiles_give() -> None:
    """Of 1 to 10 the percentiles of all resamples are 3.7 and 7.3."""
    found = resampled(list(range(1, 11)))
    assert found.low < 3.6 and found.high > 7.4
