"""How two positions of a canvas stand to each other: what a puzzle model knows of the puzzle.

A relation is a small class per pair of positions; each attention head learns one bias per class.
There are no position embeddings in a grid puzzle, so a model is blind to everything else and the
puzzle's symmetries come for free.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mdmbench.errors import unknown

FAR = -5.0
"""The bias at which a head starts for pairs it should mostly not look at."""


class Relations(NamedTuple):
    """What `build` gives.

    pairs    int64 [L, L]: the class of (query, key)
    start    float [H', classes]: biases of the first H' heads before training; others start at 0
    ordered  whether positions need an embedding
    """

    pairs: Tensor
    start: Tensor
    ordered: bool


def build(kind: str, **layout: int) -> Relations:
    """The relations of a task's `layout()`."""
    kinds: dict[str, Callable[..., Relations]]
    kinds = {"sudoku": sudoku, "maze": maze, "sequence": sequence}
    if kind not in kinds:
        raise unknown("canvas layout", kind, kinds)
    return kinds[kind](**layout)


def sudoku(side: int) -> Relations:
    """Classes: which of row (1), column (2), box (4) two cells share; a head for each."""
    i = torch.arange(side * side)
    row, col = i // side, i % side
    b = int(side**0.5)
    box = row // b * b + col // b
    pairs = sum((unit[:, None] == unit) * bit for unit, bit in ((row, 1), (col, 2), (box, 4)))
    classes = torch.arange(8)
    start = torch.stack([torch.where(classes & bit > 0, 0.0, FAR) for bit in (1, 2, 4)])
    return Relations(torch.as_tensor(pairs), start, ordered=False)


def maze(size: int) -> Relations:
    """Prompt cells, then answer cells. Classes: same cell, its N, E, S, W neighbour, else; for each
    pair of segments. Four heads, one for each neighbour."""
    i = torch.arange(size * size)
    row, col = i // size, i % size
    down, right = row[None] - row[:, None], col[None] - col[:, None]
    near = torch.full((size * size, size * size), 5)
    for c, (d, r) in enumerate(((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))):
        near[(down == d) & (right == r)] = c
    pairs = torch.cat(
        [torch.cat([near + 6 * (2 * q + k) for k in range(2)], 1) for q in range(2)], 0
    )
    classes = torch.arange(24) % 6
    heads = [torch.where((classes == 0) | (classes == n), 0.0, FAR) for n in (1, 2, 3, 4)]
    return Relations(pairs, torch.stack(heads), ordered=False)


def sequence(length: int, reach: int = 8) -> Relations:
    """Classes: the distance to the key, cut at `reach` on both sides."""
    i = torch.arange(length)
    pairs = (i[None] - i[:, None]).clamp(-reach, reach) + reach
    return Relations(pairs, torch.zeros(0, 2 * reach + 1), ordered=True)
