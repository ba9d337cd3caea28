"""A regression gate: runs of now against a committed baseline file, example by example."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from mdmbench import samples
from mdmbench.compare import Difference, Matters, differing_settings
from mdmbench.errors import UserError, unknown
from mdmbench.paired import FEWEST
from mdmbench.rows import RULE
from mdmbench.samples import Samples
from mdmbench.spec import RunSpec, plan
from mdmbench.stats import Interval, Test, holm, ratio
from mdmbench.store import Run
from mdmbench.verdicts import ALPHA, POINT, Measure, Verdict, parsed, tested

SCHEMA = 1
STRETCHES = 16
"""Parts of a run whose seconds are compared."""
COLUMNS = ("nfe", "length", "forward_tokens")
GATED = (
    Measure("nfe", "nfe", 0.02),
    Measure("tpf", "length", 0.02, bottom="nfe", up=True),
    Measure("seconds", "decode", 0.25),
)

Outcome = Literal["passes", "fails", "too few"]


@dataclass(frozen=True)
class Entry:
    """What a baseline file keeps of one run.

    spec     as in its spec.json
    columns  by name, one number an example, in the order of `ids`; and `example`, where records
             are samples of one
    seconds  of its decode seconds over those of the reference rule, measured in the same command
    """

    spec: Mapping[str, Any]
    ids: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    seconds: Interval | None

    @property
    def key(self) -> tuple[str, ...]:
        """What a run must share with an entry to be held against it; knobs may differ."""
        settings = self.spec["settings"]
        return settings["task"], settings["model"], settings["sampler"]

    @property
    def scores(self) -> tuple[str, ...]:
        return self.samples().scores

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


Decode = Callable[[Sequence[RunSpec]], Mapping[Path, object]]
"""`Runner.run`: makes the runs of some specs side by side, and gives their folders in order."""


def measured(decode: Decode, specs: Sequence[RunSpec], rule: RunSpec) -> list[Entry]:
    """Each spec's run, made beside one of the same settings by the reference rule."""
    found = []
    for spec in specs:
        fields = {name: getattr(rule, name) for name in ("sampler", "knobs", *RULE)}
        run, *other = map(Run, decode([spec, spec.model_copy(update=fields)]))
        found.append(entry(run, other[0] if other else run))
    return found


def reference(settings: Mapping[str, Any] | None) -> RunSpec:
    """The rule that seconds are measured against, as a recipe's `reference` says: by default 8
    positions a step, the same work on every machine."""
    return plan(settings or {"sampler": "topk", "k": 8})[0]


def entry(run: Run, reference: Run) -> Entry:
    """What to keep of a run that was made beside the reference rule's."""
    own = samples.read(run)
    kept = own.numbers[[*own.scores, *COLUMNS]]
    columns: dict[str, Sequence[Any]] = {
        name: _plain(kept[name].tolist()) for name in (*own.scores, *COLUMNS)
    }
    if list(own.example) != list(own.numbers.index):
        columns["example"] = own.example.tolist()
    seconds = ratio(_stretches(run), _stretches(reference))
    return Entry(run.spec, list(own.numbers.index), columns, seconds)


