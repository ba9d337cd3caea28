"""What the Sudoku task promises: one solution, the same puzzles everywhere, no bad row unnamed."""

import csv
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.base import Example
from mdmbench.errors import UserError

REPO = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("sudoku_task", REPO / "tasks" / "sudoku" / "task.py")
assert SPEC is not None and SPEC.loader is not None
TASK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TASK)
Grid, Sudoku = TASK.Grid, TASK.Sudoku

EXCHANGE = REPO.parent / "shared" / "data" / "sudoku_exchange_2427.csv"
DREAM = REPO.parent / "shared" / "data" / "sudoku_4x4_dream.jsonl"
with_exchange = pytest.mark.skipif(not EXCHANGE.exists(), reason="needs the Sudoku Exchange file")
with_dream = pytest.mark.skipif(not DREAM.exists(), reason="needs Dream's 4x4 file")

sides = st.sampled_from([4, 9])
seeds = st.integers(0, 10**6)
few = settings(max_examples=25, deadline=None)


def digits(text: str) -> list[int]:
    return [int(c) for c in text if c.isdigit()]


def puzzle(example: Example) -> list[int]:
    return [int(cell or 0) for cell in example.cells]


def answer(example: Example) -> list[int]:
    return [int(symbol) for symbol in example.target]


def units(side: int) -> list[list[int]]:
    box = {4: 2, 9: 3}[side]
    span = range(side)
    corners = [(r, c) for r in range(0, side, box) for c in range(0, side, box)]
    return [
        *([r * side + c for c in span] for r in span),
        *([r * side + c for r in span] for c in span),
        *([(r + i // box) * side + c + i % box for i in span] for r, c in corners),
    ]


def solves(solution: Sequence[int], givens: Sequence[int], side: int) -> bool:
    full = set(range(1, side + 1))
    kept = all(g in (0, s) for g, s in zip(givens, solution, strict=True))
    return kept and all({solution[i] for i in unit} == full for unit in units(side))


def brute_force(cells: list[int]) -> int:
    """Solutions of a 4x4 puzzle, by trying every digit in every empty cell from the left."""
    if 0 not in cells:
        return 1
    i = cells.index(0)
    seen = {cells[j] for unit in units(4) if i in unit for j in unit}
    return sum(brute_force([*cells[:i], d, *cells[i + 1 :]]) for d in range(1, 5) if d not in seen)


def solutions(cells: Sequence[int], side: int) -> list[list[int]]:
    return list(Grid(side, cells).solutions(2))


def one(side: int, seed: int, **knobs: Any) -> Example:
    example: Example = next(iter(Sudoku(side, **knobs).examples(1, seed)))
    return example


# The solver


@with_exchange
def test_the_bank_has_one_solution_a_row_found_with_the_guesses_it_states() -> None:
    with EXCHANGE.open() as lines:
        rows = list(csv.DictReader(lines))[::10]
    assert len(rows) == 243
    assert {row["guesses"] for row in rows} > {"0", "1", "2"}
    for row in rows:
        grid = Grid(9, digits(row["puzzle"]))
        assert list(grid.solutions(2)) == [digits(row["solution"])], row["id"]
        assert grid.guesses == int(row["guesses"]), row["id"]


@with_exchange
def test_the_bank_is_read_as_it_stands_and_a_bucket_alone() -> None:
    examples = list(islice(Sudoku(data=str(EXCHANGE)).examples(None, 0), 20))
    with EXCHANGE.open() as lines:
        for example, row in zip(examples, csv.DictReader(lines), strict=False):
            assert example.id == row["id"]
            assert (puzzle(example), answer(example)) == (
                digits(row["puzzle"]),
                digits(row["solution"]),
            )
            assert example.meta == {
                "bucket": row["bucket"],
                "guesses": int(row["guesses"]),
                "givens": int(row["clues"]),
            }
    hard = list(Sudoku(data=str(EXCHANGE), bucket="diabolical").examples(5, 0))
    assert [example.id for example in hard] == [f"seb-diabolical-{i}" for i in range(5)]


@with_dream
def test_the_4x4_file_has_one_solution_a_row() -> None:
    rows = [json.loads(line) for line in DREAM.read_text().splitlines()]
    examples = list(Sudoku(4, data=str(DREAM)).examples(None, 0))
    assert len(examples) == 972
    for row, example in zip(rows, examples, strict=True):
        assert puzzle(example) == digits(row["input"])
        assert answer(example) == digits(row["output"])
        assert example.meta["givens"] == row["filled"]
        assert brute_force(puzzle(example)) == 1


@given(seeds, st.data())
@few
def test_the_solver_counts_like_brute_force(seed: int, data: Any) -> None:
    """On puzzles with none, one and several solutions, and never beyond what it was asked for."""
    cells = puzzle(one(4, seed))
    for i in data.draw(st.lists(st.integers(0, 15), max_size=4)):
        cells[i] = 0
    i, d = data.draw(st.integers(0, 15)), data.draw(st.integers(1, 4))
    if not cells[i] and not any(cells[j] == d for unit in units(4) if i in unit for j in unit):
        cells[i] = d
    count = brute_force(cells)
    for limit in (1, 2, 5, 300):
        found = list(Grid(4, cells).solutions(limit))
        assert len(found) == min(limit, count)
        assert len({tuple(f) for f in found}) == len(found)
        assert all(solves(f, cells, 4) for f in found)


def test_the_empty_4x4_grid_has_288_solutions_and_yields_as_many_as_asked_for() -> None:
    for limit in (1, 2, 100, 287, 288, 1000):
        found = list(Grid(4, [0] * 16).solutions(limit))
        assert len({tuple(f) for f in found}) == len(found) == min(limit, 288)


@given(sides, seeds, st.integers(1, 3), st.data())
@few
def test_the_grid_is_restored_after_a_search(side: int, seed: int, limit: int, data: Any) -> None:
    """Of puzzles with a solution or several, and of contradictory ones."""
    cells = puzzle(one(side, seed))
    for i in data.draw(st.lists(st.integers(0, side * side - 1), max_size=6)):
        cells[i] = 0
    grid = Grid(side, cells)
    blanks = [i for i, d in enumerate(cells) if not d]
    if blanks and data.draw(st.booleans()):
        i = data.draw(st.sampled_from(blanks))
        other = [1 << d for d in range(side) if grid.candidates(i) >> d & 1]
        if other:
            grid.put(i, data.draw(st.sampled_from(other)))
    before = [list(x) for x in (grid.cells, grid.rows, grid.cols, grid.boxes)]
    list(grid.solutions(limit))
    assert [grid.cells, grid.rows, grid.cols, grid.boxes] == before


# Generated puzzles


@given(sides, seeds)
@settings(max_examples=40, deadline=None)
def test_a_generated_puzzle_has_its_target_as_its_only_solution(side: int, seed: int) -> None:
    example = one(side, seed)
    assert solves(answer(example), puzzle(example), side)
    assert solutions(puzzle(example), side) == [answer(example)]
    assert side == 9 or brute_force(puzzle(example)) == 1


@pytest.mark.parametrize(
    ("side", "text", "low", "high"),
    [(9, "", 28, 40), (9, "33", 33, 33), (9, "30-34", 30, 34), (4, "", 5, 10), (4, "7-16", 7, 16)],
)
def test_givens_lie_in_the_asked_range_and_reach_its_ends(
    side: int, text: str, low: int, high: int
) -> None:
    examples = list(Sudoku(side, text).examples(80 if side == 9 else 400, 3))
    givens = [sum(map(bool, puzzle(e))) for e in examples]
    assert [e.meta["givens"] for e in examples] == givens
    assert (min(givens), max(givens)) == (low, high)


def test_more_digging_than_a_unique_solution_allows_stops_at_a_minimal_puzzle() -> None:
    for example in Sudoku(4, "0-0").examples(20, 0):
        cells = puzzle(example)
        assert brute_force(cells) == 1
        for i in (i for i, d in enumerate(cells) if d):
            assert brute_force([*cells[:i], 0, *cells[i + 1 :]]) > 1


@pytest.mark.parametrize(
    ("side", "digest"),
    [
        (9, "ab01a142c86271180ba1bcaeae7dc5cdbf0ff0b0ff5e82b721a6a2f6598d1b84"),
        (4, "3bb8dc69525d19bd27e19f8b98993cc2eb5f1f7362ef961889f5ffacdce569ab"),
    ],
)
def test_the_same_puzzles_on_every_machine(side: int, digest: str) -> None:
    text = json.dumps([[e.id, e.cells, e.target] for e in Sudoku(side).examples(20, 0)])
    assert sha256(text.encode()).hexdigest() == digest


@pytest.mark.parametrize("side", [9, 4])
def test_an_example_does_not_depend_on_the_limit_but_on_the_seed(side: int) -> None:
    task = Sudoku(side)
    twelve = list(task.examples(12, 5))
    assert list(task.examples(3, 5)) == twelve[:3]
    assert list(islice(task.examples(None, 5), 12)) == twelve
    assert len({e.id for e in twelve}) == len({e.cells for e in twelve}) == 12
    assert not {e.cells for e in twelve} & {e.cells for e in task.examples(12, 6)}


def test_two_hundred_puzzles_are_the_default() -> None:
    assert len(list(Sudoku(4).examples(None, 0))) == 200


def test_training_is_endless_repeatable_and_never_an_example() -> None:
    task = Sudoku(9)
    stream = [example.cells for example in islice(task.training(5), 15)]
    assert stream == [example.cells for example in islice(task.training(5), 15)]
    assert len(set(stream)) == 15
    assert not set(stream) & {example.cells for example in task.examples(15, 5)}
    assert not set(stream) & {example.cells for example in islice(task.training(6), 15)}


@given(sides, seeds, seeds)
@few
def test_augment_keeps_the_puzzle_unique_and_its_solution_right(
    side: int, seed: int, by: int
) -> None:
    example = one(side, seed)
    seen = Sudoku(side).augment(example, by)
    assert solves(answer(seen), puzzle(seen), side)
    assert solutions(puzzle(seen), side) == [answer(seen)]
    assert sum(map(bool, puzzle(seen))) == sum(map(bool, puzzle(example)))
    assert Sudoku(side).augment(example, by) == seen


def test_augment_draws_from_every_symmetry_of_the_4x4_grid() -> None:
    """They part the 288 grids in two classes, of 96 and of 192."""
    classes = set()
    for seed in range(6):
        example = one(4, seed)
        targets = {Sudoku(4).augment(example, by).target for by in range(2500)}
        classes.add(len(targets))
    assert classes == {96, 192}


# Scores


@given(sides, seeds)
@few
def test_the_target_is_solved(side: int, seed: int) -> None:
    example = one(side, seed)
    perfect = {"solved": 1.0, "cells": 1.0, "givens_kept": 1.0}
    assert Sudoku(side).score(example, example.target) == perfect


@given(sides, seeds, st.data())
@few
def test_any_other_answer_is_not_solved(side: int, seed: int, data: Any) -> None:
    example = one(side, seed)
    wrong = list(example.target)
    for i in data.draw(st.lists(st.integers(0, side * side - 1), min_size=1, max_size=5)):
        wrong[i] = data.draw(st.sampled_from(Sudoku(side).symbols))
    score = Sudoku(side).score(example, wrong)
    blanks = [i for i, cell in enumerate(example.cells) if cell is None]
    right = sum(wrong[i] == example.target[i] for i in blanks)
    assert score["solved"] == (wrong == list(example.target))
    assert score["cells"] == pytest.approx(right / len(blanks))
    assert score["givens_kept"] == all(
        c in (None, w) for c, w in zip(example.cells, wrong, strict=True)
    )


def test_mistakes_each_by_name() -> None:
    task, example = Sudoku(4), one(4, 0, givens="8")
    blank, given = example.cells.index(None), next(i for i, c in enumerate(example.cells) if c)
    other = {s: next(o for o in task.symbols if o != s) for s in task.symbols}

    def changed(i: int) -> list[str]:
        return [other[s] if i == j else s for j, s in enumerate(example.target)]

    assert task.score(example, changed(blank)) == {
        "solved": 0.0,
        "cells": 7 / 8,
        "givens_kept": 1.0,
    }
    assert task.score(example, changed(given)) == {
        "solved": 0.0,
        "cells": 1.0,
        "givens_kept": 0.0,
    }


def test_a_right_grid_of_another_puzzle_is_not_solved() -> None:
    task, example = Sudoku(4), one(4, 0)
    turned = dict(zip(task.symbols, "2341", strict=True))
    score = task.score(example, [turned[s] for s in example.target])
    assert score == {"solved": 0.0, "cells": 0.0, "givens_kept": 0.0}


def test_any_solution_of_an_ambiguous_puzzle_counts_as_solved() -> None:
    """`solved` asks the rules, `cells` the target."""
    task, example = Sudoku(4), one(4, 0)
    first, second = islice(Grid(4, [0] * 16).solutions(2), 2)
    loose = replace(example, cells=(None,) * 16, target=tuple(map(str, first)))
    score = task.score(loose, [str(d) for d in second])
    assert score["solved"] == 1.0
    assert score["cells"] < 1.0


def test_foreign_symbols_do_not_solve_and_a_full_puzzle_has_all_its_cells() -> None:
    task, example = Sudoku(4), one(4, 0)
    empty = replace(example, cells=(None,) * 16)
    foreign = ["abcd"[int(s) - 1] for s in example.target]
    assert task.score(empty, foreign)["solved"] == 0.0
    full = replace(example, cells=example.target)
    assert task.score(full, full.target)["cells"] == 1.0


# Files

PUZZLE = "1000000200000000"
GOOD = "1000000240030000"
SOLUTION = "1234341241232341"


def written(folder: Path, *lines: str, name: str = "puzzles.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


def load(path: Path, side: int = 4, **knobs: Any) -> list[Example]:
    return list(Sudoku(side, data=str(path), **knobs).examples(None, 0))


def refusal(path: Path, **knobs: Any) -> str:
    with pytest.raises(UserError) as error:
        load(path, **knobs)
    return str(error.value).replace(str(path), "FILE")


def row(**fields: Any) -> str:
    return json.dumps({"puzzle": GOOD, **fields})


def test_csv_and_jsonl_say_the_same_in_every_spelling(tmp_path: Path) -> None:
    dotted = "\n".join(GOOD.replace("0", ".")[i : i + 4] for i in range(0, 16, 4))
    lines = [row(id="a", bucket="b"), "", json.dumps({"input": dotted, "output": SOLUTION})]
    from_json = load(written(tmp_path, *lines))
    table = ["\ufeffpuzzle,bucket,id,solution", f"{GOOD},b,a,", "", f"{GOOD},,,{SOLUTION}"]
    from_csv = load(written(tmp_path, *table, name="puzzles.csv"))
    assert [puzzle(e) for e in from_json] == [digits(GOOD)] * 2
    assert [answer(e) for e in from_json] == [digits(SOLUTION)] * 2
    assert [e.id for e in from_json] == ["a", "row3"]
    assert [e.id for e in from_csv] == ["a", "row4"]
    assert [e.meta for e in from_json] == [e.meta for e in from_csv]
    assert from_json[0].meta == {"givens": 4, "guesses": 0, "bucket": "b"}
    assert from_json[1].meta == {"givens": 4, "guesses": 0}


def test_an_id_of_zero_is_an_id_and_null_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, row(id=0), row(id=None, bucket=None))
    assert [e.id for e in load(path)] == ["0", "row2"]
    assert "bucket" not in load(path)[1].meta


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    path = written(tmp_path, *(row(id=i) for i in range(5)))
    assert [e.id for e in Sudoku(4, data=str(path)).examples(2, 0)] == ["0", "1"]


BAD_ROWS = {
    "{": "not JSON: Expecting property name",
    "[1]": "not a JSON object",
    json.dumps({"cells": GOOD}): "no puzzle\nthe column is called puzzle (or input)",
    row(puzzle=1000): "no puzzle\nthe column is called puzzle (or input)",
    row(puzzle=GOOD[1:]): "the puzzle has 15 cells, not 16\n0 or . is an empty cell",
    row(puzzle="1" * 81): "the puzzle has 81 cells, not 16\n0 or . is an empty cell",
    row(puzzle="x" + GOOD[1:]): "the puzzle holds something else than the digits 0 to 4",
    row(puzzle="5" + GOOD[1:]): "the puzzle holds something else than the digits 0 to 4",
    row(puzzle="-" + GOOD[1:]): "the puzzle holds something else than the digits 0 to 4",
    row(puzzle=PUZZLE): "the puzzle has several solutions",
    row(puzzle="1230000400000000"): "the puzzle has no solution",
    row(puzzle="1100000000000000"): "the puzzle has no solution: a given stands twice in a unit",
    row(puzzle="1000100000000000"): "the puzzle has no solution: a given stands twice in a unit",
    row(puzzle="1000010000000000"): "the puzzle has no solution: a given stands twice in a unit",
    row(solution=SOLUTION[::-1]): "the solution stated is not the puzzle's",
    row(output=SOLUTION[::-1]): "the solution stated is not the puzzle's",
    row(solution=SOLUTION[1:]): "the solution has 15 cells, not 16\n0 or . is an empty cell",
    row(id="first"): "id 'first' stands twice\nids must differ",
}


@pytest.mark.parametrize(("line", "text"), BAD_ROWS.items())
def test_a_broken_row_is_named_with_its_number(line: str, text: str, tmp_path: Path) -> None:
    path = written(tmp_path, row(id="first"), "", line)
    assert refusal(path).startswith(f"FILE, row 3: {text}")


def test_a_4x4_puzzle_for_side_9_is_told_of_the_knob(tmp_path: Path) -> None:
    text = "FILE, row 1: the puzzle has 16 cells, not 81\na 4x4 puzzle needs -T side=4"
    assert refusal(written(tmp_path, row()), side=9) == text


def test_row_numbers_of_a_csv_count_blank_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "puzzle", GOOD, "", GOOD[1:], name="p.csv")
    assert refusal(path).startswith("FILE, row 4: the puzzle has 15 cells")


def test_a_csv_without_the_column_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "quizzes,solutions", f"{GOOD},{SOLUTION}", name="p.csv")
    assert refusal(path) == "FILE, row 2: no puzzle\nthe column is called puzzle (or input)"


def test_what_is_no_csv_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "puzzle", "0" * 200_000, name="p.csv")
    assert refusal(path).startswith("FILE, row 2: not csv: field larger than field limit")


