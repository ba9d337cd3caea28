"""The harness measures itself: what it adds to the forwards that a sampler asked for.

Three contestants do the same work in one process, in rounds, so that what slows the machine down is
in all of them: `Ours` is `loop.decode`, the `Floor` is the forwards that it made and nothing else,
and the `Textbook` loop fills the same canvases by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import exp, sqrt
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from mdmbench.base import Canvas, Decoded, Model, Observer, Sampler, Seconds
from mdmbench.bench import textbook
from mdmbench.bench.rehearsal import Trial, rehearsed, replay
from mdmbench.clock import Work
from mdmbench.decoding import Decoding
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.memory import added, exhausted
from mdmbench.rows import Rule, label
from mdmbench.stats import Interval

RATIOS = {"share": False, "over_floor": False, "speedup": True}
"""The ratios of a row, and whether more is better."""


@dataclass(frozen=True)
class Case:
    """One rule at one batch size, to be measured.

    sampler   the rule's name
    cache     that of the model, by name
    canvases  of a round
    weights   bytes of the model's parameters
    value     where the case stands on the axis of a curve, None outside of one
    k         positions a step of the textbook loop, which fills them too; None: it does not
    plain     the model as the textbook loop has it, without a cache
    """

    sampler: str
    knobs: dict[str, Any]
    cache: str | None
    rule: Sampler
    model: Model
    plain: Model
    canvases: Sequence[Canvas]
    batch_size: int
    decoding: Decoding
    parameters: int
    weights: int
    value: int | None = None
    k: int | None = None


@dataclass(frozen=True)
class Row:
    """What was measured of a case. None stands for what was not.

    n                  rounds
    examples, steps    of a round
    ms                 milliseconds that a step took; that a forward of the floor, and a step of the
    floor_ms           textbook loop (of one example) took
    textbook_ms
    share              (sampler + host) / model
    over_floor         seconds of ours / of the floor
    speedup            seconds an example of the textbook loop / of ours
    same_tokens        share of its examples that the textbook loop filled as ours did
    per_second         examples
    host_reads         a step: how often the host waited for values of the device
    occupancy          share of the slots that held an example: over all steps, and over those
    occupancy_waiting  at which another one waited for a slot
    padding            share of the positions that only padded a shorter canvas
    peak, floor_peak   bytes: the weights, and the most that was added to them
    """

    sampler: str
    knobs: dict[str, Any]
    cache: str | None
    batch_size: int
    value: int | None
    parameters: int
    n: int
    examples: int
    steps: int
    ms: Seconds
    floor_ms: float
    textbook_ms: float | None
    share: Interval
    over_floor: Interval
    speedup: Interval | None
    same_tokens: float | None
    per_second: float
    host_reads: float
    occupancy: float
    occupancy_waiting: float | None
    padding: float
    peak: int | None
    floor_peak: int | None

    @property
    def name(self) -> str:
        """The rule with its knobs and the model's cache."""
        rule = label(Rule(self.sampler, self.knobs, {}))
        return f"{rule}, cache {self.cache}" if self.cache else rule


def measure(case: Case, rounds: int, observer: Observer) -> Row:
    """Every contestant does its work once a round, and each begins in its turn. All have been at
    work before the clock starts. Raises UserError where memory runs out."""
    try:
        return _measured(case, rounds, observer)
    except Exception as error:
        if not exhausted(error):
            raise
        raise _full(case) from error


def _measured(case: Case, rounds: int, observer: Observer) -> Row:
    trial = rehearsed(
        case.model,
        case.rule,
        case.canvases,
        batch_size=case.batch_size,
        decoding=case.decoding,
    )
    if any(decoded.batch_size < case.batch_size for decoded in trial.decoded.values()):
        raise _full(case)
    replay(case.model, trial.calls)
    ours, floor = Ours(case), Floor(case, trial)
    book = None if case.k is None else Textbook(case, case.k, trial)
    turns: list[Callable[[], None]] = [ours, floor, *([book] if book else [])]
    name = f"{label(Rule(case.sampler, case.knobs, {}))}, batch {case.batch_size}"
    for i in range(rounds):
        observer(name, i, rounds)
        first = i % len(turns)
        for contestant in turns[first:] + turns[:first]:
            contestant()
    observer(name, rounds, rounds)
    return row(case, trial, ours, floor, book)


def _full(case: Case) -> UserError:
    return UserError(f"out of memory at batch {case.batch_size}", "choose a smaller --batch-size")


class Meter:
    """Of each round: seconds, and the most bytes that it added to what was there; None where that
    cannot be measured."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self.added: list[int | None] = []

    @contextmanager
    def round(self) -> Iterator[None]:
        with added(self.device) as most:
            self._wait()
            start = perf_counter()
            yield
            self._wait()
            self.seconds.append(perf_counter() - start)
        self.added.append(most())

    def _wait(self) -> None:
        """For what the device still has to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Ours:
    """The loop of the package."""

    def __init__(self, case: Case) -> None:
        self.case, self.meter = case, Meter(case.model.device)
        self.works: list[Work] = []

    def __call__(self) -> None:
        case, work = self.case, Work()
        with self.meter.round():
            for _ in decode(
                case.model,
                case.rule,
                case.canvases,
                batch_size=case.batch_size,
                decoding=case.decoding,
                work=work,
            ):
                pass
        if work.slots < work.steps * case.batch_size:
            raise _full(case)
        self.works.append(work)


