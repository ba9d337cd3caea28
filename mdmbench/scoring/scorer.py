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
from math import isfinite
from multiprocessing import get_context, parent_process
from numbers import Real
from typing import Any, Protocol

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


class Scorer(Protocol):
    def submit(self, example: Any, answer: Any) -> Future[Scored]: ...
    def close(self) -> None: ...


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
        if not good or not all(isinstance(v, Real) and isfinite(v) for v in numbers.values()):
            raise UserError(
                f"task {self.name} scores {example.id} as {found!r}",
                f"score returns numbers by name, {task.headline!r} among them",
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


def scorer(judge: Judge, task: Any) -> Scorer:
    """Where answers of this task are scored."""
    if hasattr(task, "symbols"):
        return Inline(judge, task)
    return Workers(judge, max(1, (os.cpu_count() or 1) // 2))


class Inline:
    """Scores at once, in this process: for puzzles, whose scores cost nothing."""

    def __init__(self, judge: Judge, task: Any) -> None:
        self._judge, self._task = judge, task

    def submit(self, example: Any, answer: Any) -> Future[Scored]:
        future: Future[Scored] = Future()
        future.set_result(self._judge(self._task, example, answer))
        return future

    def close(self) -> None:
        pass


class Workers:
    """Scores in processes of their own, which give way to the model."""

    def __init__(self, judge: Judge, count: int) -> None:
        self._pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_begin, initargs=(judge,)
        )

    def submit(self, example: Any, answer: Any) -> Future[Scored]:
        return self._pool.submit(_score, example, answer)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def result(future: Future[Scored]) -> Scored:
    """Raises UserError where the answer could not be scored."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(f"the processes that score answers have died: {error}") from None


_work: list[tuple[Judge, Any]] = []
"""Of a worker process: its judge and the task, made once."""


def _begin(judge: Judge) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    os.nice(10)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work.append((judge, judge.task()))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _score(example: Any, answer: Any) -> Scored:
    judge, task = _work[-1]
    return judge(task, example, answer)
