"""Paired comparisons: against published numbers, and what must hold whatever the examples."""

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from mdmbench.paired import FEWEST, LARGE, by_swapping, detectable, tango
from mdmbench.stats import Interval, holm, paired_means, paired_ratio, paired_shares, resampled

SHARES = st.lists(st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1])), min_size=1)
SCORE = st.floats(0, 1, allow_subnormal=False)
SCORES = st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=12)
COUNT = st.integers(1, 100)
COUNTS = st.lists(st.tuples(COUNT, COUNT, COUNT, COUNT), min_size=1, max_size=12)


def table(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    """Scores of A and B, by how many examples each solves."""
    a = [1] * (both + only_a) + [0] * (only_b + neither)
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return a, b


def test_mcnemars_exact_test_agrees_with_armitage_and_berry_1994() -> None:
    """Two media for tubercle bacilli, p. 127; the exact p is StatsDirect's of the same example."""
    assert round(paired_shares(*table(20, 12, 2, 16)).p, 4) == 0.0129


def test_mcnemars_exact_test_agrees_with_its_definition_in_fagerland_2013() -> None:
    """BMC Medical Research Methodology 13, 91, table 1: of 8 discordant pairs 7 go one way."""
    assert paired_shares(*table(1, 1, 7, 12)).p == pytest.approx(2 * (1 + 8) / 2**8)


def test_the_interval_of_shares_agrees_with_tango_1998() -> None:
    """Statistics in Medicine 17, section 6.1 and table V: lower limit of the 90 % interval."""
    assert round(tango(0, 1, 44, level=0.90)[0], 3) == -0.096


@pytest.mark.parametrize(
    ("gained", "lost", "n", "level", "low", "high"),
    [
        (60, 20, 1000, 0.95, 0.0231, 0.0584),
        (20, 60, 1000, 0.95, -0.0584, -0.0231),
        (48, 41, 549, 0.90, -0.0157, 0.0414),
    ],
)
def test_the_interval_of_shares_agrees_with_propcis(
    gained: int, lost: int, n: int, level: float, low: float, high: float
) -> None:
    """The R package's scoreci.mp, which solves the same equation by bisection."""
    assert [round(end, 4) for end in tango(gained, lost, n, level)] == [low, high]


def test_swapping_labels_agrees_with_fisher_1935() -> None:
    """The Design of Experiments, section 21: Darwin's 15 pairs of maize. 863 of the 32768 ways to
    sign the differences add up to 314 or more, and as many to -314 or less."""
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sum(maize) == 314
    assert by_swapping(np.array(maize, float)) == 2 * 863 / 32768


def test_random_swaps_agree_with_all_of_them() -> None:
    signed = np.random.default_rng(2).normal(0.4, 1, 18)
    signs = 1 - 2 * (np.arange(2**18)[:, None] >> np.arange(18) & 1)
    exact = (abs(signs @ signed) >= abs(signed.sum()) - 1e-9).mean()
    assert 0.02 < exact < 0.2
    assert by_swapping(signed) == pytest.approx(exact, abs=0.01)


def test_holm_agrees_with_pingouin() -> None:
    """The example in the documentation of pingouin.multicomp."""
    assert holm([0.5, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx(
        [0.64, 0.012, 0.64, 0.162, 0.0015]
    )
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1, 1]


@pytest.mark.parametrize("n", [1, 7, 1000, 10**6])
def test_without_discordant_pairs_the_interval_of_shares_is_wilsons(n: int) -> None:
    z = 1.959963984540054**2
    low, high = tango(0, 0, n)
    assert (low, high) == pytest.approx((-z / (n + z), z / (n + z)), rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 50, 10**6])
def test_an_end_of_the_interval_of_shares_is_never_beyond_one(n: int) -> None:
    for lost in (n, n - 1):
        low, high = tango(0, lost, n)
        assert -1 <= low <= -lost / n < high <= 1
    assert tango(0, n, n)[0] == tango(0, n * (1 - 1e-10), n)[0] == -1
    assert tango(n, 0, n)[1] == 1


def test_scores_that_all_agree_are_not_known_to_agree_everywhere() -> None:
    found = paired_means([0.4, 0.7] * 10, [0.4, 0.7] * 10)
    assert found == paired_shares([1, 0] * 10, [1, 0] * 10)._replace(detectable=found.detectable)
    assert found.change.low < -0.1 and found.p == 1


def test_counts_that_all_agree_are_the_same() -> None:
    found = paired_ratio([5, 7, 9] * 2, [1] * 6, [5, 7, 9] * 2, [1] * 6)
    assert found == (Interval(1, 1, 1), 1, 0)


def test_scores_of_zero_and_one_are_shares() -> None:
    a, b = table(9, 4, 2, 5)
    assert paired_means(a, b) == paired_shares(a, b)


def test_a_ratio_of_ratios_is_that_of_the_sums() -> None:
    """Tokens a forward: 10 tokens in 4 forwards before, in 2 after."""
    found = paired_ratio([4, 6], [1, 3], [4, 6], [1, 1])
    assert found and found.change.value == 2
    swapped = paired_ratio([4, 6], [1, 1], [4, 6], [1, 3])
    assert swapped and swapped.change.value == 0.5


def test_forwards_alone_can_make_the_tokens_a_forward_differ() -> None:
    """Ten examples, the same tokens in fewer forwards: 2 of 1024 swaps are as far out."""
    tokens, fewer = [30, 40] * 5, [5, 6] * 5
    found = paired_ratio(tokens, [9, 10] * 5, tokens, fewer)
    assert found and found.p == 2 / 2**10
    same = paired_ratio(fewer, [1] * 10, fewer[::-1], [1] * 10)
    assert same and same.p == 1


def test_the_detectable_change_of_a_ratio_does_not_depend_on_the_speed_up() -> None:
    a, b = np.random.default_rng(6).lognormal(0, 0.3, (2, 40))
    ones = np.ones(40)
    tests = [paired_ratio(a, ones, b / fold, ones) for fold in (1, 5)]  # type: ignore[arg-type]
    assert tests[0] and tests[1] and 0.05 < tests[0].detectable < 0.5
    assert tests[0].detectable == pytest.approx(tests[1].detectable)


@pytest.mark.parametrize(
    "columns",
    [
        ([1, 2], [1, 1], [1, 2], [0, 0]),
        ([0, 0], [1, 1], [1, 2], [1, 1]),
        ([1, 2], [1, 1], [1, math.nan], [1, 1]),
        ([0, 1], [1, 1], [1, 1], [1, 1]),
    ],
)
def test_a_ratio_that_does_not_exist_is_none(columns: tuple[list[float], ...]) -> None:
    """In the last one a quarter of the resamples divides by zero."""
    assert paired_ratio(*columns) is None


def test_nothing_can_be_shown_with_fewer_than_six_examples() -> None:
    few, enough = FEWEST - 1, FEWEST
    assert paired_shares([0] * few, [1] * few).p > 0.05 > paired_shares([0] * 6, [1] * 6).p
    for n in (few, enough):
        rising = [0.5 + i / 100 for i in range(n)]
        tests = paired_means([0.5] * n, rising), paired_ratio(rising, [1] * n, [0.5] * n, [1] * n)
        assert tests[1] and math.isinf(tests[1].detectable) == (n == few)
        assert paired_shares([0] * n, [1] * n).detectable == 1
        assert (tests[0].detectable == 1) == (n == few)


@pytest.mark.parametrize(("discordant", "n"), [(0.0, 400), (0.05, 200), (0.1, 1319), (0.3, 100)])
def test_the_detectable_change_of_shares_is_detected_by_four_in_five(
    discordant: float, n: int
) -> None:
    """McNemar's exact test at that change, over all that can happen; being exact, it finds a little
    less than Connor's limit says."""
    change = detectable(discordant, n)
    pairs = max(discordant, change)
    towards = (pairs + change) / 2 / pairs
    power = 0.0
    for seen in range(1, n + 1):
        chance = binom.pmf(seen, n, pairs)
        if chance > 1e-6:
            gained = np.arange(seen + 1)
            found = 2 * binom.cdf(np.minimum(gained, seen - gained), seen, 0.5) < 0.05
            power += chance * binom.pmf(gained, seen, towards)[found].sum()
    assert 0.7 < power < 0.83


def test_the_detectable_change_shrinks_with_the_examples() -> None:
    found = [detectable(0.1, n) for n in (1, 10, 100, 1000, 10**6)]
    assert found[:1] == [1] and found == sorted(found, reverse=True) and found[-1] < 0.001
    assert detectable(0.0, 100) >= 6 / 100


@given(SHARES)
@settings(max_examples=100, deadline=None)
def test_swapping_a_and_b_mirrors_shares(pairs: list[tuple[int, int]]) -> None:
    a, b = zip(*pairs, strict=True)
    one, other = paired_shares(a, b), paired_shares(b, a)
    mirrored = [-other.change.value, -other.change.high, -other.change.low]
    assert list(one.change) == pytest.approx(mirrored)
    assert one[1:] == pytest.approx(other[1:])


@given(SCORES)
@settings(max_examples=50, deadline=None)
def test_swapping_a_and_b_mirrors_means(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    one, other = paired_means(a, b), paired_means(b, a)
    mirrored = [-other.change.value, -other.change.high, -other.change.low]
    assert list(one.change) == pytest.approx(mirrored, abs=1e-6)
    assert one[1:] == pytest.approx(other[1:], abs=1e-6)


def test_swapping_a_and_b_turns_a_ratio_over() -> None:
    """To within the interpolation between resamples."""
    rng = np.random.default_rng(8)
    a, b, c, d = rng.lognormal(0, 0.5, (4, 60))
    one, other = paired_ratio(a, b, c, d), paired_ratio(c, d, a, b)  # type: ignore[arg-type]
    assert one and other and one.p == other.p
    upside_down = [1 / other.change.value, 1 / other.change.high, 1 / other.change.low]
    assert list(one.change) == pytest.approx(upside_down, rel=0.003)


@given(SHARES, SCORES, COUNTS)
@settings(max_examples=60, deadline=None)
def test_every_test_makes_sense(shares: Any, scores: Any, counts: Any) -> None:
    tests = [
        paired_shares(*zip(*shares, strict=True)),
        paired_means(*zip(*scores, strict=True)),
        paired_ratio(*zip(*counts, strict=True)),
    ]
    for test in tests:
        assert test is not None
        assert test.change.low <= test.change.value <= test.change.high
        assert 0 < test.p <= 1 and test.detectable >= 0
    for test in tests[:2]:
        assert test and test.change.low >= -1 and test.change.high <= 1 >= test.detectable


def test_the_order_of_the_examples_does_not_matter() -> None:
    """Beyond the noise of 2000 resamples."""
    rng = np.random.default_rng(2)
    a, b = rng.beta(2, 1, (2, 80))
    order = rng.permutation(80)
    one, other = paired_means(a, b), paired_means(a[order], b[order])  # type: ignore[arg-type]
    width = one.change.high - one.change.low
    assert one.change == pytest.approx(other.change, abs=0.1 * width)
    assert one.p == pytest.approx(other.p, abs=0.02)
    shares = a > 0.6, b > 0.6
    assert paired_shares(*shares) == paired_shares(*(side[order] for side in shares))  # type: ignore[arg-type]


def test_nothing_depends_on_chance() -> None:
    a, b = np.random.default_rng(5).beta(2, 1, (2, 50))
    ones = np.ones(50)

    def all_of_them() -> list[Any]:
        return [paired_means(a, b), paired_ratio(a, ones, b, ones)]  # type: ignore[arg-type]

    first = all_of_them()
    np.random.default_rng().random(10)
    assert all_of_them() == first


@pytest.mark.parametrize("differing", [0.02, 1.0])
def test_where_resampling_ends_the_limits_say_the_same(differing: float) -> None:
    """One example more than is resampled; a tenth of the width for scores of which few differ."""
    rng = np.random.default_rng(4)
    a = rng.random(LARGE + 1)
    b = np.where(rng.random(a.size) < differing, rng.random(a.size), a)
    cost, other, ones = *rng.exponential(1, (2, a.size)), np.ones(a.size)
    for few, many in (
        (paired_means(a[1:], b[1:]), paired_means(a, b)),  # type: ignore[arg-type]
        (
            paired_ratio(cost[1:], ones[1:], other[1:], ones[1:]),  # type: ignore[arg-type]
            paired_ratio(cost, ones, other, ones),  # type: ignore[arg-type]
        ),
    ):
        assert few and many
        width = many.change.high - many.change.low
        assert few.change == pytest.approx(many.change, abs=0.1 * width)
        assert few.p == pytest.approx(many.p, abs=0.03)


def test_few_changes_among_many_examples_are_not_taken_for_a_trend() -> None:
    """Five scores of 5000 fall: were the limit normal, p would be 0.03."""
    a = [0.5] * 5000
    found = paired_means(a, [0.25] * 5 + a[5:])
    assert found.p == 2 / 2**5 == binomtest(0, 5).pvalue
    assert found.change.low < 5 / 5000 * -0.25 * 2 and found.change.high > -0.0006


def test_a_million_examples_are_no_matter() -> None:
    a, b = np.random.default_rng(1).random((2, 10**6))
    ones = np.ones(a.size)
    tracemalloc.start()
    paired_means(a, b)  # type: ignore[arg-type]
    paired_ratio(a, ones, b, ones)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_differences_are_resampled_as_any_other_value() -> None:
    a, b = [0.1, 0.5, 0.2, 0.9], [0.3, 0.6, 0.2, 1.0]
    assert paired_means(a, b).change == resampled([y - x for x, y in zip(a, b, strict=True)])


def test_misuse_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 values are paired with 2"):
        paired_means([1, 0, 0.5], [1, 0])
    with pytest.raises(ValueError, match="3 values are paired with 2"):
        paired_ratio([1, 2, 3], [1, 1, 1], [1, 2], [1, 1])
    with pytest.raises(ValueError, match="no values"):
        paired_shares([], [])
