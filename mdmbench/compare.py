"""Two runs, example by example: what differs between them, and what it made better or worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mdmbench import floor, rows, samples
from mdmbench.errors import UserError
from mdmbench.rows import RULE
from mdmbench.samples import SCORE, Samples, common, paired
from mdmbench.store import Run, nothing, runs
from mdmbench.verdicts import Verdict, margins, measures, verdicts

QUESTION = ("task", "task_version")
"""Where these differ, the examples or their scores are not the same ones."""


class Matters(StrEnum):
    """What a difference in settings means for a comparison, the gravest first."""

    question = "nothing can be compared"
    canvas = "for everything: the rule is not the only difference"
    rule = "it is what is compared"
    clock = "for seconds only"


@dataclass(frozen=True)
class Difference:
    """A setting of two runs that is not the same; `matters` says for what."""

    name: str
    one: Any
    other: Any
    matters: Matters


@dataclass(frozen=True)
class Comparison:
    """B against A.

    names       of the two, short where that tells them apart
    verdicts    a mark a measure
    n, alone    examples that both have, and that only A and only B has
    lost        common examples whose headline score is lower in B, gained: higher
    differences what was set otherwise
    """

    names: tuple[str, str]
    runs: tuple[Run, Run]
    headline: str
    n: int
    alone: tuple[int, int]
    verdicts: list[Verdict]
    lost: list[str]
    gained: list[str]
    differences: list[Difference]


def compare(one: Run, other: Run, asked: Sequence[str] = ()) -> Comparison:
    """Raises UserError where the two have no example in common, or one has none at all.

    `asked` are margins as `name=value`.
    """
    a, b = (_read(run) for run in (one, other))
    differences = differing(one, other, a, b)
    both = common(a, b)
    if not len(both[0]):
        raise UserError(f"{one.path} and {other.path} have no example in common", _why(differences))
    headline, n = one.spec["headline"], both[0].example.nunique()
    noise = floor.together(floor.read(one.path), floor.read(other.path))
    known = margins(asked, sorted(measures(a, b, noise), key=lambda m: m.name != headline))
    questions = [d for d in differences if d.matters is Matters.question]
    found = (
        [Verdict(measure, n, why=_said(questions[0])) for measure in known]
        if questions
        else verdicts(a, b, known)
    )
    lost, gained = ([], []) if questions else flips(*both, headline)
    beside = (samples.example.nunique() - n for samples in (a, b))
    names = rows.label(rows.rule_of(one.spec)), rows.label(rows.rule_of(other.spec))
    if names[0] == names[1]:
        names = one.path.name, other.path.name
    if names[0] == names[1]:
        names = str(one.path), str(other.path)
    return Comparison(
        names=names,
        runs=(one, other),
        headline=headline,
        n=n,
        alone=(next(beside), next(beside)),
        verdicts=found,
        lost=lost,
        gained=gained,
        differences=differences,
    )


def pairs(one: Path, other: Path) -> tuple[list[tuple[Run, Run]], list[Run]]:
    """Which run of A goes with which of B, and the runs that go with none: the only one with the
    only one, else those of the same settings.

    Raises UserError where no two go together.
    """
    here, there = runs([one]), runs([other])
    for path, known in ((one, here), (other, there)):
        if not known:
            raise UserError(f"no run in {path}", "name a run folder, or a folder that holds some")
    for run in (*here, *there):
        rows.whole(run)
    if len(here) == len(there) == 1:
        return [(here[0], there[0])], []
    found = [(a, b) for a in here for b in _partners(a, there)]
    if not found:
        raise UserError(
            f"{len(here)} runs in {one}, {len(there)} in {other}, and no two of the same settings",
            "name two run folders",
        )
    partnered = {run.path for pair in found for run in pair}
    return found, [run for run in (*here, *there) if run.path not in partnered]


def _partners(run: Run, others: Sequence[Run]) -> list[Run]:
    """Those with its settings; where one has its weights and task too, that one alone."""
    same = [other for other in others if other.spec["settings"] == run.spec["settings"]]
    return [other for other in same if other.spec == run.spec] or same


def flips(one: Samples, other: Samples, score: str) -> tuple[list[str], list[str]]:
    """The examples that lost and those that gained, by name."""
    if score not in one.scores or score not in other.scores:
        return [], []
    before, after = paired(one, other, SCORE + score)
    change = after - before
    return list(change.index[change < 0]), list(change.index[change > 0])


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    """All that two runs' spec.json say otherwise, what matters most first."""
    old, new = _settings(one), _settings(other)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    found = [Difference(name, old.get(name), new.get(name), _matters(name)) for name in names]
    return sorted(found, key=lambda d: list(Matters).index(d.matters))


def differing(one: Run, other: Run, a: Samples, b: Samples) -> list[Difference]:
    """All that was set otherwise, and the machines, what matters most first."""
    found = differing_settings(one.spec, other.spec)
    clocks = [sorted(set(samples.clock)) for samples in (a, b)]
    if clocks[0] != clocks[1]:
        here, there = (" and ".join(clock[:2]) for clock in clocks)
        found.append(Difference("machine", here, there, Matters.clock))
    return found


def _matters(name: str) -> Matters:
    # A task's knobs may make other examples under the same ids.
    if name in QUESTION or name.startswith(("task_knobs.", "task ")):
        return Matters.question
    if name in ("sampler", "sampler file", *RULE) or name.startswith("knobs."):
        return Matters.rule
    return Matters.canvas


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What can change an answer; knobs one by one, and of a file its content, not its place."""
    # What was made before there were caches had none.
    settings = {"cache": "none", "cache_knobs": {}, **spec["settings"]}
    files = dict(spec.get("files", {}))
    for kind in ("knobs", "task_knobs", "model_knobs", "cache_knobs"):
        knobs = {f"{kind}.{knob}": value for knob, value in settings.pop(kind).items()}
        settings |= {name: value for name, value in knobs.items() if value not in (None, "")}
    for knob in files.keys() - {"task", "sampler"}:
        settings.pop(f"task_knobs.{knob}", None)
    contents = {f"task {knob}": files[knob] for knob in files.keys() - {"task", "sampler"}}
    places = {name: settings[name].rpartition("/")[2] for name in ("task", "sampler")}
    return {
        **settings,
        **places,
        **contents,
        "task file": files.get("task"),
        "sampler file": files.get("sampler"),
        "task_version": spec.get("task_version"),
        "model weights": spec.get("model_digest"),
    }


def _read(run: Run) -> Samples:
    rows.whole(run)
    found = samples.read(run)
    if not len(found):
        raise nothing(run)
    return found


def _said(difference: Difference) -> str:
    return f"{difference.name} is {difference.one!r} and {difference.other!r}"


def _why(differences: Sequence[Difference]) -> str:
    said = [_said(d) for d in differences if d.matters is Matters.question or d.name == "seed"]
    return "; ".join(said) or "were they run with other --limit or data?"
