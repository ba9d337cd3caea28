"""What a sweep has found: the runs worth having, and the speed-up that costs no quality."""

import re
from collections.abc import Collection
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from test_cli import document, mdmbench
from test_table import EB, GAMMA, TOP1, record, write

from mdmbench import frontier, rows, sequential
from mdmbench.frontier import Saving
from mdmbench.paired import tango
from mdmbench.store import Run

POINT = 0.01


def point(out: Path, gamma: float, nfe: int, n: int = 4, lost: Collection[int] = ()) -> Run:
    """EB at that NFE on n examples, all solved but these."""
    made = [record(f"{i:03}", nfe, i not in lost) for i in range(n)]
    return write(out, "eb", {**EB, "gamma": gamma}, made)


def baseline(out: Path, n: int = 4, **more: Any) -> Run:
    return write(out, "topk", TOP1, [record(f"{i:03}", 48) for i in range(n)], **more)


def best(*runs: Run) -> list[Run]:
    paths = [row.run for row in frontier.frontier(rows.rows(runs))]
    return [run for path in paths for run in runs if run.path == path]


def savings(*runs: Run, margin: float = POINT, early: bool = False) -> list[Saving]:
    known = rows.read(runs)
    return frontier.savings(rows.tabled(runs, known), known, margin, early)


def test_a_run_that_another_one_beats_in_both_is_not_on_the_frontier(tmp_path: Path) -> None:
    cheap, dear = point(tmp_path, 0.3, 2, lost=[0, 1]), point(tmp_path, 0.1, 9)
    between = point(tmp_path, 0.2, 5, lost=[0])
    beaten = point(tmp_path, 0.25, 5, lost=[0, 1])
    worst = point(tmp_path, 0.05, 20, lost=[0, 1, 2])
    assert best(dear, worst, between, beaten, cheap) == [cheap, between, dear]


def test_of_equal_scores_the_cheaper_is_on_the_frontier(tmp_path: Path) -> None:
    cheap, dear = point(tmp_path, 0.2, 5), point(tmp_path, 0.1, 9)
    assert best(dear, cheap) == [cheap]


def test_of_equal_costs_the_better_is_on_the_frontier(tmp_path: Path) -> None:
    worse, better = point(tmp_path, 0.1, 5, lost=[0]), point(tmp_path, 0.2, 5)
    assert best(worse, better) == [better]


def test_of_equal_points_one_is_on_the_frontier(tmp_path: Path) -> None:
    runs = [point(tmp_path, gamma, 5) for gamma in (0.1, 0.2)]
    assert best(*runs) == [runs[0]]


def test_a_single_run_is_its_own_frontier(tmp_path: Path) -> None:
    run = point(tmp_path, 0.1, 5, lost=range(4))
    assert best(run) == [run]
    assert frontier.frontier([]) == []


def test_a_run_without_a_score_or_without_a_forward_is_on_no_frontier(tmp_path: Path) -> None:
    run = point(tmp_path, 0.1, 5)
    nothing = write(tmp_path, "random", {"k": 1}, [record("a", 1, scores={"other": 1.0})])
    never = write(tmp_path, "random", {"k": 2}, [record("a", 0, filled=0, length=0)])
    assert best(run, nothing, never) == [run]


def test_a_saving_is_the_boldest_run_that_is_shown_to_lose_no_more(tmp_path: Path) -> None:
    """Without a flip 400 examples leave 0.95 points possible, with one 1.4."""
    runs = [
        baseline(tmp_path, 400),
        point(tmp_path, 0.1, 20, 400),
        point(tmp_path, 0.2, 10, 400),
        point(tmp_path, 0.3, 5, 400, lost=[0]),
    ]
    (found,) = savings(*runs)
    assert (found.rule, found.margin, found.n) == ("eb entropy", POINT, 400)
    assert found.row and found.row.run == runs[2].path
    assert found.speedup == pytest.approx((4.8, 4.8, 4.8))
    least = 3.841459 / (400 + 3.841459)
    assert found.change == pytest.approx((0, -least, least), rel=1e-5)
    saved = f"eb {GAMMA}=0.2 entropy: 4.8x fewer NFE [4.8, 4.8]"
    assert str(found) == f"{saved} at no more than 1 point lost (95 %)"
    assert str(savings(*runs, margin=0.02)[0]).endswith("no more than 2 points lost (95 %)")
    assert savings(*runs, margin=0.02)[0].row == rows.rows(runs)[-1]


