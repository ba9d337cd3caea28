"""Whose turn it is, in a run of several and in a sweep; and a whole sweep."""

import json
import math
from pathlib import Path

import pytest
from test_cli import document, fails, mdmbench
from test_table import record

from mdmbench import sequential
from mdmbench.pace import TURN, Pace, Progress, Sweep, together

MARGIN = 0.4


def progress(n: int, baseline: Progress | None = None, samples: int = 1) -> Progress:
    """Of n records, so many of each example."""
    examples = [f"e{i // samples}" for i in range(n)]
    return Progress("solved", [f"{i}" for i in range(n)], examples, baseline)


def do(
    run: Progress, count: int, nfe: int = 4, solved: float = 1, start: int | None = None
) -> None:
    """The next examples, or those from `start` on."""
    first = run.done if start is None else start
    for id in run.ids[first : first + count]:
        run.add(record(id, nfe, solved))


def driven(pace: Pace, runs: dict[str, Progress], nfe: dict[str, int], most: int = 999) -> str:
    """Who was on turn, until all is done or there were so many turns."""
    turns = ""
    while len(turns) < most and (turn := pace(list(runs.values()))):
        (name,) = (name for name, run in runs.items() if run is turn.who)
        assert turn.who.done < turn.until <= len(turn.who.ids)
        do(turn.who, turn.until - turn.who.done, nfe[name])
        turns += name
    return turns


def served(pace: Pace, *runs: Progress) -> Progress | None:
    turn = pace(runs)
    return turn and turn.who


def needed(change: float) -> int:
    """Examples that decide at MARGIN if each of them changes as much."""
    return next(n for n in range(1, 99) if sequential.verdict([change] * n, MARGIN))


# Progress


def test_progress_knows_what_is_done_and_what_it_cost() -> None:
    run = progress(4)
    assert (run.done, run.left, run.cost, run.has("1")) == (0, 4, 0, False)
    run.add(record("1", 6, 0))
    run.add(record("0", 4, 1))
    assert (run.done, run.left, run.cost, run.prefix) == (2, 2, 5, 2)
    assert (run.has("1"), run.has("3")) == (True, False)
    assert run.score.tolist() == pytest.approx([1, 0, math.nan, math.nan], nan_ok=True)


def test_a_cost_is_that_of_the_records_before_the_first_missing_one() -> None:
    """The quick ones are done first; without a prefix nothing is known yet."""
    run = progress(4)
    run.add(record("1", 2))
    run.add(record("3", 2))
    assert (run.done, run.prefix, run.cost) == (2, 0, 0)
    run.add(record("0", 10))
    assert (run.done, run.prefix, run.cost) == (3, 2, 6)


def test_changes_are_those_of_whole_examples_that_both_have() -> None:
    """Three samples each: of the last example the run has two, and the baseline all."""
    base, run = progress(9, samples=3), progress(9, samples=3)
    do(base, 9)
    for solved in (1, 0, 0, 1, 1, 1, 0, 0):
        do(run, 1, solved=solved)
    assert run.changes(base).tolist() == pytest.approx([-2 / 3, 0])
    assert base.changes(run).tolist() == pytest.approx([2 / 3, 0])
    do(run, 1, solved=1)
    assert run.changes(base).tolist() == pytest.approx([-2 / 3, 0, -2 / 3])
    assert progress(9, samples=3).changes(base).tolist() == []


def test_an_example_counts_once_and_one_that_is_not_asked_for_not_at_all() -> None:
    run = progress(2)
    for made in (record("0", 6, 0), record("0", 8, 1), record("z", 99)):
        run.add(made)
    assert (run.done, run.left, run.cost, run.score[0]) == (1, 1, 8, 1)


def test_a_record_without_the_score_has_lost(tmp_path: Path) -> None:
    run = progress(1)
    run.add(record("0", 4, scores={}))
    assert (run.done, run.score[0]) == (1, 0)


# Side by side


def test_together_all_runs_have_the_same_share_of_their_examples_done() -> None:
    runs = {"a": progress(4), "b": progress(4), "c": progress(8)}
    turns = driven(together, runs, {"a": 1, "b": 100, "c": 10})
    assert turns == "abccabcc" * 2
    assert all(run.left == 0 for run in runs.values())


def test_together_takes_up_the_run_that_is_behind() -> None:
    runs = {"a": progress(4), "b": progress(4)}
    do(runs["a"], 3)
    assert driven(together, runs, {"a": 1, "b": 1}) == "bbbab"


