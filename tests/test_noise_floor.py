"""The same run under other numerics: what flips, what is greyed out, and what is not."""

import io
import json
import math
import re
import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from test_cli import PUZZLE, document, fails, mdmbench
from test_table import EB, TOP1, record, write

from mdmbench import bundled, compare, drift, floor, models, rows, store, table, vary, verdict_table
from mdmbench.errors import UserError
from mdmbench.floor import Drift, Noise
from mdmbench.store import Run
from mdmbench.verdicts import Mark, Measure, inside

SOLVED = Measure("solved", "solved", 0.01, up=True, score=True, floor=0.005)
NFE = Measure("nfe", "nfe", 0.02, floor=0.02)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five puzzles, two at a time, by the shipped model."""
    out = tmp_path_factory.mktemp("made")
    command = ["run", "--gamma", "0.1", "--limit", "5", "--batch-size", "2", "--no-baseline"]
    assert mdmbench(*command, "--out", out).exit_code == 0
    (run,) = store.runs([out])
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be varied."""
    return Path(shutil.copytree(made, tmp_path / "out" / made.name))


def ids(path: Path) -> list[str]:
    """Of the only run in a folder, or of a run, in the order of its records."""
    (there,) = store.runs([path])
    return [record.id for record in there.records()]


def cut(run: Path, keep: Sequence[int]) -> None:
    """Leaves only these of its lines."""
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(lines[i] for i in keep))


def measured(run: Run, numbers: Mapping[str, float]) -> None:
    """As if a noise floor had been measured."""
    (run.path / "noise.json").write_text(json.dumps({"floor": numbers, "drifts": []}))


# Variations


def test_in_fp32_no_answer_flips_at_another_batch_size_or_in_another_order(run: Path) -> None:
    found = document(mdmbench("noise", run, "--json"))
    assert list(found) == ["schema", "run", "floor", "drifts"]
    assert (found["schema"], found["run"]) == (1, str(run))
    assert [d["variation"] for d in found["drifts"]] == ["batch-size-1", "order-reversed"]
    for seen in found["drifts"]:
        assert [seen[k] for k in ("n", "answers", "nfe", "lost", "gained")] == [5, 0, 0, [], []]
    assert set(found["floor"].values()) == {0}
    assert next(iter(found["floor"])) == "solved" and "seconds" not in found["floor"]
    assert floor.read(run) == found["floor"]


def test_no_flip_is_said_as_what_it_is(run: Path) -> None:
    """The end of Wilson's interval of 0 of 5."""
    said = " ".join(mdmbench("noise", run, "--batch-size", "1").stdout.split())
    assert said.endswith(
        "noise floor of solved: 0 points (none of 5 flipped, which leaves up to 43 % possible), "
        "of nfe: 0 %"
    )


def test_a_variation_is_a_run_of_its_own_inside_the_run(run: Path) -> None:
    before = document(mdmbench("table", run.parent, "--json"))
    command = ["noise", run, "--dtype", "bfloat16", "--batch-size", "1", "--json"]
    assert len(document(mdmbench(*command))["drifts"]) == 2
    assert [there.path for there in store.runs([run.parent])] == [run]
    assert [there.path for there in store.runs([run])] == [run]
    (row,) = document(mdmbench("table", run.parent, "--json"))["rows"]
    assert row == {**before["rows"][0], "floor": row["floor"]} and row["floor"]
    (other,) = store.runs([run / "noise" / "dtype-bfloat16"])
    assert other.spec["settings"] == {**Run(run).spec["settings"], "dtype": "bfloat16"}
    assert {r.batch_size for r in other.records()} == {2}
    (other,) = store.runs([run / "noise" / "batch-size-1"])
    assert other.spec == Run(run).spec and other.path.name == run.name
    assert {r.batch_size for r in other.records()} == {1}


def test_a_run_made_one_at_a_time_is_varied_by_two(run: Path, made: Path, tmp_path: Path) -> None:
    """Alone in its batch an example ends before the next one begins: the order shows."""
    assert mdmbench("noise", run, "--batch-size", "1", "--order", "reversed").exit_code == 0
    alone = run / "noise" / "batch-size-1" / run.name
    found = document(mdmbench("noise", alone, "--json"))
    assert [d["variation"] for d in found["drifts"]] == ["batch-size-2", "order-reversed"]
    assert ids(alone / "noise" / "order-reversed") == ids(alone)[::-1]


