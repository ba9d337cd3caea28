"""Two runs side by side: marks, flips, what was set otherwise, and what the command prints."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from test_cli import document, fails, mdmbench
from test_table import EB, TOP1, record, write

from mdmbench import compare
from mdmbench.base import Seconds
from mdmbench.compare import Matters
from mdmbench.errors import UserError
from mdmbench.store import Record, Run

NAMES = "abcdefghijkl"
LOST, GAINED = "abcdefghij", "l"


def scored(solved: bool, close: bool) -> dict[str, float]:
    return {"close": float(close), "solved": float(solved)}


@pytest.fixture(autouse=True)
def as_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Every mark: EB loses ten of twelve and gains one, flips one of the other score, is cheaper,
    sees 1 % more tokens, and was timed elsewhere. No cost has a spread. Top-1 has two more."""
    slow = [record(i, 48, scores=scored(i not in GAINED, True), length=50) for i in NAMES + "mn"]
    quick: dict[str, Any] = {"forward_tokens": 3927, "length": 50, "seconds": Seconds(0.02)}
    fast = [record(i, 5, scores=scored(i not in LOST, i != "c"), **quick) for i in NAMES]
    return (
        write(tmp_path, "topk", TOP1, slow).path,
        write(tmp_path, "eb", EB, fast, device="cuda").path,
    )


def marks(one: Path, other: Path, *margins: str) -> dict[str, str]:
    found = compare.compare(Run(one), Run(other), margins)
    return {verdict.measure.name: verdict.mark.value for verdict in found.verdicts}


def test_every_measure_has_one_mark(pair: tuple[Path, Path]) -> None:
    assert marks(*pair) == {
        "solved": "worse",
        "close": "undecided",
        "nfe": "better",
        "tpf": "better",
        "forward_tokens": "same",
        "seconds": "not comparable",
    }


def test_the_other_way_round_better_is_worse(pair: tuple[Path, Path]) -> None:
    turned = {"better": "worse", "worse": "better"}
    there = marks(*pair)
    assert marks(*pair[::-1]) == {name: turned.get(m, m) for name, m in there.items()}
    found = compare.compare(*map(Run, pair[::-1]))
    assert (found.lost, found.gained) == (list(GAINED), list(LOST))


def test_a_run_is_the_same_as_itself(tmp_path: Path) -> None:
    """As far as 400 examples can tell."""
    run = write(tmp_path, "eb", EB, [record(f"{i}", 4 + i % 7) for i in range(400)])
    found = compare.compare(run, run)
    assert {verdict.mark.value for verdict in found.verdicts} == {"same"}
    assert (found.lost, found.gained, found.differences, found.n) == ([], [], [], 400)


def test_margins_are_those_asked_for(pair: tuple[Path, Path]) -> None:
    assert marks(*pair, "forward_tokens=0.9%")["forward_tokens"] == "worse"
    assert marks(*pair, "close=60", "solved=100")["close"] == "same"
    with pytest.raises(UserError, match="unknown measure 'seconds '"):
        marks(*pair, "seconds =1%")


def test_markdown(pair: tuple[Path, Path]) -> None:
    expected = """\
**A topk k=1 entropy · B eb γ=0.1 entropy**

| measure | n | A | B | change | p | margin | shows | mark |
| :-- | --: | --: | --: | --: | --: | --: | --: | --: |
| solved | 12 | 91.7 % [64.6, 98.5] | 16.7 % [4.7, 44.8] | -75.0 [-93.1, -22.8] | 0.023 | 1 |  | - worse |
| close | 12 | 100.0 % [75.8, 100.0] | 91.7 % [64.6, 98.5] | -8.3 [-35.4, +17.9] | 1.000 | 1 | 53.5 | ? undecided |
| nfe | 12 | 48.0 | 5 | 0.104x | 0.002 | 2 % |  | + better |
| tpf | 12 | 1.04 | 10.0 | 9.6x | 0.002 | 2 % |  | + better |
| forward_tokens | 12 | 3888.0 | 3927.0 | +1.0 % | 0.002 | 2 % | 0 % | = same |
| seconds | 0 | - | - | - | - | 5 % | - | x not comparable: no example was timed in both on the same machine |

- 2 more examples are in A alone
- 10 of 12 lost solved: a, b, c and 7 more
- 1 of 12 gained solved: l
- sampler: 'topk' / 'eb' (it is what is compared)
- knobs.k: 1 / None (it is what is compared)
- knobs.alg_temp: 0.0 / None (it is what is compared)
- knobs.gamma: None / 0.1 (it is what is compared)
- machine: 'cpu, unknown threads, batch size 4' / 'cuda, unknown threads, batch size 4' (for seconds only)
"""  # noqa: E501, RUF001
    result = mdmbench("compare", *pair, "--format", "markdown", "--flips", "3")
    assert (result.exit_code, result.stdout) == (0, expected)


