"""Scores made again from what a run has kept, without its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from mdmbench import canvas, resolve, rows
from mdmbench.base import Observer, TextTask
from mdmbench.errors import UserError
from mdmbench.items import known_items
from mdmbench.job import AnyTask, Item, described
from mdmbench.scoring.metrics import measure
from mdmbench.scoring.sandbox import Sandbox
from mdmbench.scoring.scorer import Judge, Workers, cut, result
from mdmbench.spec import validated
from mdmbench.store import Record, Run


@dataclass(frozen=True)
class Rescored:
    """What came of it: the run that holds the scores, and those that are not what they were."""

    path: Path
    records: int
    changed: list[str]


def rescore(run: Run, sandbox: Callable[[], Sandbox], observer: Observer) -> Rescored:
    """Scores a run's answers by the task as it is now.

    Where the task has changed since, its settings are others, and the scores go into a run of
    their own beside the old one. Raises UserError where the task no longer has an example.
    """
    rows.whole(run)
    spec = validated(run.spec["settings"])
    task = cast(AnyTask, resolve.task(spec.task, spec.task_knobs))
    judge = Judge(spec.task, spec.task_knobs, sandbox() if hasattr(task, "programs") else None)
    old = list(run.records())
    new = list(_scored(run, old, task, judge, observer))
    stored = _respecified(run, described(spec, task))
    changed = [
        f"{a.id}: {name} {a.scores.get(name, 'none')} -> {b.scores.get(name, 'none')}"
        for a, b in zip(old, new, strict=True)
        for name in sorted({*a.scores, *b.scores})
        if a.scores.get(name) != b.scores.get(name)
    ]
    if stored == run.spec:
        return Rescored(run.path, len(old), changed)
    made = Run.create(run.path.parent, run.path.name.rpartition("-")[0], stored)
    known = {record.id for record in made.records()}
    environments = dict(enumerate(run.environments()))
    for session in sorted({r.session for r in new}):
        with made.writing(environments.get(session, {})) as append:
            append([r for r in new if r.session == session and r.id not in known])
    return Rescored(made.path, len(old), changed)


def measured(run: Run, name: str) -> dict[str, float]:
    """What a metric of the `evaluate` library says of a run's answers, stop phrases cut off.

    Raises UserError for a puzzle, whose answers are no texts, or where the metric cannot be used.
    """
    rows.whole(run)
    spec = validated(run.spec["settings"])
    task = cast(AnyTask, resolve.task(spec.task, spec.task_knobs))
    if canvas.is_puzzle(task):
        raise UserError(f"{run.path}: {spec.task} is a puzzle", "metrics compare texts")
    records = list(run.records())
    items = _items(run, records, task)
    targets = [cast(str, items[record.id].target) for record in records]
    answers = [cut(cast(TextTask, task), record.answer) for record in records]
    return measure(name, answers, targets)


def _respecified(run: Run, now: dict[str, Any]) -> dict[str, Any]:
    """The settings with what is known of the task now; sampler and model are those of the run."""
    files = {**now["files"], "sampler": run.spec["files"].get("sampler")}
    return {**now, "files": files, "model_digest": run.spec.get("model_digest")}


def _scored(
    run: Run, records: list[Record], task: AnyTask, judge: Judge, observer: Observer
) -> list[Record]:
    items = _items(run, records, task)
    made = []
    with Workers() as workers:
        going = [
            workers.submit(judge, task, items[r.id], canvas.restored(task, r.answer))
            for r in records
        ]
        for i, (record, future) in enumerate(zip(records, going, strict=True), start=1):
            found = result(items[record.id], future)
            kept = {k: v for k, v in record.notes.items() if k == "unasked"}
            made.append(replace(record, scores=found.scores, notes={**found.notes, **kept}))
            observer(f"rescore {run.path.name}", i, len(records))
    return made


def _items(run: Run, records: list[Record], task: AnyTask) -> dict[str, Item]:
    """The examples of the records, by id."""
    ids = {record.id for record in records}
    found = known_items(run, task, ids, len(records))
    missing = sorted(ids - set(found))
    if missing:
        raise UserError(
            f"{run.path}: task {task.name} has no example {missing[0]} any more",
            "was the run made with another data file?",
        )
    return found
