"""Canvases of like length side by side: what is padded goes through the model for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdmbench.base import Canvas

WINDOW = 8
"""Batches that are sorted together."""


def shelved(canvases: Sequence[Canvas], batch_size: int) -> Iterator[Sequence[Canvas]]:
    """Every canvas once, in lots each of which is decoded whole or not at all: so many whole lots
    are the first so many canvases, and a fair sample if those are.

    WINDOW batches are a lot, sorted by length, by turns falling and rising, so that no jump stands
    between two; the first falls, and shows at once whether the memory is enough. Where all are
    equally long their order stays, and each is a lot by itself.
    """
    falling = True
    for start in range(0, len(canvases), WINDOW * batch_size):
        window = canvases[start : start + WINDOW * batch_size]
        lengths = [len(canvas.tokens) for canvas in window]
        if min(lengths) == max(lengths):
            yield from ([canvas] for canvas in window)
        else:
            yield sorted(window, key=lambda canvas: len(canvas.tokens), reverse=falling)
            falling = not falling