def test_the_first_run_that_cannot_be_shown_ends_the_search(tmp_path: Path) -> None:
    """A bolder one that could be would have had more than one chance to be wrong."""
    runs = [
        baseline(tmp_path, 400),
        point(tmp_path, 0.1, 20, 400),
        point(tmp_path, 0.2, 10, 400, lost=[0]),
        point(tmp_path, 0.3, 5, 400),
    ]
    (found,) = savings(*runs)
    assert found.row and found.row.run == runs[1].path
    assert found.speedup == pytest.approx((2.4, 2.4, 2.4))


def test_the_order_is_that_of_the_cost_and_not_of_the_knob(tmp_path: Path) -> None:
    """Here the smallest gamma is the boldest."""
    runs = [
        baseline(tmp_path, 400),
        point(tmp_path, 0.3, 20, 400),
        point(tmp_path, 0.2, 10, 400, lost=[0]),
        point(tmp_path, 0.1, 5, 400),
    ]
    (found,) = savings(*runs)
    assert found.row and found.row.run == runs[1].path


def test_where_the_most_careful_run_is_not_shown_nothing_is(tmp_path: Path) -> None:
    runs = [
        baseline(tmp_path, 400),
        point(tmp_path, 0.1, 20, 400, lost=[0]),
        point(tmp_path, 0.2, 10, 400),
    ]
    (found,) = savings(*runs)
    assert (found.row, found.speedup, found.n) == (None, None, 400)
    assert found.change and found.change.value == -1 / 400
    assert str(found) == "eb entropy: no speed-up is shown at no more than 1 point lost (n = 400)"


def test_each_run_is_held_against_its_own_baseline(tmp_path: Path) -> None:
    """Top-1 that draws from all tokens loses a quarter, and top-1 that cuts the distribution none;
    EB does as its own does, and the bolder one is the one that cuts."""

    def drawn(sampler: str, knobs: dict[str, Any], nfe: int, lost: int, **more: Any) -> Run:
        made = [record(f"{i:03}", nfe, i >= lost) for i in range(400)]
        return write(tmp_path, sampler, knobs, made, temperature=0.5, **more)

    runs = [
        drawn("topk", TOP1, 48, 100),
        drawn("topk", TOP1, 40, 0, top_p=0.9),
        drawn("eb", EB, 20, 100),
        drawn("eb", EB, 10, 0, top_p=0.9),
    ]
    (found,) = savings(*runs)
    assert found.row and found.row.run == runs[3].path
    assert found.speedup == pytest.approx((4, 4, 4)) and found.change and found.change.value == 0
    worse = drawn("eb", {**EB, "gamma": 0.2}, 5, 100, top_p=0.9)
    (found,) = savings(*runs, worse)
    assert found.row and found.row.run == runs[3].path


def test_a_run_without_the_headline_has_no_saving(tmp_path: Path) -> None:
    made = [record(f"{i}", 4, scores={"other": 1.0}) for i in range(4)]
    (found,) = savings(baseline(tmp_path), write(tmp_path, "eb", EB, made))
    assert (found.row, found.change, found.n) == (None, None, 0)
    assert mdmbench("table", tmp_path, "--margin", "1").exit_code == 0


def test_runs_that_stopped_early_are_held_to_a_test_that_allows_for_it(tmp_path: Path) -> None:
    """Without a flip 400 examples are enough where their number was known before."""
    enough = next(n for n in range(1, 4000) if sequential.verdict([0] * n, POINT))
    assert enough > 400
    for n, early, shown in ((400, False, True), (enough - 1, True, False), (enough, True, True)):
        out = tmp_path / f"{n}"
        (found,) = savings(baseline(out, n), point(out, 0.1, 20, n), early=early)
        assert bool(found.row) == shown and found.n == n
        if not shown:  # how many would be enough nobody knows before
            assert str(found).endswith(f"1 point lost (n = {n})")


def test_examples_are_looked_at_in_the_order_of_a_sweep(tmp_path: Path) -> None:
    """Twenty of 400 lost are few; where they came first, the loss was shown, and that stands."""
    first = sorted(range(400), key=lambda i: sequential.place(f"{i:03}"))
    for lost, shown in ((first[:20], False), (first[-20:], True), (range(20), True)):
        out = tmp_path / f"{lost[0]}"
        (found,) = savings(
            baseline(out, 400), point(out, 0.1, 20, 400, lost), margin=0.3, early=True
        )
        assert bool(found.row) == shown
        assert found.change and found.change.value == -0.05


def test_each_rule_of_each_group_has_a_saving_of_its_own(tmp_path: Path) -> None:
    """The other model has no baseline, and so none."""
    made = [record(f"{i:03}", 3) for i in range(400)]
    runs = [
        baseline(tmp_path, 400),
        point(tmp_path, 0.1, 20, 400),
        write(tmp_path, "threshold", {"threshold": 0.9}, made),
        write(tmp_path, "threshold", {"threshold": 0.9}, made, model="other"),
    ]
    found = {saving.rule: saving.row and saving.row.run for saving in savings(*runs)}
    assert found == {"eb entropy": runs[1].path, "threshold": runs[2].path}


