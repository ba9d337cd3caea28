"""decode(): the one denoising loop.

Examples live in slots. One that is done leaves at once and the next one takes its place, so an
example never waits for its batch mates, and what it yields does not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from mdmbench import noise
from mdmbench.base import (
    NEVER,
    Canvas,
    Choice,
    Decoded,
    Forward,
    Model,
    Sampler,
    Seconds,
    Stop,
)
from mdmbench.clock import Clock
from mdmbench.errors import UserError
from mdmbench.schedule import Schedule
from mdmbench.step import Draw, Step

NO_BLOCK = torch.iinfo(torch.int64).max
"""In `Rows.block_of`: behind the answer region, where masks are seen and never filled."""

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Decoding:
    """How the loop runs, whatever the rule.

    block_length  the answer region is filled block by block from the left; None: one block
    schedule      what `Step.asked` says; None: one position a step
    from_zero     blocks are counted from position 0 instead of from the start of the answer, so
                  that they are those of a model with block-causal attention
    stop          finds the answer's end; with `early` an example leaves as soon as it is found
    guidance      scale s of classifier-free guidance: logits are u + (s + 1)(c - u), where u does
                  not see the prompt (LLaDA generate.py); every step is then two forwards
    seed          of the noise; an example's own noise also depends on its id
    """

    block_length: int | None = None
    from_zero: bool = False
    schedule: Schedule | None = None
    draw: Draw = field(default_factory=Draw)
    stop: Stop | None = None
    early: bool = False
    guidance: float = 0.0
    seed: int = 0

    @property
    def forwards(self) -> int:
        """Of a step."""
        return 2 if self.guidance else 1


def blocks(answer: int, block_length: int | None) -> int:
    """How many blocks an answer region of `answer` positions has."""
    if block_length is None:
        return 1
    if block_length < 1 or answer % block_length:
        raise UserError(
            f"block length {block_length} does not divide the answer's {answer} positions",
            "choose one that does, or none for a single block",
        )
    return answer // block_length


@torch.inference_mode()
def decode(
    model: Model,
    sampler: Sampler,
    canvases: Iterable[Canvas],
    *,
    batch_size: int,
    decoding: Decoding = Decoding(),
) -> Iterator[Decoded]:
    """Fills every canvas, at most `batch_size` at a time, and yields each as soon as it is done.

    Promises: givens stay; no mask is left; only eligible positions are committed, and at least one
    a step unless the schedule asks for none; the batch size changes no token and no NFE.
    Raises UserError for a canvas that is longer than the model or does not fit the blocks.
    """
    queue = iter(canvases)
    forward = model.start()
    clock = Clock(model.device)
    slots = Slots(model, decoding)
    while True:
        clock.begin()
        slots.fill(islice(queue, batch_size - len(slots.held)), clock.total)
        if not slots.held:
            return
        rows = len(slots.held)
        _advance(forward, sampler, slots, clock)
        slots.look()
        done = slots.release()
        clock.end(rows)
        for finished in done:
            yield slots.decoded(finished, clock.total)


def _advance(forward: Forward, sampler: Sampler, slots: Slots, clock: Clock) -> None:
    """One forward and one choice for every row."""
    rows, decoding = slots.rows, slots.decoding
    positions, eligible = slots.window()
    lengths = slots.lengths()
    clock.mark()
    if decoding.guidance:
        logits = _guided(forward, slots, positions, lengths)
    else:
        logits = forward(rows.tokens, positions, lengths).float()
    clock.mark()
    step = Step(
        logits,
        rows.tokens.clone(),
        positions,
        eligible,
        index=rows.index,
        block_index=rows.block_index,
        block_masks=rows.block_masks,
        keys=rows.key,
        draw=decoding.draw,
        schedule=decoding.schedule,
    )
    choice = checked(sampler(step), step, slots.model)
    commit, forced = progress(step, choice)
    clock.mark()
    tokens = step.proposal if choice.tokens is None else choice.tokens
    slots.write(step, commit, forced, tokens)


def _guided(forward: Forward, slots: Slots, positions: Tensor, lengths: Tensor | None) -> Tensor:
    """Logits `[B, W, V]` led away from what the model says without the prompt."""
    rows, scale, mask = slots.rows, slots.decoding.guidance, slots.model.mask_id
    place = torch.arange(rows.tokens.shape[1], device=rows.tokens.device)
    blank = rows.tokens.masked_fill(place < rows.start[:, None], mask)
    twice = None if lengths is None else lengths.repeat(2)
    both = forward(torch.cat([rows.tokens, blank]), positions.repeat(2, 1), twice).float()
    led, free = both.chunk(2)
    logits = free + (scale + 1) * (led - free)
    # Where both are -inf, as in the mask's column, the difference is no number.
    return logits.masked_fill_(logits.isnan(), -torch.inf)


def progress(step: Step, choice: Choice) -> tuple[Tensor, Tensor]:
    """What is committed, bool [B, W], and the rows in which the loop had to force it, bool [B]."""
    commit = choice.commit & step.eligible
    forced = ~commit.any(1) & (step.quota > 0)
    order = step.confidence if choice.order is None else choice.order
    return commit | (step.top(order, 1) & forced[:, None]), forced


def checked(choice: Choice, step: Step, model: Model) -> Choice:
    """The choice, if it is one; a rule of the user's own may return anything."""
    if not isinstance(choice, Choice):
        raise UserError(f"the sampler returned {type(choice).__name__}", "it returns a Choice")
    wanted = {"commit": (torch.bool,), "tokens": (torch.int64,), "order": FLOATS}
    for name, dtypes in wanted.items():
        value = getattr(choice, name)
        if value is None and name != "commit":
            continue
        shape = list(step.eligible.shape)
        if not isinstance(value, Tensor) or list(value.shape) != shape or value.dtype not in dtypes:
            found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else value
            raise UserError(
                f"the sampler's Choice has {name} = {found}", f"it takes {dtypes[0]} {shape}"
            )
    if choice.tokens is not None:
        written = choice.tokens[choice.commit & step.eligible]
        bad = (written < 0) | (written >= model.vocab_size) | (written == model.mask_id)
        if bad.any():
            raise UserError(f"the sampler writes token {int(written[bad][0])}", "that is no token")
    return choice


