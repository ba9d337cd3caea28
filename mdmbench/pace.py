"""Whose turn it is, where several runs are made side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdmbench import sequential
from mdmbench.store import Record
from mdmbench.verdicts import ALPHA

TURN = 16
"""Examples that a run of a sweep makes before the others have made as many."""


@dataclass
class Progress:
    """How far a run is.

    ids       of all its examples, in the order in which they are decoded
    baseline  the run that it is compared with, where that is made too
    score     float64 [n], the headline scores in the order of `ids`; NaN: not known yet
    nfe       float64 [n], the same
    """

    headline: str
    ids: Sequence[str]
    baseline: Progress | None = None
    score: NDArray[np.float64] = field(init=False)
    nfe: NDArray[np.float64] = field(init=False)
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
    def cost(self) -> float:
        """Mean NFE so far; 0 before the first example, so that every run is tried."""
        return float(np.nanmean(self.nfe)) if self.done else 0.0


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
    """Rounds of TURN examples, in each the cheapest run first; runs that a cheaper one beats wait
    until all others are done. Stopped at any time it leaves an even picture behind.

    margin  a run stops as soon as its loss of quality against its baseline is shown to be below
            or beyond this (`sequential.verdict`); None: never
    """

    margin: float | None = None

    def __call__(self, runs: Sequence[Progress]) -> Turn | None:
        going = [run for run in runs if run.left and not self._settled(run, runs)]
        if not going:
            return None
        tried = [run for run in runs if run.done]
        who = min(going, key=lambda r: (_beaten(r, tried), r.done // TURN, r.cost))
        return Turn(who, min(len(who.ids), (who.done // TURN + 1) * TURN))

    def _settled(self, run: Progress, runs: Sequence[Progress]) -> bool:
        """Decided; a baseline is where all that are compared with it are."""
        others = [other for other in runs if other.baseline is run]
        return all(map(self._decided, others)) if others else self._decided(run)

    def _decided(self, run: Progress) -> bool:
        if self.margin is None or run.baseline is None:
            return False
        change = run.score - run.baseline.score
        # Easy examples are done first: what counts are those up to the first that is missing.
        missing = np.flatnonzero(np.isnan(change))
        known = change[: missing[0]] if len(missing) else change
        return sequential.verdict(known.tolist(), self.margin) is not None


def _beaten(run: Progress, others: Sequence[Progress]) -> bool:
    """Whether a cheaper run is better beyond chance (exact McNemar on whole scores)."""
    return any(other.cost < run.cost and _better(other, run) for other in others)


def _better(one: Progress, other: Progress) -> bool:
    from scipy.stats import binom

    change = one.score - other.score
    won, lost = int((change > 0).sum()), int((change < 0).sum())
    return won > lost and 2 * float(binom.sf(won - 1, won + lost, 0.5)) < ALPHA
