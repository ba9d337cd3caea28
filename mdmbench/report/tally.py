"""What a page takes from single records. They are read one at a time: a run may have millions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from mdmbench.store import Record, Run

Value = str | int | float | bool
"""Of a property of the examples: what its task says of each in `meta`."""

VALUES = 8
"""That a property is shown with; more numbers are put into RANGES, more words are left out."""
RANGES = 6
MOST = 1000
"""Values of a property beyond which it is none, but a name."""

OUTCOMES = {
    "pass": "solved",
    "fail": "tests failed",
    "error": "error raised",
    "timeout": "out of time",
    "memory": "out of memory",
    "output": "printed too much",
    "killed": "killed",
    "no-token": "left early",
}
"""How the programs of `scoring.sandbox` end."""

KINDS = ("solved", "partly", "wrong", *[*OUTCOMES.values()][1:], "not scored", "unasked")


@dataclass
class Tally:
    """Of one run.

    kinds       records by what became of them, see KINDS
    properties  by name and value: the sum of the headline scores, and how many there are
    scores      by id: the headline score, None where there is none; nfe: forwards. Both only of
                the examples that the page lists
    """

    kinds: Counter[str] = field(default_factory=Counter)
    properties: dict[str, dict[Value, tuple[float, int]]] = field(default_factory=dict)
    scores: dict[str, float | None] = field(default_factory=dict)
    nfe: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record, headline: str) -> None:
        score = record.scores.get(headline)
        self.kinds[kind(record, headline)] += 1
        if score is None or not isfinite(score):
            return
        for name, value in record.meta.items():
            known = self.properties.setdefault(name, {})
            if isinstance(value, Value) and (value in known or len(known) <= MOST):
                total, n = known.get(value, (0.0, 0))
                known[value] = total + score, n + 1

    def keep(self, record: Record, headline: str) -> None:
        score = record.scores.get(headline)
        self.scores[record.id] = score if score is not None and isfinite(score) else None
        self.nfe[record.id] = record.nfe


def tallies(runs: Sequence[Run], headline: str, room: int) -> tuple[list[str], list[Tally]]:
    """The ids that the page lists, the first `room` that are met, and a tally of each run."""
    ids: dict[str, None] = {}
    found = []
    for run in runs:
        tally = Tally()
        for record in run.records():
            tally.add(record, headline)
            if record.id in ids or len(ids) < room:
                ids[record.id] = None
                tally.keep(record, headline)
        found.append(tally)
    return sorted(ids, key=_natural), found


def kind(record: Record, headline: str) -> str:
    """What became of an answer; the outcome of its program where it has one."""
    if "unasked" in record.notes:
        return "unasked"
    outcome = record.notes.get(f"{headline} outcome")
    if outcome in OUTCOMES:
        return OUTCOMES[outcome]
    score = record.scores.get(headline)
    if score is None or not isfinite(score):
        return "not scored"
    return "solved" if score == 1 else "partly" if score else "wrong"


def properties(tallies: Sequence[Tally]) -> list[dict[str, Any]]:
    """A table a property: its values, or ranges of them, and each run's mean score and count."""
    found = []
    names = dict.fromkeys(name for tally in tallies for name in tally.properties)
    for name in names:
        known = [tally.properties.get(name, {}) for tally in tallies]
        columns = _columns({value for values in known for value in values})
        # That some records are samples of one example says nothing of the example.
        if len(columns) > 1 and name != "example":
            rows = [[_pooled(values, column) for column in columns] for values in known]
            headers = [_header(column) for column in columns]
            found.append({"name": name, "values": headers, "rows": rows})
    return found


def _columns(values: set[Value]) -> list[list[Value]]:
    """Values that share a column; none where they are too many to tell anything."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) > MOST or len(numbers) < len(values) > VALUES:
        return []
    ordered: list[Value] = sorted(numbers) if len(numbers) == len(values) else []
    ordered = ordered or sorted(values, key=lambda v: _natural(str(v)))
    if len(ordered) <= VALUES:
        return [[value] for value in ordered]
    ends = [len(ordered) * i // RANGES for i in range(RANGES + 1)]
    return [ordered[ends[i] : ends[i + 1]] for i in range(RANGES)]


def _header(column: Sequence[Value]) -> str:
    ends = dict.fromkeys([column[0], column[-1]])
    return " to ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in ends)


def _pooled(
    values: dict[Value, tuple[float, int]], column: Sequence[Value]
) -> tuple[float, int] | None:
    totals = [values[value] for value in column if value in values]
    n = sum(count for _, count in totals)
    return (sum(total for total, _ in totals) / n, n) if n else None


def _natural(text: str) -> list[Any]:
    """A key by which e2 comes before e10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))]
