"""Where the time of a step goes: model, sampler, host."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import torch

from mdmbench.base import Seconds


class Shape(NamedTuple):
    """What a step was made of.

    slots   rows that there could be
    rows    rows that there were
    width   positions of the longest row, to which the others are padded
    tokens  positions of all rows without what pads them
    """

    slots: int
    rows: int
    width: int
    tokens: int


@dataclass
class Work:
    """Sums over the steps of a decode, whoever's they were; seconds are those on the wall."""

    steps: int = 0
    slots: int = 0
    rows: int = 0
    positions: int = 0
    tokens: int = 0
    seconds: Seconds = field(default_factory=Seconds)

    def add(self, shape: Shape, seconds: Seconds) -> None:
        self.steps += 1
        self.slots += shape.slots
        self.rows += shape.rows
        self.positions += shape.rows * shape.width
        self.tokens += shape.tokens
        self.seconds += seconds


class Clock:
    """Sums each row's share of the steps: a step's seconds divided by the rows in it.

    On a GPU the parts are measured by events on the stream, so timing adds no synchronisation;
    the caller ends a step only after it has read something back, when all of them have happened.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.total = Seconds()
        """Seconds that a row would have spent that was in every step so far."""

    def begin(self) -> None:
        self._start = perf_counter()
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Call before the model, after it, and after the sampler."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append(event)
        else:
            self._marks.append(perf_counter())

    def end(self, rows: int) -> Seconds:
        """Adds the step to `total`, and says what it took in all."""
        wall = perf_counter() - self._start
        before, between, after = self._marks
        if self._device.type == "cuda":
            model = before.elapsed_time(between) / 1e3
            sampler = between.elapsed_time(after) / 1e3
        else:
            model, sampler = between - before, after - between
        step = Seconds(model, sampler, max(0.0, wall - model - sampler))
        self.total += step / rows
        return step