def test_variations_are_taken_up_where_they_stopped(run: Path) -> None:
    command = ["noise", run, "--batch-size", "1", "--json"]
    first = document(mdmbench(*command))
    there = run / "noise" / "batch-size-1" / run.name
    whole = (there / "records.jsonl").read_bytes()
    assert document(mdmbench(*command)) == first
    assert (there / "records.jsonl").read_bytes() == whole
    cut(there, [0, 1])
    (run / "noise.json").unlink()
    assert document(mdmbench(*command)) == first
    lines = (there / "records.jsonl").read_bytes().splitlines()
    assert lines[:2] == whole.splitlines()[:2] and len(lines) == 5


def test_only_the_examples_that_the_run_has_are_made_again(run: Path) -> None:
    """At most --limit of them, the task's first; more can be made later."""
    order = sorted(ids(run), key=lambda id: int(id.rpartition(":")[2]))
    kept = [ids(run).index(order[i]) for i in (1, 2, 4)]
    cut(run, kept)
    command = ["noise", run, "--batch-size", "1", "--json"]
    assert document(mdmbench(*command, "--limit", "2"))["drifts"][0]["n"] == 2
    assert ids(run / "noise" / "batch-size-1") == [order[1], order[2]]
    assert document(mdmbench(*command))["drifts"][0]["n"] == 3
    assert ids(run / "noise" / "batch-size-1") == [order[1], order[2], order[4]]


def test_an_order_of_chance_is_the_same_every_time(run: Path) -> None:
    assert mdmbench("noise", run, "--order", "shuffled").exit_code == 0
    before = ids(run / "noise" / "order-shuffled")
    shutil.rmtree(run / "noise")
    assert mdmbench("noise", run, "--order", "shuffled").exit_code == 0
    assert ids(run / "noise" / "order-shuffled") == before
    assert sorted(before) == sorted(ids(run))


