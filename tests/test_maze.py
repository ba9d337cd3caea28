"""What the maze task promises: one path, the same mazes everywhere, scores that know the walls."""

import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from itertools import islice, pairwise, permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.base import Example
from mdmbench.errors import UserError

FOLDER = Path(__file__).parent.parent / "tasks" / "maze"
SPEC = importlib.util.spec_from_file_location("maze_task", FOLDER / "task.py")
assert SPEC is not None and SPEC.loader is not None
TASK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TASK)
Maze = TASK.Maze

FORMS = ("raster", "edges")
PERFECT = {"exact": 1.0, "valid": 1.0, "cells": 1.0}
STEP = {1: (-1, 0), 2: (0, 1), 4: (1, 0), 8: (0, -1)}
SHOWN: dict[str, Any] = {
    "size": 5,
    "open": "6aac454695553c53d695293a9",
    "start": [2, 1],
    "target": [1, 2],
}
"""The maze of the README."""

Cell = tuple[int, int]
Rooted = tuple[int, frozenset[tuple[int, int]]]
seeds = st.integers(0, 10**6)
sizes = st.integers(5, 20)
forms = st.sampled_from(FORMS)
few = settings(max_examples=25, deadline=None)


def one(size: int, form: str, seed: int) -> Example:
    example: Example = next(iter(Maze(size, form).examples(1, seed)))
    return example


def prompt(example: Example) -> list[str]:
    return [symbol for symbol in example.cells[: example.start] if symbol is not None]


def cell(token: str) -> Cell:
    row, column = token.strip("()").split(",")
    return int(row), int(column)


def walls(example: Example, size: int) -> tuple[set[frozenset[Cell]], Cell, Cell]:
    """Open sides, start and target, read from the prompt by the README and not by the task."""
    given_ = prompt(example)
    if given_[0] == "<ADJLIST_START>":
        edges = " ".join(given_[1 : given_.index("<ADJLIST_END>")]).split(";")
        doors = {frozenset(map(cell, edge.split())) for edge in edges if edge.strip()}
        return doors, cell(given_[-6]), cell(given_[-3])
    at = {divmod(place, size): symbol for place, symbol in enumerate(given_)}
    doors = {
        frozenset(((row, column), (row + STEP[side][0], column + STEP[side][1])))
        for (row, column), symbol in at.items()
        for side in STEP
        if int(symbol[0], 16) & side
    }
    (start,) = (place for place, symbol in at.items() if symbol.endswith("S"))
    (target,) = (place for place, symbol in at.items() if symbol.endswith("T"))
    return doors, start, target


def answer_cells(example: Example, size: int) -> list[Cell]:
    """The cells of the target: in order for edges, by place for a raster."""
    if "<PATH_END>" in example.target:
        return [cell(token) for token in example.target[: example.target.index("<PATH_END>")]]
    return [divmod(place, size) for place, symbol in enumerate(example.target) if symbol == "#"]


def reached(doors: set[frozenset[Cell]], start: Cell) -> set[Cell]:
    seen = {start}
    for _ in doors:
        seen |= {other for door in doors if door & seen for other in door}
    return seen


def changed(symbols: Sequence[str], *edits: tuple[int, str]) -> list[str]:
    result = list(symbols)
    for place, symbol in edits:
        result[place] = symbol
    return result


def written(tmp_path: Path, *rows: object) -> str:
    file = tmp_path / "mazes.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(file)


# Mazes


@few
@given(st.integers(5, 9), forms, seeds)
def test_a_maze_is_a_spanning_tree_with_distinct_ends(size: int, form: str, seed: int) -> None:
    doors, start, target = walls(one(size, form, seed), size)
    grid = {(row, column) for row in range(size) for column in range(size)}
    assert all(abs(r - s) + abs(c - d) == 1 for (r, c), (s, d) in doors)
    assert len(doors) == size * size - 1
    assert reached(doors, start) == grid
    assert start != target


@few
@given(sizes, seeds)
def test_the_target_is_the_one_simple_path_and_the_same_in_both_forms(size: int, seed: int) -> None:
    example = one(size, "edges", seed)
    doors, start, target = walls(example, size)
    path = answer_cells(example, size)
    assert (path[0], path[-1]) == (start, target)
    assert all(frozenset(step) in doors for step in pairwise(path))
    assert len(set(path)) == len(path)
    raster = one(size, "raster", seed)
    assert walls(raster, size) == (doors, start, target)
    assert answer_cells(raster, size) == sorted(path)


