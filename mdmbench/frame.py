"""The canvas of a replay after one of its steps, as text with styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mdmbench.base import NEVER, Grid
from mdmbench.plane import plane
from mdmbench.replay import Replay, split

By = Literal["step", "entropy", "confidence"]

MASK, DOT = "\N{LIGHT SHADE}", "\N{MIDDLE DOT}"

RAMP = [
    *(f"#ffffff on {color}" for color in ("#3b0f70", "#8c2981", "#c43c75")),
    *(f"#000000 on {color}" for color in ("#f1605d", "#feb078", "#fcfdbf")),
]
"""From low to high, readable whatever the terminal's own colours are."""

TAIL = 4
"""A text that ends in more of the same piece shows the first of them only."""


@dataclass(frozen=True)
class Frame:
    """A replay as it was after a step; None: in the end. `by` is what colours a position.

    What was given is bold, what differs from a puzzle's reference has an exclamation mark.
    """

    replay: Replay
    by: By = "step"
    step: int | None = None

    @property
    def grid(self) -> Grid | None:
        """None where the positions stand one after another."""
        grid = self.replay.grid
        return None if grid and grid.width == len(self.replay.symbols) else grid

    @property
    def last(self) -> int:
        return max(self.replay.committed_at, default=NEVER)

    @cached_property
    def values(self) -> Sequence[float]:
        """What `by` says of each position."""
        replay = self.replay
        kept = {"entropy": replay.entropy, "confidence": replay.confidence}
        return kept.get(self.by, replay.committed_at)

    @cached_property
    def wrong(self) -> dict[int, str]:
        """A puzzle's reference where the answer is another; by position."""
        symbols = self.replay.symbols
        target = split(self.replay.target, len(symbols)) if self.replay.grid else []
        if len(target) != len(symbols):
            return {}
        return {i: b for i, (a, b) in enumerate(zip(symbols, target, strict=True)) if a != b}

    @cached_property
    def range(self) -> tuple[float, float]:
        """The least and the largest value of what was filled."""
        pairs = zip(self.values, self.replay.committed_at, strict=True)
        found = [value for value, at in pairs if at != NEVER]
        return min(found, default=0), max(found, default=0)

    def canvas(self) -> Text:
        """The symbols on their plane, or one after another."""
        count = len(self.replay.symbols)
        if self.grid is None:
            return Text.assemble(*(part for i in range(count) for part in self._piece(i)))
        marks = [plain(mark) for mark in self.grid.marks or [" "] * count]
        shown = [plain(self.replay.symbols[i]) if self._there(i) else MASK for i in range(count)]
        before, size = max(map(cell_len, marks)) or 1, max(map(cell_len, shown))
        cells = [
            f"{mark:>{before}}{set_cell_size(symbol, size)}{self._flag(i) or ' '}"
            for i, (mark, symbol) in enumerate(zip(marks, shown, strict=True))
        ]
        return plane(self.grid, [Text(cell, self._style(i)) for i, cell in enumerate(cells)])

    def numbers(self) -> Text | None:
        """On the same plane, in numbers what the colours say; none for positions in a row."""
        if self.grid is None:
            return None
        at = self.replay.committed_at
        texts = [
            DOT if step == NEVER and self._there(i) else self.number(i) * self._there(i)
            for i, step in enumerate(at)
        ]
        size = max(2, *map(len, texts))
        return plane(self.grid, [Text(f"{text:>{size}} ") for text in texts])

    def number(self, i: int) -> str:
        return f"{self.values[i]:.0f}" if self.by == "step" else f"{self.values[i]:.2f}"

    def place(self, i: int) -> str:
        if self.grid is None:
            return str(i)
        row, column = divmod(i, self.grid.width)
        return f"r{row + 1}c{column + 1}"

    def named(self, i: int) -> str:
        """A position, and what was written there; its value where no plane shows it."""
        symbol = self.replay.symbols[i]
        written = repr(symbol) if self.replay.grid is None else plain(symbol) + self._flag(i)
        value = f" ({self.number(i)})" if self.grid is None and self.by != "step" else ""
        return f"{self.place(i)}={written}{value}"

    def signs(self) -> list[str]:
        """What the signs on the canvas mean, of those that are there."""
        at = self.replay.committed_at
        there = list(map(self._there, range(len(at))))
        given = any(t and a == NEVER for a, t in zip(at, there, strict=True))
        found = {
            f"{DOT} or bold: given": given and self.grid is not None,
            f"{MASK} not filled": not all(there),
            "! not the reference": any(map(self._flag, range(len(at)))),
            f"{DOT} the same again": self.grid is None and self._tail < len(at) and there[-1],
        }
        return [sign for sign, shown in found.items() if shown]

    def _there(self, i: int) -> bool:
        """Whether something stands there by now."""
        at = self.replay.committed_at[i]
        return bool(self.replay.symbols[i]) and (self.step is None or at <= self.step)

    def _flag(self, i: int) -> str:
        return "!" if i in self.wrong and self._there(i) else ""

    def _style(self, i: int) -> str:
        if not self._there(i):
            return "dim"
        at = self.replay.committed_at[i]
        if at == NEVER:
            return "bold"
        low, high = self.range
        share = (self.values[i] - low) / (high - low) if high > low else 0
        color = RAMP[round(share * (len(RAMP) - 1))]
        return f"bold underline {color}" if at == self.step else color

    @cached_property
    def _tail(self) -> int:
        """From here on the last piece of a long repetition is only repeated."""
        symbols = self.replay.symbols
        first = len(symbols)
        while first and symbols[first - 1] == symbols[-1]:
            first -= 1
        return first + 1 if len(symbols) - first > TAIL else len(symbols)

    def _piece(self, i: int) -> list[tuple[str, str]]:
        """One of the positions that stand one after another."""
        text = plain(self.replay.symbols[i])
        if not self._there(i):
            text = MASK
        elif i >= self._tail and self._there(i - 1):
            text = DOT
        # A line's end has no room for a colour of its own.
        text = text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n") + self._flag(i)
        gap = [(" ", "")] if i and self.replay.grid and text != DOT else []
        return [*gap, (text, self._style(i))]


def plain(text: str) -> str:
    """Without what a terminal would obey; line ends stay."""
    text = text.expandtabs(4)
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