def test_one_model_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["run", "--task", "arithmetic", "--gamma", "1", "--limit", "1", "--no-baseline"]
    assert mdmbench(*command, "--out", tmp_path).exit_code == 0
    held: list[weakref.ref[object]] = []
    beside = []

    def load(*arguments: Any, **options: Any) -> object:
        beside.append(sum(model() is not None for model in held))
        made = loaded(*arguments, **options)
        held.append(weakref.ref(made))
        return made

    loaded = models.load
    monkeypatch.setattr(models, "load", load)
    (run,) = store.runs([tmp_path])
    assert mdmbench("noise", run.path, "--batch-size", "2,3,4").exit_code == 0
    assert beside[1:] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch-size", "0"], "batch size '0'"),
        (["--batch-size", "1,many"], "batch size 'many'"),
        (["--dtype", "float8"], "dtype is 'float8'"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--order", "revesed"], "did you mean 'reversed'?"),
        (["--limit", "0"], "--limit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_before_anything_is_made(run: Path, arguments: list[str], says: str) -> None:
    assert says in fails("noise", run, *arguments)
    assert not (run / "noise").exists() and not (run / "noise.json").exists()


def test_what_is_no_run_or_an_empty_one_is_refused(run: Path, tmp_path: Path) -> None:
    assert "is not a run" in fails("noise", run.parent)
    assert "is not a run" in fails("noise", tmp_path / "nowhere")
    cut(run, [])
    assert "has no whole record" in fails("noise", run)


def test_a_run_whose_model_has_changed_is_not_made_again(tmp_path: Path) -> None:
    model = shutil.copytree(bundled.models()["sudoku"], tmp_path / "m")
    command = ["run", "--model", model, "--gamma", "1", "--limit", "1", "--no-baseline"]
    assert mdmbench(*command, "--out", tmp_path / "out").exit_code == 0
    (run,) = store.runs([tmp_path / "out"])
    (model / "more.json").write_text("{}")
    message = fails("noise", run.path)
    assert "cannot be made again: model weights was " in message
    assert repr(run.spec["model_digest"]) in message


def test_a_run_whose_puzzles_have_changed_is_not_made_again(tmp_path: Path) -> None:
    """The file by its content, its examples by their ids."""
    data = tmp_path / "p.csv"
    data.write_text(f"id,puzzle\none,{PUZZLE}\n")
    command = ["run", "-T", f"data={data}", "--no-baseline", "--out", tmp_path / "out"]
    assert mdmbench(*command).exit_code == 0
    (run,) = store.runs([tmp_path / "out"])
    records = run.path / "records.jsonl"
    records.write_text(records.read_text().replace('"one"', '"two"'))
    assert "task sudoku has no example two any more" in fails("noise", run.path)
    data.write_text(f"id,puzzle\ntwo,{PUZZLE}\n")
    assert "cannot be made again: task data was " in fails("noise", run.path)


def test_a_puzzle_that_is_never_generated_is_not_sought_for_ever(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vary, "FARTHEST", 10)
    records = run / "records.jsonl"
    records.write_text(records.read_text().replace("9x9:test:0:3", "9x9:test:0:x"))
    assert "has no example 9x9:test:0:x any more" in fails("noise", run)


def test_a_run_of_another_version_is_not_made_again(run: Path) -> None:
    spec = json.loads((run / "spec.json").read_text())
    (run / "spec.json").write_text(json.dumps({**spec, "version": "0.0.1"}))
    assert "cannot be made again: version was '0.0.1' and is " in fails("noise", run)


# The floor


@pytest.mark.parametrize(
    ("lost", "gained", "wanted"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (1, 1, 2),
        (3, 3, 1.96 * math.sqrt(6)),
        (9, 1, 8),
        (20, 0, 20),
    ],
)
def test_flips_both_ways_do_not_cancel_out(lost: int, gained: int, wanted: float) -> None:
    """Few may all have gone one way, many hardly; what they did is never inside the floor."""
    parts = np.array([-1] * lost + [1] * gained + [0] * (200 - lost - gained)) / 200
    assert drift.reach(float(parts.sum()), parts) == pytest.approx(wanted / 200)


def twice(tmp_path: Path) -> Run:
    """A run of six, made again twice: once d is lost and e gained, once a's NFE is another."""
    run = write(tmp_path, "eb", EB, [record(id, 10, id != "e") for id in "abcdef"])
    flipped = [record(id, 10, id != "d", answer="2" if id in "def" else "1") for id in "abcdef"]
    write(run.path / "noise" / "dtype-bfloat16", "eb", EB, flipped, dtype="bfloat16")
    slower = [record(id, 10 + 6 * (id == "a"), id != "e") for id in "abcde"]
    write(run.path / "noise" / "batch-size-1", "eb", EB, slower)
    return run


def test_a_drift_holds_the_units_of_its_docstring(tmp_path: Path) -> None:
    noise = drift.measured(twice(tmp_path))
    slower, flipped = noise.drifts
    assert (slower.variation, slower.n, slower.answers, slower.nfe) == ("batch-size-1", 5, 0, 1)
    assert slower.changes == pytest.approx(
        {"solved": 0, "nfe": 0.12, "tpf": 1 / 1.12 - 1, "forward_tokens": 0.12}
    )
    assert (flipped.n, flipped.answers, flipped.nfe) == (6, 3, 0)
    assert (flipped.lost, flipped.gained) == (["d"], ["e"])
    assert flipped.changes == {"solved": 0, "nfe": 0, "tpf": 0, "forward_tokens": 0}
    assert noise.floor == pytest.approx(
        {"solved": 2 / 6, "nfe": 0.12, "tpf": 0.12, "forward_tokens": 0.12}
    )


def test_samples_of_an_example_are_one_example(tmp_path: Path) -> None:
    made, again = (
        [
            record(f"e{i}#{j}", 5, j < right, answer=f"{j < right}", meta={"example": f"e{i}"})
            for i in range(3)
            for j in range(4)
        ]
        for right in (2, 4)
    )
    run = write(tmp_path, "eb", EB, made)
    write(run.path / "noise" / "batch-size-1", "eb", EB, again)
    (found,) = drift.measured(run).drifts
    assert (found.n, found.answers, found.gained) == (3, 3, ["e0", "e1", "e2"])
    assert found.changes["solved"] == 0.5


def test_what_was_made_comes_back_from_the_file(tmp_path: Path) -> None:
    run = twice(tmp_path)
    noise = drift.measured(run)
    floor.write(run, noise)
    assert floor.read(run.path) == noise.floor
    assert sorted(p.name for p in run.path.iterdir()) == [
        "env.json",
        "noise",
        "noise.json",
        "records.jsonl",
        "spec.json",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"floor": {}}',
        '{"floor": {"solved": -1}, "drifts": []}',
        '{"floor": {"solved": NaN}, "drifts": []}',
        '{"floor": {}, "drifts": [], "more": 1}',
    ],
)
def test_a_broken_file_is_named_with_the_way_out(tmp_path: Path, text: str) -> None:
    run = write(tmp_path / "out", "eb", EB, [record("a", 1)])
    (run.path / "noise.json").write_text(text)
    for command in (["table", run.path], ["compare", run.path, run.path]):
        message = fails(*command)
        assert f"{run.path}/noise.json cannot be read" in message
        assert f"delete it; mdmbench noise {run.path} makes it again" in message