def test_a_terminal(pair: tuple[Path, Path]) -> None:
    expected = """\
A topk k=1 entropy · B eb γ=0.1 entropy

  measure           n                       A                     B                 change       p   margin   shows   mark
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  solved           12     91.7 % [64.6, 98.5]    16.7 % [4.7, 44.8]   -75.0 [-93.1, -22.8]   0.023        1           - worse
  close            12   100.0 % [75.8, 100.0]   91.7 % [64.6, 98.5]    -8.3 [-35.4, +17.9]   1.000        1    53.5   ? undecided
  nfe              12                    48.0                     5                 0.104x   0.002      2 %           + better
  tpf              12                    1.04                  10.0                   9.6x   0.002      2 %           + better
  forward_tokens   12                  3888.0                3927.0                 +1.0 %   0.002      2 %     0 %   = same
  seconds           0                       -                     -                      -       -      5 %       -   x not comparable: no example was timed in both on
                                                                                                                      the same machine

2 more examples are in A alone
10 of 12 lost solved: a, b, c and 7 more
1 of 12 gained solved: l
sampler: 'topk' / 'eb' (it is what is compared)
knobs.k: 1 / None (it is what is compared)
knobs.alg_temp: 0.0 / None (it is what is compared)
knobs.gamma: None / 0.1 (it is what is compared)
machine: 'cpu, unknown threads, batch size 4' / 'cuda, unknown threads, batch size 4' (for seconds only)
[low, high] is the 95 % interval; p is corrected for all rows together (Holm). better, worse: p < 0.05, and of seconds a change of more than 25 %, as machines drift
between runs; same: the whole interval lies within the margin; undecided: neither. Shows: the smallest change that so many examples bring to light four times in five.
"""  # noqa: E501, RUF001
    result = mdmbench("compare", *pair, "--flips", "3")
    assert [line.rstrip() for line in result.stdout.splitlines()] == expected.splitlines()


def test_the_json_document_has_exactly_these_keys(pair: tuple[Path, Path]) -> None:
    result = mdmbench("compare", *pair, "--json")
    found = document(result)
    assert list(found) == ["schema", "comparisons"] and found["schema"] == 1
    (comparison,) = found["comparisons"]
    keys = ["a", "b", "n", "alone", "verdicts", "lost", "gained", "differences"]
    assert list(comparison) == keys
    assert [comparison[k] for k in keys[:4]] == [*map(str, pair), 12, [2, 0]]
    assert (comparison["lost"], comparison["gained"]) == (list(LOST), list(GAINED))
    shape = ["measure", "mark", "n", "a", "b", "change", "p", "margin", "detectable", "why"]
    assert all(list(verdict) == shape for verdict in comparison["verdicts"])
    by_name = {verdict["measure"]: verdict for verdict in comparison["verdicts"]}
    nfe = by_name["nfe"]
    assert nfe["a"] == dict.fromkeys(("value", "low", "high"), 48) and nfe["margin"] == 0.02
    assert nfe["change"]["value"] == pytest.approx(5 / 48) and nfe["why"] == ""
    seconds = by_name["seconds"]
    assert [seconds[k] for k in ("a", "b", "change", "p", "detectable")] == [None] * 5
    assert comparison["differences"][0] == {
        "name": "sampler",
        "a": "topk",
        "b": "eb",
        "matters": "rule",
    }
    assert "not comparable" in result.stderr and "undecided" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_what_few_examples_could_show_is_null_where_it_is_nothing(tmp_path: Path) -> None:
    one = write(tmp_path, "topk", TOP1, [record("a", 48)]).path
    other = write(tmp_path, "eb", EB, [record("a", 4)]).path
    (comparison,) = document(mdmbench("compare", one, other, "--json"))["comparisons"]
    assert {v["mark"] for v in comparison["verdicts"]} == {"undecided"}
    assert {v["measure"]: v["detectable"] for v in comparison["verdicts"]}["nfe"] is None