def test_a_truncated_file_names_the_row_it_is_cut_in(tmp_path: Path) -> None:
    """Wherever it is cut; only a csv row cut right before its solution is still a whole row."""
    last = f"b,easy,{GOOD},{SOLUTION}"
    path = tmp_path / "p.csv"
    for end in range(1, len(last)):
        path.write_text(f"id,bucket,puzzle,solution\na,easy,{GOOD},{SOLUTION}\n{last[:end]}")
        if last[:end].endswith(f"{GOOD},"):
            assert [answer(e) for e in load(path)] == [digits(SOLUTION)] * 2
        else:
            assert refusal(path).startswith("FILE, row 3: ")
    last = row(id="b", solution=SOLUTION)
    path = tmp_path / "p.jsonl"
    for end in range(1, len(last)):
        path.write_text(f"{row(id='a')}\n{last[:end]}")
        assert refusal(path).startswith("FILE, row 2: not JSON: ")


@pytest.mark.parametrize("bucket", ["x", ""])
def test_a_file_without_puzzles_is_refused(bucket: str, tmp_path: Path) -> None:
    for name, lines in (("p.csv", ["puzzle"]), ("p.csv", []), ("p.jsonl", ["", " "])):
        text = refusal(written(tmp_path, *lines, name=name), bucket=bucket)
        assert text == (
            "unknown bucket in FILE 'x'\nknown: none" if bucket else "FILE holds no puzzle"
        )