def rendered(run: Run, noise: Noise) -> str:
    console = Console(width=110, file=io.StringIO(), color_system=None)
    console.print(drift.table(run, noise))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_the_table_of_variations(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 1)], {"headline": "solved"})
    drifts = [
        Drift("batch-size-1", 200, 0, 0, [], [], {"solved": 0.0, "nfe": 0.0, "tpf": 0.0}),
        Drift("dtype-bfloat16", 200, 7, 12, ["a", "b"], ["c"], {"solved": -0.005, "nfe": 0.0031}),
    ]
    noise = Noise({"solved": 0.015, "nfe": 0.0031, "tpf": 0.0}, drifts)
    assert rendered(run, noise) == (
        f"eb γ=0.1 entropy · {run.path.name}\n"  # noqa: RUF001
        """\

  variation          n   answers   lost   gained   NFE   solved       nfe   tpf
 ───────────────────────────────────────────────────────────────────────────────
  batch-size-1     200         0      0        0     0        0       0 %   0 %
  dtype-bfloat16   200         7      2        1    12     -0.5   +0.31 %     -

  noise floor                                               1.5    0.31 %   0 %
"""
    )
    assert drift.told(run, noise) == (
        "noise floor of solved: 1.5 points (3 of 200 flipped), of nfe: 0.31 %"
    )


# Tables


def five(tmp_path: Path) -> list[Run]:
    """Top-1; one that loses 1 of 40 and is a little cheaper; one that loses 4 and is cheap."""
    near = [record(f"{i:02}", 47, i > 0) for i in range(40)]
    far = [record(f"{i:02}", 24, i > 3) for i in range(40)]
    return [
        write(tmp_path, "topk", TOP1, [record(f"{i:02}", 48) for i in range(40)]),
        write(tmp_path, "eb", EB, near),
        write(tmp_path, "random", {"k": 2}, far),
    ]


def test_a_value_inside_the_floor_is_marked(tmp_path: Path) -> None:
    """1 of 40 is as much as a floor of 2.5 points, whatever rounding says; JSON and CSV say it by
    the floor."""
    base, near, far = five(tmp_path)
    assert "~" not in table.markdown(rows.rows([base, near, far]))
    measured(near, {"solved": 0.025, "nfe": 0.03})
    found = rows.rows([base, near, far])
    assert [row.inside for row in found] == [set(), {"solved", "nfe"}, set()]
    assert [row.floor for row in found] == [{}, {"solved": 0.025, "nfe": 0.03}, {}]
    lines = table.markdown(found).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[2:5]] for line in lines[4:7]]
    assert cells[0] == ["100.0 [91.2, 100.0]", "48.0", "1.0x"]
    assert cells[1] == ["~97.5 [87.1, 99.6]", "47.0", "~1.0x"]
    assert cells[2] == ["90.0 [76.9, 96.0]", "24.0", "2.0x"]
    assert lines[-1] == table.NOTE
    text = table.latex(found)
    assert r"& \textasciitilde{}97.5 [87.1, 99.6] & 47.0 & \textasciitilde{}1.0x &" in text
    assert text.splitlines()[1] == f"% {table.NOTE}"
    plain = table.document(found)["rows"]
    assert [row["floor"] for row in plain] == [row.floor for row in found]
    assert "inside" not in plain[0] and "~" not in json.dumps(plain)
    assert "~" not in table.csv(found) and "floor.solved,floor.nfe" in table.csv(found)


def test_the_floor_of_the_baseline_counts_for_its_rows(tmp_path: Path) -> None:
    """As independent errors add up: 6 and 8 points are 10. The baseline itself is no change of
    itself."""
    base, near, far = five(tmp_path)
    measured(base, {"solved": 0.08})
    found = {row.sampler: row.inside for row in rows.rows([base, near, far])}
    assert found == {"topk": set(), "eb": {"solved"}, "random": set()}
    measured(far, {"solved": 0.06})
    found = {row.sampler: row.inside for row in rows.rows([base, near, far])}
    assert found == {"topk": set(), "eb": {"solved"}, "random": {"solved"}}


