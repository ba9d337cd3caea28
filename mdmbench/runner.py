"""Runs: jobs in, records on disk out."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path

import torch

from mdmbench import environment
from mdmbench.base import Observer
from mdmbench.job import Item, Job, Jobs
from mdmbench.pace import Pace, Progress, together
from mdmbench.rows import group, top1
from mdmbench.scoring.sandbox import Sandbox
from mdmbench.spec import RunSpec
from mdmbench.store import Record, Run, digest

SYNC_SECONDS = 1.0
"""Finished examples wait at most this long for the disk."""

Order = Callable[[Sequence[Item]], Sequence[Item]]
"""From a task's examples to those that are decoded, in the order in which they are."""


def as_given(items: Sequence[Item]) -> Sequence[Item]:
    return items


def shuffled(items: Sequence[Item]) -> Sequence[Item]:
    """An order that says nothing of what they are like, as a test that stops early needs it."""
    return sorted(items, key=lambda item: sha256(item.id.encode()).digest())


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
        order: Order = as_given,
    ) -> None:
        self.out, self.batch_size = out, batch_size
        self.device, self.observer, self.order = device, observer, order
        self.jobs = Jobs(limit, device, sandbox)

    def run(self, specs: Sequence[RunSpec], pace: Pace = together) -> dict[Path, set[str]]:
        """The folder of each spec's run and the ids that were asked for, complete as far as `pace`
        lets them come.

        All specs are checked before the first one starts.
        """
        made = [self.jobs.make(spec) for spec in specs]
        # Settings that differ on paper may turn out to be the same run.
        jobs = {digest(job.stored): job for job in made}
        folders = {name: self.folder(job) for name, job in jobs.items()}
        known = {name: self._progress(job, folders[name]) for name, job in jobs.items()}
        for name, run in folders.items():
            other = top1(run, [r for r in folders.values() if group(r) == group(run)])
            if other and other.path != run.path:
                known[name].baseline = known[digest(other.spec)]
        with ExitStack() as stack:
            stack.enter_context(self.jobs.workers)
            going = {
                name: stack.enter_context(closing(self.complete(job, folders[name], known[name])))
                for name, job in jobs.items()
                if known[name].left
            }
            while turn := pace(list(known.values())):
                name = next(name for name, progress in known.items() if progress is turn.who)
                while turn.who.done < turn.until:
                    next(going[name], None)
        return {folders[name].path: set(progress.ids) for name, progress in known.items()}

    def folder(self, job: Job) -> Run:
        return Run.create(self.out, job.label, job.stored)

    def _progress(self, job: Job, run: Run) -> Progress:
        progress = Progress(job.task.headline, [item.id for item in self.order(job.examples)])
        for record in run.records():
            progress.add(record)
        return progress

    def complete(self, job: Job, run: Run, progress: Progress) -> Generator[None]:
        """Makes the records that a job's run does not have, and adds each to `progress`.

        Closed early it leaves a whole run behind, which the same command completes.
        """
        sandbox = job.judge.sandbox
        where = environment.describe(self.device, sandbox.name if sandbox else None)
        with run.writing(where) as append:
            # Asked again now that nobody else can add to the run.
            for record in run.records():
                progress.add(record)
            todo = [item for item in self.order(job.examples) if not progress.has(item.id)]
            if todo:
                made = job.records(todo, self.batch_size or job.usual_batch_size)
                with closing(flushing(made, append)) as flushed:
                    for record in flushed:
                        progress.add(record)
                        self.observer(job.label, progress.done, len(progress.ids))
                        yield
        assert not progress.left


def flushing(
    records: Iterator[Record], append: Callable[[Sequence[Record]], None]
) -> Generator[Record]:
    """The records, handed to the disk every SYNC_SECONDS and, whatever happens, at the end."""
    waiting: list[Record] = []
    last = time.monotonic()
    try:
        for record in records:
            waiting.append(record)
            if time.monotonic() - last > SYNC_SECONDS:
                batch, waiting, last = waiting, [], time.monotonic()
                append(batch)
            yield record
    finally:
        append(waiting)