def textbook(size: int) -> dict[Rooted, float]:
    """The chance of every root and maze of the search that draws among the unvisited neighbours."""
    chances: dict[Rooted, float] = {}
    grid = [divmod(place, size) for place in range(size * size)]

    def unvisited(here: int, doors: frozenset[tuple[int, int]], root: int) -> list[int]:
        seen, (r, c) = {root, *(to for _, to in doors)}, grid[here]
        near = (to for to, (s, d) in enumerate(grid) if abs(r - s) + abs(c - d) == 1)
        return [to for to in near if to not in seen]

    def search(stack: tuple[int, ...], doors: frozenset[tuple[int, int]], chance: float) -> None:
        back = stack
        while back and not unvisited(back[-1], doors, stack[0]):
            back = back[:-1]
        if not back:
            chances[stack[0], doors] = chances.get((stack[0], doors), 0) + chance
            return
        ways = unvisited(back[-1], doors, stack[0])
        for to in ways:
            search((*back, to), doors | {(back[-1], to)}, chance / len(ways))

    for root in range(size * size):
        search((root,), frozenset(), 1 / size**2)
    return chances


def test_mazes_are_as_likely_as_in_the_textbook_search() -> None:
    """A chi-square on every rooted 3 x 3 maze; 5 sigma of its own, far beyond a false alarm."""
    rng, draws = Random(1), 40_000
    chances, found = textbook(3), Counter[Rooted]()
    for _ in range(draws):
        tree = TASK.spanning_tree(3, rng)
        (root,) = (place for place, up in enumerate(tree) if place == up)
        found[root, frozenset((up, to) for to, up in enumerate(tree) if to != up)] += 1
    assert set(found) <= set(chances)
    square = sum((found[key] - draws * p) ** 2 / (draws * p) for key, p in chances.items())
    assert square < len(chances) + 5 * (2 * len(chances)) ** 0.5


def test_start_and_target_are_uniform_over_ordered_pairs() -> None:
    """600 pairs, 50 draws each; 6.5 sigma, so a false alarm is beyond one in 10**6 runs."""
    rng = Random(2)
    pairs = Counter((p.start, p.target) for p in (TASK.draw(5, rng) for _ in range(30_000)))
    assert set(pairs) == set(permutations(range(25), 2))
    assert all(abs(found - 50) < 6.5 * 50**0.5 for found in pairs.values())


# The same everywhere


