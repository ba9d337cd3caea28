"""Runs: jobs in, records on disk out."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch

from mdmbench import environment
from mdmbench.base import Example, Observer
from mdmbench.job import Job, Jobs
from mdmbench.spec import RunSpec
from mdmbench.store import Record, Run

SYNC_SECONDS = 1.0
"""Finished examples wait at most this long for the disk."""


class Runner:
    """Runs specs into folders under `out`."""

    def __init__(
        self,
        out: Path,
        *,
        limit: int | None,
        batch_size: int,
        device: torch.device,
        observer: Observer,
    ) -> None:
        self.out, self.batch_size = out, batch_size
        self.device, self.observer = device, observer
        self.jobs = Jobs(limit, device)

    def run(self, specs: Sequence[RunSpec]) -> dict[Path, set[str]]:
        """The folder of each spec's run, complete, and the ids that were asked for.

        All specs are checked before the first one starts.
        """
        jobs = [self.jobs.make(spec) for spec in specs]
        return {self.complete(job).path: {e.id for e in job.examples} for job in jobs}

    def complete(self, job: Job) -> Run:
        """The run of a job; records that are on disk are not made again."""
        run = Run.create(self.out, job.label, job.stored)
        total = len(job.examples)
        if missing(job, run):
            with run.writing(environment.describe(self.device)) as append:
                # Asked again now that nobody else can add to the run.
                todo = missing(job, run)
                with closing(flushing(job.records(todo, self.batch_size), append)) as flushed:
                    for count in flushed:
                        self.observer(job.label, total - len(todo) + count, total)
        self.observer(job.label, total, total)
        return run


def missing(job: Job, run: Run) -> list[Example]:
    """The job's examples that `run` has no record of."""
    known = {record.id for record in run.records()}
    return [e for e in job.examples if e.id not in known]


def flushing(
    records: Iterator[Record], append: Callable[[Sequence[Record]], None]
) -> Generator[int]:
    """Hands records to the disk every SYNC_SECONDS and, whatever happens, at the end.

    Yields how many have been made so far.
    """
    waiting: list[Record] = []
    count, last = 0, time.monotonic()
    try:
        for record in records:
            waiting.append(record)
            count += 1
            if time.monotonic() - last > SYNC_SECONDS:
                batch, waiting, last = waiting, [], time.monotonic()
                append(batch)
            yield count
    finally:
        append(waiting)
