"""A regression gate: runs of now against a committed baseline file, example by example."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from mdmbench import samples
from mdmbench.compare import Difference, Matters, differing_settings
from mdmbench.errors import UserError, unknown
from mdmbench.paired import FEWEST
from mdmbench.rows import RULE, label, rule_of
from mdmbench.samples import SCORE, Samples
from mdmbench.spec import RunSpec, plan
from mdmbench.stats import Interval, Test, holm, paired_ratio, ratio
from mdmbench.store import Run, baseline, keep_baseline
from mdmbench.verdicts import ALPHA, COSTS, Measure, Verdict, parsed, quality, tested

SCHEMA = 1
STRETCHES = 16
"""Parts of a run whose seconds are compared."""
GATED = {"nfe": 0.02, "tpf": 0.02, "seconds": 0.25}
"""The costs that are gated, and what they may lose."""
COLUMNS = ("nfe", "length")

Outcome = Literal["passes", "fails", "too few"]


@dataclass(frozen=True)
class Entry:
    """What a baseline file keeps of one run.

    spec     as in its spec.json
    columns  by name, one number an example, in the order of `ids`; and `example`, where records
             are samples of one
    seconds  of equal parts of the run, and of the reference rule's that was made at the same time
    clocks   what the seconds were taken by
    """

    spec: Mapping[str, Any]
    ids: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    seconds: tuple[list[float], list[float]]
    clocks: list[str]

    @property
    def key(self) -> tuple[str, ...]:
        """What a run must share with an entry to be held against it; knobs may differ."""
        settings = self.spec["settings"]
        return settings["task"], settings["model"], settings["sampler"]

    @cached_property
    def samples(self) -> Samples:
        return samples.made(self.ids, self.columns)


@dataclass(frozen=True)
class Gate:
    """One measure of one run against the baseline; `name` says which run."""

    name: str
    verdict: Verdict
    outcome: Outcome


@dataclass(frozen=True)
class Checked:
    gates: list[Gate]
    differences: list[tuple[str, Difference]]

    @property
    def code(self) -> int:
        """The exit code: 1 where a gate fails, 3 where one cannot tell."""
        outcomes = {gate.outcome for gate in self.gates}
        return 1 if "fails" in outcomes else 3 if "too few" in outcomes else 0


Decode = Callable[[Sequence[RunSpec]], Sequence[tuple[Path, object]]]
"""`Runner.run`: makes the runs of some specs side by side, and gives their folders in order."""


def measured(decode: Decode, specs: Sequence[RunSpec], rule: RunSpec) -> list[Entry]:
    """Each spec's run, made at the same time as one of the same settings by the reference rule."""
    fields = {name: getattr(rule, name) for name in ("sampler", "knobs", *RULE)}
    beside: dict[str, list[RunSpec]] = {}
    for spec in specs:
        other = spec.model_copy(update=fields)
        beside.setdefault(other.model_dump_json(), [other]).append(spec)
    found = []
    for together in beside.values():
        reference, *runs = [Run(path) for path, _ in decode(together)]
        found += [entry(run, reference) for run in runs]
    return found


def reference(settings: Mapping[str, Any] | None) -> RunSpec:
    """The rule that seconds are measured against, as a recipe's `reference` says: by default 8
    positions a step, the same work on every machine."""
    return plan(settings or {"sampler": "topk", "k": 8})[0]


def entry(run: Run, reference: Run) -> Entry:
    """What to keep of a run that was made beside the reference rule's."""
    own = samples.read(run)
    kept = [*(SCORE + score for score in own.scores), *COLUMNS]
    columns: dict[str, Sequence[Any]] = {name: _plain(own.numbers[name].tolist()) for name in kept}
    if list(own.example) != list(own.numbers.index):
        columns["example"] = own.example.tolist()
    seconds = _stretches(run), _stretches(reference)
    return Entry(run.spec, list(own.numbers.index), columns, seconds, sorted(set(own.clock)))


