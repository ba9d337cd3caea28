"""Mazes with one path between any two cells: find it from the start to the target.

Source: Nolte et al. 2024, "Transformers Can Navigate Mazes With Multi-Step Prediction": mazes of
randomised depth-first search with forks, start and target uniform. README.md shows both forms.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count, islice, pairwise, permutations
from pathlib import Path
from random import Random
from reprlib import repr as short
from typing import Any, NamedTuple

from mdmbench.base import Example, Grid
from mdmbench.errors import UserError, unknown

OPENING, BREAK, PATH_END, PAD = "<ADJLIST_START>", ";", "<PATH_END>", "<PAD>"
ENDS = "<ADJLIST_END> <ORIGIN_START> {} <ORIGIN_END> <TARGET_START> {} <TARGET_END> <PATH_START>"
ROW = (
    'a row is {"size": n, "open": n*n hex digits, "start": [row, column], "target": [row, column]}'
)

Doors = list[list[int]]
"""For each cell, the cells behind its open sides."""


class Puzzle(NamedTuple):
    """A maze as a rooted tree: `parent[cell]` is the next cell towards the root, its own parent."""

    parent: list[int]
    start: int
    target: int


def _stream(split: str, seed: int, index: int | str) -> Random:
    """One generator an example. Only its `random()` is promised to be the same in every Python."""
    return Random(f"maze:{split}:{seed}:{index}")


def _below(rng: Random, limit: int) -> int:
    return int(rng.random() * limit)


@cache
def _places(size: int) -> list[str]:
    return [f"({row},{column})" for row in range(size) for column in range(size)]


@cache
def _behind(size: int) -> list[dict[int, int]]:
    """For each cell, the cell behind each of its sides (N 1, E 2, S 4, W 8) that has one."""
    last = size - 1
    near = [{1: cell - size, 2: cell + 1, 4: cell + size, 8: cell - 1} for cell in range(size**2)]
    for edge in range(size):
        del near[edge][1], near[edge * size + last][2], near[last * size + edge][4]
        del near[edge * size][8]
    return near


@cache
def _orders(size: int) -> list[list[tuple[tuple[int, int], ...]]]:
    """For each cell, 24 equally likely orders of its steps (from, to); borders repeat theirs."""
    steps = ([(cell, to) for to in near.values()] for cell, near in enumerate(_behind(size)))
    return [order * (24 // len(order)) for order in (list(permutations(step)) for step in steps)]


def spanning_tree(size: int, rng: Random) -> list[int]:
    """Randomised depth-first search from a uniform root, as each cell's parent.

    The order of a cell's sides is drawn once, on entering it: the same mazes as drawing among the
    unvisited neighbours on every return, for one random number a cell.
    """
    orders, random = _orders(size), rng.random
    parent = [-1] * (size * size)
    root = _below(rng, size * size)
    parent[root] = root
    stack = list(orders[root][int(random() * 24)])
    while stack:
        here, to = stack.pop()
        if parent[to] < 0:
            parent[to] = here
            stack += orders[to][int(random() * 24)]
    return parent


def draw(size: int, rng: Random) -> Puzzle:
    """A maze and two distinct cells of it, every ordered pair equally likely."""
    parent = spanning_tree(size, rng)
    start, other = _below(rng, size * size), _below(rng, size * size - 1)
    return Puzzle(parent, start, other + (other >= start))


def rooted(doors: Doors, start: int, target: int) -> Puzzle:
    """The maze of a tree of open sides; the parent of a cell out of reach stays -1."""
    parent = [-1] * len(doors)
    parent[start] = start
    stack = [start]
    while stack:
        here = stack.pop()
        for to in doors[here]:
            if parent[to] < 0:
                parent[to] = here
                stack.append(to)
    return Puzzle(parent, start, target)


def path(puzzle: Puzzle) -> list[int]:
    """The cells from start to target, both included."""
    parent, climb = puzzle.parent, [puzzle.start]
    while parent[climb[-1]] != climb[-1]:
        climb.append(parent[climb[-1]])
    height = {cell: steps for steps, cell in enumerate(climb)}
    descent = [puzzle.target]
    while descent[-1] not in height:
        descent.append(parent[descent[-1]])
    return climb[: height[descent[-1]]] + descent[::-1]


def turned(puzzle: Puzzle, size: int, symmetry: int) -> Puzzle:
    """The maze under one of the square's 8 symmetries: quarter turns, from 4 on after a flip."""
    rows = [tuple(range(row * size, (row + 1) * size)) for row in range(size)]
    rows = rows[::-1] if symmetry >= 4 else rows
    for _ in range(symmetry % 4):
        rows = list(zip(*rows[::-1], strict=True))
    cells = list(chain.from_iterable(rows))
    place = {cell: to for to, cell in enumerate(cells)}
    parent = [place[puzzle.parent[cell]] for cell in cells]
    return Puzzle(parent, place[puzzle.start], place[puzzle.target])


