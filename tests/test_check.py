"""The gate: what fails it, what does not, and what a baseline file has to be."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_cli import document, fails, mdmbench
from test_table import EB, GAMMA, TOP1, record, write

from mdmbench import check, stats, verdict_table
from mdmbench.base import Seconds
from mdmbench.check import Checked, Entry
from mdmbench.compare import Matters
from mdmbench.errors import UserError
from mdmbench.samples import SCORE
from mdmbench.spec import RunSpec
from mdmbench.stats import Interval
from mdmbench.store import Run

Parts = tuple[list[float], list[float]]


def parts(ratio: float, swing: float = 0.0, n: int = 16) -> Parts:
    """Seconds of a run beside the reference rule's, which takes a second each; every other part
    is slower by this share, and every other one as much quicker."""
    return [ratio * (1 + swing * (-1) ** i) for i in range(n)], [1.0] * n


@pytest.fixture(autouse=True)
def as_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


TIMED = parts(0.5)
RULE = f"eb {GAMMA}=0.1 entropy"
NAME = f"sudoku tiny {RULE}"


def made(
    n: int = 800,
    lost: int = 0,
    gained: int = 0,
    *,
    nfe: float = 4,
    length: float = 48,
    seconds: Parts = TIMED,
    clock: str = "cpu",
    stored: Mapping[str, Any] | None = None,
    scores: Mapping[str, Sequence[Any]] | None = None,
    more: Mapping[str, Sequence[Any]] | None = None,
    **settings: Any,
) -> Entry:
    """Of n examples seven in eight are solved: of these some are lost, of the rest some gained."""
    least = n // 8
    solved = [0] * lost + [1] * (n - least - lost) + [1] * gained + [0] * (least - gained)
    settings = {"model": "tiny", "sampler": "eb", "knobs": EB, **settings}
    spec = {"task_version": "1", "headline": "solved"}
    spec |= {"settings": RunSpec(**settings).model_dump(), **(stored or {})}
    named = {SCORE + name: values for name, values in {"solved": solved, **(scores or {})}.items()}
    columns = {**named, "nfe": [nfe] * n, "length": [length] * n, **(more or {})}
    ids = [f"{i:04}" for i in range(n)]
    return Entry(spec, ids, columns, seconds, [clock])


def held(now: Entry, was: Entry | None = None, *limits: str) -> Checked:
    """Against 800 examples; limits are drops."""
    gated = check.limits(limits, [], ["solved"])
    return check.check([was or made()], [now], gated)


def outcomes(checked: Checked) -> dict[str, str]:
    return {gate.verdict.measure.name: gate.outcome for gate in checked.gates}


ALL = ("solved", "nfe", "tpf", "seconds")
PASSED = dict.fromkeys(ALL, "passes")


# What fails


def test_what_has_not_changed_passes() -> None:
    found = held(made())
    assert (outcomes(found), found.code, found.differences) == (PASSED, 0, [])


@pytest.mark.parametrize(
    ("lost", "gained", "p", "outcome"),
    [
        (0, 0, 1, "passes"),
        (7, 0, 4 / 2**7, "passes"),
        (8, 0, 4 / 2**8, "passes"),
        (9, 0, 4 / 2**9, "fails"),
        (30, 0, 4 / 2**30, "fails"),
        (30, 21, 0.52, "too few"),
        (0, 30, 1, "passes"),
    ],
)
def test_a_score_fails_where_more_than_a_point_is_lost_beyond_chance(
    lost: int, gained: int, p: float, outcome: str
) -> None:
    """8 of 800 are a point. p is McNemar's on one side, for four gates. Of so many flips each way
    nobody can tell whether a point was lost."""
    found = held(made(lost=lost, gained=gained))
    assert outcomes(found) == {**PASSED, "solved": outcome}
    assert found.gates[0].verdict.p == pytest.approx(p, abs=0.01)
    assert found.code == {"passes": 0, "fails": 1, "too few": 3}[outcome]


def test_the_question_is_one_sided() -> None:
    """Five lost of five: p is 1 / 32, where 2 / 32 would not fail."""
    (solved,) = (m for m in check.limits([], [], ["solved"]) if m.score)
    (gate,) = check.check([made(100)], [made(100, lost=5)], [solved]).gates
    assert (gate.outcome, gate.verdict.p) == ("fails", 1 / 32)
    (gate,) = check.check([made(100)], [made(100, gained=5)], [solved]).gates
    assert (gate.outcome, gate.verdict.p) == ("passes", 31 / 32)


@pytest.mark.parametrize(
    ("now", "failing"),
    [
        ({"nfe": 4.08}, []),
        ({"nfe": 4.1}, ["nfe", "tpf"]),
        ({"nfe": 2}, []),
        ({"length": 46}, ["tpf"]),
        ({"length": 50}, []),
        ({"seconds": parts(0.62)}, []),
        ({"seconds": parts(0.64)}, ["seconds"]),
        ({"seconds": parts(0.64, 0.05)}, ["seconds"]),
        ({"seconds": parts(0.1, 0.05)}, []),
    ],
    ids=str,
)
def test_a_cost_fails_where_it_rises_by_more_than_its_limit_beyond_chance(
    now: dict[str, Any], failing: list[str]
) -> None:
    """2 % of NFE and TPF, 25 % of seconds."""
    found = held(made(**now))
    assert outcomes(found) == {**PASSED, **dict.fromkeys(failing, "fails")}
    assert found.code == bool(failing)


def test_an_improvement_passes_everywhere() -> None:
    best = made(gained=50, nfe=1, seconds=parts(0.1, 0.05))
    found = held(best)
    assert outcomes(found) == PASSED and all(gate.verdict.p == 1 for gate in found.gates)


def test_a_failing_gate_names_its_run_and_its_measure() -> None:
    runs = [made(), made(lost=20, task="maze")]
    found = check.check([made(), made(task="maze")], runs, check.limits([], [], ["solved"]))
    (failing,) = (gate for gate in found.gates if gate.outcome == "fails")
    assert (failing.name, failing.verdict.measure.name) == (f"maze tiny {RULE}", "solved")
    assert found.code == 1 and len(found.gates) == 8


def test_p_is_corrected_for_the_gates_of_all_runs() -> None:
    """1 / 2**9 for four gates, for eight, and for twelve."""
    tasks = ["sudoku", "maze", "arithmetic"]
    for count in (1, 2, 3):
        old = [made(task=task) for task in tasks[:count]]
        new = [made(task=task, lost=9 * (task == "sudoku")) for task in tasks[:count]]
        found = check.check(old, new, check.limits([], [], ["solved"]))
        assert found.gates[0].verdict.p == 4 * count / 2**9


# Too few


@pytest.mark.parametrize(("n", "outcome"), [(380, "too few"), (381, "passes")])
def test_so_many_examples_must_rule_out_the_drop(n: int, outcome: str) -> None:
    """Without a flip the interval reaches to 3.84 / (n + 3.84)."""
    found = held(made(n), made(n))
    assert outcomes(found) == {**PASSED, "solved": outcome}
    assert found.code == (3 if outcome == "too few" else 0)


def test_a_limit_of_ten_points_needs_thirty_five_examples() -> None:
    assert held(made(35), made(35), "solved=10").code == 0
    assert held(made(34), made(34), "solved=10").code == 3


@pytest.mark.parametrize(("n", "outcome"), [(700, "too few"), (800, "passes")])
def test_or_be_able_to_show_it(n: int, outcome: str) -> None:
    """Five lost leave more than a point possible; four times in five so many show 7.8 / n."""
    found = held(made(n, lost=5), made(n))
    assert outcomes(found) == {**PASSED, "solved": outcome}


@pytest.mark.parametrize(
    ("lost", "outcome", "code"), [(0, "passes", 0), (7, "too few", 3), (8, "fails", 1)]
)
def test_what_passes_could_have_failed(lost: int, outcome: str, code: int) -> None:
    """Of 600 more than a point, for twelve gates: p is 12 / 2**7 or 12 / 2**8."""
    tasks = ["sudoku", "maze", "arithmetic"]
    old = [made(600, task=task) for task in tasks]
    new = [made(600, lost=lost * (task == "sudoku"), task=task) for task in tasks]
    found = check.check(old, new, check.limits([], [], ["solved"]))
    assert [gate.outcome for gate in found.gates] == [outcome] + ["passes"] * 11
    assert found.code == code


def test_more_gates_need_more_examples() -> None:
    """Eight of 800 show a point if 2**8 is above twenty times the gates: of 12, and not of 16."""
    for count, outcome in ((3, "passes"), (4, "too few")):
        runs = [made(), *(made(model=f"{i}") for i in range(count - 1))]
        found = check.check(runs, [made(lost=5), *runs[1:]], check.limits([], [], ["solved"]))
        assert [gate.outcome for gate in found.gates] == [outcome] + ["passes"] * (4 * count - 1)


def test_a_cost_that_swings_too_much_tells_nothing() -> None:
    """As many calls in the mean; the half that took one takes seven, and the other way round."""
    was, now = (made(more={"nfe": swing * 400}) for swing in ([1, 7], [7, 1]))
    found = held(now, was)
    assert outcomes(found) == {**PASSED, "nfe": "too few", "tpf": "too few"} and found.code == 3


def test_fewer_than_six_examples_tell_nothing() -> None:
    found = held(made(5, nfe=40), made(5), "solved=100")
    assert outcomes(found) == dict.fromkeys(ALL, "too few") and found.code == 3


def test_a_loss_that_shows_fails_however_few_the_examples_are() -> None:
    found = held(made(100, lost=20), made(100))
    assert outcomes(found)["solved"] == "fails" and found.code == 1


def test_examples_of_both_count() -> None:
    """An entry of 800 and a run of its first 30."""
    found = held(made(30))
    assert {gate.verdict.n for gate in found.gates} == {30} and found.code == 3


def test_runs_without_a_common_example_tell_nothing() -> None:
    apart = replace(made(1), ids=["x"])
    found = held(apart)
    assert set(outcomes(found).values()) == {"too few"}
    assert found.gates[0].verdict.why == "no example has it in both"


BATCHES = "too few batches to be timed, or not as many as then"


@pytest.mark.parametrize(
    ("was", "now", "outcome"), [(6, 6, "passes"), (5, 5, "too few"), (16, 15, "too few")]
)
def test_parts_are_compared_that_are_enough_and_as_many(was: int, now: int, outcome: str) -> None:
    found = held(made(seconds=parts(0.5, n=now)), made(seconds=parts(0.5, n=was)))
    assert outcomes(found) == {**PASSED, "seconds": outcome}
    assert found.gates[-1].verdict.why == (BATCHES if outcome == "too few" else "")


def test_seconds_that_swing_too_much_tell_nothing() -> None:
    """Twice as slow in the mean, and no part like the next one."""
    found = held(made(seconds=parts(1, 0.9)), made(seconds=parts(0.5, -0.9)))
    assert outcomes(found) == {**PASSED, "seconds": "too few"}


def test_what_is_hard_in_a_part_is_in_both() -> None:
    """Every other part takes 19 times as long, then as now."""
    hard = made(seconds=parts(0.5, 0.9))
    assert outcomes(held(hard, hard)) == PASSED
    assert outcomes(held(made(seconds=parts(0.65, 0.9)), hard))["seconds"] == "fails"


@pytest.mark.parametrize("untimed", ["was", "now"])
def test_what_was_not_timed_tells_nothing_of_time(untimed: str) -> None:
    quick, never = made(), made(seconds=([], []))
    found = held(never, quick) if untimed == "now" else held(quick, never)
    assert outcomes(found) == {**PASSED, "seconds": "too few"}
    assert found.gates[-1].verdict.why == BATCHES and found.code == 3


# Limits


def test_limits_are_a_point_two_per_cent_and_a_quarter() -> None:
    found = {m.name: m.margin for m in check.limits([], [], ["solved", "cells"])}
    assert found == {"solved": 0.01, "cells": 0.01, "nfe": 0.02, "tpf": 0.02, "seconds": 0.25}


def test_limits_can_be_set_each_on_the_side_that_is_a_loss() -> None:
    drops, rises = ["solved=2.5", "tpf=5%"], ["nfe=10%", "seconds=100%"]
    found = {m.name: m.margin for m in check.limits(drops, rises, ["solved"])}
    assert found == {"solved": 0.025, "tpf": 0.05, "nfe": 0.1, "seconds": 1}
    assert outcomes(held(made(lost=16), None, "solved=2")) == PASSED
    assert outcomes(held(made(lost=17), None, "solved=2"))["solved"] == "fails"


@pytest.mark.parametrize(
    ("drops", "rises", "says"),
    [
        (["nfe=2%"], [], "--max-drop nfe: a drop of it is no loss\nuse --max-rise"),
        (["seconds=2%"], [], "--max-drop seconds: a drop of it is no loss\nuse --max-rise"),
        ([], ["solved=1"], "--max-rise solved: a rise of it is no loss\nuse --max-drop"),
        ([], ["tpf=1%"], "--max-rise tpf: a rise of it is no loss\nuse --max-drop"),
        (["solved=1%"], [], "'solved=1%' is no margin\nwrite solved=1, in points"),
        ([], ["nfe=1"], "'nfe=1' is no margin\nwrite nfe=2%"),
        (["solve=1"], [], "unknown measure 'solve'\ndid you mean 'solved'?"),
    ],
)
def test_a_limit_that_is_none_is_a_mistake(drops: list[str], rises: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        check.limits(drops, rises, ["solved"])
    assert str(error.value).startswith(says)


def test_of_the_scores_the_headline_is_gated_and_those_that_are_asked_for() -> None:
    cells = {"cells": [0.5] * 800, "other": [0.5] * 800}
    lost = {"cells": [0.4] * 800, "other": [0] * 800}
    gated = check.limits(["cells=5"], [], ["cells", "other", "solved"])
    old, worse = [made(scores=cells)], [made(scores=lost)]
    assert set(outcomes(check.check(old, worse, gated))) == set(ALL)
    found = outcomes(check.check(old, worse, gated, {"cells"}))
    assert found == {**PASSED, "cells": "fails"}


def test_a_score_of_one_task_only_can_be_gated() -> None:
    old = [made(), made(task="maze", scores={"strict": [1] * 800})]
    gated = check.limits(["strict=1"], [], check.scores(old))
    found = check.check(old, old, gated, {"strict"})
    names = [gate.name for gate in found.gates if gate.verdict.measure.name == "strict"]
    assert names == [f"maze tiny {RULE}"] and found.code == 0


# Settings


def test_other_settings_are_said_and_still_compared() -> None:
    now = made(knobs={**EB, "gamma": 0.5}, block_length=27, stored={"model_digest": "cd"})
    found, bolder = held(now), NAME.replace("0.1", "0.5")
    said = [(name, d.name, d.one, d.other, d.matters) for name, d in found.differences]
    assert said == [
        (bolder, "block_length", None, 27, Matters.canvas),
        (bolder, "model weights", None, "cd", Matters.canvas),
        (bolder, "knobs.gamma", 0.1, 0.5, Matters.rule),
    ]
    assert outcomes(found) == PASSED and found.code == 0


def test_another_clock_is_said_and_still_compared() -> None:
    found = held(made(clock="cuda"), made(clock="cpu"))
    ((name, said),) = found.differences
    assert (name, said.name, said.one, said.other) == (NAME, "machine", "cpu", "cuda")
    assert said.matters is Matters.clock and outcomes(found) == PASSED


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({"task_version": "2"}, "task_version is '1' in the baseline and '2' now"),
        ({"files": {"task": "cd"}}, "task file is None in the baseline and 'cd' now"),
    ],
)
def test_other_questions_are_a_mistake(stored: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        held(made(stored=stored))
    assert error.value.message == f"{NAME}: {says}"
    assert "write the baseline anew with --update" in error.value.hint


@pytest.mark.parametrize("other", [{"task": "maze"}, {"model": "big"}, {"sampler": "topk"}])
def test_a_run_without_an_entry_is_a_mistake(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no baseline of") as error:
        held(made(**other))
    assert error.value.hint.endswith(f"known: {NAME}")
    assert next(iter(other.values())) in error.value.message


def test_each_entry_holds_one_run_and_those_of_one_rule_go_by_their_order() -> None:
    old = [made(nfe=4), made(nfe=2)]
    gated = check.limits([], [], ["solved"])
    assert check.check(old, [made(nfe=4), made(nfe=2)], gated).code == 0
    assert check.check(old, [made(nfe=2), made(nfe=4)], gated).code == 1
    with pytest.raises(UserError, match="no baseline of"):
        check.check(old, [made()] * 3, gated)


@pytest.mark.parametrize(
    ("planned", "says"),
    [
        (["sudoku"], "sudoku eb: 2 runs in the baseline, 1 planned"),
        (["sudoku"] * 3, "sudoku eb: 2 runs in the baseline, 3 planned"),
        (["sudoku", "sudoku", "maze"], "maze eb: 0 runs in the baseline, 1 planned"),
    ],
)
def test_entries_and_runs_that_are_not_as_many_are_a_mistake(planned: list[str], says: str) -> None:
    old = [made(), made(knobs={**EB, "gamma": 0.5})]
    check.expect(old, [RunSpec(task="sudoku", sampler="eb")] * 2)
    with pytest.raises(UserError) as error:
        check.expect(old, [RunSpec(task=task, sampler="eb") for task in planned])
    assert error.value.message == says
    assert error.value.hint == "mend the recipe, or write the baseline anew with --update"


def test_two_runs_of_a_rule_have_two_names() -> None:
    runs = [made(knobs={**EB, "gamma": gamma}) for gamma in (0.1, 0.5)]
    found = check.check(runs, runs, check.limits([], [], ["solved"]))
    names = list(dict.fromkeys(gate.name for gate in found.gates))
    assert names == [NAME, NAME.replace("0.1", "0.5")]


def test_samples_of_an_example_are_one_example() -> None:
    """800 samples of 80 examples cannot show a point."""
    samples = {"example": [f"e{i % 80}" for i in range(800)]}
    found = held(made(more=samples), made(more=samples))
    assert outcomes(found)["solved"] == "too few" and found.gates[0].verdict.n == 80


# The file


def test_a_baseline_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = [made(40), made(30, task="maze", seconds=([], []))]
    file = tmp_path / "new" / "folder" / "ci.json"
    check.write(file, entries)
    found = check.read(file)
    assert found == entries and found[0].seconds == TIMED
    assert check.scores(found) == ["solved"]
    text = file.read_text()
    assert text.endswith("\n") and list(json.loads(text)) == ["schema", "digest", "entries"]
    check.write(file, found)
    assert file.read_text() == text


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"nfe": [4, 4', '"nfe": [9, 4', "was changed by hand: its digest does not fit"),
        ('"task_version": "1"', '"task_version": "2"', "was changed by hand"),
        ('"seconds": [[0.5', '"seconds": [[0.9', "was changed by hand"),
        ('"clocks": ["cpu', '"clocks": ["cuda', "was changed by hand"),
        ('"digest": "', '"digest": "0', "was changed by hand"),
        ('"digest"', '"was"', "was changed by hand"),
        ('"schema": 1', '"schema": 2', "is no baseline file of schema 1"),
        ('"entries"', '"runs"', "is no baseline file of schema 1"),
        ('{"schema"', '[{"schema"', "is no baseline file: "),
    ],
)
def test_a_baseline_file_that_was_edited_is_a_mistake(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    file = tmp_path / "b.json"
    check.write(file, [made(8)])
    edit(file, old, new)
    with pytest.raises(UserError) as error:
        check.read(file)
    assert error.value.message.startswith(f"{file} {says}")
    assert error.value.hint == "write it with mdmbench check --update"


@pytest.mark.parametrize("content", [b"", b"{", b"nonsense", b"[]", b"1", b"\xff\xfe", b"{}"])
def test_what_is_no_baseline_file_is_a_mistake(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "b.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"b\.json is no baseline file") as error:
        check.read(file)
    assert error.value.hint == "write it with mdmbench check --update"


def test_a_baseline_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no baseline file .*b\.json\nwrite it with mdmbench"):
        check.read(tmp_path / "b.json")
    with pytest.raises(UserError, match=r"is no baseline file: .*directory"):
        check.read(tmp_path)


def test_a_baseline_file_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "b.json", tmp_path):
        with pytest.raises(UserError, match=f"cannot write {path}: "):
            check.write(path, [made(8)])


# What is kept of a run


def timed(
    out: Path,
    sampler: str,
    seconds: Sequence[float],
    backwards: bool = False,
    knobs: dict[str, Any] | None = None,
    **more: Any,
) -> Run:
    ids = [f"{i:03}" for i in range(len(seconds))][:: -1 if backwards else 1]
    knobs = knobs or (EB if sampler == "eb" else TOP1)
    records = [
        record(id, 4, seconds=Seconds(s), **more) for id, s in zip(ids, seconds, strict=True)
    ]
    return write(out, sampler, knobs, records)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_entry_keeps_the_scores_and_the_costs_of_a_run(tmp_path: Path, bad: float) -> None:
    run = write(
        tmp_path,
        "eb",
        EB,
        [
            record("b", 9, scores={"solved": 1.0, "cells": 0.25}, length=40, forward_tokens=700),
            record("a", 8, scores={"solved": bad}),
        ],
    )
    found = check.entry(run, run)
    assert found.spec == run.spec and found.ids == ["a", "b"]
    assert found.columns == {
        "score.cells": [None, 0.25],
        "score.solved": [None, 1],
        "nfe": [8, 9],
        "length": [48, 40],
    }
    assert found.key == ("sudoku", "tiny", "eb")
    assert found.clocks == ["cpu, unknown threads, batch size 4"]
    assert found.samples.averaged(SCORE + "solved") == [1]
    json.dumps(found.columns, allow_nan=False)


def test_an_entry_keeps_what_its_records_are_samples_of(tmp_path: Path) -> None:
    made = [record(f"{e}#{i}", 4, i, meta={"example": e}) for e in "ab" for i in range(2)]
    run = write(tmp_path, "eb", EB, made)
    found = check.entry(run, run)
    assert found.columns["example"] == ["a", "a", "b", "b"]
    assert found.samples.averaged(SCORE + "solved") == [0.5, 0.5]


@pytest.mark.parametrize(
    ("n", "batch", "count"),
    [(64, 1, 16), (96, 4, 16), (64, 8, 8), (24, 4, 6), (23, 4, 5), (5, 4, 1), (3, 4, 0), (0, 4, 0)],
)
def test_seconds_are_those_of_equal_parts_with_a_batch_in_each(
    tmp_path: Path, n: int, batch: int, count: int
) -> None:
    """Sixteen at most, in the order in which they were made."""
    spent = [float(i) for i in range(n)]
    run = timed(tmp_path, "eb", spent, backwards=True, batch_size=batch)
    own, reference = check.entry(run, run).seconds
    assert own == reference == sorted(own) and len(own) == count
    assert sum(own) == (sum(spent) if count else 0)
    if count == 8:
        assert own == [sum(range(low, low + 8)) for low in range(0, 64, 8)]


def ratio(run: Run, reference: Run) -> Interval:
    found = stats.ratio(*check.entry(run, reference).seconds)
    assert found
    return found


DRIFT = [1 + i / 16 for i in range(64)]
"""The machine is five times as slow in the end."""


def test_what_slows_the_machine_down_is_in_both_runs_and_cancels(tmp_path: Path) -> None:
    """They are paired by when they were made, whatever the examples are called."""
    rule = timed(tmp_path, "eb", [0.1 * d for d in DRIFT], backwards=True)
    reference = timed(tmp_path, "topk", [0.2 * d for d in DRIFT])
    assert ratio(rule, reference) == pytest.approx(Interval(0.5, 0.5, 0.5))


def test_what_slows_one_run_down_is_seen(tmp_path: Path) -> None:
    rule = timed(tmp_path, "eb", [0.1 * d for d in DRIFT])
    found = ratio(rule, timed(tmp_path, "topk", [0.2] * 64))
    assert found.value == pytest.approx(0.5 * sum(DRIFT) / 64)
    assert found.low < 0.8 * found.value and found.high > 1.2 * found.value


def test_the_gate_of_time_holds_on_any_machine(tmp_path: Path) -> None:
    """Three times as slow for both passes; twice as slow for the rule alone does not."""

    def one(name: str, rule: float, reference: float) -> Entry:
        noise = [1 + 0.05 * math.sin(i) for i in range(64)]
        out = tmp_path / name
        return check.entry(
            timed(out, "eb", [rule * x for x in noise]),
            timed(out, "topk", [reference * x for x in noise[::-1]]),
        )

    was = one("was", 0.1, 0.2)
    for now, outcome in (
        (one("same", 0.1, 0.2), "passes"),
        (one("slow machine", 0.3, 0.6), "passes"),
        (one("slow rule", 0.2, 0.2), "fails"),
        (one("quick rule", 0.05, 0.2), "passes"),
    ):
        assert outcomes(held(now, was))["seconds"] == outcome


def test_a_clock_that_stands_still_has_timed_nothing(tmp_path: Path) -> None:
    run, still = timed(tmp_path, "eb", [0.1] * 64), timed(tmp_path, "topk", [0] * 64)
    (gate,) = check.check(*[[check.entry(run, still)]] * 2, check.limits([], [], [])[2:]).gates
    assert (gate.verdict.measure.name, gate.outcome) == ("seconds", "too few")


def test_the_reference_rule_runs_beside_all_runs_of_its_settings(tmp_path: Path) -> None:
    """Each at its own settings; what the reference rule brings along of its own is the same."""
    asked: list[list[RunSpec]] = []

    def decode(specs: Sequence[RunSpec]) -> list[tuple[Path, object]]:
        asked.append(list(specs))
        out = tmp_path / f"{len(asked)}"
        spent = [0.1 * (1 + (s.sampler == "topk")) * len(asked) for s in specs]
        made = [
            timed(out / f"{i}", s.sampler, [spent[i]] * 32, knobs=s.knobs)
            for i, s in enumerate(specs)
        ]
        return [(run.path, None) for run in made]

    rule = RunSpec(sampler="topk", knobs={"k": 16}, seed=9)
    specs = [
        RunSpec(model="tiny", knobs=EB, block_length=27, steps=5),
        RunSpec(model="tiny", knobs={**EB, "gamma": 2.0}, block_length=27),
        RunSpec(task="maze", knobs=EB, seed=3),
    ]
    found = check.measured(decode, specs, rule)
    assert [together[1:] for together in asked] == [specs[:2], specs[2:]]
    for other, spec, *_ in asked:
        assert (other.sampler, other.knobs, other.steps) == ("topk", {"k": 16}, None)
        kept = ("task", "model", "seed", "block_length")
        assert [getattr(other, k) for k in kept] == [getattr(spec, k) for k in kept]
    assert [e.spec["settings"]["knobs"]["gamma"] for e in found] == [0.1, 2, 0.1]
    assert [e.seconds[0][0] for e in found] == pytest.approx([0.4, 0.4, 0.8])
    assert [e.seconds[1][0] for e in found] == pytest.approx([0.8, 0.8, 1.6])


# What is printed


def two() -> Checked:
    """The mazes lose and are slower; the Sudokus are too few, and their gamma is another one."""
    old = [made(100), made(task="maze")]
    new = [
        made(100, knobs={**EB, "gamma": 0.5}),
        made(task="maze", lost=20, nfe=5, seconds=parts(1.5, 0.2)),
    ]
    return check.check(old, new, check.limits([], [], ["solved"]))


def test_the_table_of_the_gates_ends_with_what_fails() -> None:
    expected = """\

  run                            measure     n              baseline                   now              change        p   limit    shows   gate
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  sudoku tiny eb γ=0.5 entropy   nfe       100                     4                     4               0.0 %    1.000     2 %      0 %   passes
  sudoku tiny eb γ=0.5 entropy   tpf       100                  12.0                  12.0               0.0 %    1.000     2 %      0 %   passes
  sudoku tiny eb γ=0.5 entropy   seconds   100                   0.5                   0.5               0.0 %    1.000    25 %      0 %   passes
  sudoku tiny eb γ=0.5 entropy   solved    100   88.0 % [80.2, 93.0]   88.0 % [80.2, 93.0]    0.0 [-3.7, +3.7]    1.000       1     7.67   too few: 100 examples cannot
                                                                                                                                           show it
  maze tiny eb γ=0.1 entropy     solved    800   87.5 % [85.0, 89.6]   85.0 % [82.4, 87.3]   -2.5 [-3.8, -1.6]   <0.001       1     1.56   fails
  maze tiny eb γ=0.1 entropy     nfe       800                     4                     5             +25.0 %   <0.001     2 %      0 %   fails
  maze tiny eb γ=0.1 entropy     tpf       800                  12.0                   9.6             -20.0 %   <0.001     2 %      0 %   fails
  maze tiny eb γ=0.1 entropy     seconds   800                   0.5      1.5 [1.35, 1.65]       3x [2.7, 3.3]   <0.001    25 %   14.3 %   fails

