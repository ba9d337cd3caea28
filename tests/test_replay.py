"""From a record back to what can be played: symbols, plane, prompt and reference."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mdmbench import items, resolve
from mdmbench.base import NEVER, Example, Grid, PuzzleTask, Question, Seconds, TextTask
from mdmbench.canvas import Symbols
from mdmbench.errors import UserError
from mdmbench.replay import find, one, opened, replays, split
from mdmbench.spec import RunSpec
from mdmbench.store import Record, Run

RECORD = Record(
    id="",
    answer="",
    scores={"solved": 1.0},
    notes={},
    meta={},
    nfe=2,
    nfe_until=None,
    length=4,
    filled=4,
    forward_tokens=32,
    forced=0,
    bound_spent=0.0,
    committed_at=[],
    pieces=[],
    batch_size=2,
    seconds=Seconds(),
)


def write(out: Path, records: list[Record], task: str = "sudoku", **settings: Any) -> Run:
    knobs = {"side": 4} if task == "sudoku" else {}
    spec = RunSpec(**{"model": "m", "task": task, "task_knobs": knobs, **settings})
    run = Run.create(out, "run", {"headline": "solved", "settings": spec.model_dump()})
    with run.writing({}) as append:
        append(records)
    return run


def puzzles(task: str, **knobs: Any) -> list[Example]:
    made: PuzzleTask = resolve.task(task, knobs)  # type: ignore[assignment]
    return list(made.examples(4, 0))


def solved(example: Example, **fields: Any) -> Record:
    """The blanks are filled from left to right, one a step."""
    cells = example.cells[example.start :]
    blanks = [i for i, cell in enumerate(cells) if cell is None]
    at = [blanks.index(i) if cell is None else NEVER for i, cell in enumerate(cells)]
    answer = Symbols(example.target).stored(example.target)
    return replace(RECORD, id=example.id, answer=answer, committed_at=at, **fields)


SUDOKUS = puzzles("sudoku", side=4)


def test_a_sudoku_lies_on_its_boxes_with_its_reference(tmp_path: Path) -> None:
    run = write(tmp_path, [solved(e) for e in SUDOKUS])
    found = replays(run, None, None)
    assert [r.id for r in found] == [e.id for e in SUDOKUS]
    for replay, example in zip(found, SUDOKUS, strict=True):
        assert replay.symbols == list(example.target) == split(replay.target, 16)
        assert replay.grid == Grid(4, (9, 3, 9, 3, 12, 6, 12, 6) * 2)
        assert (replay.prompt, replay.notes) == ("", {})
        given = [cell is not None for cell in example.cells]
        assert [at == NEVER for at in replay.committed_at] == given


def test_a_maze_lies_behind_its_closed_sides(tmp_path: Path) -> None:
    (example, *_) = puzzles("maze", size=5)
    (replay,) = replays(
        write(tmp_path, [solved(example)], "maze", task_knobs={"size": 5}), None, None
    )
    assert replay.grid is not None and replay.grid.width == 5
    walls, marks = replay.grid.walls, replay.grid.marks
    for i in range(25):
        right, below = i % 5 < 4, i < 20
        assert bool(walls[i] & 2) == (bool(walls[i + 1] & 8) if right else True)
        assert bool(walls[i] & 4) == (bool(walls[i + 5] & 1) if below else True)
    prompt = example.cells[:25]
    assert [mark for mark in marks if mark] == [c[1] for c in prompt if c and len(c) > 1]
    assert sorted(filter(None, marks)) == ["S", "T"]


def test_a_maze_of_edges_is_one_row(tmp_path: Path) -> None:
    knobs = {"size": 5, "form": "edges"}
    (example, *_) = puzzles("maze", **knobs)
    (replay,) = replays(write(tmp_path, [solved(example)], "maze", task_knobs=knobs), None, None)
    assert replay.grid == Grid(26)
    assert replay.symbols == list(example.target) == split(replay.target, 26)


QUESTION = """
from dataclasses import dataclass
from mdmbench.base import Question, Turn

