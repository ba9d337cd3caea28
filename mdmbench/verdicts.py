"""From paired samples to marks: is B better than A, worse, the same, or can nobody tell yet?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdmbench.errors import UserError, unknown
from mdmbench.paired import FEWEST
from mdmbench.samples import SCORE, Samples, common, paired, timed
from mdmbench.stats import Interval, Test, holm, mean, paired_means, paired_ratio, ratio

ALPHA = 0.05


class Mark(StrEnum):
    better = "better"
    worse = "worse"
    same = "same"
    undecided = "undecided"
    incomparable = "not comparable"


@dataclass(frozen=True)
class Measure:
    """One number of a run: the sum of column `top` over that of `bottom`, "" counting examples.

    A score is compared by its difference, anything else by its ratio; `margin` is how much of
    either counts as the same, `floor` how much of it numerics alone are known to change
    (`floor.read`), and `up` says whether more is better.
    """

    name: str
    top: str
    margin: float
    bottom: str = ""
    up: bool = False
    score: bool = False
    floor: float = 0.0


COSTS = (
    Measure("nfe", "nfe", 0.02),
    Measure("nfe_until", "nfe_until", 0.02),
    Measure("tpf", "length", 0.02, bottom="nfe", up=True),
    Measure("forward_tokens", "forward_tokens", 0.02),
    Measure("seconds", "decode", 0.05, floor=0.25),
)
POINT = 0.01
"""The margin of a score: one point of per cent."""


def quality(score: str, margin: float = POINT) -> Measure:
    """The measure of a score."""
    return Measure(score, SCORE + score, margin, up=True, score=True)


@dataclass(frozen=True)
class Verdict:
    """B against A by one measure, on the `n` examples that both have a number for.

    before, after  A's and B's values alone
    test           of the change; its p is not corrected, `p` is, for all that was asked together
    why            what stands in the way of a comparison, or what was left out of it
    """

    measure: Measure
    n: int
    before: Interval | None = None
    after: Interval | None = None
    test: Test | None = None
    p: float | None = None
    mark: Mark = Mark.incomparable
    why: str = ""


def measures(
    one: Samples, other: Samples, floor: Mapping[str, float] = MappingProxyType({})
) -> list[Measure]:
    """All that two runs can be compared by, scores first; `floor` is theirs, by measure."""
    names = dict.fromkeys((*one.scores, *other.scores))
    ends = one.numbers["nfe_until"].notna().any() and other.numbers["nfe_until"].notna().any()
    costs = [cost for cost in COSTS if ends or cost.name != "nfe_until"]
    found = [*map(quality, names), *costs]
    return [replace(measure, floor=floor.get(measure.name, measure.floor)) for measure in found]


def verdicts(one: Samples, other: Samples, asked: Sequence[Measure]) -> list[Verdict]:
    """A mark for each measure; the p values are corrected together (Holm)."""
    return marked([tested(one, other, measure) for measure in asked])


def marked(found: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts with their p corrected for all of them, and their marks."""
    corrected = iter(holm([v.test.p for v in found if v.test]))
    return [_marked(v, next(corrected)) if v.test else v for v in found]


def tested(one: Samples, other: Samples, measure: Measure) -> Verdict:
    """The measure of two runs on the examples they share, without a mark yet."""
    for samples, name in ((one, "A"), (other, "B")):
        if measure.score and measure.name not in samples.scores:
            return Verdict(measure, 0, why=f"{name} has no such score")
    total = common(one, other)[0].example.nunique()
    one, other = _counted(one, other, measure)
    if measure.name == "seconds":
        total = one.example.nunique()
        if not total:
            return Verdict(measure, 0, why="no example was timed in both on the same machine")
    a, b, c, d = _columns(one, other, measure)
    n = len(a)
    lost = total - n
    why = f"{lost} of {n + lost} examples have no number" if lost else ""
    if not n:
        return Verdict(measure, 0, why=why or "no example has it in both")
    if measure.score:
        return Verdict(measure, n, mean(a), mean(b), paired_means(a, b), why=why)
    test = paired_ratio(a, c, b, d)
    return Verdict(
        measure, n, ratio(a, c), ratio(b, d), test, why=why if test else "there is no such ratio"
    )


