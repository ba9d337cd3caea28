"""The test that may be looked at after every example."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdmbench.sequential import BETS, verdict

RUNS = 1000
DIFFERENCES = st.lists(st.sampled_from([-1, -0.5, 0, 0, 0, 0.5, 1]), max_size=300)


def draw(mean: float, discordant: float, n: int, seed: int) -> NDArray[np.float64]:
    """RUNS comparisons of n examples [RUNS, n], of which so many are solved by one side only."""
    chances = [(discordant - mean) / 2, 1 - discordant, (discordant + mean) / 2]
    return np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], (RUNS, n), p=chances)


def share(runs: NDArray[np.float64], margin: float, wanted: str) -> float:
    return float(np.mean([verdict(list(run), margin) == wanted for run in runs]))


@pytest.mark.parametrize(
    ("margin", "discordant"), [(0.02, 0.02), (0.02, 0.1), (0.05, 0.3), (0.2, 1.0), (0, 0.1)]
)
def test_at_the_margin_looking_at_every_example_is_wrong_one_time_in_twenty(
    margin: float, discordant: float
) -> None:
    """Whichever verdict is given there may be counted as wrong."""
    runs = draw(-margin, discordant, 800, seed=1)
    wrong = share(runs, margin, "within") + share(runs, margin, "beyond")
    assert wrong <= 0.05


def test_at_the_margin_graded_scores_are_no_worse() -> None:
    runs = np.random.default_rng(2).normal(-0.05, 0.2, (RUNS, 800)).clip(-0.55, 0.45)
    assert share(runs, 0.05, "within") + share(runs, 0.05, "beyond") <= 0.05


@pytest.mark.parametrize(
    ("mean", "discordant", "margin", "n", "answer"),
    [
        (0, 0.0, 0.02, 400, "within"),
        (0, 0.02, 0.02, 1319, "within"),
        (0, 0.1, 0.05, 1319, "within"),
        (-0.1, 0.12, 0.02, 500, "beyond"),
        (-0.1, 0.2, 0.02, 1319, "beyond"),
    ],
)
def test_nine_in_ten_see_what_is_there(
    mean: float, discordant: float, margin: float, n: int, answer: str
) -> None:
    assert share(draw(mean, discordant, n, seed=3)[:200], margin, answer) > 0.9


def test_equal_scores_take_as_many_examples_as_the_bets_say() -> None:
    """Without a difference each bet grows by the same factor at every example."""
    margin, alpha = 0.02, 0.05
    growth = 1 + BETS * margin / (1 - margin)
    needed = next(n for n in range(1, 10_000) if np.mean(growth**n) >= 2 / alpha)
    assert verdict([0] * (needed - 1), margin) is None
    assert verdict([0] * needed, margin) == "within"


@given(DIFFERENCES, st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_a_verdict_stands(differences: list[float], seen: int) -> None:
    first = verdict(differences[:seen], 0.1)
    assert first in (None, verdict(differences, 0.1))


@given(DIFFERENCES)
@settings(max_examples=60, deadline=None)
def test_swapping_a_and_b_without_a_margin_turns_the_verdict_over(differences: list[float]) -> None:
    other = {"within": "beyond", "beyond": "within", None: None}
    assert verdict([-d for d in differences], 0) == other[verdict(differences, 0)]


def test_no_example_can_ruin() -> None:
    """The worst one costs no bet all its money, and the rest win it back."""
    assert verdict([-1, *[0.0] * 2000], 0.05) == "within"
    assert verdict([1] * 3 + [-1] * 50, 0.05) == "beyond"


def test_nothing_is_known_before_the_first_example() -> None:
    assert verdict([], 0.02) is None


@pytest.mark.parametrize("margin", [-0.1, 1, math.nan])
def test_a_margin_is_a_share(margin: float) -> None:
    with pytest.raises(ValueError, match=r"is not in \[0, 1\)"):
        verdict([0, 1], margin)


@pytest.mark.parametrize("difference", [-1.5, 2, math.nan])
def test_a_difference_is_of_scores(difference: float) -> None:
    with pytest.raises(ValueError, match=r"not in \[-1, 1\]"):
        verdict([0, difference], 0.1)
