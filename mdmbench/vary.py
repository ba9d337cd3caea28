"""A run made again under other numerics, which should change no answer.

A variation is a run of its own, in a folder of its own inside the run's (`floor.FOLDER`): it is
made, stopped and taken up again like any other.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps, loads
from statistics import mode
from typing import Any, cast

import torch

from mdmbench import models, resolve, rows
from mdmbench.base import Observer
from mdmbench.compare import differing_settings
from mdmbench.errors import UserError, unknown
from mdmbench.floor import FOLDER
from mdmbench.job import AnyTask, Job
from mdmbench.runner import Order, Runner, as_given, shuffled
from mdmbench.scoring.sandbox import Sandbox
from mdmbench.spec import RunSpec, validated
from mdmbench.store import Run, nothing

ORDERS: Mapping[str, Order] = {
    "as-given": as_given,
    "reversed": lambda items: items[::-1],
    "shuffled": shuffled,
}

FARTHEST = 100_000
"""Examples of a task that are looked through for those of a run: some tasks never run out."""


@dataclass(frozen=True)
class Variation:
    """A run's settings with one thing changed, which names the folder."""

    name: str
    spec: RunSpec
    batch_size: int
    device: torch.device
    order: Order


def variations(run: Run, asked: Mapping[str, Sequence[str]]) -> list[Variation]:
    """One for each value of a batch-size, dtype, device or order; where nothing is asked for,
    another batch size and the reversed order.

    All else is as in most of the run's records. Raises UserError for an empty run, or a value that
    there is not.
    """
    rows.whole(run)
    sizes = [record.batch_size for record in run.records()]
    if not sizes:
        raise nothing(run)
    devices = [entry["device"] for entry in run.environments() if "device" in entry]
    usual = {
        "batch-size": str(mode(sizes)),
        "device": devices[-1] if devices else "auto",
        "order": "as-given",
        "dtype": str(run.spec["settings"]["dtype"]),
    }
    if not any(asked.values()):
        asked = {"batch-size": ["2" if mode(sizes) == 1 else "1"], "order": ["reversed"]}
    settings = run.spec["settings"]
    return [
        _variation(settings, usual, what, value)
        for what, values in asked.items()
        for value in values
    ]


def _variation(
    settings: Mapping[str, Any], usual: Mapping[str, str], what: str, value: str
) -> Variation:
    chosen = {**usual, what: value}
    size, order = chosen["batch-size"], chosen["order"]
    if not size.isdecimal() or not int(size):
        raise UserError(f"batch size {size!r}", "it is a number of examples, at least 1")
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    if value == usual[what]:
        raise UserError(f"{what} {value} is that of the run itself", "name another")
    return Variation(
        name=f"{what}-{value}".replace(":", "-"),
        spec=validated({**settings, **({"dtype": value} if what == "dtype" else {})}),
        batch_size=int(size),
        device=models.device(chosen["device"]),
        order=ORDERS[order],
    )


def make(
    run: Run,
    wanted: Sequence[Variation],
    *,
    limit: int | None,
    observer: Observer,
    notice: Callable[[str], None],
    sandbox: Callable[[], Sandbox],
) -> None:
    """Decodes the run's examples, at most `limit` of them, under each variation.

    Raises UserError where the run's task or model is not what it was.
    """
    ids = {record.id for record in run.records()}
    first = wanted[0].spec
    task = cast(AnyTask, resolve.task(first.task, first.task_knobs))
    with resolve.blaming("task", first.task):
        needed = _needed(task, first.seed, ids)
    for variation in wanted:
        bench = Runner(
            run.path / FOLDER / variation.name,
            limit=needed,
            batch_size=variation.batch_size,
            device=variation.device,
            observer=observer,
            notice=notice,
            sandbox=sandbox,
            order=_only(ids, limit, variation.order),
        )
        _check(run, bench.jobs.make(variation.spec), variation.spec, ids)
        bench.run([variation.spec])
        # There may be no room for the next model beside this one, which holds on to itself.
        del bench
        gc.collect()


def _needed(task: AnyTask, seed: int, ids: set[str]) -> int:
    """How many of the task's first examples hold all of these, or how many were looked through."""
    limit = len(ids)
    while True:
        found = {item.id for item in task.examples(limit, seed)}
        if ids <= found or len(found) < limit or limit > FARTHEST:
            return limit
        limit *= 2


def _only(ids: set[str], limit: int | None, order: Order) -> Order:
    return lambda items: order([item for item in items if item.id in ids][:limit])


def _check(run: Run, job: Job, spec: RunSpec, ids: set[str]) -> None:
    """Raises UserError unless the job is the run's, with these settings."""
    was: dict[str, Any] = {**run.spec, "settings": spec.model_dump()}
    now: dict[str, Any] = loads(dumps(job.stored))
    differing = [(d.name, d.one, d.other) for d in differing_settings(was, now)]
    differing += [
        (name, was.get(name), now[name])
        for name in ("version", "headline")
        if was.get(name) != now[name]
    ]
    for name, one, other in differing:
        raise UserError(
            f"{run.path} cannot be made again: {name} was {one!r} and is {other!r}",
            "make the run anew with mdmbench run, and measure that one",
        )
    missing = sorted(ids - {item.id for item in job.examples})
    if missing:
        raise UserError(
            f"{run.path}: task {spec.task} has no example {missing[0]} any more",
            "was the run made with another data file?",
        )
