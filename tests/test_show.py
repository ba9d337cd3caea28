"""`mdmbench show`: what a terminal or a pipe gets to see of one decoded example."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_replay import OWN, QUESTION, RECORD, solved, told, write
from typer.testing import CliRunner

from mdmbench import resolve, show
from mdmbench.cli import app
from mdmbench.frame import Frame
from mdmbench.replay import one
from mdmbench.store import Record, Run

SUDOKU = next(iter(resolve.task("sudoku", {"side": 4}).examples(1, 0)))  # type: ignore[attr-defined]
MAZE = next(iter(resolve.task("maze", {"size": 5}).examples(1, 0)))  # type: ignore[attr-defined]


def mdmbench(*arguments: str | Path, columns: int = 60) -> Any:
    environment = {"COLUMNS": str(columns)}
    return CliRunner(env=environment).invoke(app, list(map(str, arguments)), catch_exceptions=False)


def shown(*arguments: str | Path, columns: int = 60) -> str:
    result = mdmbench("show", *arguments, columns=columns)
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    return "\n" + "\n".join(lines) + "\n"


def fails(*arguments: str | Path) -> str:
    result = mdmbench("show", *arguments)
    assert result.exit_code == 2, result.output
    return str(result.stderr)


def quick(record: Record) -> Record:
    """The same in two steps, the blanks' last one wrong, with what the model thought."""
    filled = [i for i, at in enumerate(record.committed_at) if at >= 0]
    half = len(filled) // 2
    steps = enumerate(record.committed_at)
    at = [min(step, int(i not in filled[:half])) for i, step in steps]
    answer = list(record.answer)
    answer[filled[-1]] = "1" if answer[filled[-1]] != "1" else "2"
    entropy = [0.25 * (i % 3) if i in filled else 0.0 for i in range(len(at))]
    return replace(
        record,
        answer="".join(answer),
        scores={"solved": 0.0, "cells": 0.875},
        committed_at=at,
        entropy=entropy,
        confidence=[1 - e if i in filled else 0.0 for i, e in enumerate(entropy)],
    )


@pytest.fixture
def sudoku(tmp_path: Path) -> Run:
    return write(tmp_path / "a", [quick(solved(SUDOKU))])


@pytest.fixture
def text(tmp_path: Path) -> Run:
    (tmp_path / "my.py").write_text(QUESTION)
    record = replace(
        told(),
        pieces=["0", ".", "\nend", ""],
        committed_at=[1, 2, 0, -1],
        confidence=[0.25, 1, 0.5, 0],
        entropy=[0.75, 0, 0.5, 0],
        notes={"extracted": "0\n."},
    )
    return write(tmp_path / "c", [record], f"{tmp_path / 'my.py'}:Echo")


@pytest.fixture
def slow(tmp_path: Path) -> Run:
    return write(tmp_path / "b", [solved(SUDOKU)], sampler="topk")


def test_a_sudoku_is_drawn_with_its_boxes_steps_and_mistakes(sudoku: Run) -> None:
    name = sudoku.path.name
    assert (
        shown(sudoku.path, "0:0")
        == f"""
4x4:test:0:0  {name}
solved 0, cells 0.875, NFE 2

in the end        step
┌──────┬──────┐   ┌──────┬──────┐
│ 3  1 │ 2  4 │   │ 0  · │ ·  0 │
│ 4  2 │ 3  1 │   │ 0  0 │ ·  0 │
├──────┼──────┤   ├──────┼──────┤
│ 1  3 │ 4  2 │   │ ·  1 │ 1  1 │
│ 2  4 │ 1  1!│   │ 1  · │ 1  1 │
└──────┴──────┘   └──────┴──────┘

· or bold: given, ! not the reference
1 of 11 differ from the reference: r4c4 1 for 3

step  filled  bound nats  where
   0       5       0.500  r1c1=3 r1c4=4 r2c1=4 r2c2=2 r2c4=1
   1       6       0.750  r3c2=3 r3c3=4 r3c4=2 r4c1=2 r4c3=…

"""
    )


def test_a_canvas_can_be_seen_after_any_step(sudoku: Run) -> None:
    found = shown(sudoku.path, "0:0", "--step", "0", "--by", "entropy")
    assert (
        found.split("NFE 2\n")[1]
        == """
after step 0 of 1   entropy
┌──────┬──────┐     ┌──────────┬──────────┐
│ 3  1 │ 2  4 │     │0.00    · │   · 0.00 │
│ 4  2 │ 3  1 │     │0.25 0.50 │   · 0.25 │
├──────┼──────┤     ├──────────┼──────────┤
│ 1  ░ │ ░  ░ │     │   ·      │          │
│ ░  4 │ ░  ░ │     │        · │          │
└──────┴──────┘     └──────────┴──────────┘

· or bold: given, ░ not filled
1 of 11 differ from the reference: r4c4 1 for 3

step  filled  bound nats  where
   0       5       0.500  r1c1=3 r1c4=4 r2c1=4 r2c2=2 r2c4=1

"""
    )