def test_all_flips_are_listed_or_none(pair: tuple[Path, Path]) -> None:
    said = mdmbench("compare", *pair, "--format", "markdown").stdout
    assert "- 10 of 12 lost solved: a, b, c, d, e, f, g, h, i, j\n" in said
    assert "- 1 of 12 gained solved: l\n" in said
    none = mdmbench("compare", *pair, "--flips", "0").stdout
    assert "\n10 of 12 lost solved\n1 of 12 gained solved\n" in none


def test_an_example_flips_once_however_many_samples_it_has(tmp_path: Path) -> None:
    """a loses one sample of three, b one and gains one, c gains one."""

    def sampled(wins: str) -> list[Record]:
        pairs = zip("aaabbbccc", wins, strict=True)
        return [
            record(f"{e}#{i}", 4, int(won), meta={"example": e}) for i, (e, won) in enumerate(pairs)
        ]

    one = write(tmp_path, "topk", TOP1, sampled("111010000"))
    other = write(tmp_path, "eb", EB, sampled("011100001"))
    found = compare.compare(one, other)
    assert (found.lost, found.gained) == (["a"], ["c"])
    assert found.verdicts[0].n == found.n == 3
    said = mdmbench("compare", one.path, other.path).stdout
    assert "1 of 3 lost solved: a\n" in said and "1 of 3 gained solved: c\n" in said


def test_examples_in_one_alone_are_counted_and_not_their_records(tmp_path: Path) -> None:
    """Three samples each; A has two examples more, and B one."""

    def sampled(examples: str) -> list[Record]:
        ids = [(e, i) for e in examples for i in range(3)]
        return [record(f"{e}#{i}", 4, meta={"example": e}) for e, i in ids]

    one = write(tmp_path, "topk", TOP1, sampled("abcd"))
    other = write(tmp_path, "eb", EB, sampled("abe"))
    found = compare.compare(one, other)
    assert (found.n, found.alone) == (2, (2, 1))


def test_examples_that_were_never_asked_are_said_either_way(tmp_path: Path) -> None:
    one = write(tmp_path, "topk", TOP1, [record(id, 48) for id in NAMES])
    other = write(tmp_path, "eb", EB, [record(id, 4 * (id > "b")) for id in NAMES])
    for pair in ((one, other), (other, one)):
        (nfe,) = (v for v in compare.compare(*pair).verdicts if v.measure.name == "nfe")
        assert (nfe.n, nfe.why) == (10, "2 of 12 examples have no number")


def test_a_score_that_only_one_has_is_said(tmp_path: Path) -> None:
    one, both = some(tmp_path), {"solved": 1.0, "new": 1.0}
    other = write(tmp_path, "topk", TOP1, [record(id, 4, scores=both) for id in NAMES])
    for pair, name in (((one, other), "A"), ((other, one), "B")):
        found = {v.measure.name: (v.mark.value, v.why) for v in compare.compare(*pair).verdicts}
        assert found["new"] == ("not comparable", f"{name} has no such score")


def some(out: Path, sampler: str = "eb", ids: Iterable[str] = NAMES, **more: Any) -> Run:
    return write(out, sampler, more.pop("knobs", EB), [record(id, 4) for id in ids], **more)


def differing(one: Run, other: Run) -> dict[str, Matters]:
    return {d.name: d.matters for d in compare.compare(one, other).differences}