@dataclass(frozen=True)
class Raster:
    """The grid twice: each cell's open sides, then whether the path goes through it."""

    size: int
    end_symbols = ()

    @property
    def symbols(self) -> tuple[str, ...]:
        return (*(f"{bits:x}{mark}" for mark in ("", "S", "T") for bits in range(1, 16)), "#", ".")

    def layout(self) -> dict[str, Any]:
        return {"kind": "maze", "size": self.size}

    def write(self, puzzle: Puzzle, rng: Random) -> tuple[list[str], list[str]]:
        """Prompt and answer."""
        del rng
        side = {-self.size: 1, 1: 2, self.size: 4, -1: 8, 0: 0}
        sides = [0] * len(puzzle.parent)
        for cell, up in enumerate(puzzle.parent):
            sides[cell] += side[up - cell]
            sides[up] += side[cell - up]
        prompt = [f"{bits:x}" for bits in sides]
        prompt[puzzle.start] += "S"
        prompt[puzzle.target] += "T"
        answer = ["."] * len(prompt)
        for cell in path(puzzle):
            answer[cell] = "#"
        return prompt, answer

    def grid(self, prompt: Sequence[str]) -> Grid:
        """Walls are the closed sides."""
        walls = tuple(15 - int(symbol[0], 16) for symbol in prompt)
        return Grid(self.size, walls, tuple(symbol[1:] for symbol in prompt))

    def read(self, prompt: Sequence[str]) -> tuple[Doors, int, int]:
        """Open sides, start and target of a prompt."""
        marks = [symbol[1:] for symbol in prompt]
        cells = zip((int(symbol[0], 16) for symbol in prompt), _behind(self.size), strict=True)
        doors = [[to for side, to in near.items() if sides & side] for sides, near in cells]
        return doors, marks.index("S"), marks.index("T")

    def valid(self, prompt: Sequence[str], answer: Sequence[str]) -> bool:
        """Do the '#' cells form one simple path from start to target through open sides?"""
        doors, *ends = self.read(prompt)
        on = {cell for cell, symbol in enumerate(answer) if symbol == "#"}
        # One way on from the ends and two from the rest is a path and cycles; a tree has no cycles.
        return on.issuperset(ends) and all(
            len(on.intersection(doors[cell])) == (1 if cell in ends else 2) for cell in on
        )