def test_a_narrow_terminal_has_one_grid_below_the_other(sudoku: Run) -> None:
    lines = shown(sudoku.path, "0:0", columns=30).splitlines()
    assert lines.count("┌──────┬──────┐") == 2
    assert max(map(len, lines)) <= 30


def test_a_maze_has_its_walls_and_a_long_list_is_folded(tmp_path: Path) -> None:
    run = write(tmp_path, [solved(MAZE)], "maze", task_knobs={"size": 5})
    assert (
        shown(run.path, "0-0", "--step", "19").split("NFE 2\n")[1]
        == """
after step 19 of 24     step
┌───────────────┬───┐   ┌───────────────┬───┐
│ #   #   #   # │ . │   │ 0   1   2   3 │ 4 │
│   ┌───┬───╴   │   │   │   ┌───┬───╴   │   │
│ # │ . │T#   # │ . │   │ 5 │ 6 │ 7   8 │ 9 │
│   │   │   ╶───┤   │   │   │   │   ╶───┤   │
│ # │S# │ .   . │ . │   │10 │11 │12  13 │14 │
│   ╵   ├───╴   │   │   │   ╵   ├───╴   │   │
│ #   # │ .   . │ . │   │15  16 │17  18 │19 │
├───╴   │   ╶───┘   │   ├───╴   │   ╶───┘   │
│ ░   ░ │ ░   ░   ░ │   │       │           │
└───────┴───────────┘   └───────┴───────────┘

░ not filled

step  filled  bound nats  where
   0       1           -  r1c1=#
   1       1           -  r1c2=#
   2       1           -  r1c3=#
   3       1           -  r1c4=#
   4       1           -  r1c5=.
   5       1           -  r2c1=#
   6       1           -  r2c2=.
   7       1           -  r2c3=#
   8       1           -  r2c4=#
   9       1           -  r2c5=.
 ...  5 steps more
  15       1           -  r4c1=#
  16       1           -  r4c2=#
  17       1           -  r4c3=.
  18       1           -  r4c4=.
  19       1           -  r4c5=.

"""
    )


def test_a_text_is_a_text_with_a_block_where_nothing_is_filled(text: Run) -> None:
    assert (
        shown(text.path, "q0", "--step", "1", "--by", "confidence")
        == f"""
q0  {text.path.name}
solved 1, NFE 2

Say 0.

after step 1 of 2
0░↵
end░

░ not filled

step  filled  bound nats  where
   0       1       0.000  2='\\nend' (0.50)
   1       1       0.000  0='0' (0.25)

reference
0
extracted: 0 .
"""
    )


def test_the_tail_of_a_text_is_said_once(tmp_path: Path) -> None:
    pieces = ["a", *["<pad>"] * 8]
    record = replace(told(), pieces=pieces, committed_at=[9, *range(8)])
    run = write(tmp_path, [record], "no.py:Task")
    assert "\na<pad>·······\n\n· the same again\n" in shown(run.path, "q0")
    assert "\n░<pad>··░░░░░\n\n░ not filled\n" in shown(run.path, "q0", "--step", "2")