@pytest.mark.parametrize(
    ("other", "names", "matters"),
    [
        ({"sampler": "mine"}, ["sampler"], Matters.rule),
        ({"knobs": {**EB, "gamma": 0.2}}, ["knobs.gamma"], Matters.rule),
        ({"knobs": {"gamma": 0.1}}, ["knobs.proxy"], Matters.rule),
        ({"steps": 9, "schedule": "linear"}, ["schedule", "steps"], Matters.rule),
        ({"scores": "filtered"}, ["scores"], Matters.rule),
        ({"top_p": 0.9, "top_k": 5}, ["top_k", "top_p"], Matters.rule),
        ({"stored": {"files": {"sampler": "ab"}}}, ["sampler file"], Matters.rule),
        ({"model": "large"}, ["model"], Matters.canvas),
        ({"model_knobs": {"quant": "int8"}}, ["model_knobs.quant"], Matters.canvas),
        ({"stored": {"model_digest": "cd"}}, ["model weights"], Matters.canvas),
        ({"block_length": 27}, ["block_length"], Matters.canvas),
        ({"temperature": 0.5}, ["temperature"], Matters.canvas),
        ({"dtype": "bfloat16"}, ["dtype"], Matters.canvas),
        ({"stop": "until", "seed": 1}, ["seed", "stop"], Matters.canvas),
        ({"task": "maze"}, ["task"], Matters.question),
        ({"task_knobs": {"side": 4}}, ["task_knobs.side"], Matters.question),
        ({"task_knobs": {"side": 9, "data": None, "by": ""}}, [], Matters.question),
        ({"stored": {"task_version": "2"}}, ["task_version"], Matters.question),
        ({"stored": {"files": {"task": "ab"}}}, ["task file"], Matters.question),
        ({"device": "cuda"}, ["machine"], Matters.clock),
        ({}, [], Matters.clock),
    ],
    ids=str,
)
def test_a_setting_that_differs_says_what_it_matters_for(
    tmp_path: Path, other: dict[str, Any], names: list[str], matters: Matters
) -> None:
    one = some(tmp_path / "one")
    two = some(tmp_path / "other", **other)
    assert differing(one, two) == dict.fromkeys(names, matters) == differing(two, one)


def test_another_batch_size_matters_for_seconds_only(tmp_path: Path) -> None:
    one = some(tmp_path / "one")
    eight = [record(id, 4, batch_size=8) for id in NAMES]
    other = write(tmp_path / "other", "eb", EB, eight)
    assert differing(one, other) == {"machine": Matters.clock}
    found = marks(one.path, other.path)
    assert (found["seconds"], found["nfe"]) == ("not comparable", "same")


def test_what_matters_most_is_said_first(tmp_path: Path) -> None:
    one = some(tmp_path)
    other = some(
        tmp_path,
        "topk",
        knobs=TOP1,
        device="cuda",
        block_length=27,
        stored={"task_version": "2", "model_digest": "cd"},
    )
    found = compare.compare(one, other).differences
    order = list(Matters)
    assert [order.index(d.matters) for d in found] == [0, 1, 1, 2, 2, 2, 2, 3]
    assert (found[0].name, found[0].one, found[0].other) == ("task_version", "1", "2")
    assert [m.name for m in order] == ["question", "canvas", "rule", "clock"]


def on(out: Path, file: str, content: str) -> Run:
    """Made with a data file of that content."""
    return some(out, task_knobs={"data": file}, stored={"files": {"data": content}})


def test_a_data_file_is_what_it_holds_wherever_it_lies(tmp_path: Path) -> None:
    one, moved = on(tmp_path, "/here/p.csv", "ab"), on(tmp_path, "there/q.csv", "ab")
    assert one.path != moved.path and differing(one, moved) == {}
    edited = on(tmp_path / "later", "/here/p.csv", "cd")
    assert differing(one, edited) == {"task data": Matters.question}
    assert set(marks(one.path, edited.path).values()) == {"not comparable"}
    without = some(tmp_path, task_knobs={"data": ""})
    assert differing(one, without) == {"task data": Matters.question} == differing(without, one)


@pytest.mark.parametrize("kind", ["task", "sampler"])
def test_a_file_of_ones_own_is_what_it_holds_wherever_it_lies(tmp_path: Path, kind: str) -> None:
    def by(place: str, content: str) -> Run:
        named: dict[str, Any] = {kind: f"{place}/my.py:Mine"}
        return some(tmp_path, stored={"files": {kind: content}}, **named)

    one, moved, edited = by("/here", "ab"), by("/there", "ab"), by("/here", "cd")
    assert one.path != moved.path and differing(one, moved) == {}
    assert set(marks(one.path, moved.path).values()) == {"same", "undecided"}
    assert list(differing(one, edited)) == [f"{kind} file"]