class Move(NamedTuple):
    """A change without its statistics.

    value  B - A of a score, B / A of anything else
    parts  float64 [n], what each example adds to the difference, or to B / A - 1 where that is
           small
    """

    value: float
    parts: NDArray[np.float64]


def moved(one: Samples, other: Samples, measure: Measure) -> Move | None:
    """On the examples that both have a number for; None where there is no such change."""
    if measure.score and not (measure.name in one.scores and measure.name in other.scores):
        return None
    a, b, c, d = map(np.asarray, _columns(*_counted(one, other, measure), measure))
    if measure.score:
        parts = (b - a) / max(1, len(a))
        return Move(float(parts.sum()), parts) if len(a) else None
    bottom = a.sum() * d.sum()
    if not bottom:
        return None
    parts = (b - a) / a.sum() - (d - c) / c.sum()
    return Move(float(b.sum() * c.sum() / bottom), parts) if c.sum() else None


def inside(change: float, measure: Measure) -> bool:
    """Whether numerics alone are known to change the measure as much."""
    margin = measure.floor * (1 + 1e-9)  # sums that rounding has parted
    return margin > 0 and within(Interval(change, change, change), replace(measure, margin=margin))


def amount(share: float, score: bool) -> str:
    """A change's size: in points of a score, in per cent of anything else."""
    points = "point" if share == POINT else "points"
    return f"{100 * share:.3g} {points if score else '%'}"


def _counted(one: Samples, other: Samples, measure: Measure) -> tuple[Samples, Samples]:
    """Both, cut to what the measure is taken of."""
    one, other = timed(one, other) if measure.name == "seconds" else common(one, other)
    return (one, other) if measure.score else (one.measured, other.measured)


def _columns(one: Samples, other: Samples, measure: Measure) -> list[list[float]]:
    """A's and B's tops, then their bottoms, by example."""
    tops = [series.tolist() for series in paired(one, other, measure.top)]
    if not measure.bottom:
        return [*tops, *([1.0] * len(top) for top in tops)]
    return [*tops, *(series.tolist() for series in paired(one, other, measure.bottom))]


def _marked(verdict: Verdict, p: float) -> Verdict:
    assert verdict.test
    measure, change = verdict.measure, verdict.test.change
    nothing = 0.0 if measure.score else 1.0
    if verdict.n < FEWEST:
        mark = Mark.undecided
    elif within(change, measure):
        mark = Mark.same
    elif p < ALPHA and change.value != nothing:
        mark = Mark.better if (change.value > nothing) == measure.up else Mark.worse
    else:
        mark = Mark.undecided
    why = verdict.why
    if mark in (Mark.better, Mark.worse) and inside(change.value, measure):
        mark = Mark.undecided
        noise = f"inside the noise floor of {amount(measure.floor, measure.score)}"
        why = "; ".join(filter(None, (why, noise)))
    return replace(verdict, p=p, mark=mark, why=why)


def within(change: Interval, measure: Measure) -> bool:
    """Whether the whole interval counts as no change."""
    if measure.score:
        return -measure.margin <= change.low and change.high <= measure.margin
    return 1 / (1 + measure.margin) <= change.low and change.high <= 1 + measure.margin


def margins(texts: Sequence[str], known: Sequence[Measure]) -> list[Measure]:
    """The measures with the margins of `name=value` texts: points of a score, or N% of a cost.

    Raises UserError for a measure that is not known, or a margin that is none.
    """
    found = {measure.name: measure for measure in known}
    for name, margin in parsed(texts, found).items():
        found[name] = replace(found[name], margin=margin)
    return list(found.values())


def parsed(texts: Sequence[str], known: Mapping[str, Measure]) -> dict[str, float]:
    """Margins by name, as shares."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in known:
            raise unknown("measure", name, known)
        per_cent = value.endswith("%")
        try:
            number = float(value.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not equals or not 0 <= number < float("inf") or per_cent == known[name].score:
            form = f"{name}=1, in points" if known[name].score else f"{name}=2%"
            raise UserError(f"{text!r} is no margin", f"write {form}")
        found[name] = number / 100
    return found