def test_nobody_is_on_turn_where_nothing_is_left() -> None:
    run = progress(2)
    do(run, 2)
    for pace in (together, Sweep(), Sweep(MARGIN)):
        assert pace([]) is None and pace([run]) is None


# A sweep


def test_a_sweep_goes_in_rounds_with_the_cheapest_first() -> None:
    """Nobody is known to be cheap before he has been tried."""
    runs = {name: progress(40) for name in "abc"}
    assert driven(Sweep(), runs, {"a": 9, "b": 2, "c": 5}) == "abc" + "bca" * 2
    assert TURN == 16 and all(run.done == 40 for run in runs.values())


def test_a_turn_ends_with_its_round_or_with_the_examples() -> None:
    run = progress(40)
    untils = []
    while turn := Sweep()([run]):
        untils.append(turn.until)
        do(run, turn.until - run.done)
    assert untils == [16, 32, 40]
    turn = Sweep()([progress(5)])
    assert turn and turn.until == 5


def test_a_sweep_that_was_stopped_goes_on_where_it_stood() -> None:
    """The other's first round first, and then the rest of the second."""
    runs = {"a": progress(40), "b": progress(40)}
    do(runs["a"], 20, 2)
    do(runs["b"], 5, 9)
    turn = Sweep()(list(runs.values()))
    assert turn and turn.who is runs["b"] and turn.until == 16
    assert driven(Sweep(), runs, {"a": 2, "b": 9}) == "babab"


@pytest.mark.parametrize(
    ("won", "lost", "turns"),
    [(6, 0, "cocodd"), (5, 0, "cdocdo"), (10, 1, "cocodd"), (10, 4, "cdocdo")],
)
def test_a_run_that_a_cheaper_one_beats_waits_until_the_others_are_done(
    won: int, lost: int, turns: str
) -> None:
    """By two-sided binomial tests of the flips: p is 2 / 64, 2 / 32, 24 / 2048 and 0.18."""
    cheap, dear, other = progress(48), progress(48), progress(48)
    for run, solved in ((cheap, 1), (dear, 0)):
        do(run, won, 2 if run is cheap else 9, solved)
        do(run, lost, 2 if run is cheap else 9, 1 - solved)
        do(run, 16 - won - lost, 2 if run is cheap else 9, 1)
    do(other, 16, 20)
    runs = {"c": cheap, "d": dear, "o": other}
    assert driven(Sweep(), runs, {"c": 2, "d": 9, "o": 20}) == turns


def test_a_dear_run_beats_no_cheap_one() -> None:
    cheap, dear = progress(48), progress(48)
    do(cheap, 16, 2, 0)
    do(dear, 16, 9, 1)
    assert driven(Sweep(), {"c": cheap, "d": dear}, {"c": 2, "d": 9}) == "cdcd"


def beaten(samples: int, start: int = 0) -> tuple[Progress, Progress, Progress]:
    """Of 48 records one run has won the first sixteen, at less, and a third one is dear; `start`
    is where the second one's begin."""
    cheap, dear, other = (progress(48, samples=samples) for _ in range(3))
    do(cheap, 16, 2, 1)
    do(dear, 16, 9, 0, start)
    do(other, 16, 20)
    return cheap, dear, other


def test_samples_of_one_example_beat_nobody() -> None:
    """Sixteen flips of sixteen examples are enough, and as many of four are not."""
    for samples, who in ((1, "o"), (4, "d")):
        cheap, dear, other = beaten(samples)
        do(cheap, 32, 2)
        assert served(Sweep(), cheap, dear, other) is {"d": dear, "o": other}[who]


def test_nobody_is_beaten_by_what_lies_behind_a_missing_record() -> None:
    cheap, dear, other = beaten(1, start=2)
    do(cheap, 32, 2)
    do(dear, 1, 9, 0, start=0)
    assert (dear.done, dear.prefix) == (17, 1)
    assert served(Sweep(), cheap, dear, other) is dear


def test_a_baseline_that_others_need_does_not_wait_for_them() -> None:
    """A cheaper run beats it, and its own runs are compared with it all the same."""
    cheap, dear, other = beaten(1)
    do(cheap, 32, 2)
    assert served(Sweep(), cheap, dear, other) is other
    other.baseline = dear
    assert served(Sweep(), cheap, dear, other) is dear


# A sweep that stops


def compared(n: int, *scores: float) -> tuple[Progress, Progress]:
    """A baseline that has solved all n examples, and a run with these scores of the first ones."""
    base = progress(n)
    run = progress(n, base)
    do(base, n)
    for score in scores:
        do(run, 1, 2, score)
    return base, run


