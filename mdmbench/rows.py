"""Runs as rows: what records say, aggregated and compared. No torch, no rendering."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

from mdmbench import floor, samples
from mdmbench.errors import UserError, unknown
from mdmbench.samples import PARTS, SCORE, Samples, common, timed
from mdmbench.spec import RunSpec, validated
from mdmbench.stats import Interval, mean, pass_at_k, ratio, resampled
from mdmbench.store import Run
from mdmbench.verdicts import inside, measures, moved

RULE = ("schedule", "steps", "scores", "top_p", "top_k")
"""Loop settings that belong to the rule: runs that differ in them are compared with each other."""

PASS_AT = (5, 10, 50, 100)

Only = Mapping[Path, Container[str] | None] | None
"""The examples that count, by run; None: all."""


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
    floor           by measure, how far numerics alone move it (`floor.read`); empty: not measured
    inside          measures no farther from the baseline's than its floor or the row's says
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
    floor: dict[str, float]
    inside: frozenset[str]
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


def rows(runs: Sequence[Run], only: Only = None) -> list[Row]:
    """A row for each run that has records: by group, baselines first, then by rule and numbers.

    `only` names the examples of a run that count; all do where it is None.
    """
    return tabled(runs, read(runs, only))


def read(runs: Sequence[Run], only: Only = None) -> dict[Path, Samples]:
    """What `tabled` needs; a folder's results are read once for all that is said of them."""
    return {run.path: samples.read(run, only=only[run.path] if only else None) for run in runs}


def split(runs: Sequence[Run], by: str) -> list[Row]:
    """The rows of each value of `by` in the examples' `meta`, such as a Sudoku's bucket, alone.

    Raises UserError where no example has it.
    """
    known = {run.path: samples.read(run, by) for run in runs}
    values = sorted({v for s in known.values() for v in s.value if v is not None}, key=str)
    if not values:
        metas = (record.meta for run in runs for record in run.records())
        raise unknown("property of the examples", by, {key for meta in metas for key in meta})
    return [
        replace(row, group=f"{row.group} {value}", settings={**row.settings, by: value})
        for value in values
        for row in tabled(runs, {path: s.only(s.value == value) for path, s in known.items()})
    ]


def whole(run: Run) -> None:
    """Raises UserError unless the run's spec.json says all that is read of it."""
    settings = run.spec.get("settings")
    named = isinstance(settings, dict) and set(RunSpec.model_fields) <= settings.keys()
    if not named or not isinstance(run.spec.get("headline"), str):
        raise UserError(
            f"{run.path}/spec.json is not a run's settings", "was it written by another version?"
        )
    validated(run.spec["settings"])


def tabled(runs: Sequence[Run], known: Mapping[Path, Samples]) -> list[Row]:
    """The rows of runs that have been read."""
    groups: dict[str, list[Run]] = {}
    for path, run in sorted({run.path: run for run in runs}.items()):
        if len(known[path]):
            whole(run)
            groups.setdefault(group(run), []).append(run)
    found: list[Row] = []
    for name, members in groups.items():
        found += [_row(run, name, known, top1(run, members)) for run in members]
    return sorted(found, key=_order)


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


def group(run: Run) -> str:
    """What two runs must share to be compared, the content of model and task included."""
    settings = run.spec["settings"]
    shared = {k: v for k, v in settings.items() if k not in ("sampler", "knobs", *RULE)}
    files = [run.spec.get("files", {}).get(what) for what in ("task", "data")]
    content = [run.spec.get("model_digest"), run.spec.get("task_version"), files]
    return json.dumps([settings["model"], settings["task"], shared, content], sort_keys=True)