def test_an_unknown_bucket_proposes_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, row(bucket="easy"), row(bucket="hard"))
    text = "unknown bucket in FILE 'hrad'\ndid you mean 'hard'? known: easy, hard"
    assert refusal(path, bucket="hrad") == text


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    hint = "\n-T data= takes a csv or jsonl file"
    missing = refusal(tmp_path / "nowhere.csv")
    assert missing.startswith("cannot read FILE: ")
    assert missing.endswith(hint)
    assert refusal(tmp_path).endswith(hint)
    binary = tmp_path / "p.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refusal(binary).startswith("cannot read FILE: 'utf-8' codec can't decode")


# Knobs

BAD_KNOBS: list[tuple[dict[str, Any], str]] = [
    ({"side": 5}, "sudoku: side is 5\nit is 9 or 4"),
    ({"side": 16}, "sudoku: side is 16\nit is 9 or 4"),
    ({"givens": "many"}, "sudoku: givens is 'many'\nwrite givens=28-40"),
    ({"givens": "-5"}, "sudoku: givens is '-5'\nwrite givens=28-40"),
    ({"givens": "30-20"}, "sudoku: givens is '30-20'\nlow <= high, both in 0..81"),
    ({"givens": "80-82"}, "sudoku: givens is '80-82'\nlow <= high, both in 0..81"),
    ({"side": 4, "givens": "17"}, "sudoku: givens is '17'\nlow <= high, both in 0..16"),
    ({"bucket": "easy"}, "sudoku: bucket needs a data file\nadd -T data=FILE"),
]


@pytest.mark.parametrize(("knobs", "text"), BAD_KNOBS)
def test_a_knob_out_of_range_is_refused(knobs: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as error:
        Sudoku(**knobs)
    assert str(error.value) == text