def _stretches(run: Run) -> list[float]:
    """Decode seconds of equal parts of a run, in the order in which they were made; none where
    there is no part for each batch.

    Two runs that take turns make each part at about the same time, so what slows the machine down
    is in both; and what is left makes parts differ, which examples of one batch would not show.
    """
    timed = [(record.seconds.decode, record.batch_size) for record in run.records()]
    spent = [seconds for seconds, _ in timed]
    parts = min(STRETCHES, len(spent) // max((size for _, size in timed), default=1))
    edges = [len(spent) * i // max(1, parts) for i in range(parts + 1)]
    return [sum(spent[low:high]) for low, high in pairwise(edges)]


def _plain(values: Sequence[float]) -> list[float | int | None]:
    """As JSON has them: whole numbers short, and nothing for what is no number."""
    return [int(v) if v.is_integer() else v if math.isfinite(v) else None for v in values]


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Raises UserError where the file cannot be written."""
    fields = ("spec", "ids", "columns", "seconds", "clocks")
    content = [{name: getattr(entry, name) for name in fields} for entry in entries]
    keep_baseline(path, {"schema": SCHEMA, "digest": _digest(content), "entries": content})


def read(path: Path) -> list[Entry]:
    """Raises UserError for a file that is no baseline, or that was changed by hand."""
    again = "write it with mdmbench check --update"
    found = baseline(path, SCHEMA, ["entries"], again)
    if found.get("digest") != _digest(found["entries"]):
        raise UserError(f"{path} was changed by hand: its digest does not fit", again)
    return [Entry(**{**e, "seconds": tuple(e["seconds"])}) for e in found["entries"]]


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def limits(
    max_drop: Sequence[str], max_rise: Sequence[str], scores: Sequence[str]
) -> list[Measure]:
    """What is gated: `scores` lose at most a point, unless `name=value` texts say otherwise.

    Raises UserError for a measure that is unknown, or gated on the side that is no regression.
    """
    known = {name: quality(name) for name in scores}
    costs = [cost for cost in COSTS if cost.name in GATED]
    known |= {cost.name: replace(cost, margin=GATED[cost.name]) for cost in costs}
    for option, texts, up in (("--max-drop", max_drop, True), ("--max-rise", max_rise, False)):
        for name, margin in parsed(texts, known).items():
            if known[name].up != up:
                way, other = ("drop", "--max-rise") if up else ("rise", "--max-drop")
                raise UserError(f"{option} {name}: a {way} of it is no loss", f"use {other}")
            known[name] = replace(known[name], margin=margin)
    return list(known.values())


def check(
    old: Sequence[Entry], new: Sequence[Entry], gated: Sequence[Measure], asked: Container[str] = ()
) -> Checked:
    """Holds each run of now against its entry; the one-sided p values are corrected together.

    Of the scores the headline is gated, and those that are `asked` for. Raises UserError where a
    run has no entry, or the two are of other examples.
    """
    names: list[str] = []
    found: list[Verdict] = []
    differences = []
    for now, was in _matched(old, new):
        called = name(now)
        for difference in differing_settings(was.spec, now.spec):
            if difference.matters is Matters.question:
                raise UserError(
                    f"{called}: {difference.name} is {difference.one!r} in the baseline and "
                    f"{difference.other!r} now",
                    "nothing can be compared; write the baseline anew with --update",
                )
            differences.append((called, difference))
        if was.clocks != now.clocks:
            then, here = (" and ".join(entry.clocks[:2]) for entry in (was, now))
            differences.append((called, Difference("machine", then, here, Matters.clock)))
        for measure in gated:
            named = measure.name in asked and measure.name in now.samples.scores
            if named or not measure.score or measure.name == now.spec["headline"]:
                names.append(called)
                found.append(_held(was, now, measure))
    ps = iter(holm([_worse(v.measure, v.test) for v in found if v.test]))
    held = [replace(v, p=next(ps)) if v.test else v for v in found]
    count = len(held)
    gates = [Gate(n, v, outcome(v, count)) for n, v in zip(names, held, strict=True)]
    return Checked(gates, differences)


def expect(old: Sequence[Entry], specs: Sequence[RunSpec]) -> None:
    """Raises UserError, before anything is decoded, unless each entry has a run of its task and
    sampler, and each run an entry."""
    held = Counter((task, sampler) for task, _, sampler in (entry.key for entry in old))
    planned = Counter((spec.task, spec.sampler) for spec in specs)
    for pair in dict.fromkeys((*held, *planned)):
        if held[pair] != planned[pair]:
            raise UserError(
                f"{' '.join(pair)}: {held[pair]} runs in the baseline, {planned[pair]} planned",
                "mend the recipe, or write the baseline anew with --update",
            )


def _matched(old: Sequence[Entry], new: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Each entry of now with the one it is held against: those of one key go by their order."""
    left = list(old)
    found = []
    for now in new:
        was = next((e for e in left if e.key == now.key), None)
        if was is None:
            raise unknown("run: no baseline of", name(now), map(name, old))
        left.remove(was)
        found.append((now, was))
    return found


def name(entry: Entry) -> str:
    """Its task, its model where that is not the task's own, and its rule."""
    task, model, _ = entry.key
    return " ".join([*dict.fromkeys((task, model)), label(rule_of(entry.spec))])


def scores(entries: Sequence[Entry]) -> list[str]:
    """The names of all scores."""
    return sorted({score for entry in entries for score in entry.samples.scores})


def _held(was: Entry, now: Entry, measure: Measure) -> Verdict:
    if measure.name != "seconds":
        return tested(was.samples, now.samples, measure)
    n = len(set(was.ids) & set(now.ids))
    sizes = {len(parts) for entry in (was, now) for parts in entry.seconds}
    if len(sizes) > 1 or min(sizes) < FEWEST:
        return Verdict(measure, n, why="too few batches to be timed, or not as many as then")
    # Part i of both is of the same examples, nearly: what is hard in it is in both.
    test = paired_ratio(*was.seconds, *now.seconds)
    return Verdict(measure, n, ratio(*was.seconds), ratio(*now.seconds), test)


def _loss(measure: Measure, test: Test) -> float:
    """How much worse it is: a difference of scores, else a ratio less 1."""
    change = test.change.value if measure.score else test.change.value - 1
    return -change if measure.up else change


def _worst(measure: Measure, test: Test) -> float:
    """The largest loss that the interval has room for."""
    worst = test.change.low if measure.up else test.change.high
    return _loss(measure, test._replace(change=Interval(worst, worst, worst)))


def _worse(measure: Measure, test: Test) -> float:
    """The p of a gate, which asks on one side only: is it worse?"""
    return test.p / 2 if _loss(measure, test) > 0 else 1 - test.p / 2


def outcome(verdict: Verdict, gates: int = 1) -> Outcome:
    """Fails where it is worse beyond chance and by more than the limit.

    It is no pass where a loss of the limit might not have been seen: where the interval reaches
    beyond it, and so many examples show no change of that size four times in five, or could show
    none in McNemar's test, corrected for all gates.
    """
    measure, test = verdict.measure, verdict.test
    needed = math.floor(math.log2(gates / ALPHA)) + 1
    if test is None or verdict.n < FEWEST:
        return "too few"
    if verdict.p is not None and verdict.p < ALPHA and _loss(measure, test) > measure.margin:
        return "fails"
    shown = max(test.detectable, needed / verdict.n if measure.score else 0.0)
    return "passes" if min(shown, _worst(measure, test)) <= measure.margin else "too few"
