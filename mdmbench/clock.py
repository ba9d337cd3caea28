"""Where the time of a step goes: model, sampler, host."""

from time import perf_counter
from typing import Any

import torch

from mdmbench.base import Seconds


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

    def end(self, rows: int) -> None:
        wall = perf_counter() - self._start
        before, between, after = self._marks
        if self._device.type == "cuda":
            model = before.elapsed_time(between) / 1e3
            sampler = between.elapsed_time(after) / 1e3
        else:
            model, sampler = between - before, after - between
        self.total = Seconds(
            self.total.model + model / rows,
            self.total.sampler + sampler / rows,
            self.total.host + max(0.0, wall - model - sampler) / rows,
        )
