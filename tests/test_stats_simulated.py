"""Intervals and tests against simulated truth; `pytest -m slow -s` prints the figures."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from mdmbench.stats import Interval, paired_means, paired_ratio, paired_shares, ratio, resampled

pytestmark = pytest.mark.slow

RUNS = 2000
SIZES = (20, 50, 200)
Columns = tuple[NDArray[Any], ...]
Draw = Callable[[np.random.Generator, int], Columns]


class Case(NamedTuple):
    """What to simulate: `draw` makes n examples, of which `of` says something about `truth`.

    alarms, covered  the most and the least that are allowed; None where there is a difference
    """

    name: str
    of: Callable[..., Any]
    draw: Draw
    truth: float
    alarms: float | None = None
    covered: float = 0.93


def shares(discordant: float, change: float = 0) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> Columns:
        lost = (discordant - change) / 2
        kind = rng.choice(4, n, p=[(1 - discordant) / 2] * 2 + [lost, discordant - lost])
        return np.isin(kind, (1, 2)) * 1, np.isin(kind, (1, 3)) * 1

    return draw


def samples(differing: float) -> Draw:
    """The share of 5 samples that pass; of examples that differ, A and B have their own."""

    def draw(rng: np.random.Generator, n: int) -> Columns:
        a, b = rng.binomial(5, rng.beta(0.5, 0.5, (2, n))) / 5
        return a, np.where(rng.random(n) < differing, b, a)

    return draw


def losses(differing: float) -> Draw:
    """Scores of which some fall by up to a half, and none rises."""
    return lambda rng, n: (
        np.full(n, 0.9),
        0.9 - np.where(rng.random(n) < differing, rng.random(n) / 2, 0),
    )


def costs(size: Callable[[np.random.Generator, int], Any], noise: float) -> Draw:
    """Each example has a size, and each side multiplies it by its own lognormal noise."""

    def draw(rng: np.random.Generator, n: int) -> Columns:
        both, ones = size(rng, n), np.ones(n)
        a, b = both * rng.lognormal(0, noise, (2, n))
        return a, ones, b, ones

    return draw


def pace(rng: np.random.Generator, n: int) -> Columns:
    """Tokens a forward."""
    tokens = rng.lognormal(4, 0.5, n)
    return tokens, tokens * rng.uniform(0.1, 0.5, n), tokens, tokens * rng.uniform(0.1, 0.5, n)


def speedup(rng: np.random.Generator, n: int) -> Columns:
    cost, ones = exponential(rng, n), np.ones(n)
    return cost, ones, cost * rng.uniform(0.1, 0.3, n), ones


def uneven(rng: np.random.Generator, n: int) -> Columns:
    """A costs the same everywhere, B as much on average."""
    ones = np.ones(n)
    return ones, ones, rng.exponential(1, n), ones


def exponential(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return rng.exponential(1, n)


def lognormal(spread: float) -> Callable[[np.random.Generator, int], NDArray[Any]]:
    return lambda rng, n: rng.lognormal(0, spread, n)


def alone(size: Callable[[np.random.Generator, int], NDArray[Any]]) -> Draw:
    return lambda rng, n: (size(rng, n),)


CASES = (
    *(
        Case(f"shares, {100 * d:g} % differ", paired_shares, shares(d), 0, 0.06)
        for d in (0.02, 0.1, 0.3)
    ),
    Case("shares, 10 % differ, 5 % lost", paired_shares, shares(0.1, -0.05), -0.05),
    *(
        Case(f"means, {100 * d:g} % differ", paired_means, samples(d), 0, 0.06)
        for d in (0.02, 0.1, 0.3, 1)
    ),
    Case("means, 30 % fall", paired_means, losses(0.3), -0.3 / 4),
    Case("ratio, exponential", paired_ratio, costs(exponential, 0.3), 1, 0.06),
    Case("ratio, lognormal 0.5", paired_ratio, costs(lognormal(0.5), 0.5), 1, 0.06),
    Case("ratio, lognormal 1", paired_ratio, costs(lognormal(1), 0.5), 1, 0.06),
    Case("ratio, tokens a forward", paired_ratio, pace, 1, 0.06),
    Case("ratio, a fifth", paired_ratio, speedup, 0.2),
    Case("mean, exponential", resampled, alone(exponential), 1),
    Case("mean, lognormal 0.5", resampled, alone(lognormal(0.5)), np.exp(0.125)),
    Case("speed-up, exponential", ratio, lambda rng, n: speedup(rng, n)[::2], 5),
)
CORNERS = (
    Case("means, 10 % fall", paired_means, losses(0.1), -0.1 / 4, covered=0.92),
    Case("mean, lognormal 1", resampled, alone(lognormal(1)), np.exp(0.5), covered=0.91),
    Case("ratio, A constant, B exponential", paired_ratio, uneven, 1, 0.10),
)
"""The bar is not kept where two of 20 scores fall and none rises, where a few of 20 examples cost
most of the whole, and where B varies much and A not at all: these are the bounds there instead."""


@pytest.mark.parametrize("case", CASES + CORNERS, ids=lambda case: case.name)
def test_false_alarms_and_coverage(case: Case) -> None:
    figures = []
    for n in SIZES:
        rng, alarms, covered = np.random.default_rng(n), 0, 0
        for _ in range(RUNS):
            found = case.of(*case.draw(rng, n))
            change = found if isinstance(found, Interval) else found.change
            alarms += change is not found and found.p < 0.05
            covered += change.low - 1e-12 <= case.truth <= change.high + 1e-12
        figures.append((alarms / RUNS, covered / RUNS))
    shown = (
        f"{100 * a:.1f} | {100 * c:.1f}" if case.alarms else f"| {100 * c:.1f}" for a, c in figures
    )
    print(f"\n| {case.name} | {' | '.join(shown)} |")
    assert case.alarms is None or max(alarms for alarms, _ in figures) <= case.alarms
    assert min(covered for _, covered in figures) >= case.covered
