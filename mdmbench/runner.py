"""Runs: jobs in, records on disk out."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from heapq import heappop, heappush
from pathlib import Path

import torch

from mdmbench import environment
from mdmbench.base import Observer
from mdmbench.job import Item, Job, Jobs
from mdmbench.scoring.sandbox import Sandbox
from mdmbench.spec import RunSpec
from mdmbench.store import Record, Run, digest

SYNC_SECONDS = 1.0
"""Finished examples wait at most this long for the disk."""


class Runner:
    """Runs specs into folders under `out`."""

    def __init__(
        self,
        out: Path,
        *,
        limit: int | None,
        batch_size: int | None,
        device: torch.device,
        observer: Observer,
        sandbox: Callable[[], Sandbox],
    ) -> None:
        self.out, self.batch_size = out, batch_size
        self.device, self.observer = device, observer
        self.jobs = Jobs(limit, device, sandbox)

    def run(self, specs: Sequence[RunSpec]) -> dict[Path, set[str]]:
        """The folder of each spec's run, complete, and the ids that were asked for.

        All specs are checked before the first one starts. Runs are made side by side, the one with
        the smallest share of its examples done goes on: what slows the machine down for a while
        then slows them all, and their seconds can be compared.
        """
        made = [self.jobs.make(spec) for spec in specs]
        # Settings that differ on paper may turn out to be the same run.
        jobs = list({digest(job.stored): job for job in made}.values())
        with ExitStack() as stack:
            stack.enter_context(self.jobs.workers)
            shares: list[tuple[float, int, Generator[float]]] = []
            for i, job in enumerate(jobs):
                shares.append((0.0, i, stack.enter_context(closing(self.complete(job)))))
            while shares:
                _, i, going = heappop(shares)
                share = next(going, None)
                if share is not None:
                    heappush(shares, (share, i, going))
        return {self.folder(job).path: {e.id for e in job.examples} for job in jobs}

    def folder(self, job: Job) -> Run:
        return Run.create(self.out, job.label, job.stored)

    def complete(self, job: Job) -> Generator[float]:
        """Makes the records that a job's run does not have; yields the share of them that is done.

        Closed early it leaves a whole run behind, which the same command completes.
        """
        run, total = self.folder(job), len(job.examples)
        if missing(job, run):
            sandbox = job.judge.sandbox
            where = environment.describe(self.device, sandbox.name if sandbox else None)
            with run.writing(where) as append:
                # Asked again now that nobody else can add to the run.
                todo = missing(job, run)
                made = job.records(todo, self.batch_size or job.usual_batch_size)
                with closing(flushing(made, append)) as flushed:
                    for count in flushed:
                        self.observer(job.label, total - len(todo) + count, total)
                        yield count / len(todo)
        self.observer(job.label, total, total)


def missing(job: Job, run: Run) -> list[Item]:
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