@pytest.mark.parametrize("score", [1, 0])
def test_a_run_stops_where_its_loss_is_shown_within_or_beyond_the_margin(score: float) -> None:
    """At the very example; without a margin never."""
    enough = needed(score - 1)
    base, run = compared(99, *[score] * (enough - 1))
    assert served(Sweep(MARGIN), base, run) is run
    do(run, 1, 2, score)
    assert served(Sweep(MARGIN), base, run) is None
    assert served(Sweep(), base, run) is run


def test_a_loss_of_about_the_margin_is_never_decided() -> None:
    base, run = compared(99, *[1, 0, 1, 0, 1] * 19)
    assert served(Sweep(MARGIN), base, run) is run and run.done == 95


def test_a_smaller_margin_takes_more_examples() -> None:
    base, run = compared(99, *[1] * needed(0))
    assert served(Sweep(MARGIN), base, run) is None
    assert served(Sweep(MARGIN / 2), base, run) is run


def test_a_baseline_goes_on_until_all_that_need_it_are_decided() -> None:
    """One is decided in the first round. The other loses every fourth example of the first round
    and none of the second, which counts as soon as the baseline has it too."""
    base = progress(64)
    same, some = progress(64, base), progress(64, base)
    sweep = Sweep(MARGIN)
    do(base, 16, 9)
    do(same, 16, 2)
    for i in range(16):
        do(some, 1, 1, i % 4 > 0)
    assert served(sweep, base, same) is None
    assert served(sweep, base, same, some) is some
    do(some, 16, 1)
    assert served(sweep, base, same, some) is base
    do(base, 16, 9)
    assert served(sweep, base, same, some) is None
    assert [run.done for run in (base, same, some)] == [32, 16, 32]


def test_a_baseline_of_nobody_and_a_run_without_one_go_on_to_the_end() -> None:
    runs = {"a": progress(48), "b": progress(48)}
    assert driven(Sweep(MARGIN), runs, {"a": 2, "b": 9}) == "ab" * 3


@pytest.mark.parametrize("which", ["run", "baseline"])
def test_examples_behind_the_first_missing_one_do_not_count(which: str) -> None:
    """Those that finish first are the easy ones."""
    base = progress(64)
    run = progress(64, base)
    behind, whole = (run, base) if which == "run" else (base, run)
    do(whole, 48)
    do(behind, 47, start=1)
    assert served(Sweep(MARGIN), base, run) is not None
    do(behind, 1, start=0)
    assert served(Sweep(MARGIN), base, run) is None


def test_a_score_that_is_no_number_is_never_decided_and_ends() -> None:
    base, run = compared(48, math.nan, *[1] * 40)
    assert run.done == 41
    assert driven(Sweep(MARGIN), {"b": base, "a": run}, {"a": 2, "b": 9}) == "a"


# The command


EASY = "task_knobs: {givens: 66-70}\n"
"""So few cells are empty that top-1 takes some ten forwards."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(f"limit: 6\n{EASY}runs:\n- {{sampler: eb, gamma: [0.1, 2]}}\n")
    return path


def made(out: Path) -> dict[str, list[str]]:
    """The ids of each run's records, in the order in which they were made."""
    return {
        path.parent.name: [json.loads(line)["id"] for line in path.read_text().splitlines()]
        for path in sorted(out.rglob("records.jsonl"))
    }


def test_a_sweep_runs_a_grid_and_ends_with_what_it_found(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    command = ["sweep", recipe, "--out", tmp_path / "out", "--json"]
    result = mdmbench(*command)
    found = document(result)
    assert list(found) == ["schema", "rows", "frontier", "savings"]
    rows = [(r["sampler"], r["knobs"].get("gamma"), r["n"], r["baseline"]) for r in found["rows"]]
    assert rows == [("topk", None, 6, True), ("eb", 0.1, 6, False), ("eb", 2.0, 6, False)]
    (saving,) = found["savings"]
    assert (saving["rule"], saving["margin"], saving["n"]) == ("eb entropy", 0.01, 6)
    assert saving["run"] is None and len(found["frontier"]) == 1
    said = result.stderr.splitlines()
    assert said[-3].endswith(": frontier, the cheapest first")
    assert said[-1].startswith("  eb entropy: no speed-up is shown at no more than 1 point lost")
    again = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records.jsonl")}
    assert document(mdmbench(*command)) == found
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("records.jsonl")} == again