def test_a_baseline_alone_saves_nothing(tmp_path: Path) -> None:
    assert savings(baseline(tmp_path)) == []


def test_only_common_examples_show_a_saving(tmp_path: Path) -> None:
    runs = [baseline(tmp_path, 400), point(tmp_path, 0.1, 20, 300)]
    (found,) = savings(*runs)
    assert found.row is None and found.n == 300
    apart = write(tmp_path / "b", "eb", EB, [record("z", 4)])
    (found,) = savings(baseline(tmp_path / "b"), apart)
    assert (found.n, found.row, found.change) == (0, None, None)
    assert str(found).endswith("no more than 1 point lost: no example is in both")


@pytest.mark.parametrize("margin", [0.001, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.3])
def test_the_number_of_examples_that_are_needed_is_exact(margin: float) -> None:
    text = str(Saving("", "eb", margin, n=4))
    found = re.search(
        r"even without a flip, 4 examples leave 49\.0 points possible, and (\d+) ", text
    )
    assert found and text.endswith(" are needed")
    needed = int(found[1])
    assert -tango(0, 0, needed)[0] <= margin < -tango(0, 0, needed - 1)[0]
    assert needed == ceil(3.841459 * (1 - margin) / margin)
    shown = str(Saving("", "eb", margin, n=needed))
    assert shown.endswith(f"lost (n = {needed})")
    assert f"and {needed} are needed" in str(Saving("", "eb", margin, n=needed - 1))


def test_points_have_no_digits_that_mean_nothing() -> None:
    texts = [str(Saving("", "eb", margin, n=400)) for margin in (0.01, 0.07, 0.29, 0.025)]
    assert [re.findall(r"than (\S+ points?) ", text)[0] for text in texts] == [
        "1 point",
        "7 points",
        "29 points",
        "2.5 points",
    ]


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """A baseline and three points, of which one is beaten; n is far too small."""
    baseline(tmp_path)
    for gamma, nfe, lost in ((0.1, 20, [0]), (0.2, 10, []), (0.3, 5, [0])):
        point(tmp_path, gamma, nfe, lost=lost)
    return tmp_path


BELOW = f"""\
tiny \N{MIDDLE DOT} sudoku \N{MIDDLE DOT} n=4 \N{MIDDLE DOT} side=9: frontier, the cheapest first
  eb {GAMMA}=0.3 entropy (75.0 % at 5.0)  <  eb {GAMMA}=0.2 entropy (100.0 % at 10.0)
  eb entropy: no speed-up is shown at no more than 1 point lost: even without a flip, 4 examples \
leave 49.0 points possible, and 381 are needed
"""


def test_the_frontier_stands_below_the_table(four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    result = mdmbench("table", four, "--margin", "1")
    assert result.exit_code == 0 and result.stdout.endswith("\n" + BELOW)
    assert "frontier" not in mdmbench("table", four).stdout


def test_each_group_has_its_own_frontier(four: Path) -> None:
    other = baseline(four, model="zoo")
    found = document(mdmbench("table", four, "--margin", "1", "--json"))
    assert [len(group) for group in found["frontier"]] == [2, 1]
    assert found["frontier"][1] == [str(other.path)]
    said = mdmbench("table", four, "--margin", "1").stdout
    assert said.count("frontier, the cheapest first") == 2


def test_the_json_document_has_the_frontier_and_the_savings(four: Path) -> None:
    result = mdmbench("table", four, "--margin", "60", "--json")
    found = document(result)
    assert list(found) == ["schema", "rows", "frontier", "savings"]
    runs = {row["knobs"].get("gamma"): row["run"] for row in found["rows"]}
    assert found["frontier"] == [[runs[0.3], runs[0.2]]]
    (saving,) = found["savings"]
    assert list(saving) == ["rule", "margin", "n", "run", "speedup", "change"]
    assert [saving[k] for k in ("rule", "margin", "n", "run")] == ["eb entropy", 0.6, 4, None]
    assert saving["speedup"] is None and list(saving["change"]) == ["value", "low", "high"]
    assert "frontier, the cheapest first" in result.stderr
    (saving,) = document(mdmbench("table", four, "--margin", "90", "--json"))["savings"]
    assert saving["run"] == runs[0.3] and saving["speedup"]["value"] == pytest.approx(9.6)
    assert {"frontier", "savings"}.isdisjoint(document(mdmbench("table", four, "--json")))