def _row(run: Run, group: str, known: Mapping[Path, Samples], base: Run | None) -> Row:
    own, old = known[run.path], known[base.path] if base else None
    settings, measured = run.spec["settings"], own.measured
    total = own.numbers.sum()
    until = measured.numbers["nfe_until"]
    if until.notna().any():
        until = until.fillna(measured.numbers["nfe"])
    return Row(
        group=group,
        headline=run.spec["headline"],
        model=settings["model"],
        task=settings["task"],
        task_knobs=settings["task_knobs"],
        settings=_changed(settings),
        sampler=settings["sampler"],
        knobs=settings["knobs"],
        n=own.example.nunique(),
        scores=_scores(own),
        nfe=_interval(resampled, measured.averaged("nfe")),
        nfe_until=_interval(resampled, measured.by_example(until).tolist()),
        speedup=_speedup(old, own),
        tpf=_per(total["length"], total["nfe"]),
        tpf_tail=_per(total["filled"], total["nfe"]),
        forward_tokens=_per(total["forward_tokens"], len(measured)),
        forced=_per(total["forced"], total["filled"]),
        bound_spent=_per(own.numbers["bound_spent"].sum(skipna=False), len(measured)),
        seconds=_seconds(own),
        floor=floor.read(run.path),
        inside=_inside(run, base, known) if base and base is not run else frozenset(),
        baseline=base is run,
        run=run.path,
    )


def _scores(own: Samples) -> dict[str, Interval | None]:
    """By name; where examples have several samples, pass@1 comes with pass@k (2107.03374)."""
    found = {name: _interval(mean, own.averaged(SCORE + name)) for name in own.scores}
    if "pass@1" in own.scores:
        passed = own.numbers[SCORE + "pass@1"].dropna()
        counts = passed.groupby(own.example.loc[passed.index]).agg(["count", "sum"])
        for k in PASS_AT:
            enough = counts[counts["count"] >= k].itertuples(index=False)
            chances = [pass_at_k(int(n), round(correct), k) for n, correct in enough]
            if chances:
                found[f"pass@{k}"] = mean(chances)
    return found


def _changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the loop and the model; some defaults are what None is resolved to."""
    shown = ("model", "task", "sampler", "knobs", "task_knobs", "model_knobs", "cache_knobs")
    defaults = {k: f.default for k, f in RunSpec.model_fields.items() if k not in shown}
    defaults |= {"scores": "raw", "chat": False, "dtype": "float32", "cache": "none"}
    changed = {k: settings.get(k) for k, v in defaults.items()}
    changed = {k: v for k, v in changed.items() if v not in (defaults[k], None)}
    return {**settings["model_knobs"], **changed, **settings.get("cache_knobs", {})}


def _interval(of: Callable[[list[float]], Interval], values: list[float]) -> Interval | None:
    return of(values) if values else None


def _per(total: float, count: float) -> float | None:
    return float(total / count) if count and isfinite(total) else None


def _seconds(own: Samples) -> dict[str, float | None]:
    """A clock that stands at 0 was not running."""
    timed = own.numbers[own.numbers["decode"] > 0]
    return {part: _per(timed[part].sum(), len(timed)) for part in ("decode", *PARTS)}


def _inside(run: Run, base: Run, known: Mapping[Path, Samples]) -> frozenset[str]:
    """The measures that differ by no more than the noise of the two."""
    limits = floor.together(floor.read(run.path), floor.read(base.path))
    old, new = known[base.path], known[run.path]
    asked = [m for m in measures(old, new, limits) if m.name in limits]
    moves = {measure: moved(old, new, measure) for measure in asked}
    return frozenset(m.name for m, move in moves.items() if move and inside(move.value, m))


def _speedup(old: Samples | None, new: Samples) -> dict[str, Interval | None]:
    """Of the examples that both have; seconds only where both were taken by the same clock."""
    if old is None:
        return {"nfe": None, "seconds": None}
    return {
        "nfe": _ratio("nfe", *common(old, new)),
        "seconds": _ratio("decode", *timed(old, new)),
    }


def _ratio(column: str, old: Samples, new: Samples) -> Interval | None:
    return ratio(old.averaged(column), new.averaged(column)) if len(new) else None


class Rule(NamedTuple):
    """What a row or a run is called by; `settings` are those that are not the default."""

    sampler: str
    knobs: dict[str, Any]
    settings: dict[str, Any]


def rule_of(spec: Mapping[str, Any]) -> Rule:
    """Of what a run's spec.json says."""
    settings = spec["settings"]
    return Rule(settings["sampler"], settings["knobs"], _changed(settings))


def parts(row: Row | Rule) -> tuple[str, list[str], list[str]]:
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


def label(row: Row | Rule) -> str:
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