@pytest.mark.parametrize(
    ("form", "digest"), [("raster", "8df3449764b5ab68"), ("edges", "8064f4309f1dccd9")]
)
def test_the_same_puzzles_on_every_machine(form: str, digest: str) -> None:
    examples = [e for size in (5, 8, 20) for e in Maze(size, form).examples(5, 3)]
    stored = json.dumps([[e.id, e.cells, e.target] for e in examples])
    assert sha256(stored.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("form", FORMS)
def test_an_example_does_not_depend_on_the_limit(form: str) -> None:
    whole = list(Maze(5, form).examples(None, 4))
    assert len(whole) == 200
    assert len({example.id for example in whole}) == 200
    assert list(Maze(5, form).examples(7, 4)) == whole[:7]
    assert next(iter(Maze(5, form).examples(1, 5))).cells != whole[0].cells


@pytest.mark.parametrize("form", FORMS)
def test_training_is_endless_repeatable_and_never_an_example(form: str) -> None:
    task = Maze(8, form)
    stream = list(islice(task.training(0), 1100))
    assert len({example.cells for example in stream}) == 1100
    assert list(islice(task.training(0), 5)) == stream[:5]
    assert not {e.cells for e in stream} & {e.cells for e in task.examples(None, 0)}
    assert next(task.training(1)).cells != stream[0].cells


# The canvas


@few
@given(sizes, forms, seeds)
def test_the_canvas_fits_its_layout_and_its_symbols(size: int, form: str, seed: int) -> None:
    task, example = Maze(size, form), one(size, form, seed)
    lengths = {"raster": (size**2, size**2), "edges": (3 * size**2 + 6, size**2 + 1)}
    assert (example.start, len(example.target)) == lengths[form]
    assert example.cells[example.start :] == (None,) * len(example.target)
    assert {*prompt(example), *example.target} <= set(task.symbols)
    length = len(example.cells)
    assert (
        task.layout()
        == {
            "raster": {"kind": "maze", "size": size},
            "edges": {"kind": "sequence", "length": length},
        }[form]
    )


def test_symbols_are_unique_and_stable() -> None:
    raster, edges = Maze(5).symbols, Maze(5, "edges").symbols
    digits = "123456789abcdef"
    assert raster == (*digits, *(d + "S" for d in digits), *(d + "T" for d in digits), "#", ".")
    assert len(edges) == len(set(edges)) == 25 + 10
    assert edges[:2] == ("(0,0)", "(0,1)") and edges[-2:] == ("<PATH_END>", "<PAD>")
    assert (Maze(5).end_symbols, Maze(5, "edges").end_symbols) == ((), ("<PATH_END>",))
    assert set(Maze(5, "edges").end_symbols) <= set(edges)


def test_the_answer_window_never_depends_on_the_path_length() -> None:
    examples = list(Maze(5, "edges").examples(300, 0))
    paths = {example.target.index("<PATH_END>") for example in examples}
    assert min(paths) == 2 and max(paths) >= 20
    assert {len(example.target) for example in examples} == {26}
    for example in examples:
        behind = example.target[example.target.index("<PATH_END>") + 1 :]
        assert set(behind) <= {"<PAD>"}


def test_edges_come_in_random_order_and_direction() -> None:
    """One maze, 24 edges, so 48 ways to begin: 2000 draws miss one with a chance of 1e-16."""
    puzzle, form = TASK.draw(5, Random(0)), TASK.Edges(5)
    first = Counter(tuple(form.write(puzzle, Random(seed))[0][1:3]) for seed in range(2000))
    assert len(first) == 48
    assert all((other, one_) in first for one_, other in first)


def test_the_readme_shows_what_the_task_makes() -> None:
    text = (FOLDER / "README.md").read_text()
    raster, edges = one(5, "raster", 0), one(5, "edges", 0)
    rows = [prompt(raster)[5 * row : 5 * row + 5] for row in range(5)]
    grid = [" ".join(f"{symbol:2}" for symbol in row).split() for row in rows]
    both = [given_ + list(raster.target[5 * r : 5 * r + 5]) for r, given_ in enumerate(grid)]
    lines = [line.split() for line in text.split("\n")]
    assert any(lines[at : at + 5] == both for at in range(len(lines)))
    assert " ".join((*prompt(edges), *edges.target)) in " ".join(text.split())
    assert json.dumps(SHOWN) in text


# Augmenting


@few
@given(st.integers(5, 8), forms, seeds, seeds)
def test_augment_keeps_the_target_exact_and_valid(size: int, form: str, seed: int, by: int) -> None:
    task, example = Maze(size, form), one(size, form, seed)
    seen = task.augment(example, by)
    assert task.score(seen, seen.target) == PERFECT
    assert (seen.id, seen.start, len(seen.cells)) == (example.id, example.start, len(example.cells))
    assert seen == task.augment(example, by)


@pytest.mark.parametrize("form", FORMS)
def test_augment_draws_from_all_8_symmetries_and_from_nothing_else(form: str) -> None:
    def image(place: Cell, symmetry: int) -> Cell:
        row, column = place[::-1] if symmetry & 1 else place
        return 4 - row if symmetry & 2 else row, 4 - column if symmetry & 4 else column

    task, example = Maze(5, form), one(5, form, 0)
    doors, *ends = walls(example, 5)
    images = {
        (
            frozenset(frozenset(image(c, s) for c in door) for door in doors),
            *(image(e, s) for e in ends),
        )
        for s in range(8)
    }
    found: Counter[Any] = Counter()
    for seed in range(200):
        seen, *seen_ends = walls(task.augment(example, seed), 5)
        found[(frozenset(seen), *seen_ends)] += 1
    assert len(images) == 8
    assert set(found) == images
    assert min(found.values()) > 5


def test_augment_shuffles_the_edges_anew() -> None:
    task, example = Maze(5, "edges"), one(5, "edges", 0)
    assert len({task.augment(example, seed).cells for seed in range(50)}) == 50


# Scores


@few
@given(sizes, forms, seeds)
def test_the_target_is_exact_and_valid(size: int, form: str, seed: int) -> None:
    example = one(size, form, seed)
    assert Maze(size, form).score(example, example.target) == PERFECT


@few
@given(st.integers(5, 7), seeds, st.data())
def test_any_other_raster_is_neither_exact_nor_valid(size: int, seed: int, data: Any) -> None:
    example = one(size, "raster", seed)
    places = data.draw(st.sets(st.integers(0, size * size - 1), min_size=1))
    flip = {"#": ".", ".": "#"}
    answer = changed(example.target, *((at, flip[example.target[at]]) for at in places))
    scores = Maze(size).score(example, answer)
    cells = pytest.approx(1 - len(places) / size**2)
    assert scores == {"exact": 0.0, "valid": 0.0, "cells": cells}


def test_raster_mistakes_each_by_name() -> None:
    """On the README's maze: the path runs (2,1) (3,1) (3,0) ... (0,3) (1,3) (1,2)."""
    task, example = Maze(5), one(5, "raster", 0)
    empty = ["."] * 25
    cases = {
        "gap": changed(example.target, (0, ".")),
        "start missing": changed(example.target, (11, ".")),
        "target missing": changed(example.target, (7, ".")),
        "dead end behind the path": changed(example.target, (16, "."), (15, ".")),
        "extra cell beside the path": changed(example.target, (6, "#")),
        "extra cell far away": changed(example.target, (24, "#")),
        "through a wall": changed(empty, (11, "#"), (6, "#"), (7, "#")),
        "straight through a wall": changed(empty, (11, "#"), (12, "#"), (7, "#")),
        "nothing": empty,
        "everything": ["#"] * 25,
        "prompt symbols": prompt(example),
    }
    assert {name for name, answer in cases.items() if task.score(example, answer)["valid"]} == set()
    assert {name for name, answer in cases.items() if task.score(example, answer)["exact"]} == set()


def test_valid_looks_at_the_prompt_and_exact_at_the_target() -> None:
    for form, wrong in (("raster", "."), ("edges", "<PAD>")):
        example = one(5, form, 0)
        other = Example("", example.cells, (wrong,) * len(example.target), example.start)
        scores = Maze(5, form).score(other, example.target)
        assert (scores["exact"], scores["valid"]) == (0.0, 1.0)


def test_edges_mistakes_each_by_name() -> None:
    task, example = Maze(5, "edges"), one(5, "edges", 0)
    full, end = list(example.target), example.target.index("<PATH_END>")
    path, rest = full[:end], full[end:]
    cases = {
        "a step through a wall": [*path[:1], path[-1], *rest],
        "no end": [*path, *["<PAD>"] * len(rest)],
        "cut off before the end": path,
        "stops short": [*path[:-1], *rest],
        "starts late": [*path[1:], *rest],
        "backwards": [*path[::-1], *rest],
        "to and fro": [*path[:2], *path, *rest],
        "a pad on the way": [*path[:2], "<PAD>", *path[2:], *rest],
        "ends at once": ["<PATH_END>", *full],
        "nothing": [],
    }
    assert {name for name, answer in cases.items() if task.score(example, answer)["valid"]} == set()
    assert {name for name, answer in cases.items() if task.score(example, answer)["exact"]} == set()
    wall = task.score(example, changed(full, (1, full[0])))
    assert wall == {"exact": 0.0, "valid": 0.0, "cells": pytest.approx(end / (end + 1))}


@few
@given(sizes, seeds, st.data())
def test_what_stands_behind_path_end_is_ignored(size: int, seed: int, data: Any) -> None:
    task, example = Maze(size, "edges"), one(size, "edges", seed)
    kept = example.target[: example.target.index("<PATH_END>") + 1]
    room = len(example.target) - len(kept)
    symbols = st.sampled_from(task.symbols)
    tail = data.draw(st.lists(symbols, min_size=room, max_size=room) if room < 30 else st.just([]))
    assert task.score(example, (*kept, *tail)) == PERFECT


# Files


@pytest.mark.parametrize("form", FORMS)
def test_a_file_gives_back_the_mazes_it_was_written_from(form: str, tmp_path: Path) -> None:
    rasters = list(Maze(6).examples(20, 0))
    data = written(
        tmp_path,
        *(
            {
                "size": 6,
                "open": "".join(symbol[0] for symbol in prompt(example)),
                "start": walls(example, 6)[1],
                "target": walls(example, 6)[2],
            }
            for example in rasters
        ),
        "",
    )
    task = Maze(6, form, data)
    read = list(task.examples(None, 0))
    for raster, example in zip(rasters, read, strict=True):
        assert walls(example, 6) == walls(raster, 6)
        assert sorted(answer_cells(example, 6)) == answer_cells(raster, 6)
        assert task.score(example, example.target) == PERFECT
    if form == "raster":
        assert [e.cells for e in read] == [e.cells for e in rasters]
    assert [example.id for example in read[:2]] == ["row-1", "row-2"]
    assert list(task.examples(3, 0)) == read[:3]
    same = [walls(example, 6) for example in read]
    drawn = [walls(example, 6) for example in islice(task.training(0), 200)]
    assert all(maze in same for maze in drawn)
    assert all(maze in drawn for maze in same)


def test_the_seed_shuffles_the_edges_of_a_file(tmp_path: Path) -> None:
    task = Maze(5, "edges", written(tmp_path, SHOWN))
    (one_way,), (other,) = task.examples(1, 0), task.examples(1, 1)
    assert one_way.cells != other.cells
    assert one_way.target == other.target


TREE = str(SHOWN["open"])
ROW = (
    'a row is {"size": n, "open": n*n hex digits, "start": [row, column], "target": [row, column]}'
)
NO_TARGET = "{'open': '', 'size': 5, 'start': 0}"
NO_TREE = "leads outside, is closed from behind, or closes a loop"


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            "{size: 5}",
            "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ([5], "no field 'size' in [5]"),
        ('"size, open"', "no field 'size' in 'size, open'"),
        ({"size": 5}, "no field 'open' in {'size': 5}"),
        ({"size": 5, "open": ""}, "no field 'start' in {'open': '', 'size': 5}"),
        ({"size": 5, "open": "", "start": 0}, f"no field 'target' in {NO_TARGET}"),
        (SHOWN | {"size": 6}, "its size is 6, the task was asked for size=5"),
        (
            SHOWN | {"start": [0, 5]},
            "start and target are [[0, 5], [1, 2]], not two cells of 5 x 5",
        ),
        (SHOWN | {"target": "a"}, "start and target are [[2, 1], 'a'], not two cells of 5 x 5"),
        (
            SHOWN | {"start": [1, 2]},
            "start and target are [[1, 2], [1, 2]], not two cells of 5 x 5",
        ),
        (SHOWN | {"open": "6aa"}, "open is '6aa', not 25 digits of 0-9a-f"),
        (SHOWN | {"open": 6}, "open is 6, not 25 digits of 0-9a-f"),
        (SHOWN | {"open": "g" + TREE[1:]}, "open is 'g" + TREE[1:] + "', not 25 digits of 0-9a-f"),
        (SHOWN | {"open": "0" * 25}, "not a tree: no way from start (2,1) to cell (1,2)"),
        (
            SHOWN | {"open": "6aac054694" + TREE[10:]},
            "not a tree: no way from start (2,1) to cell (0,4)",
        ),
        (SHOWN | {"open": "7" + TREE[1:]}, f"not a tree: a side of cell (0,0) {NO_TREE}"),
        (SHOWN | {"open": "6aacc" + TREE[5:]}, f"not a tree: a side of cell (0,4) {NO_TREE}"),
        (SHOWN | {"open": "6aaec" + TREE[5:]}, f"not a tree: a side of cell (0,4) {NO_TREE}"),
    ],
)
def test_a_broken_row_is_named_with_its_line(row: object, text: str, tmp_path: Path) -> None:
    data = written(tmp_path, SHOWN, "", row)
    for broken in (
        lambda: list(Maze(5, "raster", data).examples(None, 0)),
        lambda: next(Maze(5, "edges", data).training(0)),
    ):
        with pytest.raises(UserError) as caught:
            broken()
        assert str(caught.value) == f"{data}, row 3: {text}\n{ROW}"
    assert len(list(Maze(5, "raster", data).examples(1, 0))) == 1


# Other errors


@pytest.mark.parametrize("size", [4, 21, -1])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(UserError) as caught:
        Maze(size)
    assert str(caught.value) == f"maze size {size} is out of range\nset size to 5 ... 20"


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        Maze(form="rastr")
    expected = "unknown maze form 'rastr'\ndid you mean 'raster'? known: edges, raster"
    assert str(caught.value) == expected


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    hint = "set data to a jsonl file, or leave it out to generate mazes"
    none, binary = tmp_path / "none.jsonl", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for file, why in ((none, "[Errno 2] No such file"), (binary, "'utf-8' codec can't decode")):
        with pytest.raises(UserError) as caught:
            list(Maze(5, "raster", str(file)).examples(1, 0))
        assert caught.value.message.startswith(f"cannot read mazes from {str(file)!r}: {why}")
        assert caught.value.hint == hint


def test_a_file_without_mazes_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path, "", "  ")
    with pytest.raises(UserError) as caught:
        next(Maze(5, "raster", data).training(0))
    assert str(caught.value) == f"no mazes in {data!r}\n{ROW}"