def _stretches(run: Run) -> list[float]:
    """Decode seconds of equal parts of a run, in the order in which they were made.

    Two runs that take turns make each part at the same time, so what slows the machine down is in
    both; and what is left of it makes parts differ, which examples of one batch would not show.
    """
    spent = [record.seconds.decode for record in run.records()]
    edges = [len(spent) * i // STRETCHES for i in range(STRETCHES + 1)]
    return [sum(spent[low:high]) for low, high in pairwise(edges)]


def _plain(values: Sequence[float]) -> list[float | int | None]:
    """As JSON has them: whole numbers short, and nothing for what is no number."""
    return [None if math.isnan(v) else int(v) if v == int(v) else v for v in values]


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Raises UserError where the file cannot be written."""
    content = [
        {"spec": e.spec, "ids": e.ids, "columns": e.columns, "seconds": e.seconds} for e in entries
    ]
    text = json.dumps({"schema": SCHEMA, "digest": _digest(content), "entries": content})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def read(path: Path) -> list[Entry]:
    """Raises UserError for a file that is no baseline, or that was changed by hand."""
    again = "write it with mdmbench check --update"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no baseline file {path}", again) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no baseline file: {error}", again) from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or "entries" not in found:
        raise UserError(f"{path} is no baseline file of schema {SCHEMA}", again)
    if found.get("digest") != _digest(found["entries"]):
        raise UserError(f"{path} was changed by hand: its digest does not fit", again)
    return [
        Entry(e["spec"], e["ids"], e["columns"], Interval(*e["seconds"]) if e["seconds"] else None)
        for e in found["entries"]
    ]


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def limits(
    max_drop: Sequence[str], max_rise: Sequence[str], scores: Sequence[str]
) -> list[Measure]:
    """What is gated: `scores` lose at most a point, unless `name=value` texts say otherwise.

    Raises UserError for a measure that is unknown, or gated on the side that is no regression.
    """
    known = {name: Measure(name, name, POINT, up=True, score=True) for name in scores}
    known |= {measure.name: measure for measure in GATED}
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
    run has no entry, or its entry is of other examples.
    """
    names: list[str] = []
    found: list[Verdict] = []
    differences = []
    for now, was in _matched(old, new):
        name = _name(now)
        for difference in differing_settings(was.spec, now.spec):
            if difference.matters is Matters.question:
                raise UserError(
                    f"{name}: {difference.name} is {difference.one!r} in the baseline and "
                    f"{difference.other!r} now",
                    "nothing can be compared; write the baseline anew with --update",
                )
            differences.append((name, difference))
        for measure in gated:
            wanted = measure.name == now.spec["headline"] or measure.name in asked
            if wanted or not measure.score:
                names.append(name)
                found.append(_held(was, now, measure))
    ps = iter(holm([_worse(v.measure, v.test) for v in found if v.test]))
    held = [replace(v, p=next(ps)) if v.test else v for v in found]
    return Checked([Gate(n, v, outcome(v)) for n, v in zip(names, held, strict=True)], differences)


def _matched(old: Sequence[Entry], new: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Each entry of now with the one it is held against: those of one key go by their order."""
    left = list(old)
    found = []
    for now in new:
        was = next((e for e in left if e.key == now.key), None)
        if was is None:
            raise unknown("run: no baseline of", _name(now), [_name(e) for e in old])
        left.remove(was)
        found.append((now, was))
    return found


def _name(entry: Entry) -> str:
    task, model, sampler = entry.key
    return " ".join(dict.fromkeys((task, model, sampler)))


def _held(was: Entry, now: Entry, measure: Measure) -> Verdict:
    if measure.name != "seconds":
        return tested(was.samples(), now.samples(), measure)
    n = len(set(was.ids) & set(now.ids))
    if not (was.seconds and now.seconds):
        return Verdict(measure, n, why="it was not timed")
    return Verdict(measure, n, was.seconds, now.seconds, _quotient(was.seconds, now.seconds))


def _quotient(old: Interval, new: Interval) -> Test:
    """Of two ratios that were measured apart: on a logarithmic scale their errors add up."""
    from scipy.stats import norm

    z = float(norm.ppf(1 - ALPHA / 2))
    value = math.log(new.value / old.value)
    width = math.hypot(*(math.log(r.high / r.low) / (2 * z) for r in (old, new)))
    p = 2 * float(norm.sf(abs(value) / width)) if width else float(value == 0)
    ends = (math.exp(value + sign * z * width) for sign in (0, -1, 1))
    return Test(Interval(*ends), p, math.expm1((z + float(norm.ppf(0.8))) * width))


def _loss(measure: Measure, test: Test) -> float:
    """How much worse it is: a difference of scores, else a ratio less 1."""
    change = test.change.value if measure.score else test.change.value - 1
    return -change if measure.up else change


def _worse(measure: Measure, test: Test) -> float:
    """The p of a gate, which asks on one side only: is it worse?"""
    return test.p / 2 if _loss(measure, test) > 0 else 1 - test.p / 2


def outcome(verdict: Verdict) -> Outcome:
    """Fails where it is worse beyond chance and by more than the limit.

    What so few examples could never show is no pass: McNemar's test needs 6 flips, so the drop that
    is allowed must be at least that many examples.
    """
    measure, test = verdict.measure, verdict.test
    if test is None or verdict.n < FEWEST:
        return "too few"
    if verdict.p is not None and verdict.p < ALPHA and _loss(measure, test) > measure.margin:
        return "fails"
    return "too few" if measure.score and FEWEST / verdict.n > measure.margin else "passes"
