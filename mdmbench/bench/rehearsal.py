"""One decode that is watched and not timed: what it asks of the model, and what the host reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mdmbench.base import Batch, Canvas, Decoded, Forward, Model, Sampler
from mdmbench.decoding import Decoding
from mdmbench.loop import decode

Call = tuple[str, tuple[Any, ...]]
"""A method of a Forward, and what it was called with."""

READS = "item tolist cpu numpy nonzero unique masked_select equal allclose"
READS += " __bool__ __int__ __float__ __index__ __array__ __contains__ __format__"
READING: set[Callable[..., Any]] = {
    getattr(where, name)
    for where in (Tensor, torch)
    for name in READS.split()
    if hasattr(where, name)
}
"""What makes Python wait for the values of a tensor."""


@dataclass(frozen=True)
class Trial:
    """What was seen.

    calls    of the Forward, in their order
    waiting  steps at which a canvas still waited for a slot; they are the first ones
    reads    how often the host waited for values of the device
    decoded  by the id of the canvas
    """

    calls: Sequence[Call]
    waiting: int
    reads: int
    decoded: dict[str, Decoded]

    @property
    def batches(self) -> list[Batch]:
        """What each forward was asked."""
        return _batches(self.calls)


def rehearsed(
    model: Model,
    rule: Sampler,
    canvases: Sequence[Canvas],
    *,
    batch_size: int,
    decoding: Decoding,
) -> Trial:
    """Decodes under watch."""
    calls: list[Call] = []
    waiting = 0
    with Reads(model.device) as reads:

        def queue() -> Iterator[Canvas]:
            nonlocal waiting
            for canvas in canvases:
                waiting = len(_batches(calls))
                # Until they are seated, the host works on tensors of its own.
                reads.off = True
                yield canvas

        watched = Recorded(model, calls, reads)
        found = decode(watched, rule, queue(), batch_size=batch_size, decoding=decoding)
        decoded = {one.id: one for one in found}
    return Trial(calls, waiting, reads.count, decoded)


def replay(model: Model, calls: Sequence[Call]) -> None:
    """Asks a new Forward of the model the same again."""
    forward = model.start()
    for name, arguments in calls:
        getattr(forward, name)(*arguments)


def _batches(calls: Sequence[Call]) -> list[Batch]:
    return [arguments[0] for name, arguments in calls if name == "__call__"]


class Reads(TorchFunctionMode):
    """Counts the reads of tensors on a device; on a CPU, where the host's own tensors look the
    same, only while it is not `off`."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.count, self.off = device, 0, False
        self._read: object = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._reads(func, args, result):
            self.count += 1
            self._read = result
        return result

    def _reads(self, func: Any, args: Any, result: Any) -> bool:
        tensor = next((a for a in args if isinstance(a, Tensor)), None)
        # What a read has brought may be looked at again.
        if tensor is None or tensor is self._read or tensor.device.type != self.device.type:
            return False
        if self.off and self.device.type == "cpu":
            return False
        if func is Tensor.__getitem__:
            # How many there are has to be known.
            return isinstance(args[1], Tensor) and args[1].dtype == torch.bool
        left = func is Tensor.to and result.device.type == "cpu" != self.device.type
        return left or func in READING


class Recorded(Model):
    """A model that writes down what its Forward is asked."""

    def __init__(self, model: Model, calls: list[Call], reads: Reads) -> None:
        self.model, self.calls, self.reads = model, calls, reads
        self.block, self.mask_id, self.eos_ids = model.block, model.mask_id, model.eos_ids
        self.max_length, self.vocab_size = model.max_length, model.vocab_size
        self.device = model.device

    def start(self) -> Forward:
        return RecordedForward(self)


class RecordedForward(Forward):
    def __init__(self, model: Recorded) -> None:
        self.model, self.forward = model, model.model.start()

    def __call__(self, batch: Batch) -> Tensor:
        self.model.calls.append(("__call__", (_kept(batch),)))
        return self.forward(batch)

    def passing(self, batch: Batch) -> Tensor | None:
        return self.forward.passing(batch)

    def opening(self, batch: Batch) -> Sequence[int] | None:
        self.model.calls.append(("opening", (_kept(batch),)))
        return self.forward.opening(batch)

    def seat(self, rows: Sequence[int]) -> None:
        self.model.reads.off = False
        self.model.calls.append(("seat", (tuple(rows),)))
        self.forward.seat(rows)

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        self.model.calls.append(("move", (tuple(source), tuple(target))))
        self.forward.move(source, target)


def _kept(batch: Batch) -> Batch:
    """Its tensors may be written to later."""
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    kept: dict[str, Any] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in values.items()}
    return Batch(**kept)
