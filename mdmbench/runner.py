"""Runs: jobs in, records on disk out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

import torch

from mdmbench import environment
from mdmbench.base import Observer
from mdmbench.job import Item, Job, Jobs
from mdmbench.pace import Pace, Progress, together
from mdmbench.rows import group, top1
from mdmbench.samples import example
from mdmbench.scoring.sandbox import Sandbox
from mdmbench.sequential import place
from mdmbench.spec import RunSpec
from mdmbench.store import Append, Record, Run, digest

SYNC_SECONDS = 1.0
"""Finished examples wait at most this long for the disk."""

Order = Callable[[Sequence[Item]], Sequence[Item]]
"""From a task's examples to those that are decoded, in the order in which they are."""


def as_given(items: Sequence[Item]) -> Sequence[Item]:
    return items


def shuffled(items: Sequence[Item]) -> Sequence[Item]:
    """An order that says nothing of what they are like, as a test that stops early needs it;
    samples of one example stay together."""
    return sorted(items, key=lambda item: place(example(item)))


class Runner:
    """Runs specs into folders under `out`."""

    def __init__(
        self,
        out: Path,
        *,
        limit: int | None,
        batch_size: int | Literal["auto"] | None,
        device: torch.device,
        observer: Observer,
        notice: Callable[[str], None],
        sandbox: Callable[[], Sandbox],
        order: Order = as_given,
        compiled: bool = False,
    ) -> None:
        """`batch_size`: the usual one where it is None, and with auto the largest that fits.
        `notice` is told what the user should know."""
        self.out, self.batch_size, self.notice = out, batch_size, notice
        self.device, self.observer, self.order = device, observer, order
        self.jobs = Jobs(limit, device, sandbox, compiled)

    def run(self, specs: Sequence[RunSpec], pace: Pace = together) -> list[tuple[Path, set[str]]]:
        """For each spec its run's folder and the ids that were asked for, complete as far as `pace`
        lets them come. Settings that differ on paper may turn out to be the same run.

        All specs are checked before the first one starts.
        """
        made = [self.jobs.make(spec) for spec in specs]
        jobs = {digest(job.stored): job for job in made}
        folders = {name: self.folder(job) for name, job in jobs.items()}
        known = {name: self._progress(job, folders[name]) for name, job in jobs.items()}
        groups = {name: group(run) for name, run in folders.items()}
        for name, run in folders.items():
            other = top1(run, [r for n, r in folders.items() if groups[n] == groups[name]])
            if other and other.path != run.path:
                known[name].baseline = known[digest(other.spec)]
        with ExitStack() as stack:
            stack.enter_context(self.jobs.workers)
            buffers = {name: Buffer() for name in jobs}
            left = {name: job for name, job in jobs.items() if known[name].left}
            # One size for all that are compared: seconds of different ones cannot be.
            some = {groups[name]: job for name, job in left.items()}
            sizes = {which: self._size(job, len(left)) for which, job in some.items()}
            going = {
                name: stack.enter_context(
                    closing(
                        self.complete(
                            job, folders[name], known[name], buffers[name], sizes[groups[name]]
                        )
                    )
                )
                for name, job in left.items()
            }
            while turn := pace(list(known.values())):
                name = next(name for name, progress in known.items() if progress is turn.who)
                single = turn.until == turn.who.done + 1
                while turn.who.done < turn.until:
                    next(going[name], None)
                for owner, buffer in buffers.items():
                    # After a long turn it may be long until the next.
                    buffer.flush(SYNC_SECONDS if single or owner != name else 0)
            # What is under way is finished, or the easy ones would be all that is left behind.
            for name, rest in going.items():
                known[name].closed = True
                deque(rest, maxlen=0)
        names = [digest(job.stored) for job in made]
        return [(folders[name].path, set(known[name].ids)) for name in names]

    def _size(self, job: Job, runs: int) -> int:
        """The batch size of a job that is one of so many."""
        if self.batch_size == "auto":
            return job.fitting_batch_size(runs)
        return self.batch_size or job.usual_batch_size

    def folder(self, job: Job) -> Run:
        return Run.create(self.out, job.label, job.stored)

    def _progress(self, job: Job, run: Run) -> Progress:
        items = self.order(job.examples)
        ids, examples = [item.id for item in items], list(map(example, items))
        progress = Progress(job.task.headline, ids, examples)
        for record in run.records():
            progress.add(record)
        return progress

    def complete(
        self, job: Job, run: Run, progress: Progress, buffer: Buffer, batch_size: int
    ) -> Generator[None]:
        """Makes the records that a job's run does not have; each is added to `progress`, and goes
        to the disk by way of `buffer`.

        Closed early it leaves a whole run behind, which the same command completes.
        """
        sandbox = job.judge.sandbox
        where = environment.describe(
            self.device, sandbox.name if sandbox else None, self.jobs.compiled
        )
        with run.writing(where) as append, buffer.to(append):
            # Asked again now that nobody else can add to the run.
            for record in run.records():
                progress.add(record)
            todo = [item for item in self.order(job.examples) if not progress.has(item.id)]
            if todo:
                made = job.records(todo, batch_size, lambda: not progress.closed, self.notice)
                with closing(made):
                    for record in made:
                        buffer.add(record)
                        progress.add(record)
                        self.observer(job.label, progress.done, len(progress.ids))
                        yield
        assert progress.closed or not progress.left


class Buffer:
    """Records on their way to the disk."""

    def __init__(self) -> None:
        self._waiting: list[Record] = []
        self._since = 0.0
        self._append: Append

    @contextmanager
    def to(self, append: Append) -> Iterator[None]:
        """Whatever happens, what has been added is handed over in the end."""
        self._append = append
        try:
            yield
        finally:
            self.flush()

    def add(self, record: Record) -> None:
        self._since = self._since if self._waiting else time.monotonic()
        self._waiting.append(record)
        self.flush(SYNC_SECONDS)

    def flush(self, age: float = 0) -> None:
        """Hands the records over if the first has waited for `age` seconds."""
        if self._waiting and time.monotonic() - self._since >= age:
            waiting, self._waiting = self._waiting, []
            self._append(waiting)
