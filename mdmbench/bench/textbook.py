"""The loop as papers print it, naive on purpose: what the harness itself is measured against.

After LLaDA `generate.py` (low-confidence remasking): a batch of one, logits of every position at
every step, a softmax in float64 over all of them, a schedule that is fixed beforehand, no stop
before the canvas is full.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from mdmbench.base import NEVER, Batch, Canvas, Model


class Filled(NamedTuple):
    """A canvas as the loop leaves it, both of length L.

    committed_at  the step (from 0) that committed the position, or NEVER
    """

    tokens: tuple[int, ...]
    committed_at: tuple[int, ...]


@torch.inference_mode()
def fill(model: Model, canvas: Canvas, k: int, block_length: int | None = None) -> Filled:
    """Fills one canvas block by block, the k positions of the largest probability a step.

    The tokens and steps are those of `loop.decode` with TopK(k, "confidence").
    """
    forward = model.start()
    x = torch.tensor([canvas.tokens], device=model.device)
    place = torch.arange(x.shape[1], device=model.device)[None]
    committed_at = torch.full_like(x, NEVER)
    end = len(canvas.tokens) if canvas.end is None else canvas.end
    first = canvas.start if model.block is None else 0
    size = block_length or len(canvas.tokens)
    step = 0
    for low in range(first, end, size):
        high = min(low + size, end)
        masks = canvas.tokens[low:high].count(model.mask_id)
        for left in range(masks, 0, -k):
            logits = forward(Batch(x, place))
            probability = logits.double().softmax(-1)
            confidence, proposal = probability.max(-1)
            eligible = (x == model.mask_id) & (place < high)
            confidence = confidence.masked_fill(~eligible, -torch.inf)
            # Stable, so that a tie goes to the left as it does in the loop.
            order = confidence.argsort(dim=1, descending=True, stable=True)
            chosen = order[:, : min(k, left)]
            x = x.scatter(1, chosen, proposal.gather(1, chosen))
            committed_at.scatter_(1, chosen, step)
            step += 1
    return Filled(tuple(x[0].tolist()), tuple(committed_at[0].tolist()))