def test_symbols_of_a_row_are_spaced_and_wrapped(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(OWN.format(count=6, grid=""))
    record = replace(RECORD, id="e0", answer="aabaaa", committed_at=[5, 4, 3, 2, 1, 0])
    found = shown(write(tmp_path, [record], f"{tmp_path / 'my.py'}:Own").path, "e0")
    assert "\na a b! a a a\n" in found
    assert "\n1 of 6 differ from the reference: 2 b for a\n" in found
    assert "\n   3       1           -  2=b!\n" in found


def test_two_runs_stand_side_by_side_where_there_is_room(sudoku: Run, slow: Run) -> None:
    found = shown(sudoku.path, "0:0", "--with", slow.path, "--step", "4", columns=80)
    line = "│ 1  3 │ 4  2 │     │ ·  1 │ 1  1 │      │ 1  ░ │ ░  ░ │      │ ·    │      │"
    assert line in found.splitlines()
    below = shown(sudoku.path, "0:0", "--with", slow.path, "--step", "4", columns=30)
    assert below.count("4x4:test:0:0") == 2 and max(map(len, below.splitlines())) <= 30


def test_without_an_id_the_first_are_named(tmp_path: Path) -> None:
    records = [replace(RECORD, id=f"e{i}", scores={"solved": i / 4}) for i in range(2)]
    records.append(replace(RECORD, id="long", scores={}, notes={"unasked": "too long"}))
    run = write(tmp_path, records)
    assert (
        shown(run.path, columns=200)
        == f"""
example   solved       NFE
──────────────────────────
e0             0         2
e1          0.25         2
long           -   unasked

to see one: mdmbench show {run.path} e0
"""
    )
    with run.writing({}) as append:
        append(replace(RECORD, id=f"f{i}") for i in range(30))
    found = shown(run.path, columns=200)
    assert "\nf16 " in found and "\nf17 " not in found and "and more; to see one" in found


def test_json_ends_stdout_and_holds_every_run(sudoku: Run, slow: Run) -> None:
    result = mdmbench("show", sudoku.path, "0:0", "--with", slow.path, "--json")
    (line,) = result.stdout.splitlines()
    first, second = json.loads(line)["replays"]
    assert (first["run"], second["run"]) == (sudoku.path.name, slow.path.name)
    assert first["grid"] == {"width": 4, "walls": [9, 3, 9, 3, 12, 6, 12, 6] * 2, "marks": []}
    assert first["target"] == "".join(SUDOKU.target) == "".join(second["symbols"])
    assert first["committed_at"][0] == 0 and first["nfe"] == 2
    assert "in the end" in result.stderr


def test_what_was_not_asked_is_said(tmp_path: Path) -> None:
    record = replace(RECORD, id="q0", scores={}, nfe=0, notes={"unasked": "prompt of 9 tokens"})
    run = write(tmp_path, [record], "no.py:Task")
    assert "\nno trace: prompt of 9 tokens\n" in shown(run.path, "q0")
    assert "q0 has no step 0\n  its record has no trace" in fails(run.path, "q0", "--step", "0")


def test_mistakes_of_the_user_are_said(sudoku: Run, slow: Run, tmp_path: Path) -> None:
    assert "no folder" in fails(tmp_path / "no")
    assert "has no whole record" in fails(write(tmp_path / "empty", []).path)
    assert "has no whole record" in fails(write(tmp_path / "empty", []).path, "0:0")
    assert "no example 'x'\n  there are, for example, 4x4:test:0:0" in fails(sudoku.path, "x")
    assert "no step 2\n  its last step is 1" in fails(sudoku.path, "0:0", "--step", "2")
    assert "has kept no entropy" in fails(slow.path, "0:0", "--by", "entropy")
    assert "--play needs a terminal" in fails(sudoku.path, "0:0", "--play")
    other = write(tmp_path / "other", [replace(RECORD, id="a")])
    assert "are both runs of the same task?" in fails(sudoku.path, "0:0", "--with", other.path)


def test_a_record_cannot_command_the_terminal(tmp_path: Path) -> None:
    record = replace(
        told(), id="q\x1b[2J", pieces=["\x1b]0;x\x07", "\r", "\t", "[red]"], notes={"a\x9b": "\x1b"}
    )
    run = write(tmp_path, [record], "no.py:Task")
    for found in (shown(run.path, "q"), shown(run.path)):
        assert found.replace("\n", "").isprintable()
    assert "\\x1b]0;x\\x07\\r" in shown(run.path, "q", columns=200)


def terminal(**options: Any) -> Console:
    fixed: dict[str, Any] = {"width": 60, "color_system": "truecolor", "force_terminal": True}
    return Console(file=io.StringIO(), **fixed, **options)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_colours_say_the_step_and_bold_what_was_given(sudoku: Run) -> None:
    frame = Frame(one(sudoku, SUDOKU.id))
    styles = {span.style for span in frame.canvas().spans}
    assert styles == {"bold", "#ffffff on #3b0f70", "#000000 on #fcfdbf"}
    after = Frame(frame.replay, "confidence", 0).canvas()
    assert {span.style for span in after.spans} == {
        "bold",
        "dim",
        "bold underline #ffffff on #3b0f70",
        "bold underline #ffffff on #c43c75",
        "bold underline #000000 on #fcfdbf",
    }
    for options, colored in (({}, True), ({"no_color": True}, False)):
        console = terminal(**options)
        console.print(show.Beside(show.views([sudoku], [frame.replay], "step", None)))
        assert ("48;2;252;253;191" in written(console)) == colored
        assert ("step 0 " in written(console)) == colored


def test_a_terminal_plays_every_step_in_place(sudoku: Run, slow: Run) -> None:
    runs = [sudoku, slow]
    console = terminal(height=40)
    show.play(console, show.views(runs, [one(r, SUDOKU.id) for r in runs], "step", None), 0)
    found = written(console)
    assert found.count("before the first step") == 2
    assert "after step 1 of 1" in found and "after step 2 of 1 " not in found
    assert all(f"after step {i} of 10" in found for i in range(11))