def test_other_puzzles_under_the_same_ids_are_not_compared(tmp_path: Path) -> None:
    one, other = some(tmp_path), some(tmp_path, task_knobs={"side": 9, "givens": 30})
    found = compare.compare(one, other)
    why = {(v.mark.value, v.why) for v in found.verdicts}
    assert why == {("not comparable", "task_knobs.givens is None and 30")}
    assert (found.lost, found.gained) == ([], [])


def test_of_another_task_version_nothing_is_compared(tmp_path: Path) -> None:
    one, other = some(tmp_path), some(tmp_path, "topk", stored={"task_version": "2"})
    found = compare.compare(one, other)
    why = {(verdict.mark.value, verdict.why) for verdict in found.verdicts}
    assert why == {("not comparable", "task_version is '1' and '2'")}
    assert len(found.verdicts) == 5 and {v.n for v in found.verdicts} == {12}
    assert (found.lost, found.gained) == ([], [])
    assert all(v.test is None and v.before is None for v in found.verdicts)
    said = mdmbench("compare", one.path, other.path).stdout
    assert said.count("x not comparable: task_version is '1' and '2'") == 5


def test_runs_without_a_common_example_are_a_mistake(tmp_path: Path) -> None:
    one, other = some(tmp_path, ids="abc"), some(tmp_path, "topk", ids="def")
    said = fails("compare", one.path, other.path)
    assert f"{one.path} and {other.path} have no example in common" in said
    assert "were they run with other --limit or data?" in said


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 1}, "seed is 0 and 1"),
        ({"task": "maze"}, "task is 'sudoku' and 'maze'"),
        ({"stored": {"files": {"data": "ab"}}, "task_knobs": {"data": "p"}}, "task data is None"),
    ],
)
def test_why_there_is_no_common_example_is_said(
    tmp_path: Path, other: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match="no example in common") as error:
        compare.compare(some(tmp_path, ids="ab"), some(tmp_path, ids="cd", **other))
    assert says in error.value.hint


@pytest.mark.parametrize("content", ["", '{"id": "a", "answer": "1'])
def test_a_run_without_a_whole_record_is_a_mistake(tmp_path: Path, content: str) -> None:
    one, empty = some(tmp_path), some(tmp_path, "topk", ids="")
    (empty.path / "records.jsonl").write_text(content)
    for pair in ((one.path, empty.path), (empty.path, one.path)):
        said = fails("compare", *pair)
        assert f"{empty.path} has no whole record\n  the command that made it" in said


def test_a_half_written_run_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    one, other = some(tmp_path), some(tmp_path, "topk")
    file = other.path / "records.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:7]) + '{"id": "h", "ans')
    assert compare.compare(one, other).n == 7


def test_one_example_decides_nothing(tmp_path: Path) -> None:
    one, other = some(tmp_path, ids="a"), some(tmp_path, "topk", ids="a")
    assert set(marks(one.path, other.path).values()) == {"undecided"}


def test_scores_that_are_no_numbers_are_said(tmp_path: Path) -> None:
    one = some(tmp_path)
    broken = [record(id, 4, float("nan") if id < "c" else 1) for id in NAMES]
    other = write(tmp_path, "topk", TOP1, broken)
    said = mdmbench("compare", one.path, other.path).stdout
    assert "? undecided: 2 of 12 examples have no number" in said


def test_the_only_runs_of_two_folders_are_compared_whatever_they_are(tmp_path: Path) -> None:
    one, other = some(tmp_path / "a"), some(tmp_path / "b", "topk", knobs=TOP1)
    ((found,), alone) = compare.pairs(tmp_path / "a", tmp_path / "b")
    assert [run.path for run in found] == [one.path, other.path] and alone == []