class Floor:
    """The same forwards, one after the other."""

    def __init__(self, case: Case, trial: Trial) -> None:
        self.model, self.trial, self.meter = case.model, trial, Meter(case.model.device)

    def __call__(self) -> None:
        with self.meter.round():
            replay(self.model, self.trial.calls)


class Textbook:
    """Where all canvases cost the same it fills one a round, each in its turn; else all of them.
    Its seconds and steps are those of one example."""

    def __init__(self, case: Case, k: int, trial: Trial) -> None:
        self.case, self.k, self.decoded = case, k, trial.decoded
        self.meter = Meter(case.plain.device)
        self.same: list[bool] = []
        self.steps: list[float] = []
        canvas = case.canvases[0]
        # One step of the usual size.
        end = canvas.tokens.index(case.plain.mask_id) + 1
        self._fill(replace(canvas, end=end))

    def _fill(self, canvas: Canvas) -> textbook.Filled:
        return textbook.fill(self.case.plain, canvas, self.k, self.case.decoding.block_length)

    def __call__(self) -> None:
        turn = self.canvases(len(self.meter.seconds))
        with self.meter.round():
            filled = list(map(self._fill, turn))
        self.meter.seconds[-1] /= len(turn)
        self.steps.append(sum(max(f.committed_at) + 1 for f in filled) / len(turn))
        for canvas, result in zip(turn, filled, strict=True):
            self.same.append(same(self.decoded[canvas.id], result.tokens))

    def canvases(self, turn: int) -> Sequence[Canvas]:
        """Those of a round."""
        mask, canvases = self.case.plain.mask_id, self.case.canvases
        costs = {(len(c.tokens), c.start, c.end, c.tokens.count(mask)) for c in canvases}
        return [canvases[turn % len(canvases)]] if len(costs) == 1 else canvases


def same(ours: Decoded, tokens: Sequence[int]) -> bool:
    """Whether they are the same as far as ours went."""
    return tuple(tokens[: ours.end]) == ours.tokens[: ours.end]


def row(case: Case, trial: Trial, ours: Ours, floor: Floor, book: Textbook | None) -> Row:
    """What the rounds say."""
    examples, work = len(case.canvases), ours.works[0]
    steps = sum(w.steps for w in ours.works)
    took = sum((w.seconds for w in ours.works), Seconds()) / steps
    an_example = [seconds / examples for seconds in ours.meter.seconds]
    seated = sum(len(batch.tokens) for batch in trial.batches[: trial.waiting])
    return Row(
        sampler=case.sampler,
        knobs=case.knobs,
        cache=case.cache,
        batch_size=case.batch_size,
        value=case.value,
        parameters=case.parameters,
        n=len(ours.works),
        examples=examples,
        steps=work.steps,
        ms=Seconds(1e3 * took.model, 1e3 * took.sampler, 1e3 * took.host),
        floor_ms=1e3 * sum(floor.meter.seconds) / steps,
        textbook_ms=1e3 * sum(book.meter.seconds) / sum(book.steps) if book else None,
        share=across([(w.seconds.sampler + w.seconds.host) / w.seconds.model for w in ours.works]),
        over_floor=across(_divided(ours.meter.seconds, floor.meter.seconds)),
        speedup=across(_divided(book.meter.seconds, an_example)) if book else None,
        same_tokens=sum(book.same) / len(book.same) if book else None,
        per_second=len(an_example) / sum(an_example),
        host_reads=trial.reads / work.steps,
        occupancy=work.rows / work.slots,
        occupancy_waiting=seated / (trial.waiting * case.batch_size) if trial.waiting else None,
        padding=1 - work.tokens / work.positions,
        peak=_peak(case, ours.meter),
        floor_peak=_peak(case, floor.meter),
    )


def across(ratios: Sequence[float]) -> Interval:
    """The geometric mean over rounds, with the t interval of the logarithm."""
    logs, n = np.log(ratios), len(ratios)
    half = float(t.ppf(0.975, n - 1) * logs.std(ddof=1) / sqrt(n))
    middle = float(logs.mean())
    return Interval(exp(middle), exp(middle - half), exp(middle + half))


def _divided(tops: Sequence[float], bottoms: Sequence[float]) -> list[float]:
    return [top / bottom for top, bottom in zip(tops, bottoms, strict=True)]


def _peak(case: Case, meter: Meter) -> int | None:
    """The least of all rounds: what another contestant has left behind may be in it too."""
    known = [added for added in meter.added if added is not None]
    return case.weights + min(known) if known else None
