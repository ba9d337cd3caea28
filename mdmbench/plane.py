"""A grid of cells with its walls, in box-drawing characters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from rich.text import Text

from mdmbench.base import Grid

JOINTS = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
"""By the lines that meet there: the sum of north 1, east 2, south 4, west 8."""


def plane(grid: Grid, cells: Sequence[Text]) -> Text:
    """The cells, which are equally wide, with the walls between them.

    Where all walls run from border to border, as a Sudoku's do, only they take room.
    """
    rows, columns = range(len(cells) // grid.width), range(grid.width)
    sides = dict(zip(product(rows, columns), grid.walls, strict=False))

    def above(row: int, column: int) -> bool:
        return bool(sides.get((row, column), 0) & 1 or sides.get((row - 1, column), 0) & 4)

    def left(row: int, column: int) -> bool:
        return bool(sides.get((row, column), 0) & 8 or sides.get((row, column - 1), 0) & 2)

    def joint(row: int, column: int) -> str:
        lines = left(row - 1, column), above(row, column), left(row, column), above(row, column - 1)
        return JOINTS[sum(line << i for i, line in enumerate(lines))]

    across = [[above(row, column) for column in columns] for row in (*rows, len(rows))]
    down = [[left(row, column) for row in rows] for column in (*columns, len(columns))]
    maze = any(len(set(line)) > 1 for line in (*across, *down))
    size, posts = cells[0].cell_len, [maze or any(line) for line in down]
    lines = []
    for row in (*rows, len(rows)):
        if maze or any(across[row]):
            joints = [joint(row, c) * post for c, post in enumerate(posts)]
            bars = [("─" if wall else " ") * size for wall in across[row]]
            lines.append(Text("".join(a + b for a, b in zip(joints, [*bars, ""], strict=True))))
        if row in rows:
            walls = [("│" if left(row, c) else " ") * post for c, post in enumerate(posts)]
            inside = cells[row * grid.width : (row + 1) * grid.width]
            pairs = zip(walls, [*inside, Text()], strict=True)
            lines.append(Text.assemble(*(part for pair in pairs for part in pair)))
    return Text("\n").join(lines)