@dataclass(frozen=True)
class Edges:
    """The tokens of Nolte et al.: the open sides as pairs of cells, then the path as cells."""

    size: int
    end_symbols = (PATH_END,)

    @property
    def symbols(self) -> tuple[str, ...]:
        words = ENDS.replace("{}", "").split()
        return (*_places(self.size), OPENING, BREAK, *words, PATH_END, PAD)

    def layout(self) -> dict[str, Any]:
        return {"kind": "sequence", "length": 4 * self.size**2 + 7}

    def write(self, puzzle: Puzzle, rng: Random) -> tuple[list[str], list[str]]:
        """Prompt, its edges in random order (Fisher-Yates) and direction, and answer."""
        place, random = _places(self.size), rng.random
        pairs = [(place[a], place[b]) for a, b in enumerate(puzzle.parent) if a != b]
        for last in range(len(pairs) - 1, 0, -1):
            pick = int(random() * (last + 1))
            pairs[last], pairs[pick] = pairs[pick], pairs[last]
        prompt = [OPENING]
        for a, b in pairs:
            prompt += (a, b, BREAK) if random() < 0.5 else (b, a, BREAK)
        prompt += ENDS.format(place[puzzle.start], place[puzzle.target]).split()
        answer = [place[cell] for cell in path(puzzle)] + [PATH_END]
        # The window has room for a path through every cell, so its length says nothing.
        return prompt, answer + [PAD] * (len(place) + 1 - len(answer))

    def read(self, prompt: Sequence[str]) -> tuple[Doors, int, int]:
        """Open sides, start and target of a prompt."""
        number = {place: cell for cell, place in enumerate(_places(self.size))}
        cells = [number[token] for token in prompt if token in number]
        doors: Doors = [[] for _ in number]
        *edges, start, target = cells
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            doors[a].append(b)
            doors[b].append(a)
        return doors, start, target

    def valid(self, prompt: Sequence[str], answer: Sequence[str]) -> bool:
        """Does a simple path through open sides lead from origin to target, then PATH_END?"""
        place = _places(self.size)
        doors, start, target = self.read(prompt)
        steps = {(place[a], place[b]) for a, behind in enumerate(doors) for b in behind}
        walk = list(answer[: answer.index(PATH_END)]) if PATH_END in answer else []
        ends = walk[:1] + walk[-1:] == [place[start], place[target]]
        return ends and len(set(walk)) == len(walk) and steps.issuperset(pairwise(walk))


FORMS: Mapping[str, type[Raster] | type[Edges]] = {"raster": Raster, "edges": Edges}


def parse(line: str, size: int) -> Puzzle:
    """One row of a file; a ValueError says what is wrong with it."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as broken:
        raise ValueError(f"not JSON: {broken}") from None
    for field in ("size", "open", "start", "target"):
        if not isinstance(row, dict) or field not in row:
            raise ValueError(f"no field {field!r} in {short(row)}")
    if row["size"] != size:
        raise ValueError(f"its size is {short(row['size'])}, the task was asked for size={size}")
    cells = [[row, column] for row in range(size) for column in range(size)]
    ends, sides = [row["start"], row["target"]], row["open"]
    if ends[0] == ends[1] or any(end not in cells for end in ends):
        raise ValueError(f"start and target are {short(ends)}, not two cells of {size} x {size}")
    if not isinstance(sides, str) or not re.fullmatch(f"[0-9a-f]{{{size * size}}}", sides):
        raise ValueError(f"open is {short(sides)}, not {size * size} digits of 0-9a-f")
    return _tree(list(sides), cells.index(ends[0]), cells.index(ends[1]), size)


def _tree(prompt: list[str], start: int, target: int, size: int) -> Puzzle:
    """The maze of a file's sides; ValueError unless it has one path between any two cells."""
    prompt[start] += "S"
    prompt[target] += "T"
    raster, place = Raster(size), _places(size)
    puzzle = rooted(*raster.read(prompt))
    for cell in (target, *range(len(place))):
        if puzzle.parent[cell] < 0:
            raise ValueError(f"not a tree: no way from start {place[start]} to cell {place[cell]}")
    # A side that is not one of the tree's, seen from both cells, is lost when it is written again.
    for cell, sides in enumerate(raster.write(puzzle, Random(0))[0]):
        if sides != prompt[cell]:
            what = "leads outside, is closed from behind, or closes a loop"
            raise ValueError(f"not a tree: a side of cell {place[cell]} {what}")
    return puzzle