def test_where_no_answer_flipped_no_value_is_marked(tmp_path: Path) -> None:
    same = [record(f"{i}", 48) for i in range(8)]
    runs = [write(tmp_path, "topk", TOP1, same), write(tmp_path, "eb", EB, same)]
    measured(runs[1], {"solved": 0.0, "nfe": 0.0})
    assert [row.inside for row in rows.rows(runs)] == [set(), set()]
    measured(runs[1], {"solved": 0.1})
    assert [row.inside for row in rows.rows(runs)] == [set(), {"solved"}]


def test_a_terminal_greys_what_is_inside_and_says_why(tmp_path: Path) -> None:
    base, near, far = five(tmp_path)
    measured(near, {"solved": 0.025})
    shown = printed([base, near, far])
    assert shown.count("~") == 2 and len(re.findall("\N{ESC}\\[2m +~97.5", shown)) == 1
    assert " ".join(shown.split()).count("numerics alone move it") == 1
    measured(near, {"solved": 0.02})
    assert "~" not in printed([base, near, far])


def printed(runs: list[Run]) -> str:
    console = Console(width=150, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(table.rich_table(rows.rows(runs)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Comparisons


@pytest.mark.parametrize(
    ("measure", "change", "wanted"),
    [
        (SOLVED, 0.995 - 0.99, True),
        (SOLVED, -0.005, True),
        (SOLVED, 0.0051, False),
        (NFE, 1.02, True),
        (NFE, 1 / 1.02, True),
        (NFE, 1.021, False),
        (NFE, 0.0, False),
        (Measure("nfe", "nfe", 0.02), 1.0, False),
    ],
)
def test_a_change_is_inside_either_way(measure: Measure, change: float, wanted: bool) -> None:
    assert inside(change, measure) == wanted


def marks(one: Run, other: Run) -> dict[str, tuple[Mark, str]]:
    return {v.measure.name: (v.mark, v.why) for v in compare.compare(one, other).verdicts}


def test_no_change_inside_the_noise_floor_is_better_or_worse(tmp_path: Path) -> None:
    """B is worse in 10 of 40, and takes 4 % more calls in each."""
    a = write(tmp_path / "a", "topk", TOP1, [record(f"{i:02}", 50) for i in range(40)])
    b = write(tmp_path / "b", "topk", TOP1, [record(f"{i:02}", 52, i > 9) for i in range(40)])
    found = marks(a, b)
    assert found["solved"] == found["nfe"] == (Mark.worse, "")
    measured(a, {"solved": 0.25, "nfe": 0.03})
    measured(b, {"solved": 0.01, "nfe": 0.04})
    found = marks(a, b)
    assert found["solved"] == (Mark.undecided, "inside the noise floor of 25 points")
    assert found["nfe"] == (Mark.undecided, "inside the noise floor of 5 %")
    assert found["forward_tokens"] == (Mark.worse, "")
    back = marks(b, a)
    assert [back[name][0] for name in ("solved", "nfe")] == [Mark.undecided] * 2
    measured(a, {"solved": 0.24, "nfe": 0.02})
    measured(b, {"solved": 0.01, "nfe": 0.03})
    found = marks(a, b)
    assert found["solved"] == found["nfe"] == (Mark.worse, "")


def test_what_is_the_same_stays_the_same(tmp_path: Path) -> None:
    one = [record(f"{i:02}", 50) for i in range(40)]
    a, b = (write(tmp_path / name, "topk", TOP1, one) for name in "ab")
    measured(a, {"nfe": 0.1})
    assert marks(a, b)["nfe"] == (Mark.same, "")


def test_the_reason_stands_beside_what_was_left_out(tmp_path: Path) -> None:
    """Two of B's examples have no score, and it has lost the others."""
    a = write(tmp_path / "a", "topk", TOP1, [record(f"{i:02}", 50) for i in range(14)])
    lost = [record(f"{i:02}", 50, scores={"solved": 0.0} if i > 1 else {}) for i in range(14)]
    b = write(tmp_path / "b", "topk", TOP1, lost)
    measured(b, {"solved": 1.0})
    (found,) = (v for v in compare.compare(a, b).verdicts if v.measure.name == "solved")
    assert verdict_table.cells(found)[-1] == (
        "? undecided: 2 of 14 examples have no number; inside the noise floor of 100 points"
    )


def test_a_floor_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 1)])
    (run.path / "noise.json").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*noise\.json"):
        floor.write(run, Noise({}, []))
