"""Sudoku: fill the empty cells so that every row, column and box holds each digit once.

One canvas position a cell, givens clamped, no copy of the prompt. Sides 9 and 4.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import isqrt
from pathlib import Path
from random import Random
from typing import Any, ClassVar, NamedTuple

from mdmbench import base
from mdmbench.base import Example
from mdmbench.errors import UserError, unknown


class Board(NamedTuple):
    """The cells of a side x side grid: row, column and box of each, and the cells of each unit."""

    side: int
    full: int
    row: tuple[int, ...]
    col: tuple[int, ...]
    box: tuple[int, ...]
    units: tuple[tuple[int, ...], ...]


@cache
def board(side: int) -> Board:
    b = isqrt(side)
    cells = range(side * side)
    row = tuple(i // side for i in cells)
    col = tuple(i % side for i in cells)
    box = tuple(row[i] // b * b + col[i] // b for i in cells)
    units = tuple(
        tuple(i for i in cells if kind[i] == u) for kind in (row, col, box) for u in range(side)
    )
    return Board(side, (1 << side) - 1, row, col, box, units)


class Grid:
    """A grid under work. Digits are bits (digit d is `1 << d - 1`), 0 is empty.

    `guesses` counts the branching decisions made so far: 0 after a search means that naked and
    hidden singles alone decided it. It is the difficulty measure.
    """

    def __init__(self, side: int, digits: Sequence[int]) -> None:
        """`digits`: side * side numbers, 0 where empty."""
        self.board = board(side)
        self.cells = [0] * (side * side)
        self.rows, self.cols, self.boxes = [0] * side, [0] * side, [0] * side
        self.guesses = 0
        for i, digit in enumerate(digits):
            if digit:
                self.put(i, 1 << digit - 1)

    @property
    def digits(self) -> list[int]:
        return [bit.bit_length() for bit in self.cells]

    def candidates(self, i: int) -> int:
        b = self.board
        return b.full & ~(self.rows[b.row[i]] | self.cols[b.col[i]] | self.boxes[b.box[i]])

    def put(self, i: int, bit: int) -> None:
        b = self.board
        self.cells[i] = bit
        self.rows[b.row[i]] |= bit
        self.cols[b.col[i]] |= bit
        self.boxes[b.box[i]] |= bit

    def clear(self, i: int) -> None:
        b, keep = self.board, ~self.cells[i]
        self.cells[i] = 0
        self.rows[b.row[i]] &= keep
        self.cols[b.col[i]] &= keep
        self.boxes[b.box[i]] &= keep

    def solutions(self, limit: int, rng: Random | None = None) -> Iterator[list[int]]:
        """Up to `limit` solutions as digits; `rng` tries the digits of a guess in random order.

        Singles are followed to the end, then the cell with the fewest candidates is guessed.
        The grid is as before once the iterator is exhausted.
        """
        placed: list[int] = []
        candidates = self._follow_singles(placed)
        if candidates is not None and not candidates:
            yield self.digits
        elif candidates:
            cell = min(candidates, key=lambda i: candidates[i].bit_count())
            bits = [1 << d for d in range(self.board.side) if candidates[cell] >> d & 1]
            if rng:
                shuffle(bits, rng)
            self.guesses += 1
            for bit in bits:
                self.put(cell, bit)
                for found in self.solutions(limit, rng):
                    limit -= 1
                    yield found
                self.clear(cell)
                if not limit:
                    break
        for i in placed:
            self.clear(i)

    def _follow_singles(self, placed: list[int]) -> dict[int, int] | None:
        """Places naked, then hidden singles until none is left, noting them in `placed`.

        Returns the candidates of the cells still empty, or None where the grid is contradictory.
        """
        empty = [i for i, bit in enumerate(self.cells) if not bit]
        while True:
            candidates: dict[int, int] = {}
            before = len(placed)
            for i in empty:
                mask = self.candidates(i)
                if not mask:
                    return None
                if mask & (mask - 1):
                    candidates[i] = mask
                else:
                    self.put(i, mask)
                    placed.append(i)
            if len(placed) == before and not self._hidden_singles(candidates, placed):
                return None
            if len(placed) == before:
                return candidates
            empty = [i for i in empty if not self.cells[i]]

    def _hidden_singles(self, candidates: dict[int, int], placed: list[int]) -> bool:
        """Places each digit that fits one cell of a unit only; False where a digit fits nowhere.

        `candidates` ages as cells are filled, so a unit's filled digits are read anew.
        """
        side = self.board.side
        filled = (self.rows, self.cols, self.boxes)
        get = candidates.get
        for u, unit in enumerate(self.board.units):
            once = twice = 0
            for i in unit:
                mask = get(i)
                if mask:
                    twice |= once & mask
                    once |= mask
            done = filled[u // side][u % side]
            if once | done != self.board.full:
                return False
            single = once & ~twice & ~done
            if not single:
                continue
            for i in unit:
                bit = get(i, 0) & single
                if bit:
                    if bit & (bit - 1) or not bit & self.candidates(i):
                        return False
                    self.put(i, bit)
                    placed.append(i)
                    del candidates[i]
        return True


def shuffle(items: list[int], rng: Random) -> None:
    """Fisher-Yates by `rng.random()`, the one method whose values Python promises to keep."""
    for i in range(len(items) - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        items[i], items[j] = items[j], items[i]


def permutation(n: int, rng: Random) -> list[int]:
    order = list(range(n))
    shuffle(order, rng)
    return order


def filled(side: int, rng: Random) -> list[int]:
    """A random full grid, as digits."""
    first_row = [d + 1 for d in permutation(side, rng)]
    return next(Grid(side, first_row + [0] * (side * side - side)).solutions(1, rng))


def dig(side: int, solution: Sequence[int], givens: int, rng: Random) -> list[int]:
    """Empties cells in random order while the solution stays the only one, down to `givens`.

    May end above `givens`: then no further cell can be emptied.
    """
    grid = Grid(side, solution)
    left = side * side
    for i in permutation(side * side, rng):
        if left <= givens:
            break
        bit = grid.cells[i]
        grid.clear(i)
        if _implied(grid, i, bit):
            left -= 1
        else:
            grid.put(i, bit)
    return grid.digits


def _implied(grid: Grid, i: int, bit: int) -> bool:
    """Whether cell `i`, empty, can hold nothing but `bit`; singles first: they decide most."""
    b = grid.board
    mask = grid.candidates(i)
    if mask == bit:
        return True
    units = b.units[b.row[i]], b.units[b.side + b.col[i]], b.units[2 * b.side + b.box[i]]
    for unit in units:
        if not any(j != i and not grid.cells[j] and grid.candidates(j) & bit for j in unit):
            return True
    for d in range(b.side):
        other = 1 << d
        if other != bit and mask & other:
            grid.put(i, other)
            found = sum(1 for _ in grid.solutions(1))
            grid.clear(i)
            if found:
                return False
    return True


@dataclass(frozen=True)
class Sudoku:
    """The Sudoku task.

    side    9 or 4
    givens  `low-high`: the number of givens of generated puzzles, drawn evenly
    data    a csv or jsonl file of puzzles instead of generated ones, by its README
    bucket  with `data`: only the rows of this bucket
    """

    side: int = 9
    givens: str = ""
    data: str = ""
    bucket: str = ""

    name: ClassVar[str] = "sudoku"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "solved"
    end_symbols: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.side not in (4, 9):
            raise UserError(f"sudoku: side is {self.side}", "it is 9 or 4")
        if self.bucket and not self.data:
            raise UserError("sudoku: bucket needs a data file", "add -T data=FILE")
        self._range()

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(str(d) for d in range(1, self.side + 1))

    def _range(self) -> tuple[int, int]:
        text = self.givens or ("28-40" if self.side == 9 else "5-10")
        low, _, high = text.partition("-")
        try:
            bounds = int(low), int(high or low)
        except ValueError:
            raise UserError(f"sudoku: givens is {text!r}", "write givens=28-40") from None
        if not 0 <= bounds[0] <= bounds[1] <= self.side**2:
            raise UserError(
                f"sudoku: givens is {text!r}", f"low <= high, both in 0..{self.side**2}"
            )
        return bounds

    def examples(self, limit: int | None, seed: int) -> Iterable[Example]:
        if self.data:
            return islice(read(Path(self.data), self), limit)
        return (self._generate(f"test:{seed}:{i}") for i in range(200 if limit is None else limit))

    def training(self, seed: int) -> Iterator[Example]:
        i = 0
        while True:
            yield self._generate(f"train:{seed}:{i}")
            i += 1

    def _generate(self, key: str) -> Example:
        """The puzzle of this key: a function of it alone, on every machine."""
        rng = Random(f"sudoku:{self.side}:{key}")
        low, high = self._range()
        solution = filled(self.side, rng)
        puzzle = dig(self.side, solution, low + int(rng.random() * (high - low + 1)), rng)
        return self._example(f"{self.side}x{self.side}:{key}", puzzle, solution, {})

    def _example(
        self, id: str, puzzle: Sequence[int], solution: Sequence[int], meta: Mapping[str, Any]
    ) -> Example:
        return Example(
            id=id,
            cells=tuple(str(d) if d else None for d in puzzle),
            target=tuple(map(str, solution)),
            meta={"givens": sum(map(bool, puzzle)), **meta},
        )

    def augment(self, example: Example, seed: int) -> Example:
        """Digits renamed, rows and columns permuted within and across bands, perhaps transposed."""
        rng = Random(seed)
        n, b = self.side, isqrt(self.side)
        names = dict(zip(self.symbols, [str(d + 1) for d in permutation(n, rng)], strict=True))
        rows, cols = (
            [band * b + line for band in permutation(b, rng) for line in permutation(b, rng)]
            for _ in range(2)
        )
        source = [r * n + c for r in rows for c in cols]
        if rng.random() < 0.5:
            source = [source[i % n * n + i // n] for i in range(n * n)]
        return Example(
            id=example.id,
            cells=tuple(names[s] if (s := example.cells[i]) else None for i in source),
            target=tuple(names[example.target[i]] for i in source),
        )

    def layout(self) -> dict[str, Any]:
        return {"kind": "sudoku", "side": self.side}

    def grid(self, example: Example) -> base.Grid:
        """Walls are the borders of the boxes."""
        b = isqrt(self.side)
        walls = tuple(
            (row % b == 0) + 2 * (col % b == b - 1) + 4 * (row % b == b - 1) + 8 * (col % b == 0)
            for row in range(self.side)
            for col in range(self.side)
        )
        return base.Grid(self.side, walls)

    def score(self, example: Example, answer: Sequence[str]) -> dict[str, float]:
        """solved: by the rules, with the givens kept; cells: share of the blanks that is right."""
        blanks = [i for i, cell in enumerate(example.cells) if cell is None]
        kept = all(cell in (None, answer[i]) for i, cell in enumerate(example.cells))
        units = board(self.side).units
        complete = all(len({answer[i] for i in unit}) == self.side for unit in units)
        right = sum(answer[i] == example.target[i] for i in blanks)
        return {
            "solved": float(kept and complete and set(answer) <= set(self.symbols)),
            "cells": right / len(blanks) if blanks else 1.0,
            "givens_kept": float(kept),
        }


def read(path: Path, task: Sudoku) -> Iterator[Example]:
    """The puzzles of a file; every one is proved to have exactly one solution.

    Raises UserError that names the row.
    """
    seen: set[str] = set()
    buckets: set[str] = set()
    found = False
    for number, row in _rows(path):
        where = f"{path}, row {number}"
        bucket = _text(row, "bucket")
        buckets.add(bucket)
        if task.bucket and bucket != task.bucket:
            continue
        id = _text(row, "id") or f"row{number}"
        if id in seen:
            raise UserError(f"{where}: id {id!r} stands twice", "ids must differ")
        seen.add(id)
        found = True
        yield _parse(task, where, id, bucket, row)
    if task.bucket and not found:
        raise unknown(f"bucket in {path}", task.bucket, buckets)
    if not found:
        raise UserError(f"{path} holds no puzzle")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {path}: {error}", "-T data= takes a csv or jsonl file"
        ) from None
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines())
        try:
            for row in rows:
                if None in row.values():
                    raise UserError(
                        f"{path}, row {rows.line_num}: fewer columns than the first line names",
                        "the file may be cut off",
                    )
                yield rows.line_num, row
        except csv.Error as error:
            raise UserError(f"{path}, row {rows.line_num + 1}: not csv: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, row {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, row {number}: not a JSON object")
            yield number, row


def _text(row: Mapping[str, Any], name: str) -> str:
    return "" if row.get(name) is None else str(row[name])


def _parse(task: Sudoku, where: str, id: str, bucket: str, row: Mapping[str, Any]) -> Example:
    """The example of a row: `puzzle` (or Dream's `input`), perhaps `solution`, `id`, `bucket`."""
    text = row.get("puzzle") or row.get("input")
    if not isinstance(text, str):
        raise UserError(f"{where}: no puzzle", "the column is called puzzle (or input)")
    puzzle = _digits(task.side, where, "puzzle", text)
    for unit in board(task.side).units:
        given = [puzzle[i] for i in unit if puzzle[i]]
        if len(given) != len(set(given)):
            raise UserError(f"{where}: the puzzle has no solution: a given stands twice in a unit")
    grid = Grid(task.side, puzzle)
    solutions = list(grid.solutions(2))
    if len(solutions) != 1:
        raise UserError(
            f"{where}: the puzzle has {'several solutions' if solutions else 'no solution'}"
        )
    stated = row.get("solution") or row.get("output")
    if stated and _digits(task.side, where, "solution", str(stated)) != solutions[0]:
        raise UserError(f"{where}: the solution stated is not the puzzle's")
    meta = {"guesses": grid.guesses} | ({"bucket": bucket} if bucket else {})
    return task._example(id, puzzle, solutions[0], meta)


def _digits(side: int, where: str, what: str, text: str) -> list[int]:
    digits = [0 if c in "._" else ord(c) - ord("0") for c in text if not c.isspace()]
    if len(digits) != side * side:
        raise UserError(
            f"{where}: the {what} has {len(digits)} cells, not {side * side}",
            "a 4x4 puzzle needs -T side=4" if len(digits) == 16 else "0 or . is an empty cell",
        )
    if any(not 0 <= d <= side for d in digits):
        raise UserError(f"{where}: the {what} holds something else than the digits 0 to {side}")
    return digits


TASKS = {"sudoku": Sudoku}
