"""Runs as rows: what records say, aggregated and compared. No torch, no rendering."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

from mdmbench.errors import unknown
from mdmbench.spec import RunSpec, validated
from mdmbench.stats import Interval, mean, pass_at_k, ratio, resampled
from mdmbench.store import Record, Run

RULE = ("schedule", "steps", "scores", "top_p", "top_k")
"""Loop settings that belong to the rule: runs that differ in them are compared with each other."""

PASS_AT = (5, 10, 50, 100)


@dataclass(frozen=True)
class Row:
    """One run. None stands for what was not measured.

    group           runs with the same one can be compared: same model, task and loop settings
    settings        loop settings that are not the default
    scores          mean over the examples, in [0, 1]; `headline` names the one to quote
    nfe, nfe_until  mean forwards an example; until the end, all of them where the answer has none
    speedup         of `nfe` and of decode `seconds`: baseline / this run, on common examples
    tpf, tpf_tail   answer positions a forward, without and with the tail behind the answer's end
    forward_tokens  mean positions an example that went through the model
    forced          share of the filled positions
    bound_spent     mean nats an example
    seconds         mean an example: decode, and its parts model, sampler and host
    """

    group: str
    headline: str
    model: str
    task: str
    task_knobs: dict[str, Any]
    settings: dict[str, Any]
    sampler: str
    knobs: dict[str, Any]
    n: int
    scores: dict[str, Interval | None]
    nfe: Interval | None
    nfe_until: Interval | None
    speedup: dict[str, Interval | None]
    tpf: float | None
    tpf_tail: float | None
    forward_tokens: float | None
    forced: float | None
    bound_spent: float | None
    seconds: dict[str, float | None]
    baseline: bool
    run: Path

    def untimed(self) -> Row:
        """The row without anything that a clock said."""
        silent = dict.fromkeys(self.seconds)
        return replace(self, speedup={**self.speedup, "seconds": None}, seconds=silent)

    @property
    def accuracy(self) -> Interval | None:
        """The score to quote."""
        return self.scores.get(self.headline)


def rows(runs: Sequence[Run], only: Mapping[Path, Container[str]] | None = None) -> list[Row]:
    """A row for each run that has records: by group, baselines first, then by rule and numbers.

    `only` names the examples of a run that count; all do where it is None.
    """
    records: dict[Path, dict[str, Timed]] = {}
    groups: dict[str, list[Run]] = {}
    for path, run in sorted({run.path: run for run in runs}.items()):
        # By id: a resampled interval must not depend on the order in which examples finished.
        known = sorted(run.records(), key=lambda r: r.id)
        clocks = [_clock(entry) for entry in run.environments()]
        records[path] = {
            r.id: Timed(r, (*clocks[r.session : r.session + 1], r.batch_size))
            for r in known
            if only is None or r.id in only[path]
        }
        if records[path]:
            validated(run.spec.get("settings", {}))
            groups.setdefault(_group(run), []).append(run)
    found = []
    for group, members in groups.items():
        for run in members:
            other = top1(run, members)
            old = records[other.path] if other else {}
            found.append(_row(run, group, records[run.path], old, other is run))
    return sorted(found, key=_order)


def split(runs: Sequence[Run], by: str) -> list[Row]:
    """The rows of each value of `by` in the examples' `meta`, such as a Sudoku's bucket, alone.

    Raises UserError where no example has it.
    """
    known = {run.path: {r.id: r.meta for r in run.records()} for run in runs}
    metas = [meta for records in known.values() for meta in records.values()]
    values = sorted({meta[by] for meta in metas if by in meta}, key=str)
    if not values:
        raise unknown("property of the examples", by, {key for meta in metas for key in meta})
    found = []
    for value in values:
        only = {
            path: {id for id, meta in records.items() if meta.get(by) == value}
            for path, records in known.items()
        }
        found += [
            replace(row, group=f"{row.group} {value}", settings={**row.settings, by: value})
            for row in rows(runs, only)
        ]
    return found


class Timed(NamedTuple):
    """A record, and what its seconds can be compared with: those of the same clock."""

    record: Record
    clock: tuple[Any, ...]


def _clock(environment: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(environment.get(k) for k in ("device", "gpu", "processor", "threads"))


def top1(run: Run, group: Sequence[Run]) -> Run | None:
    """The run that `job.baseline` describes, or top-1 by another proxy, or None."""
    if _is_top1(run):
        return run
    # At temperature 0 a cut of the distribution changes no token of top-1, and its own has none.
    cut = _cut(run) if run.spec["settings"]["temperature"] else (None, None)
    known = [other for other in group if _is_top1(other) and _cut(other) == cut]
    proxy = run.spec["settings"]["knobs"].get("proxy", "confidence")
    same = [other for other in known if other.spec["settings"]["knobs"].get("proxy") == proxy]
    return next(iter(same + known), None)


def _is_top1(run: Run) -> bool:
    settings = run.spec["settings"]
    knobs = settings["knobs"]
    greedy = knobs.get("k") in (None, 1) and not knobs.get("alg_temp")
    plain = settings["schedule"] is None and settings["scores"] == "raw"
    return settings["sampler"] == "topk" and greedy and plain


def _cut(run: Run) -> tuple[float | None, int | None]:
    return run.spec["settings"]["top_p"], run.spec["settings"]["top_k"]


def _group(run: Run) -> str:
    """What two runs must share to be compared, the content of model and task included."""
    settings = run.spec["settings"]
    shared = {k: v for k, v in settings.items() if k not in ("sampler", "knobs", *RULE)}
    files = [run.spec.get("files", {}).get(what) for what in ("task", "data")]
    content = [run.spec.get("model_digest"), run.spec.get("task_version"), files]
    return json.dumps([settings["model"], settings["task"], shared, content], sort_keys=True)


def _row(
    run: Run, group: str, own: Mapping[str, Timed], old: Mapping[str, Timed], baseline: bool
) -> Row:
    settings, records = run.spec["settings"], [timed.record for timed in own.values()]
    forwards = sum(r.nfe for r in records)
    measured = [r for r in records if r.nfe]
    filled = sum(r.filled for r in records)
    ends = any(r.nfe_until is not None for r in records)
    until = [(r, r.nfe if r.nfe_until is None else r.nfe_until) for r in measured if ends]
    return Row(
        group=group,
        headline=run.spec["headline"],
        model=settings["model"],
        task=settings["task"],
        task_knobs=settings["task_knobs"],
        settings=_changed(settings),
        sampler=settings["sampler"],
        knobs=settings["knobs"],
        n=len({example(r) for r in records}),
        scores=_scores(records),
        nfe=_interval(resampled, _averaged((r, r.nfe) for r in measured)),
        nfe_until=_interval(resampled, _averaged(until)),
        speedup=_speedup(old, own),
        tpf=_per(sum(r.length for r in records), forwards),
        tpf_tail=_per(filled, forwards),
        forward_tokens=_per(sum(r.forward_tokens for r in records), len(measured)),
        forced=_per(sum(r.forced for r in records), filled),
        bound_spent=_per(sum(r.bound_spent for r in records), len(measured)),
        seconds=_seconds(records),
        baseline=baseline,
        run=run.path,
    )


def example(record: Record) -> str:
    """What a record is a sample of: samples of one example are not independent."""
    return str(record.meta.get("example", record.id))


def _averaged(values: Iterable[tuple[Record, float]]) -> list[float]:
    """A mean for each example, over its samples."""
    found: dict[str, list[float]] = {}
    for record, value in values:
        found.setdefault(example(record), []).append(value)
    return [sum(same) / len(same) for same in found.values()]


def _scores(records: Sequence[Record]) -> dict[str, Interval | None]:
    """By name; where examples have several samples, pass@1 comes with pass@k (2107.03374)."""
    names = sorted({name for r in records for name in r.scores})
    found = {
        k: _interval(mean, _averaged((r, r.scores[k]) for r in records if k in r.scores))
        for k in names
    }
    samples: dict[str, list[float]] = {}
    for r in records:
        if "pass@1" in r.scores:
            samples.setdefault(example(r), []).append(r.scores["pass@1"])
    for k in PASS_AT:
        chances = [pass_at_k(len(s), round(sum(s)), k) for s in samples.values() if len(s) >= k]
        if chances:
            found[f"pass@{k}"] = _interval(mean, chances)
    return found


def _changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the loop and the model; some defaults are what None is resolved to."""
    shown = ("model", "task", "sampler", "knobs", "task_knobs", "model_knobs")
    defaults = {k: f.default for k, f in RunSpec.model_fields.items() if k not in shown}
    defaults |= {"scores": "raw", "chat": False, "dtype": "float32"}
    changed = {k: settings[k] for k, v in defaults.items() if settings[k] not in (v, None)}
    return {**settings["model_knobs"], **changed}


