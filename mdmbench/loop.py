"""decode(): the one denoising loop.

Examples live in slots. One that is done leaves at once and the next one takes its place, so an
example never waits for its batch mates, and what it yields does not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import torch
from torch import Tensor

from mdmbench import memory
from mdmbench.base import Batch, Canvas, Choice, Decoded, Model, Sampler
from mdmbench.clock import Clock, Work
from mdmbench.decoding import Decoding
from mdmbench.errors import UserError
from mdmbench.slots import Slots
from mdmbench.step import Step

PLAIN = Decoding()

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@torch.inference_mode()
def decode(
    model: Model,
    sampler: Sampler,
    canvases: Iterable[Canvas],
    *,
    batch_size: int,
    decoding: Decoding = PLAIN,
    work: Work | None = None,
) -> Iterator[Decoded]:
    """Fills every canvas, at most `batch_size` at a time, and yields each as soon as it is done.

    Promises: givens stay; no mask is left; only eligible positions are committed, and at least one
    a step unless the schedule asks for none; the batch size changes no token and no NFE; a step
    waits for the device once. What was done is added to `work`.
    Where memory runs out, the rows under way start anew in a batch of half as many; what was done
    for them is in `work`, and in no example's seconds.
    Raises UserError for a canvas that is longer than the model, does not fit the blocks, or finds
    no memory even alone.
    """
    queue = iter(canvases)
    clock = Clock(model.device)
    slots = Slots(model, decoding, batch_size)
    work = work or Work()
    while True:
        clock.begin()
        under_way = [held.canvas for held in slots.held if held.waiting]
        new = list(islice(queue, slots.vacant))
        if not (under_way or new):
            break
        left: list[Decoded] | None = None
        try:
            slots.fill(new, clock.total)
            shape = slots.shape
            _advance(sampler, slots, clock)
            left = slots.look(clock.total)
        except Exception as error:
            if not memory.exhausted(error):
                raise
        # Not where the error is caught: its frames hold on to what has filled the memory.
        if left is None:
            yield from slots.last(clock.total)
            rows, least = [*under_way, *new], slots.batch_size == 1
            slots = Slots(model, decoding, max(1, len(rows) // 2))
            memory.release(model.device)
            if least:
                raise memory.unfit(model, rows[0], decoding.block_length)
            queue = chain(rows, queue)
            continue
        work.add(shape, clock.end(shape.rows))
        yield from left
    yield from slots.last(clock.total)


def _advance(sampler: Sampler, slots: Slots, clock: Clock) -> None:
    """One forward and one choice for every row."""
    rows, decoding = slots.rows, slots.decoding
    positions, eligible = slots.window()
    clock.mark()
    logits = _guided(slots, positions) if decoding.guidance else _plain(slots, positions)
    clock.mark()
    step = Step(
        logits,
        rows.tokens.clone(),
        positions,
        eligible,
        index=rows.index.clone(),
        block_index=rows.block_index.clone(),
        block_masks=rows.block_masks.clone(),
        keys=rows.key,
        draw=decoding.draw,
        schedule=decoding.schedule,
    )
    choice = checked(sampler(step), step)
    commit, forced = progress(step, choice)
    clock.mark()
    tokens = step.proposal if choice.tokens is None else choice.tokens
    slots.write(step, commit, forced, tokens)


def _plain(slots: Slots, positions: Tensor) -> Tensor:
    """Logits `[B, W, V]`."""
    return slots.forward(slots.batch(positions, [held.passing for held in slots.held]))


def _guided(slots: Slots, positions: Tensor) -> Tensor:
    """Logits `[B, W, V]` led away from what the model says without the prompt."""
    rows, scale, mask = slots.rows, slots.decoding.guidance, slots.model.mask_id
    place = torch.arange(rows.tokens.shape[1], device=rows.tokens.device)
    blank = rows.tokens.masked_fill(place < rows.start[:, None], mask)
    lengths = slots.lengths()
    twice = None if lengths is None else lengths.repeat(2)
    batch = Batch(torch.cat([rows.tokens, blank]), positions.repeat(2, 1), twice)
    led, free = slots.forward(batch).float().chunk(2)
    logits = free + (scale + 1) * (led - free)
    # Where both are -inf, as in the mask's column, the difference is no number.
    return logits.masked_fill_(logits.isnan(), -torch.inf)


def progress(step: Step, choice: Choice) -> tuple[Tensor, Tensor]:
    """What is committed, bool [B, W], and the rows in which the loop had to force it, bool [B]."""
    commit = choice.commit & step.eligible
    forced = ~commit.any(1) & (step.quota > 0)
    order = step.confidence if choice.order is None else choice.order
    return commit | (step.top(order, 1) & forced[:, None]), forced


def checked(choice: Choice, step: Step) -> Choice:
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
    return choice
