"""Scores of answers: made in worker processes while the model goes on, or at once.

No torch here: a worker starts in a fraction of a second.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from numbers import Real
from typing import Any

from mdmbench import resolve
from mdmbench.base import Question, TextTask
from mdmbench.errors import UserError
from mdmbench.scoring.sandbox import Sandbox


@dataclass(frozen=True)
class Scored:
    """What a task says of one answer; notes are how it was read, and how its programs ended."""

    scores: dict[str, float]
    notes: dict[str, str]


def cut(task: TextTask, text: str) -> str:
    """An answer without its stop phrase and what follows, or up to where it is finished."""
    for stop in task.stops:
        text = text.partition(stop)[0]
    finished = re.search(task.finish, text) if task.finish else None
    return text[: finished.end()] if finished else text


@dataclass(frozen=True)
class Judge:
    """A task by its name and knobs, and the sandbox of its programs; None where it has none."""

    name: str
    knobs: Mapping[str, Any]
    sandbox: Sandbox | None = None

    def task(self) -> Any:
        return resolve.task(self.name, self.knobs)

    def __call__(self, task: Any, example: Any, answer: Any) -> Scored:
        """The scores of one answer. Raises UserError where the task gives none."""
        if isinstance(example, Question):
            answer = cut(task, answer)
        with resolve.blaming("task", self.name):
            if hasattr(task, "programs"):
                found = self._run(task.programs(example, answer))
            else:
                found = task.score(example, answer)
        good = isinstance(found, Mapping) and task.headline in found
        numbers = {k: v for k, v in found.items() if not isinstance(v, str)} if good else {}
        if not good or not all(isinstance(v, Real) and 0 <= v <= 1 for v in numbers.values()):
            raise UserError(
                f"task {self.name} scores {example.id} as {found!r}",
                f"score returns numbers from 0 to 1 by name, {task.headline!r} among them",
            )
        notes = {str(k): v for k, v in found.items() if isinstance(v, str)}
        return Scored({str(k): float(v) for k, v in numbers.items()}, notes)

    def _run(self, programs: Mapping[str, Any]) -> dict[str, float | str]:
        """Runs each program, equal ones once."""
        assert self.sandbox is not None
        sources = dict.fromkeys(program.source for program in programs.values())
        outcomes = {source: self.sandbox.run(source) for source in sources}
        found: dict[str, float | str] = {}
        for name, program in programs.items():
            outcome = outcomes[program.source]
            found[name] = float(outcome.kind == "pass")
            found[f"{name} outcome"] = outcome.kind
            found[f"{name} branch"] = program.branch
            if outcome.detail:
                found[f"{name} detail"] = outcome.detail
        return found


class Workers:
    """Processes that score the answers of any number of tasks, and give way to the model.

    A context manager: left by an exception it does not wait for what is being scored. Puzzles,
    whose scores cost nothing, are scored here and now.
    """

    def __init__(self) -> None:
        self.count = max(1, (os.cpu_count() or 1) // 2)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        for process in active_children() if kind else ():
            process.kill()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, judge: Judge, task: Any, example: Any, answer: Any) -> Future[Scored]:
        """`task` is the judge's; a worker makes its own."""
        if isinstance(example, Question):
            return self._submit(judge, example, answer)
        future: Future[Scored] = Future()
        future.set_result(judge(task, example, answer))
        return future

    def _submit(self, judge: Judge, example: Any, answer: Any) -> Future[Scored]:
        # A process that this starts is to leave an interruption to the parent from its first
        # moment on, and it inherits what is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            if self._pool is None:
                context = get_context("spawn")
                self._pool = ProcessPoolExecutor(self.count, context, initializer=_begin)
            return self._pool.submit(_score, judge, example, answer)
        except BrokenProcessPool as error:
            raise _died(example) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def result(example: Any, future: Future[Scored]) -> Scored:
    """Raises UserError where the answer could not be scored."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _died(example) from error


def _died(example: Any) -> UserError:
    return UserError(
        f"a process that scores answers died, at example {example.id} or one beside it",
        "is there memory enough? the same command goes on behind what has been scored",
    )


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.nice(10)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


_tasks: dict[tuple[str, str], Any] = {}
"""The tasks that this process has scored answers of, by name and knobs."""


def _score(judge: Judge, example: Any, answer: Any) -> Scored:
    key = judge.name, repr(sorted(judge.knobs.items()))
    if key not in _tasks:
        _tasks[key] = judge.task()
    return judge(_tasks[key], example, answer)