def _interval(of: Callable[[list[float]], Interval], values: Iterable[float]) -> Interval | None:
    measured = [v for v in values if isfinite(v)]
    return of(measured) if measured else None


def _per(total: float, count: int) -> float | None:
    return total / count if count and isfinite(total) else None


def _seconds(records: Sequence[Record]) -> dict[str, float | None]:
    """A clock that stands at 0 was not running."""
    timed = [r.seconds for r in records if r.seconds.decode]
    parts = ("decode", "model", "sampler", "host")
    return {part: _per(sum(getattr(s, part) for s in timed), len(timed)) for part in parts}


def _speedup(old: Mapping[str, Timed], new: Mapping[str, Timed]) -> dict[str, Interval | None]:
    """Of the examples that both have; seconds only where both were taken by the same clock."""
    pairs = [(old[id], timed) for id, timed in new.items() if id in old]
    calls = [(a.record, float(a.record.nfe), float(b.record.nfe)) for a, b in pairs]
    same = [(a.record, a.record.seconds, b.record.seconds) for a, b in pairs if a.clock == b.clock]
    seconds = [(r, a.decode, b.decode) for r, a, b in same if a.decode and b.decode]
    return {"nfe": _ratio(calls), "seconds": _ratio(seconds)}


def _ratio(pairs: Sequence[tuple[Record, float, float]]) -> Interval | None:
    if not pairs:
        return None
    return ratio(_averaged((r, a) for r, a, _ in pairs), _averaged((r, b) for r, _, b in pairs))


