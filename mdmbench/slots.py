"""The rows under work: their tensors on the device, and what the host knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdmbench import noise
from mdmbench.base import NEVER, Batch, Canvas, Decoded, Model, Seconds
from mdmbench.clock import Shape
from mdmbench.decoding import Decoding, blocks
from mdmbench.errors import UserError
from mdmbench.step import Step

NO_BLOCK = torch.iinfo(torch.int64).max
"""In `Rows.block_of`: behind the answer region, where masks are seen and never filled."""

FINE = NO_BLOCK
"""In `Slots.look`: the row was written tokens only."""

Ints = NDArray[np.int64]


@dataclass
class Rows:
    """The canvases at work, a row each; [B, L] tensors are padded behind `length`.

    `eligible` bool [B, L] and what is said of the block belong to the coming step.
    """

    tokens: Tensor
    block_of: Tensor
    committed_at: Tensor
    confidence: Tensor
    entropy: Tensor
    eligible: Tensor
    start: Tensor
    end: Tensor
    length: Tensor
    origin: Tensor
    key: Tensor
    block: Tensor
    block_masks: Tensor
    block_index: Tensor
    index: Tensor
    forced: Tensor
    bound: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device) -> Rows:
        """Room for so many rows of so many positions, none of which is to be filled."""
        shapes = dict.fromkeys(WIDE, (rows, width))
        kinds = {"eligible": torch.bool} | dict.fromkeys(FLOATING, torch.float64)
        made = {
            f.name: torch.zeros(
                shapes.get(f.name, (rows,)), dtype=kinds.get(f.name, torch.int64), device=device
            )
            for f in fields(cls)
        }
        made["block_of"].fill_(NO_BLOCK)
        return cls(**made)

    def to(self, device: torch.device) -> Rows:
        return Rows(*(getattr(self, f.name).to(device) for f in fields(self)))

    def part(self, rows: int, width: int) -> Rows:
        """The first rows, and of each the first positions; writing to it writes to these."""
        return Rows(
            *(
                value[:rows, :width] if value.dim() == 2 else value[:rows]
                for value in (getattr(self, f.name) for f in fields(self))
            )
        )

    def put(self, where: Sequence[int], others: Rows) -> None:
        """Writes other rows, which may be narrower, over those in `where`."""
        index = torch.tensor(where, device=self.tokens.device)
        width = others.tokens.shape[1]
        self.eligible[:, width:].index_fill_(0, index, 0)
        self.block_of[:, width:].index_fill_(0, index, NO_BLOCK)
        mine = self.part(len(self.start), width)
        for f in fields(self):
            getattr(mine, f.name).index_copy_(0, index, getattr(others, f.name))

    def select(self, rows: Sequence[int]) -> Rows:
        index = torch.tensor(rows, device=self.tokens.device)
        return Rows(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))


WIDE = ("tokens", "block_of", "committed_at", "confidence", "entropy", "eligible")
FLOATING = ("confidence", "entropy", "bound")


@dataclass
class Held:
    """The host's side of a row.

    waiting  positions that are eligible at the coming step; 0: it is done
    passing  positions that go through the model at the coming step,
    passed   and that have at all steps so far
    known    positions of the answer before its first mask, when its end was last looked for
    """

    canvas: Canvas
    entered: Seconds
    waiting: int
    passing: int
    passed: int = 0
    known: int = 0

    @property
    def length(self) -> int:
        return len(self.canvas.tokens)


@dataclass
class Left:
    """Rows that are done but not yet read."""

    held: list[Held]
    rows: Rows


class Read(NamedTuple):
    """What the host reads of a row that is done, lists as wide as the batch was.

    written  its tokens, and the steps at which they were committed
    numbers  forwards it took part in, and positions that were forced
    trace    the confidence and the entropy of each commit
    bound    nats
    """

    written: list[list[int]]
    numbers: list[int]
    trace: list[list[float]]
    bound: float


class Slots:
    """The rows under work and their bookkeeping.

    A row stays where it is until its example is done; the next example takes its place, and when
    there is none the last row does. The host reads once a step, in `look`: what is left of each
    row, and with it all that is to be known of the examples that were done at the step before.

    rows  those that are held, as wide as the longest of them
    """

    rows: Rows

    def __init__(self, model: Model, decoding: Decoding, batch_size: int) -> None:
        self.model, self.decoding, self.batch_size = model, decoding, batch_size
        self.forward = model.start()
        self.held: list[Held] = []
        self._free: list[int] = []
        self._left: Left | None = None
        self._room = Rows.empty(0, 0, model.device)

    @property
    def width(self) -> int:
        return max((h.length for h in self.held), default=0)

    @property
    def shape(self) -> Shape:
        return Shape(self.batch_size, len(self.held), self.width, sum(h.length for h in self.held))

    @property
    def vacant(self) -> int:
        """How many new canvases there is room for."""
        return len(self._free) + self.batch_size - len(self.held)

    def fill(self, canvases: Sequence[Canvas], now: Seconds) -> None:
        """Seats new canvases in the free rows, and closes the gaps where there are not enough;
        `now` is the clock's total."""
        places = [*self._free, *range(len(self.held), self.batch_size)]
        new = [self._checked(canvas) for canvas in canvases]
        places, holes = places[: len(new)], self._free[len(new) :]
        if new:
            self._seat(new, places, now)
        self._close(holes)
        self._free = []
        self.rows = self._room.part(len(self.held), self.width)

    def _checked(self, canvas: Canvas) -> Canvas:
        length, limit = len(canvas.tokens), self.model.max_length
        if length > limit:
            raise UserError(
                f"example {canvas.id}: the canvas has {length} tokens, the model takes {limit}",
                "shorten the prompt or --gen-length",
            )
        if not self.decoding.from_zero:
            end = length if canvas.end is None else canvas.end
            blocks(end - canvas.start, self.decoding.block_length)
        return canvas

    def _seat(self, canvases: Sequence[Canvas], places: Sequence[int], now: Seconds) -> None:
        # Made on the host, which has to know what is eligible, and sent to the device at once.
        rows = self._first(canvases)
        waiting = rows.block_masks.tolist()
        opening = self.forward.opening(self._asked(rows, rows.tokens[:, :0], rows.length))
        passing = [len(c.tokens) for c in canvases] if opening is None else opening
        for place, canvas, eligible, count in zip(places, canvases, waiting, passing, strict=True):
            held = Held(canvas, now, eligible, count)
            if place < len(self.held):
                self.held[place] = held
            else:
                self.held.append(held)
        self._grow(len(self.held), self.width)
        self._room.put(places, rows.to(self.model.device))
        self.forward.seat(places)

    def _first(self, canvases: Sequence[Canvas]) -> Rows:
        """The canvases before their first step, on the host."""
        lengths = [len(c.tokens) for c in canvases]
        rows = Rows.empty(len(canvases), max(lengths), torch.device("cpu"))
        pad = int(self.model.mask_id == 0)  # any token but the mask
        for i, canvas in enumerate(canvases):
            rows.tokens[i, : lengths[i]] = torch.tensor(canvas.tokens)
            rows.tokens[i, lengths[i] :] = pad
        ends = [
            length if c.end is None else c.end for c, length in zip(canvases, lengths, strict=True)
        ]
        rows.length, rows.end = torch.tensor(lengths), torch.tensor(ends)
        rows.start = torch.tensor([c.start for c in canvases])
        rows.origin = rows.start * (not self.decoding.from_zero)
        rows.key = torch.tensor([noise.key(self.decoding.seed, c.id) for c in canvases])
        place = torch.arange(max(lengths)).expand_as(rows.tokens)
        size = torch.tensor(self.decoding.block_length or max(lengths))
        rows.block_of = (place - rows.origin[:, None]).div(size, rounding_mode="floor")
        rows.block_of[place >= rows.end[:, None]] = NO_BLOCK
        rows.committed_at.fill_(NEVER)
        rows.block.fill_(NO_BLOCK - 1)
        self._turn(rows)
        return rows

    def _turn(self, rows: Rows) -> Tensor:
        """Turns rows to the coming step's block; int64 [B]: how many positions are eligible."""
        masked = (rows.tokens == self.model.mask_id) & (rows.block_of < NO_BLOCK)
        # A row that has nothing left to fill leaves before the coming step.
        block = torch.where(masked, rows.block_of, NO_BLOCK).amin(1)
        rows.eligible.copy_(masked & (rows.block_of == block[:, None]))
        left = rows.eligible.sum(1)
        moved = block != rows.block
        rows.block_index.masked_fill_(moved, 0)
        rows.block_masks.copy_(torch.where(moved, left, rows.block_masks))
        rows.block.copy_(block)
        return left

    def _grow(self, rows: int, width: int) -> None:
        """Makes room; what is there stays."""
        old = self._room
        if rows <= len(old.start) and width <= old.tokens.shape[1]:
            return
        self._room = Rows.empty(self.batch_size, width, self.model.device)
        if len(old.start):
            self._room.put(range(len(old.start)), old)

    def _close(self, holes: Sequence[int]) -> None:
        """Moves the last rows to where there is none."""
        count = len(self.held) - len(holes)
        target = [i for i in holes if i < count]
        source = [i for i in range(count, len(self.held)) if i not in holes]
        if source:
            self._room.put(target, self._room.select(source))
            self.forward.move(source, target)
        for i, j in zip(source, target, strict=True):
            self.held[j] = self.held[i]
        del self.held[count:]

    def window(self) -> tuple[Tensor, Tensor]:
        """Positions int64 [B, W], eligible ones first and ascending, and which are, bool [B, W]."""
        eligible = self.rows.eligible
        width = max(1, *(h.waiting for h in self.held)) if self.held else 1
        # A stable sort of the flags lists the eligible positions in order without a host read.
        order = eligible.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        positions = order[:, :width]
        return positions, eligible.gather(1, positions)

    def lengths(self) -> Tensor | None:
        """int64 [B], or None when no row is padded."""
        width = self.width
        padded = any(h.length < width for h in self.held)
        return self.rows.length if padded else None

    def batch(self, positions: Tensor, passing: Sequence[int] | None = None) -> Batch:
        """What the model is asked for the coming step, about `positions` [B, W]."""
        return self._asked(self.rows, positions, self.lengths(), passing)

    def _asked(
        self,
        rows: Rows,
        positions: Tensor,
        lengths: Tensor | None,
        passing: Sequence[int] | None = None,
    ) -> Batch:
        size = self.decoding.block_length
        first, behind = rows.origin, rows.end
        if size is not None:
            # Where nothing is left to fill, it lies behind the canvas.
            first = rows.origin + rows.block.clamp(max=self.model.max_length) * size
            behind = behind.minimum(first + size)
        return Batch(rows.tokens, positions, lengths, first, behind, passing)

    def write(self, step: Step, commit: Tensor, forced: Tensor, tokens: Tensor) -> None:
        """Writes `tokens` [B, W] where `commit` [B, W] is True, and what it cost."""
        rows, at = self.rows, step.positions
        index = rows.index[:, None].expand_as(at)
        written = {
            "tokens": tokens,
            "committed_at": index,
            "confidence": step.confidence,
            "entropy": step.entropy,
        }
        for name, value in written.items():
            column = getattr(rows, name)
            column.scatter_(1, at, torch.where(commit, value, column.gather(1, at)))
        spent = step.entropy.masked_fill(~commit, 0)
        rows.bound += spent.sum(1) - spent.amax(1)
        strange = (tokens < 0) | (tokens >= self.model.vocab_size) | (tokens == self.model.mask_id)
        self._strange = tokens.masked_fill(~(commit & strange), FINE).amin(1)
        working = step.eligible.any(1)
        rows.forced += forced & working
        rows.index += working
        rows.block_index += working

    def look(self, now: Seconds) -> list[Decoded]:
        """Turns to the coming step's block, reads what is left of each row, and frees those that
        are done. Returns the examples that were done at the step before, at `now`.

        Raises UserError where the sampler wrote what is no token.
        """
        rows = self.rows
        status = [self._turn(rows), self._strange]
        passing = self.forward.passing(self.batch(rows.tokens[:, :0]))
        status += [] if passing is None else [passing]
        early = self.decoding.stop is not None and self.decoding.early
        seen = [rows.tokens] if early else []
        read, *rest = fetched([torch.stack(status), *seen, *self._columns()])
        tokens = rest.pop(0) if early else None
        left = self._decoded(rest, now)
        waiting, strange, counts = (read[i].tolist() for i in (0, 1, -1))
        if min(strange) != FINE:
            raise UserError(f"the sampler writes token {min(strange)}", "that is no token")
        done = []
        for i, held in enumerate(self.held):
            held.passed += held.passing * (held.waiting > 0)
            held.waiting = waiting[i]
            held.passing = held.length if passing is None else counts[i]
            if tokens is not None and self._ended(held, tokens[i]):
                held.waiting = 0
            if not held.waiting:
                done.append(i)
        self._free = done
        self._left = Left([self.held[i] for i in done], rows.select(done)) if done else None
        return left

    def _ended(self, held: Held, tokens: Ints) -> bool:
        """Whether the answer has come to its end in what has been added to its beginning."""
        canvas = held.canvas
        answer = tokens[canvas.start : canvas.end or held.length]
        masks = answer == self.model.mask_id
        known = int(masks.argmax()) if masks.any() else len(answer)
        if known == held.known:
            return False
        held.known = known
        return self._end(canvas, tokens[: held.length].tolist()) is not None

    def last(self, now: Seconds) -> list[Decoded]:
        """The examples that were done at the last step."""
        return self._decoded(fetched(self._columns()), now) if self._left else []

    def _columns(self) -> list[Tensor]:
        """What is to be read of the rows that are done."""
        if self._left is None:
            return []
        rows = self._left.rows
        numbers = torch.stack([rows.index, rows.forced], 1)
        trace = torch.stack([rows.confidence, rows.entropy], 1)
        return [torch.stack([rows.tokens, rows.committed_at], 1), numbers, trace, rows.bound]

    def _decoded(self, columns: Sequence[Any], now: Seconds) -> list[Decoded]:
        if self._left is None:
            return []
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [
            self._told(h, Read(*row), now) for h, row in zip(self._left.held, rows, strict=True)
        ]

    def _told(self, held: Held, read: Read, now: Seconds) -> Decoded:
        """What is said of a row that has left."""
        canvas, length = held.canvas, held.length
        tokens, at = (values[:length] for values in read.written)
        confidence, entropy = (values[:length] for values in read.trace)
        end = self._end(canvas, tokens)
        if end is not None:
            behind = [
                tokens[end - 1] if t == self.model.mask_id else t for t in tokens[: canvas.end]
            ]
            tokens = behind + tokens[len(behind) :]
        nfe, forced = read.numbers
        until = None if end is None else max(at[canvas.start : end], default=NEVER) + 1
        forwards = self.decoding.forwards
        return Decoded(
            id=canvas.id,
            tokens=tuple(tokens),
            committed_at=tuple(at),
            confidence=tuple(confidence),
            entropy=tuple(entropy),
            nfe=nfe * forwards,
            nfe_until=None if until is None else until * forwards,
            end=end,
            forward_tokens=held.passed * forwards,
            forced=forced,
            bound_spent=read.bound,
            seconds=now - held.entered,
            batch_size=self.batch_size,
        )

    def _end(self, canvas: Canvas, tokens: Sequence[int]) -> int | None:
        """The first position behind the answer, None while it is open."""
        if self.decoding.stop is None:
            return None
        answer = tokens[canvas.start : canvas.end or len(canvas.tokens)]
        mask = self.model.mask_id
        prefix = answer[: answer.index(mask)] if mask in answer else answer
        length = self.decoding.stop(prefix)
        return None if length is None else canvas.start + length


def fetched(tensors: Sequence[Tensor]) -> list[Any]:
    """int64 and float64 tensors as arrays of the host, by one wait for the device."""
    flat = torch.cat([t.contiguous().view(torch.int64).flatten() for t in tensors]).cpu().numpy()
    arrays = []
    for tensor in tensors:
        part, flat = np.split(flat, [tensor.numel()])
        part = part.view(np.float64) if tensor.dtype == torch.float64 else part
        arrays.append(part.reshape(tensor.shape))
    return arrays
