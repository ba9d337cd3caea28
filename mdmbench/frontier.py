"""What a sweep has found: the runs worth having, and what speed costs no quality."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from mdmbench import sequential
from mdmbench.paired import tango
from mdmbench.rows import Row, grouped, label, rule, title, top1
from mdmbench.samples import SCORE, Samples, paired
from mdmbench.stats import Interval
from mdmbench.store import Run
from mdmbench.verdicts import Verdict, quality, tested


def frontier(group: Sequence[Row]) -> list[Row]:
    """The rows that no other one is better than in score and NFE, the cheapest first."""
    known = [row for row in group if row.accuracy and row.nfe]
    best: list[Row] = []
    for row in sorted(known, key=lambda r: (_calls(r), -_score(r))):
        if not best or _score(row) > _score(best[-1]):
            best.append(row)
    return best


def _calls(row: Row) -> float:
    assert row.nfe
    return row.nfe.value


def _score(row: Row) -> float:
    assert row.accuracy
    return row.accuracy.value


@dataclass(frozen=True)
class Saving:
    """Speed-up at equal quality: the boldest run of a rule that can be shown to lose no more than
    the margin.

    row      that run; None: not even the most careful one can be shown to
    speedup  of its NFE against the baseline
    change   of its score, or of the most careful one's, against the baseline, on `n` examples
    early    it was tested as runs that stop early have to be
    """

    group: str
    rule: str
    margin: float
    n: int
    row: Row | None = None
    speedup: Interval | None = None
    change: Interval | None = None
    early: bool = False

    def __str__(self) -> str:
        points = f"{100 * self.margin:g} point{'s' * (self.margin != 0.01)}"
        if self.row and self.speedup:
            value, low, high = (f"{v:.1f}" for v in self.speedup)
            saved = f"{value}x fewer NFE [{low}, {high}]"
            return f"{label(self.row)}: {saved} at no more than {points} lost (95 %)"
        text = f"{self.rule}: no speed-up is shown at no more than {points} lost"
        if not self.n:
            return f"{text}: no example is in both"
        least = -tango(0, 0, self.n)[0]
        if self.early or least <= self.margin:
            return f"{text} (n = {self.n})"
        needed = ceil(self.n * least / (1 - least) * (1 - self.margin) / self.margin)
        return (
            f"{text}: even without a flip, {self.n} examples leave {100 * least:.1f} points "
            f"possible, and {needed} are needed"
        )


def savings(
    rows: Sequence[Row], known: Mapping[Path, Samples], margin: float, early: bool = False
) -> list[Saving]:
    """A saving for each rule that has a baseline among the rows.

    A rule's runs are tested from the most careful to the boldest, until one cannot be shown to
    lose less than the margin: in this order each test keeps its 95 % (fixed-sequence testing,
    Maurer et al. 1995), however many runs the rule has. Rules are not corrected for each other.

    early  the runs may have stopped when they looked good: the test is one that allows for it
           (`sequential.verdict`)
    """
    found = []
    for group in grouped(rows):
        runs = {row.run: Run(row.run) for row in group}
        for name in dict.fromkeys(rule(row) for row in group if not row.baseline):
            curve = [r for r in group if rule(r) == name and r.nfe and not r.baseline]
            careful_first = sorted(curve, key=_calls, reverse=True)
            bases = ((row, top1(runs[row.run], list(runs.values()))) for row in careful_first)
            pairs = [(row, known[base.path]) for row, base in bases if base]
            if pairs:
                found.append(_boldest(pairs, known, margin, early))
    return found


def _boldest(
    curve: Sequence[tuple[Row, Samples]], known: Mapping[Path, Samples], margin: float, early: bool
) -> Saving:
    """Of rows with their baselines, the most careful first."""
    first, _ = curve[0]
    best: Row | None = None
    shown: Verdict | None = None
    for row, base in curve:
        verdict = tested(base, known[row.run], quality(row.headline, margin))
        shown = shown or verdict
        if verdict.test is None:
            break
        if early:
            enough = _within(base, known[row.run], row.headline, margin)
        else:
            enough = verdict.test.change.low >= -margin
        if not enough:
            break
        best, shown = row, verdict
    assert shown
    return Saving(
        group=first.group,
        rule=rule(first),
        margin=margin,
        n=shown.n,
        row=best,
        speedup=best.speedup["nfe"] if best else None,
        change=shown.test.change if shown.test else None,
        early=early,
    )


def _within(base: Samples, own: Samples, headline: str, margin: float) -> bool:
    """Whether the loss is below the margin, whenever and why ever the runs have stopped."""
    before, after = paired(base, own, SCORE + headline)
    change = after - before
    ordered = change.loc[sorted(change.index, key=sequential.place)]
    return sequential.verdict(ordered.tolist(), margin) == "within"


def lines(rows: Sequence[Row], found: Sequence[Saving]) -> Iterator[str]:
    """What to say below a table."""
    for group in grouped(rows):
        yield f"{title(group)}: frontier, the cheapest first"
        most = max(row.n for row in group)
        yield f"  {'  <  '.join(_short(row, most) for row in frontier(group))}"
        yield from (f"  {saving}" for saving in found if saving.group == group[0].group)


def _short(row: Row, most: int) -> str:
    """Runs that stopped early are of other examples than those that went on."""
    fewer = f", n={row.n}" if row.n < most else ""
    return f"{label(row)} ({100 * _score(row):.1f} % at {_calls(row):.1f}{fewer})"


def document(rows: Sequence[Row], found: Sequence[Saving]) -> dict[str, Any]:
    """What `--json` says beside the rows."""
    return {
        "frontier": [[str(row.run) for row in frontier(group)] for group in grouped(rows)],
        "savings": [
            {
                "rule": saving.rule,
                "margin": saving.margin,
                "n": saving.n,
                "run": str(saving.row.run) if saving.row else None,
                "speedup": saving.speedup._asdict() if saving.speedup else None,
                "change": saving.change._asdict() if saving.change else None,
            }
            for saving in found
        ],
    }