@dataclass(frozen=True)
class Echo:
    name, version, headline, gen_length, chat = "echo", "1", "right", 4, False
    stops, finish = (), ""

    def examples(self, limit, seed):
        turns = (Turn("system", "Be short."), Turn("user", "Say it."))
        for i in range(limit):
            yield Question(f"q{i}", f"Say {i}.", f"{i}", turns, prefix="Well:")
"""


def told(i: int = 0) -> Record:
    pieces, at = [f"{i}", ".", "<end>", "<end>"], [1, 0, 2, NEVER]
    return replace(RECORD, id=f"q{i}", answer=f"{i}.", pieces=pieces, committed_at=at)


def test_a_text_has_its_prompt_and_no_piece_where_nothing_was_filled(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(QUESTION)
    task = f"{tmp_path / 'my.py'}:Echo"
    replay = one(write(tmp_path / "plain", [told(0), told(1)], task), "q1")
    assert (replay.prompt, replay.target, replay.grid) == ("Say 1.", "1", None)
    assert replay.symbols == ["1", ".", "<end>", ""]
    chat = one(write(tmp_path / "chat", [told(0)], task, chat=True), "q0")
    assert chat.prompt == "system: Be short.\n\nuser: Say it.\n\nWell:"


OWN = """
from dataclasses import dataclass
from mdmbench.base import Example, Grid