def test_of_folders_of_many_runs_those_of_the_same_settings_are_compared(tmp_path: Path) -> None:
    for out, gammas in (("a", [0.1, 0.2, 0.3]), ("b", [0.3, 0.1])):
        for gamma in gammas:
            some(tmp_path / out, knobs={**EB, "gamma": gamma})
    found, alone = compare.pairs(tmp_path / "a", tmp_path / "b")
    gammas = [[run.spec["settings"]["knobs"]["gamma"] for run in pair] for pair in found]
    assert sorted(gammas) == [[0.1, 0.1], [0.3, 0.3]]
    assert [run.spec["settings"]["knobs"]["gamma"] for run in alone] == [0.2]
    result = mdmbench("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert len(document(result)["comparisons"]) == 2
    assert f"{alone[0].path} goes with no run of the other folder\n" in result.stderr
    both = mdmbench("compare", tmp_path / "a", tmp_path / "b", "--format", "markdown").stdout
    assert both.count("| measure |") == both.count("**A ") == 2


def test_an_updated_task_does_not_part_a_pair(tmp_path: Path) -> None:
    """Their settings are the same: what was changed under them is said."""
    for out, stored in (("a", {}), ("b", {"task_version": "2"})):
        for gamma in (0.1, 0.2):
            some(tmp_path / out, knobs={**EB, "gamma": gamma}, stored=stored)
    found, alone = compare.pairs(tmp_path / "a", tmp_path / "b")
    assert [list(differing(*pair)) for pair in found] == [["task_version"]] * 2 and alone == []


def test_a_run_goes_with_the_one_of_its_very_weights_and_task(tmp_path: Path) -> None:
    """Before and after a training, each gamma stands in both folders once more."""
    for out in "ab":
        for digest in ("old", "new"):
            for gamma in (0.1, 0.2):
                stored = {"model_digest": digest}
                some(tmp_path / out, knobs={**EB, "gamma": gamma}, stored=stored)
    found, alone = compare.pairs(tmp_path / "a", tmp_path / "b")
    assert len(found) == 4 and alone == []
    assert all(differing(*pair) == {} for pair in found)


def test_folders_without_a_pair_are_a_mistake(tmp_path: Path) -> None:
    some(tmp_path / "a"), some(tmp_path / "a", "topk"), some(tmp_path / "b", "random")
    said = fails("compare", tmp_path / "a", tmp_path / "b")
    a, b = tmp_path / "a", tmp_path / "b"
    assert f"2 runs in {a}, 1 in {b}, and no two of the same settings\n  name two run" in said


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    run, empty = some(tmp_path / "a").path, tmp_path / "empty"
    empty.mkdir()
    for pair in ((run, empty), (empty, run)):
        assert f"no run in {empty}\n  name a run folder, or" in fails("compare", *pair)


def test_runs_of_one_label_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    one, other = some(tmp_path / "a"), some(tmp_path / "b", block_length=27)
    found = compare.compare(one, other).names
    assert found == (one.path.name, other.path.name) and found[0] != found[1]
    again = some(tmp_path / "b")
    assert compare.compare(one, again).names == (str(one.path), str(again.path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "latex"], "compare writes no latex\n  choose rich, markdown or json"),
        (["--format", "csv"], "compare writes no csv"),
        (["--margin", "solved"], "'solved' is no margin\n  write solved=1, in points"),
        (["--margin", "nfe=2"], "'nfe=2' is no margin\n  write nfe=2%"),
        (["--margin", "slved=1"], "did you mean 'solved'?"),
    ],
)
def test_a_mistake_ends_in_one_message(
    pair: tuple[Path, Path], arguments: list[str], says: str
) -> None:
    assert says in fails("compare", *pair, *arguments)


@pytest.mark.parametrize("gone", ["settings", "headline"])
def test_a_run_whose_settings_are_not_whole_is_a_mistake(tmp_path: Path, gone: str) -> None:
    """Alone, and in a folder of several."""
    one, other = some(tmp_path / "a"), some(tmp_path / "a", "topk", knobs=TOP1)
    file = one.path / "spec.json"
    spec = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in spec.items() if k != gone}))
    says = f"{file} is not a run's settings\n  was it written by another version?"
    for pair in ((one.path, other.path), (other.path, one.path), (tmp_path / "a",) * 2):
        assert says in fails("compare", *pair)


def test_what_is_no_run_is_a_mistake(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert f"no folder {tmp_path / 'none'}" in fails("compare", pair[0], tmp_path / "none")
    (pair[1] / "spec.json").write_text("{")
    assert "spec.json cannot be read" in fails("compare", *pair)


def test_comparing_needs_no_torch(pair: tuple[Path, Path]) -> None:
    code = (
        "import sys, mdmbench.cli as c\n"
        "try: c.app()\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "compare", *map(str, pair), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[0])["schema"] == 1
    assert done.stdout.splitlines()[-1] == "False False"
