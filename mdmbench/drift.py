"""What came of a run that was made again under other numerics: measured, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mdmbench import samples
from mdmbench.compare import flips
from mdmbench.floor import FOLDER, Drift, Noise, larger
from mdmbench.rows import label, rule_of
from mdmbench.samples import Samples, common, example
from mdmbench.stats import wilson
from mdmbench.store import Run, runs
from mdmbench.verdicts import COSTS, amount, measures, moved

if TYPE_CHECKING:
    from rich.table import Table

Z = 1.96
"""Of 95 % of a normal distribution."""
SHARES = {measure.name for measure in COSTS}
"""Measures that change by a share; scores change by points."""
LEGEND = (
    "Answers, lost, gained, NFE: examples whose answer differs at all, whose headline score is "
    "lower or higher, whose NFE differs. Then how far each measure moved; scores in points."
)


def measured(run: Run) -> Noise:
    """What the variations on the disk say of a run."""
    own, seen = samples.read(run), _seen(run)
    floor: dict[str, float] = {}
    found = []
    for folder in sorted(path for path in (run.path / FOLDER).iterdir() if path.is_dir()):
        for again in runs([folder]):
            pair = common(own, samples.read(again))
            if not len(pair[0]):
                continue
            changes, reached = _changes(*pair, run.spec["headline"])
            lost, gained = flips(*pair, run.spec["headline"])
            counts = pair[0].example.nunique(), *_differing(seen, _seen(again))
            found.append(Drift(folder.name, *counts, lost, gained, changes))
            floor = larger(floor, reached)
    return Noise(floor, found)


_Seen = Mapping[str, tuple[str, str, int]]


def _seen(run: Run) -> _Seen:
    """By id: what a record is a sample of, its answer, its NFE."""
    return {record.id: (example(record), record.answer, record.nfe) for record in run.records()}


def _differing(one: _Seen, other: _Seen) -> tuple[int, int]:
    """The examples with another answer, and with another NFE."""
    both = [(one[id], other[id]) for id in one.keys() & other.keys()]
    answers = {a[0] for a, b in both if a[1] != b[1]}
    return len(answers), len({a[0] for a, b in both if a[2] != b[2]})


def _changes(
    one: Samples, other: Samples, headline: str
) -> tuple[dict[str, float], dict[str, float]]:
    """By measure, the headline first: how far it moved, and how far it might have.

    Seconds are left out: their noise is the machine's.
    """
    changes, reached = {}, {}
    for measure in sorted(measures(one, other), key=lambda m: m.name != headline):
        move = moved(one, other, measure) if measure.name != "seconds" else None
        if move:
            change = move.value - (not measure.score)
            changes[measure.name], reached[measure.name] = change, reach(change, move.parts)
    return changes, reached


def reach(change: float, parts: NDArray[np.float64]) -> float:
    """How far the examples that moved can move the mean: as far as they did; and, as each of them
    might have gone the other way, as far as 95 % of their signs, drawn at random, would take it.

    Where 3 of 200 were lost and 3 gained, the mean is what it was, and still uncertain.
    """
    likely = Z * sqrt((parts**2).sum())
    return float(max(abs(change), min(abs(parts).sum(), likely)))


def told(run: Run, noise: Noise) -> str:
    """The noise floor in a sentence."""
    headline = run.spec["headline"]
    sizes = {name: amount(size, name not in SHARES) for name, size in noise.floor.items()}
    said = {name: f"of {name}: {size}" for name, size in sizes.items()}
    if headline in said:
        said[headline] += f" ({_flipped(noise.drifts)})"
    return f"noise floor {', '.join(said[name] for name in (headline, 'nfe') if name in said)}"


def _flipped(drifts: Sequence[Drift]) -> str:
    """Of the variation that flipped most; no flip is no proof that there are none."""
    worst = max(drifts, key=lambda drift: (len(drift.lost + drift.gained) / drift.n, drift.n))
    count = len(worst.lost + worst.gained)
    if count:
        return f"{count} of {worst.n} flipped"
    most = 100 * wilson(0, worst.n).high
    return f"none of {worst.n} flipped, which leaves up to {most:.2g} % possible"


def table(run: Run, noise: Noise) -> Table:
    """A row a variation, for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = f"{label(rule_of(run.spec))} \N{MIDDLE DOT} {run.path.name}"
    found = Table(title=Text(heading), title_justify="left", box=box.SIMPLE_HEAD)
    found.add_column("variation", no_wrap=True)
    for name in ("n", "answers", "lost", "gained", "NFE", *noise.floor):
        found.add_column(name, justify="right")
    for i, drift in enumerate(noise.drifts, start=1):
        counts = (drift.n, drift.answers, len(drift.lost), len(drift.gained), drift.nfe)
        cells = [_cell(name, drift.changes.get(name), "+") for name in noise.floor]
        last = i == len(noise.drifts)
        found.add_row(drift.variation, *map(str, counts), *cells, end_section=last)
    found.add_row("noise floor", *[""] * 5, *(_cell(*item) for item in noise.floor.items()))
    return found


def _cell(name: str, change: float | None, sign: str = "") -> str:
    if change is None:
        return "-"
    unit = " %" if name in SHARES else ""
    return f"{100 * change:{sign if change else ''}.3g}{unit}"
