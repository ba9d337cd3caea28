"""What a page says, as one JSON document. The scripts only lay it out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from math import isfinite
from typing import Any

import mdmbench
from mdmbench.frontier import Saving, frontier
from mdmbench.report.tally import KINDS, Tally, properties, tallies
from mdmbench.rows import Row, grouped, label, parts, rule, title
from mdmbench.store import Run
from mdmbench.table import Column, columns_of

ROOM = 100_000
"""Records that the tables of examples have room for, all groups together."""


def document(
    runs: Sequence[Run], rows: Sequence[Row], savings: Sequence[Saving], heading: str, made: date
) -> dict[str, Any]:
    """Everything but the traces, of which each group has none yet."""
    known = {run.path: run for run in runs}
    groups = grouped(rows)
    tasks = ", ".join(dict.fromkeys(_name(row.task) for row in rows))
    shown = [known[row.run] for row in rows]
    names = _names(rows)
    return {
        "schema": 1,
        "title": heading or f"Samplers on {tasks}",
        "version": mdmbench.__version__,
        "made": f"{made.day} {made:%B %Y}",
        "empty": len(known) - len(rows),
        "groups": [_group(group, savings, known, ROOM // len(rows)) for group in groups],
        "settings": _parted(names, [dict(_flat("", run.spec)) for run in shown]),
        "environments": _environments(names, shown),
    }


def _name(task: str) -> str:
    return task.rpartition(":")[2]


def _group(
    group: Sequence[Row], savings: Sequence[Saving], known: Mapping[Any, Run], room: int
) -> dict[str, Any]:
    first = group[0]
    columns = columns_of(group)
    ids, found = tallies([known[row.run] for row in group], first.headline, room)
    kinds = [kind for kind in KINDS if any(tally.kinds[kind] for tally in found)]
    return {
        "title": title(group),
        "model": first.model,
        "task": _name(first.task),
        "headline": first.headline,
        "words": words(group, savings),
        "columns": [column.header for column in columns],
        "rows": [_row(row, columns) for row in group],
        "kinds": {"names": kinds, "rows": [[t.kinds[kind] for kind in kinds] for t in found]},
        "properties": properties(found),
        "examples": _examples(ids, found),
        "traces": {"examples": [], "note": ""},
    }


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """Per cent, forwards and seconds; of a cell its text, its interval, and whether the row is no
    farther from its baseline there than numerics alone move it."""
    percent = row.accuracy and [100 * value for value in row.accuracy]
    spent = [row.seconds[part] for part in ("decode", "model", "sampler", "host")]
    return {
        "label": label(row),
        "rule": rule(row),
        "numbers": " ".join(parts(row)[1]),
        "run": row.run.name,
        "baseline": row.baseline,
        "n": row.n,
        "score": percent,
        "nfe": row.nfe,
        "seconds": None if spent[0] is None else spent,
        "cells": [[*c.cell(row), c.measure in row.inside] for c in columns],
    }


def words(group: Sequence[Row], savings: Sequence[Saving]) -> list[str]:
    """Of a group: the best score, and what speed-up is shown to cost no quality; if none is, of
    the first rule why."""
    best = frontier(group)
    if not best:
        return ["No run of this group has a score."]
    own = [saving for saving in savings if saving.group == group[0].group]
    shown = [saving for saving in own if saving.row] or own[:1]
    return [f"Best: {_told(best[-1])}.", *(f"{saving}." for saving in shown)]


def _told(row: Row) -> str:
    assert row.accuracy and row.nfe
    value, low, high = (100 * v for v in row.accuracy)
    score = f"{value:.1f} % [{low:.1f}, {high:.1f}] {row.headline}"
    return f"{label(row)}, {score} at {row.nfe.value:.1f} NFE"


def _examples(ids: Sequence[str], found: Sequence[Tally]) -> dict[str, Any]:
    """Columns of the table of examples; whole scores as whole numbers, which are shorter."""
    return {
        "ids": list(ids),
        "total": max(tally.kinds.total() for tally in found),
        "scores": [[short(tally.scores.get(id)) for id in ids] for tally in found],
        "nfe": [[tally.nfe.get(id) for id in ids] for tally in found],
    }


def halve(examples: dict[str, Any]) -> None:
    """Leaves out the second half of a table of examples."""
    half = len(examples["ids"]) // 2
    for column in (examples["ids"], *examples["scores"], *examples["nfe"]):
        del column[half:]


def short(value: float | None) -> float | None:
    """Four digits are enough for a page, and a whole number needs no point."""
    if value is None or not isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.4g}")


def _names(rows: Iterable[Row]) -> list[str]:
    """A name a row, unlike all others."""
    rows = list(rows)
    labels = [f"{_name(row.task)}: {label(row)}" for row in rows]
    return [
        name if labels.count(name) == 1 else f"{name} ({row.run.name})"
        for name, row in zip(labels, rows, strict=True)
    ]


def _parted(names: Sequence[str], settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all have in common, once; and what differs, a row each."""
    keys = dict.fromkeys(key for one in settings for key in one)
    shared = [k for k in keys if all(_same(one.get(k), settings[0].get(k)) for one in settings)]
    differing = [k for k in keys if k not in shared]
    return {
        "shared": [[k, _text(settings[0][k])] for k in shared if settings[0][k] is not None],
        "columns": differing,
        "rows": [
            [name, *(_text(one.get(k)) for k in differing)]
            for name, one in zip(names, settings, strict=True)
        ],
    }


def _environments(names: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    """Those that differ, each with the runs that were made in it."""
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, run in zip(names, runs, strict=True):
        for environment in run.environments():
            key = json.dumps(environment, sort_keys=True)
            found.setdefault(key, (environment, []))[1].append(name)
    entries = [environment for environment, _ in found.values()]
    used = ["; ".join(dict.fromkeys(users)) for _, users in found.values()]
    return _parted(used, entries) if entries else {"shared": [], "columns": [], "rows": []}


def _same(one: Any, other: Any) -> bool:
    """1 and True are not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(key if name in ("", "settings") else f"{name}.{key}", inner)
    else:
        yield name, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