@dataclass
class Rows:
    """The canvases at work, B rows each; [B, L] tensors are padded behind `length`.

    `eligible` bool [B, L] and what is said of the block belong to the coming step.
    """

    tokens: Tensor
    committed_at: Tensor
    confidence: Tensor
    entropy: Tensor
    block_of: Tensor
    eligible: Tensor
    start: Tensor
    length: Tensor
    key: Tensor
    index: Tensor
    block: Tensor
    block_index: Tensor
    block_masks: Tensor
    forced: Tensor
    bound: Tensor

    def select(self, rows: list[int]) -> Rows:
        return Rows(*(getattr(self, f.name)[rows] for f in fields(self)))

    def joined(self, others: Rows, pad: int) -> Rows:
        """Both, as wide as the longest canvas, the shorter ones filled with the token `pad`."""
        width = max(self.tokens.shape[1], others.tokens.shape[1])

        def column(name: str) -> Tensor:
            pair = getattr(self, name), getattr(others, name)
            if pair[0].dim() == 1:
                return torch.cat(pair)
            fill = pad if name == "tokens" else 0
            return torch.cat([F.pad(x, (0, width - x.shape[1]), value=fill) for x in pair])

        return Rows(*(column(f.name) for f in fields(self)))


@dataclass
class Held:
    """The host's side of a row: `waiting` positions are eligible at the coming step, 0: done."""

    canvas: Canvas
    entered: Seconds
    waiting: int


@dataclass
class Done:
    """What a row held when it left; lists are as wide as the batch was."""

    held: Held
    tokens: list[int]
    committed_at: list[int]
    confidence: list[float]
    entropy: list[float]
    nfe: int
    forced: int
    bound: float