sudoku tiny eb γ=0.5 entropy: knobs.gamma: 0.1 in the baseline, 0.5 now
"""  # noqa: E501, RUF001
    console = Console(width=170, file=io.StringIO(), color_system=None)
    console.print(verdict_table.rich_gates(two()))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines == expected.splitlines()


def test_the_document_of_the_gates_has_exactly_these_keys() -> None:
    found = json.loads(json.dumps(verdict_table.gates_document(two()), allow_nan=False))
    assert list(found) == ["schema", "code", "gates", "differences"]
    assert (found["schema"], found["code"], len(found["gates"])) == (1, 1, 8)
    gate = found["gates"][4]
    assert {"run", "outcome", "measure", "n", "a", "b", "change", "p", "margin"} <= set(gate)
    assert [gate[k] for k in ("run", "outcome", "measure", "n", "margin")] == [
        f"maze tiny {RULE}",
        "fails",
        "solved",
        800,
        0.01,
    ]
    assert gate["change"]["value"] == -0.025
    bolder = NAME.replace("0.1", "0.5")
    assert found["differences"] == [
        {"run": bolder, "name": "knobs.gamma", "baseline": 0.1, "now": 0.5}
    ]


# The command


RECIPE = """\
limit: 12
task_knobs: {givens: 66-70}
sampler: eb
gamma: 0.1
reference: {sampler: topk, k: 16}
"""
UNTIMED = ["--max-rise", "seconds=100000%", "--batch-size", "2"]
"""Time on a busy machine is no promise; there are six batches, and so six parts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and the baseline that was made by it."""
    out = tmp_path_factory.mktemp("check")
    (out / "mine.yaml").write_text(RECIPE)
    command = ["check", "--config", out / "mine.yaml", "--baseline", out / "b.json", "--update"]
    command += ["--batch-size", "2"]
    result = mdmbench(*command)
    said = f"{out / 'b.json'}: 12 examples of sudoku {RULE}\n"
    assert (result.exit_code, result.stdout) == (0, said)
    return out


def checked(folder: Path, *arguments: str | Path) -> Any:
    command = ["check", "--config", folder / "mine.yaml", "--baseline", folder / "b.json"]
    return mdmbench(*command, *UNTIMED, *arguments)


def test_nothing_changed_passes_where_the_examples_suffice(folder: Path) -> None:
    result = checked(folder, "--max-drop", "solved=50", "--json")
    found = document(result)
    assert found["code"] == result.exit_code == 0
    assert {g["measure"]: g["outcome"] for g in found["gates"]} == PASSED
    by_name = {g["measure"]: g for g in found["gates"]}
    assert by_name["nfe"]["change"]["value"] == by_name["tpf"]["change"]["value"] == 1
    assert "passes" in result.stderr and {g["run"] for g in found["gates"]} == {f"sudoku {RULE}"}


def test_too_few_examples_are_said(folder: Path) -> None:
    result = checked(folder)
    assert result.exit_code == 3
    assert "too few: 12 examples cannot show it" in " ".join(result.stdout.split())
    result = checked(folder, "--limit", "5", "--json")
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == found["code"] == 3
    assert {g["outcome"] for g in found["gates"]} == {"too few"}
    assert {g["n"] for g in found["gates"]} == {5}


def test_a_new_baseline_ignores_the_limits_and_has_a_line_for_each_run(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE.replace("gamma: 0.1", "gamma: [0.1, 2]"))
    file = tmp_path / "b.json"
    command = ["check", "--config", tmp_path / "r.yaml", "--baseline", file, "--update"]
    result = mdmbench(*command, "--limit", "2", "--max-drop", "none=1")
    bolder = RULE.replace("0.1", "2")
    lines = [f"{file}: 2 examples of sudoku {rule}" for rule in (RULE, bolder)]
    assert (result.exit_code, result.stdout.splitlines()) == (0, lines)
    assert [check.name(entry) for entry in check.read(file)] == [
        f"sudoku {RULE}",
        f"sudoku {bolder}",
    ]


def test_a_rule_that_costs_more_fails_and_the_knob_is_said(folder: Path) -> None:
    result = checked(folder, "--gamma", "0")
    assert result.exit_code == 1
    called = f"sudoku eb {GAMMA}=0 entropy"
    assert f"{called}: knobs.gamma: 0.1 in the baseline, 0.0 now" in result.stdout
    lines = {line.split()[4]: line for line in result.stdout.splitlines() if f"{called} " in line}
    assert lines["nfe"].rstrip().endswith("fails") and lines["tpf"].rstrip().endswith("fails")
    assert "fails: worse with p < 0.05" in result.stdout


def test_the_runs_of_a_check_are_kept_where_they_are_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "kept"
    assert checked(folder, "--limit", "2", "--out", out).exit_code == 3
    assert len(list(out.iterdir())) == 2
    said = fails(
        "check", "--config", folder / "mine.yaml", "--baseline", folder / "b.json", "--out", out
    )
    assert f"{out} is not empty" in said and "name a new folder" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-drop", "nfe=1%"], "--max-drop nfe: a drop of it is no loss\n  use --max-rise"),
        (["--max-rise", "nfe"], "'nfe' is no margin"),
        (["--max-drop", "slved=1"], "did you mean 'solved'?"),
        (["--baseline", "nowhere.json"], "no baseline file nowhere.json\n  write it with"),
        (["--config", "nowhere"], "nowhere"),
        (["--gamma", "much"], "gamma is 'much'"),
    ],
)
def test_a_mistake_ends_in_one_message(folder: Path, arguments: list[str], says: str) -> None:
    command = ["check", "--config", folder / "mine.yaml", "--baseline", folder / "b.json"]
    assert says in fails(*command, *arguments)


def test_a_baseline_of_another_task_is_a_mistake(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "maze.yaml").write_text("limit: 2\ntask: maze\nsampler: eb\n")
    out = tmp_path / "out"
    command = ["check", "--config", tmp_path / "maze.yaml", "--baseline", folder / "b.json"]
    said = fails(*command, "--out", out)
    assert "eb: " in said and " planned\n  mend the recipe" in said and not out.exists()