@dataclass(frozen=True)
class Maze:
    """Knobs: the side of the grid, how it is written, and a file to read instead of generating."""

    size: int = 8
    form: str = "raster"
    data: str = ""
    name = "maze"
    version = "1"
    headline = "exact"

    def __post_init__(self) -> None:
        if not 5 <= self.size <= 20:
            raise UserError(f"maze size {self.size} is out of range", "set size to 5 ... 20")
        if self.form not in FORMS:
            raise unknown("maze form", self.form, FORMS)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._form.symbols

    @property
    def end_symbols(self) -> tuple[str, ...]:
        return self._form.end_symbols

    def layout(self) -> dict[str, Any]:
        """What the model has to know of the canvas: keyword arguments of `relations.build`."""
        return self._form.layout()

    def examples(self, limit: int | None, seed: int) -> Iterator[Example]:
        """The first `limit` mazes; None means 200, or all of a file."""
        if self.data:
            for number, puzzle in islice(self._rows(), limit):
                yield self._example(f"row-{number}", puzzle, _stream("examples", seed, number))
        else:
            for index in range(200 if limit is None else limit):
                rng = _stream("examples", seed, index)
                yield self._example(f"{seed}-{index}", draw(self.size, rng), rng)

    def training(self, seed: int) -> Iterator[Example]:
        """New mazes without end; of a file, its rows drawn with replacement."""
        rows = [puzzle for _, puzzle in self._rows()] if self.data else []
        for index in count():
            rng = _stream("training", seed, index)
            puzzle = rows[_below(rng, len(rows))] if rows else draw(self.size, rng)
            yield self._example(f"training-{seed}-{index}", puzzle, rng)

    def augment(self, example: Example, seed: int) -> Example:
        """The maze under a random symmetry of the square; edges are shuffled anew."""
        rng = _stream("augment", seed, example.id)
        puzzle = rooted(*self._form.read(_prompt(example)))
        return self._example(example.id, turned(puzzle, self.size, _below(rng, 8)), rng)

    def score(self, example: Example, answer: Sequence[str]) -> dict[str, float]:
        """exact and cells look at the target up to PATH_END, valid at the prompt only."""
        ends = [place for place, symbol in enumerate(example.target, 1) if symbol == PATH_END]
        target = example.target[: ends[0]] if ends else example.target
        right = sum(a == t for a, t in zip(answer, target, strict=False))
        valid = self._form.valid(_prompt(example), answer)
        exact = right == len(target)
        return {"exact": float(exact), "valid": float(valid), "cells": right / len(target)}

    def grid(self, example: Example) -> Grid | None:
        """The maze; edges are written in a row."""
        form = self._form
        return form.grid(_prompt(example)) if isinstance(form, Raster) else None

    @property
    def _form(self) -> Raster | Edges:
        return FORMS[self.form](self.size)

    def _example(self, name: str, puzzle: Puzzle, rng: Random) -> Example:
        prompt, answer = self._form.write(puzzle, rng)
        return Example(name, (*prompt, *(None for _ in answer)), tuple(answer), len(prompt))

    def _rows(self) -> Iterator[tuple[int, Puzzle]]:
        """The file's mazes with their line numbers, from 1; a file without any is an error."""
        try:
            lines = Path(self.data).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeError) as broken:
            hint = "set data to a jsonl file, or leave it out to generate mazes"
            raise UserError(f"cannot read mazes from {self.data!r}: {broken}", hint) from None
        rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        if not rows:
            raise UserError(f"no mazes in {self.data!r}", ROW)
        for number, line in rows:
            try:
                puzzle = parse(line, self.size)
            except ValueError as broken:
                raise UserError(f"{self.data}, row {number}: {broken}", ROW) from None
            yield number, puzzle


def _prompt(example: Example) -> list[str]:
    return [symbol for symbol in example.cells if symbol is not None]


TASKS = {"maze": Maze}