class Slots:
    """The rows under work and their bookkeeping; one host read a step, in `look`."""

    rows: Rows

    def __init__(self, model: Model, decoding: Decoding) -> None:
        self.model, self.decoding = model, decoding
        self.held: list[Held] = []
        self._pad = int(model.mask_id == 0)  # any token but the mask

    def fill(self, canvases: Iterable[Canvas], now: Seconds) -> None:
        """Seats new canvases in free slots; `now` is the clock's total."""
        for canvas in canvases:
            self._check(canvas)
            rows, waiting = self._seat(canvas)
            self.rows = self.rows.joined(rows, self._pad) if self.held else rows
            self.held.append(Held(canvas, now, waiting))

    def _check(self, canvas: Canvas) -> None:
        length, limit = len(canvas.tokens), self.model.max_length
        if length > limit:
            raise UserError(
                f"example {canvas.id}: the canvas has {length} tokens, the model takes {limit}",
                "shorten the prompt or --gen-length",
            )
        if not self.decoding.from_zero:
            end = length if canvas.end is None else canvas.end
            blocks(end - canvas.start, self.decoding.block_length)

    def _seat(self, canvas: Canvas) -> tuple[Rows, int]:
        """One canvas as rows [1, ...], and how many positions are eligible at its first step."""

        def tensor(*values: int) -> Tensor:
            return torch.tensor(values, device=self.model.device)

        length = len(canvas.tokens)
        end = length if canvas.end is None else canvas.end
        size = self.decoding.block_length or length
        first = 0 if self.decoding.from_zero else canvas.start
        block_of = [(i - first) // size if i < end else NO_BLOCK for i in range(length)]
        masked = [
            b
            for b, t in zip(block_of[:end], canvas.tokens, strict=False)
            if t == self.model.mask_id
        ]
        block = min(masked, default=NO_BLOCK)
        waiting = masked.count(block)
        tokens, numbers = tensor(*canvas.tokens)[None], tensor(*block_of)[None]
        rows = Rows(
            tokens=tokens,
            committed_at=torch.full_like(tokens, NEVER),
            confidence=torch.zeros_like(tokens, dtype=torch.float64),
            entropy=torch.zeros_like(tokens, dtype=torch.float64),
            block_of=numbers,
            eligible=(tokens == self.model.mask_id) & (numbers == block) & (numbers < NO_BLOCK),
            start=tensor(canvas.start),
            length=tensor(length),
            key=tensor(noise.key(self.decoding.seed, canvas.id)),
            index=tensor(0),
            block=tensor(block),
            block_index=tensor(0),
            block_masks=tensor(waiting),
            forced=tensor(0),
            bound=tensor(0).double(),
        )
        return rows, waiting

    def window(self) -> tuple[Tensor, Tensor]:
        """Positions int64 [B, W], eligible ones first and ascending, and which are, bool [B, W]."""
        width = max(1, *(h.waiting for h in self.held)) if self.held else 1
        # A stable sort of the flags lists the eligible positions in order without a host read.
        order = self.rows.eligible.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        positions = order[:, :width]
        return positions, self.rows.eligible.gather(1, positions)

    def lengths(self) -> Tensor | None:
        """int64 [B], or None when no row is padded."""
        width = self.rows.tokens.shape[1]
        padded = any(len(h.canvas.tokens) < width for h in self.held)
        return self.rows.length if padded else None

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
        working = step.eligible.any(1)
        rows.forced += forced & working
        rows.index += working
        rows.block_index += working

    def look(self) -> None:
        """Turns to the coming step's block, and reads what is left of each row."""
        rows = self.rows
        masked = (rows.tokens == self.model.mask_id) & (rows.block_of < NO_BLOCK)
        # A row that has nothing left to fill leaves before the coming step.
        block = torch.where(masked, rows.block_of, NO_BLOCK).amin(1)
        rows.eligible = masked & (rows.block_of == block[:, None])
        left = rows.eligible.sum(1)
        moved = block != rows.block
        rows.block_index.masked_fill_(moved, 0)
        rows.block_masks = torch.where(moved, left, rows.block_masks)
        rows.block = block
        if self.decoding.stop is None or not self.decoding.early:
            for held, waiting in zip(self.held, left.tolist(), strict=True):
                held.waiting = waiting
            return
        seen = torch.cat([left[:, None], rows.tokens], 1).tolist()
        for held, (waiting, *tokens) in zip(self.held, seen, strict=True):
            held.waiting = waiting if self._end(held.canvas, tokens) is None else 0

    def _end(self, canvas: Canvas, tokens: Sequence[int]) -> int | None:
        """The first position behind the answer, None while it is open."""
        if self.decoding.stop is None:
            return None
        answer = tokens[canvas.start : canvas.end or len(canvas.tokens)]
        mask = self.model.mask_id
        prefix = answer[: answer.index(mask)] if mask in answer else answer
        length = self.decoding.stop(prefix)
        return None if length is None else canvas.start + length

    def release(self) -> list[Done]:
        """Frees the slots of the rows that are done, and gives what they held."""
        done = [i for i, h in enumerate(self.held) if not h.waiting]
        if not done:
            return []
        stay = [i for i, h in enumerate(self.held) if h.waiting]
        gone, left = self.rows.select(done), [self.held[i] for i in done]
        self.rows, self.held = self.rows.select(stay), [self.held[i] for i in stay]
        trace = (gone.tokens, gone.committed_at, gone.confidence, gone.entropy)
        columns = (*trace, gone.index, gone.forced, gone.bound)
        return [Done(*parts) for parts in zip(left, *(c.tolist() for c in columns), strict=True)]

    def decoded(self, done: Done, now: Seconds) -> Decoded:
        """What is said of a row that has left; `now` is the clock's total when it did."""
        canvas = done.held.canvas
        length = len(canvas.tokens)
        tokens, at = done.tokens[:length], done.committed_at[:length]
        end = self._end(canvas, tokens)
        if end is not None:
            behind = [
                tokens[end - 1] if t == self.model.mask_id else t for t in tokens[: canvas.end]
            ]
            tokens = behind + tokens[len(behind) :]
        forwards = done.nfe * self.decoding.forwards
        until = None if end is None else max(at[canvas.start : end], default=NEVER) + 1
        return Decoded(
            id=canvas.id,
            tokens=tuple(tokens),
            committed_at=tuple(at),
            confidence=tuple(done.confidence[:length]),
            entropy=tuple(done.entropy[:length]),
            nfe=forwards,
            nfe_until=None if until is None else until * self.decoding.forwards,
            end=end,
            forward_tokens=forwards * length,
            forced=done.forced,
            bound_spent=done.bound,
            seconds=now - done.held.entered,
        )