def parts(row: Row) -> tuple[str, list[str], list[str]]:
    """Of a label: the sampler's name, the numbers, and the words."""
    name = row.sampler.rpartition(":")[2]
    numbers, words = [], []
    for knob, value in row.knobs.items():
        if value is None or value is False or (knob, value) == ("alg_temp", 0):
            continue
        if isinstance(value, int | float) and value is not True:
            short = "\N{GREEK SMALL LETTER GAMMA}" if knob == "gamma" else knob
            numbers.append(f"{value:g}" if knob in name.split("-") else f"{short}={value:g}")
        else:
            words.append(knob if value is True else str(value))
    if "steps" in row.settings:
        numbers.append(f"{row.settings['steps']} steps")
    cuts = ("top_p", "top_k")
    numbers += [f"{cut}={row.settings[cut]:g}" for cut in cuts if cut in row.settings]
    words += [row.settings[k] for k in ("schedule", "scores") if k in row.settings]
    return name, numbers, words


def label(row: Row) -> str:
    """The rule and its numbers in a few words."""
    name, numbers, words = parts(row)
    return " ".join([name, *numbers, *words])


def rule(row: Row) -> str:
    """The label without its numbers: rows that share it are points of one curve."""
    name, _, words = parts(row)
    return " ".join([name, *words])


def _order(row: Row) -> tuple[Any, ...]:
    values = [*row.knobs.values(), row.settings.get("steps")]
    numbers = [v if isinstance(v, int | float) else -inf for v in values]
    return row.group, not row.baseline, row.sampler, rule(row), numbers, row.run


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    return [list(members) for _, members in groupby(rows, key=lambda row: row.group)]


def _short(value: object) -> object:
    """Of a file only the name: where it lay says nothing of the result."""
    return value.rpartition("/")[2] if isinstance(value, str) else value


def title(rows: Sequence[Row]) -> str:
    """Of a group: model, task, examples a row, and whatever was set."""
    first, counts = rows[0], sorted({row.n for row in rows})
    n = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    shared = {k: v for k, v in first.settings.items() if k not in RULE}
    extra = [f"{k}={_short(v)}" for k, v in {**first.task_knobs, **shared}.items() if v]
    return " \N{MIDDLE DOT} ".join([first.model, first.task, f"n={n}", *extra])