def test_a_stopped_sweep_is_taken_up(tmp_path: Path, recipe: Path) -> None:
    """Half of a run's records are lost, and the margin is another one."""
    out = tmp_path / "out"
    assert mdmbench("sweep", recipe, "--out", out, "--limit", "4").exit_code == 0
    before = made(out)
    (file,) = out.glob("*gamma2.0*/records.jsonl")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]) + '{"id": "cut')
    found = document(mdmbench("sweep", recipe, "--out", out, "--margin", "90", "--json"))
    assert [row["n"] for row in found["rows"]] == [6] * 3
    after = made(out)
    assert all(
        after[name][:2] == ids[:2] and len(set(after[name])) == 6 for name, ids in before.items()
    )
    (saving,) = found["savings"]
    assert saving["margin"] == 0.9 and "gamma2.0" in saving["run"]


def test_a_sweep_until_decided_stops_early_and_can_be_finished(
    tmp_path: Path, recipe: Path
) -> None:
    command = ["sweep", recipe, "--out", tmp_path / "out", "--limit", "40", "--batch-size", "2"]
    until = [*command, "--until", "decided", "--margin", "40", "--json"]
    found = document(mdmbench(*until))
    counts = [row["n"] for row in found["rows"]]
    assert all(needed(0) <= n < 40 for n in counts)
    before = made(tmp_path / "out")
    assert document(mdmbench(*until)) == found and made(tmp_path / "out") == before
    rest = document(mdmbench(*command, "--no-seconds", "--json"))
    assert [row["n"] for row in rest["rows"]] == [40] * 3
    assert all(row["seconds"]["decode"] is None for row in rest["rows"])


def in_order(n: int) -> list[str]:
    """The first examples of the task, as a sweep goes through them."""
    return sorted((f"9x9:test:0:{i}" for i in range(n)), key=sequential.place)


def test_every_sweep_goes_through_its_examples_in_an_order_that_says_nothing(
    tmp_path: Path, recipe: Path
) -> None:
    """So that one that runs to the end can be stopped by the next command."""
    command = ["sweep", recipe, "--out", tmp_path, "--batch-size", "1"]
    assert mdmbench(*command).exit_code == 0
    assert list(made(tmp_path).values()) == [in_order(6)] * 3 != [sorted(in_order(6))] * 3


def test_a_run_that_is_stopped_has_all_that_was_under_way(tmp_path: Path) -> None:
    """Puzzles from 11 to 47 forwards, eight at a time: without the slow ones the quick ones are
    no fair sample."""
    path = tmp_path / "grid.yaml"
    path.write_text("task_knobs: {givens: 34-70}\nruns:\n- {sampler: eb, gamma: 2}\n")
    command = ["sweep", path, "--out", tmp_path / "out", "--limit", "60", "--batch-size", "8"]
    assert mdmbench(*command, "--until", "decided", "--margin", "40").exit_code == 0
    runs = made(tmp_path / "out")
    assert len(runs) == 2
    for ids in runs.values():
        assert needed(0) <= len(ids) < 60 and set(ids) == set(in_order(60)[: len(ids)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sampler: eeb\n", "did you mean 'eb'?"),
        ("gama: [1, 2]\n", "unknown setting 'gama'"),
        ("gamma: []\n", "gamma is an empty list"),
        ("- eb\n", "holds no settings"),
        ("limit: 0\n", "limit is 0"),
        ("runs: eb\n", "runs is no list of settings"),
        (": [", "cannot read"),
    ],
)
def test_a_mistake_in_a_grid_ends_in_one_message(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert says in fails("sweep", tmp_path / "r.yaml", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_sweep_shows_allows_for_where_it_stopped(tmp_path: Path, recipe: Path) -> None:
    """Eight examples without a flip leave 32 points possible, and 13 are needed where one looks
    at them again and again."""
    command = ["sweep", recipe, "--out", tmp_path, "--limit", "8", "--margin", "40", "--json"]
    (saving,) = document(mdmbench(*command, "--until", "decided"))["savings"]
    assert (saving["run"], saving["n"], needed(0)) == (None, 8, 13)
    (saving,) = document(mdmbench(*command))["savings"]
    assert saving["run"] and saving["n"] == 8


def test_a_margin_of_all_points_is_a_mistake(tmp_path: Path, recipe: Path) -> None:
    command = ["sweep", recipe, "--out", tmp_path, "--limit", "2", "--until", "decided"]
    assert "'--margin'" in fails(*command, "--margin", "100")
    assert mdmbench(*command, "--margin", "99").exit_code == 0


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    assert "did you mean 'sudoku'?" in fails("sweep", "sodoku", "--out", tmp_path)