@dataclass(frozen=True)
class Own:
    name, version, headline, symbols, end_symbols = "own", "1", "right", ("a", "b"), ()

    def examples(self, limit, seed):
        for i in range(min(limit, 9)):
            yield Example(f"e{{i}}", (None,) * {count}, ("a",) * {count})
{grid}
"""


@pytest.mark.parametrize(
    ("count", "grid", "found", "note"),
    [
        (9, "", Grid(3), ""),
        (6, "", Grid(6), ""),
        (6, "    def grid(self, example): return Grid(3)", Grid(3), ""),
        (9, "    def grid(self, example): return None", Grid(9), ""),
        (6, "    def grid(self, example): return Grid(4)", Grid(6), "does not hold 6 cells"),
        (6, "    def grid(self, example): return Grid(3, (1,))", Grid(6), "does not hold"),
        (6, "    def grid(self, example): return 1 / 0", Grid(6), "failed in line 12: Zero"),
    ],
)
def test_a_task_of_ones_own_may_lay_its_grid(
    tmp_path: Path, count: int, grid: str, found: Grid, note: str
) -> None:
    (tmp_path / "my.py").write_text(OWN.format(count=count, grid=grid))
    record = replace(RECORD, id="e3", answer="a" * count, committed_at=[0] * count)
    (replay,) = replays(write(tmp_path, [record], f"{tmp_path / 'my.py'}:Own"), None, None)
    assert replay.grid == found
    assert note in replay.notes.get("task", "") and bool(note) == ("task" in replay.notes)


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        ({"task": "no/such.py:Task", "task_knobs": {}}, "no file 'no/such.py' for task"),
        ({"task_knobs": {"side": 4, "data": "no/such.csv"}}, "cannot read no/such.csv"),
        ({"task_knobs": {"side": 9, "givens": "80"}}, "not found among the examples of sudoku"),
        ({"seed": 5}, "not found among the examples of sudoku"),
    ],
)
def test_a_record_does_without_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], note: str
) -> None:
    """Also where the task would go on making examples without end."""
    monkeypatch.setattr(items, "MOST", 50)
    replay = one(write(tmp_path, [solved(SUDOKUS[0])], **settings), SUDOKUS[0].id)
    assert replay.symbols == list(SUDOKUS[0].target)
    assert (replay.grid, replay.target) == (Grid(4), "")
    assert note in replay.notes["task"]


def test_an_example_with_other_givens_is_another_one(tmp_path: Path) -> None:
    record = solved(SUDOKUS[0])
    shifted = "".join(str(int(digit) % 4 + 1) for digit in record.answer)
    replay = one(write(tmp_path, [replace(record, answer=shifted)]), record.id)
    assert (replay.target, replay.notes["task"]) == ("", "sudoku has another example of this id")


def test_what_was_not_asked_has_no_trace(tmp_path: Path) -> None:
    record = replace(RECORD, id="q0", notes={"unasked": "prompt too long"})
    replay = one(write(tmp_path, [record], "no.py:Task"), "q0")
    assert (replay.symbols, replay.committed_at, replay.grid) == ([], [], None)
    assert replay.notes["unasked"] == "prompt too long"


@pytest.mark.parametrize("fields", [{"answer": "123"}, {"entropy": [0.5]}, {"pieces": ["a"]}])
def test_lists_that_differ_in_length_are_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    run = write(tmp_path, [replace(solved(SUDOKUS[0]), **fields)])
    with pytest.raises(UserError, match="the lists of record '4x4:test:0:0' differ in length"):
        replays(run, None, None)


def test_only_as_many_records_are_read_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write(tmp_path, [solved(e) for e in SUDOKUS])
    read: list[str] = []
    whole = Run.records

    def watched(self: Run) -> Iterator[Record]:
        for record in whole(self):
            read.append(record.id)
            yield record

    monkeypatch.setattr(Run, "records", watched)
    ids = [e.id for e in SUDOKUS]
    assert [r.id for r in replays(run, None, 2)] == read == ids[:2]
    assert [r.id for r in replays(run, {ids[3], ids[1]}, None)] == [ids[1], ids[3]]
    read.clear()
    assert one(run, ids[0]).id == ids[0] and read == ids[:1]


def test_examples_are_looked_for_beyond_the_first(tmp_path: Path) -> None:
    """A run may hold the hundredth of its task only."""
    (tmp_path / "my.py").write_text(QUESTION)
    run = write(tmp_path, [told(99)], f"{tmp_path / 'my.py'}:Echo")
    assert one(run, "q99").prompt == "Say 99."
    task: TextTask = resolve.task(f"{tmp_path / 'my.py'}:Echo", {})  # type: ignore[assignment]
    found = items.known_items(run, task, ["q70", "q3"], 1)
    assert sorted(found) == ["q3", "q70"] and isinstance(found["q3"], Question)
    assert items.known_items(run, task, [], 0) == {}


def test_an_id_may_be_told_by_its_beginning_or_its_end(tmp_path: Path) -> None:
    run = write(tmp_path, [replace(RECORD, id=id) for id in ("a:1", "a:11", "b:2")])
    assert [find(run, name) for name in ("a:1", "b", ":11", "2")] == ["a:1", "b:2", "a:11", "b:2"]
    with pytest.raises(UserError, match=r"'a' is 2 examples of .*\n.*: a:1, a:11$"):
        find(run, "a")
    with pytest.raises(UserError, match=r"no example 'a:12'\nthere are, .* a:1, a:11, b:2$"):
        find(run, "a:12")


def test_a_folder_of_one_run_is_that_run(tmp_path: Path) -> None:
    run = write(tmp_path, [])
    assert opened(tmp_path).path == opened(run.path).path == run.path
    write(tmp_path, [], seed=1)
    with pytest.raises(UserError, match=r"holds 2 runs\nname one, such as "):
        opened(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none is not a run"):
        opened(tmp_path / "none")
    with pytest.raises(UserError, match="has no whole record"):
        find(run, "a")


def test_a_torn_line_is_skipped(tmp_path: Path) -> None:
    run = write(tmp_path, [solved(SUDOKUS[0])])
    with (run.path / "records.jsonl").open("a") as file:
        file.write(json.dumps({"id": "half"})[:-3])
    assert [r.id for r in replays(run, None, None)] == [SUDOKUS[0].id]


def test_replays_need_no_torch(tmp_path: Path) -> None:
    write(tmp_path, [solved(SUDOKUS[0])])
    code = (
        "import sys, pathlib; from mdmbench import replay;"
        "assert replay.replays(replay.opened(pathlib.Path(sys.argv[1])), None, 1)[0].target;"
        "print({'torch', 'rich', 'pandas'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
