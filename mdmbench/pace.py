"""Whose turn it is, where several runs are made side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdmbench import sequential
from mdmbench.store import Record
from mdmbench.verdicts import ALPHA

Floats = NDArray[np.float64]

TURN = 16
"""Examples that a run of a sweep makes before the others have made as many."""


@dataclass
class Progress:
    """How far a run is.

    ids       of all its records, in the order in which they are decoded
    examples  what each is a sample of; samples of one example stand together
    baseline  the run that it is compared with, where that is made too
    closed    takes in no more examples; those under way are finished
    score     float64 [n], the headline scores in the order of `ids`; NaN: not known yet
    nfe       float64 [n], the same
    """

    headline: str
    ids: Sequence[str]
    examples: Sequence[str]
    baseline: Progress | None = None
    closed: bool = False
    score: Floats = field(init=False)
    nfe: Floats = field(init=False)
    done: int = 0

    def __post_init__(self) -> None:
        self.score = np.full(len(self.ids), np.nan)
        self.nfe = np.full(len(self.ids), np.nan)
        self._place = {id: i for i, id in enumerate(self.ids)}

    def add(self, record: Record) -> None:
        """A record of an example that is not asked for counts for nothing."""
        place = self._place.get(record.id)
        if place is not None:
            self.done += bool(np.isnan(self.nfe[place]))
            self.score[place] = record.scores.get(self.headline, 0.0)
            self.nfe[place] = record.nfe

    def has(self, id: str) -> bool:
        return not np.isnan(self.nfe[self._place[id]])

    @property
    def left(self) -> int:
        return len(self.ids) - self.done

    @property
    def prefix(self) -> int:
        """Records up to the first that is missing or has no score. Easy examples are done first,
        so what lies behind it is no fair sample."""
        missing = np.flatnonzero(~np.isfinite(self.nfe + self.score))
        return int(missing[0]) if len(missing) else len(self.ids)

    @property
    def cost(self) -> float:
        """Mean NFE so far; 0 before the first example, so that every run is tried."""
        return float(self.nfe[: self.prefix].mean()) if self.prefix else 0.0

    def changes(self, base: Progress) -> Floats:
        """Score minus that of `base`: of each example that both have whole, the mean of its
        samples."""
        n = min(self.prefix, base.prefix)
        while 0 < n < len(self.ids) and self.examples[n] == self.examples[n - 1]:
            n -= 1
        change = zip(self.examples[:n], self.score[:n] - base.score[:n], strict=True)
        groups = ([c for _, c in same] for _, same in groupby(change, key=lambda pair: pair[0]))
        return np.array([np.mean(group) for group in groups])


class Turn(NamedTuple):
    """A run, and the number of its examples at which it is somebody else's turn."""

    who: Progress
    until: int


Pace = Callable[[Sequence[Progress]], Turn | None]
"""Given all runs, says which goes on; None where none has to."""


def together(runs: Sequence[Progress]) -> Turn | None:
    """The run with the smallest share of its examples done: what slows the machine down for a
    while slows them all, and their seconds can be compared."""
    going = [run for run in runs if run.left]
    if not going:
        return None
    who = min(going, key=lambda run: run.done / len(run.ids))
    return Turn(who, who.done + 1)


@dataclass(frozen=True)
class Sweep:
    """Rounds of TURN examples, or of a batch where that is more; in each the cheapest run first,
    and runs that a cheaper one beats wait until all others are done.

    margin  a run stops as soon as its loss of quality against its baseline is shown to be below
            or beyond this (`sequential.verdict`); None: never
    """

    margin: float | None = None

    def __call__(self, runs: Sequence[Progress]) -> Turn | None:
        going = [run for run in runs if run.left and not self._settled(run, runs)]
        if not going:
            return None
        who = min(
            going,
            key=lambda r: (
                _beaten(r, runs),
                r.done // TURN,
                not r.done and _needed(r, runs),
                r.cost,
            ),
        )
        return Turn(who, min(len(who.ids), (who.done // TURN + 1) * TURN))

    def _settled(self, run: Progress, runs: Sequence[Progress]) -> bool:
        """Decided; a baseline is where all that are compared with it are."""
        others = [other for other in runs if other.baseline is run]
        return all(map(self._decided, others)) if others else self._decided(run)

    def _decided(self, run: Progress) -> bool:
        if self.margin is None or run.baseline is None:
            return False
        return sequential.verdict(run.changes(run.baseline), self.margin) is not None


def _needed(run: Progress, runs: Sequence[Progress]) -> bool:
    """Whether it is a baseline, which is dear: it is tried last."""
    return any(other.baseline is run for other in runs)


def _beaten(run: Progress, runs: Sequence[Progress]) -> bool:
    """Whether a cheaper run is better beyond chance. A baseline is not: the others need it."""
    return not _needed(run, runs) and any(
        0 < other.cost < run.cost and _better(other, run) for other in runs
    )


def _better(one: Progress, other: Progress) -> bool:
    """By McNemar's exact test."""
    from scipy.stats import binom

    change = one.changes(other)
    won, lost = int((change > 0).sum()), int((change < 0).sum())
    return 2 * float(binom.sf(won - 1, won + lost, 0.5)) < ALPHA
