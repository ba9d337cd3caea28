"""From run folders to rows, and from rows to every format."""

import csv as csv_reader
import io
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mdmbench import figure, rows, table
from mdmbench.base import Seconds
from mdmbench.errors import UserError
from mdmbench.rows import Row, grouped, label, title
from mdmbench.rows import rows as make
from mdmbench.spec import RunSpec
from mdmbench.stats import Interval
from mdmbench.store import Record, Run

GAMMA = "\N{GREEK SMALL LETTER GAMMA}"
TIMES = Seconds(model=0.08, sampler=0.015, host=0.005)
TOP1 = {"k": 1, "proxy": "entropy", "alg_temp": 0.0}
EB = {"gamma": 0.1, "proxy": "entropy"}


def record(id: str, nfe: int, solved: float = 1, **fields: Any) -> Record:
    defaults: dict[str, Any] = {
        "answer": "1",
        "scores": {"solved": float(solved)},
        "meta": {},
        "notes": {},
        "pieces": [],
        "nfe_until": None,
        "length": 48,
        "filled": 48,
        "forward_tokens": 81 * nfe,
        "forced": 0,
        "bound_spent": 0.0,
        "committed_at": [],
        "batch_size": 4,
        "seconds": TIMES,
    }
    return Record(id=id, nfe=nfe, **{**defaults, **fields})


def write(
    out: Path,
    sampler: str,
    knobs: dict[str, Any],
    records: Iterable[Record],
    stored: dict[str, Any] | None = None,
    device: str = "cpu",
    **settings: Any,
) -> Run:
    defaults = {"model": "tiny", "task": "sudoku", "task_knobs": {"side": 9}}
    defaults |= {"scores": "raw", "dtype": "float32"}
    spec = RunSpec(**{**defaults, **settings, "sampler": sampler, "knobs": knobs})
    content = {"schema": 1, "task_version": "1", "headline": "solved", "model_digest": "ab"}
    run = Run.create(out, sampler, {**content, "settings": spec.model_dump(), **(stored or {})})
    with run.writing({"device": device}) as append:
        append(records)
    return run


@pytest.fixture
def pair(tmp_path: Path) -> list[Run]:
    """Top-1 and EB on four examples. Half of EB's take 6 calls and half take 12: few enough values
    for the ends of a resampled interval to be the extremes, whatever the random numbers."""
    slow = [record(id, 48, id != "d") for id in "abcd"]
    fast: dict[str, Any] = {
        "forced": 1,
        "bound_spent": 0.25,
        "seconds": Seconds(0.016, 0.003, 0.001),
    }
    quick = [record(id, 6 if id in "ab" else 12, id in "ab", **fast) for id in "abcd"]
    return [write(tmp_path, "eb", EB, quick), write(tmp_path, "topk", TOP1, slow)]


def only(rows: list[Row], sampler: str) -> Row:
    (found,) = (row for row in rows if row.sampler == sampler)
    return found


def test_a_row_holds_the_units_of_its_docstring(pair: list[Run]) -> None:
    base, row = make(pair)
    assert (base.baseline, row.baseline) == (True, False)
    assert row.n == 4
    assert row.accuracy and row.accuracy.value == 0.5
    assert row.nfe == Interval(9, 6, 12)
    assert row.speedup["nfe"] == pytest.approx(Interval(48 / 9, 4, 8))
    assert row.speedup["seconds"] and row.speedup["seconds"].value == pytest.approx(5)
    assert row.tpf == 48 * 4 / 36
    assert row.forward_tokens == 81 * 9
    assert row.forced == 1 / 48
    assert row.bound_spent == 0.25
    parts = {"decode": 0.02, "model": 0.016, "sampler": 0.003, "host": 0.001}
    assert row.seconds == pytest.approx(parts)
    assert base.speedup == {"nfe": Interval(1, 1, 1), "seconds": Interval(1, 1, 1)}


def test_tpf_leaves_out_the_tail_and_tpf_tail_does_not(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 4, length=10, filled=64)])
    (row,) = make([run])
    assert (row.tpf, row.tpf_tail) == (2.5, 16)


def test_an_answer_without_an_end_takes_all_its_forwards_until_then(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 9, nfe_until=3), record("b", 7)])
    (row,) = make([run])
    assert row.nfe_until and row.nfe_until.value == 5


def test_speed_ups_are_paired_by_id(tmp_path: Path) -> None:
    """Only b and c are in both; they stand in another order, and a and d would spoil the ratio."""
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 999), record("c", 30), record("b", 20)]),
        write(tmp_path, "eb", EB, [record("b", 10), record("c", 15), record("d", 1)]),
    ]
    row = only(make(runs), "eb")
    assert row.speedup["nfe"] == Interval(2, 2, 2)
    assert row.n == 3


def test_seconds_are_compared_where_both_were_timed_at_one_batch_size(tmp_path: Path) -> None:
    """Top-1's a was decoded alone, and eb's c was not timed: only b is left."""
    half = [("a", 0.1), ("b", 0.05), ("c", 0.0)]
    runs = [
        write(
            tmp_path, "topk", TOP1, [record(id, 30, batch_size=1 + 3 * (id > "a")) for id in "abc"]
        ),
        write(tmp_path, "eb", EB, [record(id, 10, seconds=Seconds(t)) for id, t in half]),
        write(tmp_path, "random", {"k": 2}, [record("a", 10), record("b", 10, batch_size=64)]),
    ]
    rows = make(runs)
    assert only(rows, "eb").speedup["seconds"] == pytest.approx(Interval(2, 2, 2))
    assert only(rows, "random").speedup["seconds"] is None
    assert only(rows, "random").speedup["nfe"] == Interval(3, 3, 3)


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {
        "seconds": Seconds(),
        "bound_spent": math.nan,
        "scores": {"solved": math.nan},
    }
    runs = [
        write(tmp_path, "eb", EB, [record("a", 0, filled=0, length=0, **unknown)]),
        write(tmp_path, "topk", TOP1, [record("a", 0, filled=0, length=0, **unknown)]),
    ]
    text = json.dumps(table.document(make(runs)), allow_nan=False)
    row = json.loads(text, parse_constant=lambda name: pytest.fail(name))["rows"][1]
    assert row["seconds"] == dict.fromkeys(("decode", "model", "sampler", "host"))
    assert row["speedup"] == {"nfe": None, "seconds": None}
    assert row["scores"] == {"solved": None}
    assert [row[k] for k in ("tpf", "tpf_tail", "forced", "bound_spent", "nfe_until")] == [None] * 5
    assert "nan" not in table.markdown(make(runs))


def test_the_json_document_has_exactly_these_keys(pair: list[Run]) -> None:
    document = json.loads(json.dumps(table.document(make(pair))))
    assert list(document) == ["schema", "rows"]
    assert document["schema"] == 1
    row = document["rows"][1]
    interval = ["high", "low", "value"]
    shape = {k: sorted(v) if isinstance(v, dict) else type(v).__name__ for k, v in row.items()}
    assert shape == {
        "model": "str",
        "task": "str",
        "task_knobs": ["side"],
        "settings": [],
        "sampler": "str",
        "knobs": ["gamma", "proxy"],
        "n": "int",
        "scores": ["solved"],
        "nfe": interval,
        "nfe_until": "NoneType",
        "speedup": ["nfe", "seconds"],
        "tpf": "float",
        "tpf_tail": "float",
        "forward_tokens": "float",
        "forced": "float",
        "bound_spent": "float",
        "seconds": ["decode", "host", "model", "sampler"],
        "floor": [],
        "baseline": "bool",
        "run": "str",
    }
    assert sorted(row["scores"]["solved"]) == sorted(row["speedup"]["nfe"]) == interval
    assert Run(Path(row["run"])).spec == pair[0].spec


def test_an_infinite_knob_is_a_string_in_json(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", {"gamma": math.inf}, [record("a", 1)])
    assert table.document(make([run]))["rows"][0]["knobs"] == {"gamma": "inf"}


def test_one_call_for_each_example_is_no_proportion(tmp_path: Path) -> None:
    (row,) = make([write(tmp_path, "eb", EB, [record("a", 1), record("b", 1)])])
    assert row.nfe == Interval(1, 1, 1)
    assert row.accuracy and row.accuracy.low < 0.5


def baselines(runs: list[Run]) -> dict[str, float | None]:
    """The NFE of each row's baseline, by label: every row takes 1 call an example."""
    rows = make(runs)
    ratios = {label(row): (row.speedup["nfe"], row.nfe) for row in rows}
    return {k: a.value * b.value if a and b else None for k, (a, b) in ratios.items()}


def test_a_rows_baseline_is_top_1_by_its_own_proxy(tmp_path: Path) -> None:
    runs = [
        write(tmp_path, "topk", {**TOP1, "proxy": "margin"}, [record("a", 30)]),
        write(tmp_path, "topk", {**TOP1, "proxy": "confidence"}, [record("a", 20)]),
        write(tmp_path, "topk", {**TOP1, "k": 2}, [record("a", 2)]),
        write(tmp_path, "topk", {**TOP1, "alg_temp": 0.1}, [record("a", 3)]),
        write(tmp_path, "eb", {**EB, "proxy": "margin"}, [record("a", 1)]),
        write(tmp_path, "threshold", {"threshold": 0.9, "capped": False}, [record("a", 1)]),
        write(tmp_path, "llada", {**TOP1, "k": None}, [record("a", 4)], steps=4, schedule="linear"),
        write(tmp_path, "topk", TOP1, [record("a", 40)]),
    ]
    assert baselines(runs) == pytest.approx(
        {
            "topk k=1 margin": 30,
            "topk k=1 confidence": 20,
            "topk k=1 entropy": 40,
            "topk k=2 entropy": 40,
            "topk k=1 alg_temp=0.1 entropy": 40,
            f"eb {GAMMA}=0.1 margin": 30,
            "threshold 0.9": 20,
            "llada 4 steps entropy linear": 40,
        }
    )
    marked = {label(row) for row in make(runs) if row.baseline}
    assert marked == {"topk k=1 margin", "topk k=1 confidence", "topk k=1 entropy"}


def test_top_1_of_a_cut_distribution_is_no_baseline(tmp_path: Path) -> None:
    runs = [write(tmp_path, "topk", TOP1, [record("a", 9)], scores=s) for s in ("raw", "filtered")]
    found = {row.settings.get("scores"): row.baseline for row in make(runs)}
    assert found == {None: True, "filtered": False}


def test_any_top_1_will_do_where_the_proxys_own_is_missing(tmp_path: Path) -> None:
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 40)]),
        write(tmp_path, "eb", {**EB, "proxy": "margin"}, [record("a", 1)]),
        write(tmp_path, "threshold", {"threshold": 0.9}, [record("a", 1)]),
    ]
    assert set(baselines(runs).values()) == {40}


def test_top_k_that_follows_a_schedule_is_no_baseline(tmp_path: Path) -> None:
    runs = [
        write(tmp_path, "topk", {**TOP1, "k": None}, [record("a", 9)], steps=9, schedule="linear"),
        write(tmp_path, "eb", EB, [record("a", 1)]),
    ]
    assert set(baselines(runs).values()) == {None}


@pytest.mark.parametrize(
    "other",
    [
        {"model": "large"},
        {"task": "maze"},
        {"task_knobs": {"side": 4}},
        {"block_length": 27},
        {"temperature": 0.5},
        {"seed": 1},
        {"stored": {"model_digest": "cd"}},
        {"stored": {"task_version": "2"}},
    ],
    ids=str,
)
def test_runs_of_other_settings_are_not_compared(tmp_path: Path, other: dict[str, Any]) -> None:
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 40)], **other),
        write(tmp_path, "eb", EB, [record("a", 1)]),
    ]
    assert only(make(runs), "eb").speedup["nfe"] is None
    assert len(grouped(make(runs))) == 2


def test_a_samplers_own_file_does_not_part_it_from_its_baseline(tmp_path: Path) -> None:
    """A task's does, wherever the sampler lies."""
    mine, both = {"files": {"task": "12", "sampler": "ab"}}, {"task": "my.py:Task"}
    alone = [
        write(tmp_path, "my.py:Mine", {}, [record("a", 1)], {"files": {"sampler": "ab"}}),
        write(tmp_path, "topk", TOP1, [record("a", 40)]),
    ]
    assert only(make(alone), "my.py:Mine").speedup["nfe"] is not None
    other = {"files": {"task": "34", "sampler": "ab"}}
    shared = [
        write(tmp_path, "my.py:Mine", {}, [record("a", 1)], mine, **both),
        write(tmp_path, "topk", TOP1, [record("a", 50)], other, **both),
    ]
    assert baselines(shared)["Mine"] is None
    shared.append(write(tmp_path, "topk", TOP1, [record("a", 40)], mine, **both))
    assert baselines(shared)["Mine"] == 40


def test_a_table_without_time_has_no_column_for_it(pair: list[Run]) -> None:
    silent = [row.untimed() for row in make(pair)]
    for text in (table.markdown(silent), table.latex(silent)):
        assert "seconds" not in text and "decode" not in text and "speed-up NFE" in text
    assert all(row["seconds"]["decode"] is None for row in table.document(silent)["rows"])


def test_a_top_1_is_compared_with_itself(tmp_path: Path) -> None:
    """Two of the same proxy: one names k, the other leaves it to the default."""
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 40)]),
        write(tmp_path, "topk", {**TOP1, "k": None}, [record("a", 20)]),
    ]
    assert [row.speedup["nfe"] for row in make(runs)] == [Interval(1, 1, 1)] * 2


def test_a_drawing_rule_is_compared_with_top_1_of_the_same_cut(tmp_path: Path) -> None:
    drawn = {"temperature": 0.5}
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 40)], **drawn),
        write(tmp_path, "topk", TOP1, [record("a", 20)], **drawn, top_p=0.9),
        write(tmp_path, "eb", EB, [record("a", 1)], **drawn, top_p=0.9),
    ]
    assert baselines(runs) == pytest.approx(
        {
            "topk k=1 entropy": 40,
            "topk k=1 top_p=0.9 entropy": 20,
            f"eb {GAMMA}=0.1 top_p=0.9 entropy": 20,
        }
    )


def test_only_the_examples_asked_for_count(pair: list[Run]) -> None:
    found = make(pair, {run.path: {"a", "c"} for run in pair})
    assert [row.n for row in found] == [2, 2]
    assert only(found, "eb").nfe == Interval(9, 6, 12)


def test_seconds_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    runs = [
        write(tmp_path, "topk", TOP1, [record("a", 9)], device="cpu"),
        write(tmp_path, "eb", EB, [record("a", 3)], device="cuda"),
    ]
    row = only(make(runs), "eb")
    assert row.speedup["nfe"] and row.speedup["seconds"] is None


def test_rows_stand_in_one_order_with_numbers_as_numbers(tmp_path: Path) -> None:
    one = [record("a", 5)]
    runs = [
        *(write(tmp_path, "eb", {**EB, "gamma": g}, one) for g in (10.0, 9.0, 0.1, math.inf)),
        write(tmp_path, "eb", {"gamma": 0.3, "proxy": "confidence"}, one),
        *(write(tmp_path, "topk", {**TOP1, "k": k}, one) for k in (16, 2, 1)),
        write(tmp_path, "eb", EB, one, model="another"),
    ]
    wanted = ["another eb 0.1", "tiny topk 1", "tiny eb 0.3", "tiny eb 0.1", "tiny eb 9.0"]
    wanted += ["tiny eb 10.0", "tiny eb inf", "tiny topk 2", "tiny topk 16"]
    for seed in range(5):
        random.Random(seed).shuffle(runs)
        rows = make(runs)
        found = [f"{r.model} {r.sampler} {next(iter(r.knobs.values()))}" for r in rows]
        assert found == wanted


def test_the_order_of_records_changes_no_digit(tmp_path: Path) -> None:
    records = [record(f"{i}", 5 + i * i % 17, i * i % 7 / 7) for i in range(30)]
    there, back = (
        make([write(tmp_path / name, "eb", EB, order)])[0]
        for name, order in (("there", records), ("back", records[::-1]))
    )
    assert (there.nfe, there.scores) == (back.nfe, back.scores)


def test_runs_without_records_and_repeated_ones_make_no_row(
    pair: list[Run], tmp_path: Path
) -> None:
    empty = write(tmp_path, "random", {"k": 1}, [])
    assert len(make([*pair, empty, *pair])) == 2
    assert make([]) == []


@pytest.mark.parametrize(
    ("sampler", "knobs", "settings", "label", "rule"),
    [
        ("eb", EB, {}, f"eb {GAMMA}=0.1 entropy", "eb entropy"),
        ("eb", {**EB, "gamma": 0.0}, {}, f"eb {GAMMA}=0 entropy", "eb entropy"),
        ("topk", TOP1, {}, "topk k=1 entropy", "topk entropy"),
        (
            "random",
            {"k": None},
            {"steps": 8, "schedule": "cosine"},
            "random 8 steps cosine",
            "random cosine",
        ),
        (
            "threshold",
            {"threshold": 0.9, "capped": True},
            {},
            "threshold 0.9 capped",
            "threshold capped",
        ),
        (
            "fast-dllm-factor",
            {"factor": 1.0, "slip": False},
            {},
            "fast-dllm-factor 1",
            "fast-dllm-factor",
        ),
        (
            "dir/my.py:Mine",
            {"tau": 2},
            {"scores": "filtered"},
            "Mine tau=2 filtered",
            "Mine filtered",
        ),
    ],
)
def test_labels_are_short_and_say_what_differs(
    tmp_path: Path,
    sampler: str,
    knobs: dict[str, Any],
    settings: dict[str, Any],
    label: str,
    rule: str,
) -> None:
    spec = {"model": "m", "scores": "raw", "sampler": sampler, "knobs": knobs, **settings}
    stored = {"settings": RunSpec(**spec).model_dump(), "headline": "solved"}
    run = Run.create(tmp_path, "run", stored)
    with run.writing({}) as append:
        append([record("a", 1)])
    (row,) = make([run])
    assert (rows.label(row), rows.rule(row)) == (label, rule)


def test_markdown(pair: list[Run]) -> None:
    expected = """\
**tiny · sudoku · n=4 · side=9**

| sampler | solved % | NFE | speed-up NFE | speed-up seconds | TPF | decode s | model/sampler/host % | forward tokens | forced % | bound nats |
| :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |
| topk k=1 entropy (baseline) | 75.0 [30.1, 95.4] | 48.0 | 1.0x | 1.0x | 1.00 | 0.1 | 80/15/5 | 3888 | 0.0 | 0.00 |
| eb γ=0.1 entropy | 50.0 [15.0, 85.0] | 9.0 [6.0, 12.0] | 5.3x [4.0, 8.0] | 5.0x | 5.33 | 0.02 | 80/15/5 | 729 | 2.1 | 0.25 |
"""  # noqa: E501, RUF001
    assert table.markdown(make(pair)) == expected


def test_latex(pair: list[Run]) -> None:
    expected = r"""
% tiny · sudoku · n=4 · side=9
\begin{tabular}{lrrrrrrrrrr}
\toprule
sampler & solved \% & NFE & speed-up NFE & speed-up seconds & TPF & decode s & model/sampler/host \% & forward tokens & forced \% & bound nats \\
\midrule
topk k=1 entropy (baseline) & 75.0 [30.1, 95.4] & 48.0 & 1.0x & 1.0x & 1.00 & 0.1 & 80/15/5 & 3888 & 0.0 & 0.00 \\
eb $\gamma$=0.1 entropy & 50.0 [15.0, 85.0] & 9.0 [6.0, 12.0] & 5.3x [4.0, 8.0] & 5.0x & 5.33 & 0.02 & 80/15/5 & 729 & 2.1 & 0.25 \\
\bottomrule
\end{tabular}
"""  # noqa: E501
    assert "\n" + table.latex(make(pair)) == expected


def test_latex_escapes_what_a_user_may_name(tmp_path: Path) -> None:
    run = write(tmp_path, "my_file.py:My_{rule}", {"a_b": "50%&#$~^\\"}, [record("a", 1)])
    line = table.latex(make([run])).splitlines()[5]
    sampler = r"My\_\{rule\} 50\%\&\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert line.startswith(f"{sampler} & 100.0 ")


def test_csv_has_a_column_for_each_number(pair: list[Run]) -> None:
    text = table.csv(make(pair))
    assert text.splitlines()[0] == (
        "model,task,task_knobs.side,sampler,knobs.k,knobs.proxy,knobs.alg_temp,"
        "knobs.gamma,n,scores.solved.value,scores.solved.low,scores.solved.high,nfe.value,"
        "nfe.low,nfe.high,speedup.nfe.value,speedup.nfe.low,speedup.nfe.high,"
        "speedup.seconds.value,speedup.seconds.low,speedup.seconds.high,tpf,tpf_tail,"
        "forward_tokens,forced,bound_spent,seconds.decode,seconds.model,seconds.sampler,"
        "seconds.host,baseline,run"
    )
    base, row = csv_reader.DictReader(io.StringIO(text))
    assert (base["knobs.k"], base["knobs.gamma"], row["knobs.k"]) == ("1", "", "")
    assert (row["n"], row["nfe.low"], row["baseline"]) == ("4", "6.0", "False")
    assert float(row["speedup.nfe.high"]) == pytest.approx(8)


def printed(rows: list[Row], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table.rich_table(rows))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_wide_terminal_shows_everything_in_one_line_a_run(pair: list[Run]) -> None:
    expected = """\
tiny · sudoku · n=4 · side=9

                                                                                                  model/
                              solved                          speed-up  speed-up        decode  sampler/  forward  forced  bound
 sampler                           %              NFE              NFE   seconds   TPF       s    host %   tokens       %   nats
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 topk k=1 entropy  75.0 [30.1, 95.4]             48.0             1.0x      1.0x  1.00     0.1   80/15/5     3888     0.0   0.00

 eb γ=0.1 entropy  50.0 [15.0, 85.0]  9.0 [6.0, 12.0]  5.3x [4.0, 8.0]      5.0x  5.33    0.02   80/15/5      729     2.1   0.25

[low, high] is the 95 % interval. Speed-up: the baseline's mean / the row's, on the examples both have (seconds: decoded at the same batch size).
Baselines come first, dimmed; a row's own is the one with its proxy, if there is one.
"""  # noqa: E501, RUF001
    assert printed(make(pair), 150) == expected.splitlines()


def test_a_narrow_terminal_shows_what_fits_and_says_what_does_not(pair: list[Run]) -> None:
    expected = """\
tiny · sudoku · n=4 · side=9

                        solved               speed-up speed-up      decode
 sampler                     %         NFE        NFE  seconds  TPF      s
 ─────────────────────────────────────────────────────────────────────────
 topk k=1 entropy         75.0        48.0       1.0x     1.0x 1.00    0.1
                  [30.1, 95.4]

 eb γ=0.1 entropy         50.0         9.0       5.3x     5.0x 5.33   0.02
                  [15.0, 85.0] [6.0, 12.0] [4.0, 8.0]

[low, high] is the 95 % interval. Speed-up: the baseline's mean / the row's, on
the examples both have (seconds: decoded at the same batch size). Baselines come
first, dimmed; a row's own is the one with its proxy, if there is one. Not
shown, for want of room: model/sampler/host %, forward tokens, forced %, bound
nats.
"""  # noqa: RUF001
    assert printed(make(pair), 80) == expected.splitlines()


@pytest.mark.parametrize("width", [50, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(
    pair: list[Run], width: int
) -> None:
    lines = printed(make(pair), width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert all(word in text for word in ("entropy", "solved", "48.0", "5.3x", "[15.0, 85.0]"))


def test_each_group_has_its_own_table_under_its_title(tmp_path: Path) -> None:
    one, two = [record("a", 5)], [record("a", 5), record("b", 5)]
    runs = [write(tmp_path, "eb", EB, one), write(tmp_path, "topk", TOP1, two)]
    runs.append(write(tmp_path, "eb", EB, one, model="zoo", block_length=27, steps=9))
    titles = [title(group) for group in grouped(make(runs))]
    dot = " \N{MIDDLE DOT} "
    assert titles == [
        dot.join(["tiny", "sudoku", "n=1-2", "side=9"]),
        dot.join(["zoo", "sudoku", "n=1", "side=9", "block_length=27"]),
    ]
    for text in (table.markdown(make(runs)), "\n".join(printed(make(runs), 150))):
        assert all(text.count(title) == 1 for title in titles)
        assert text.count("sampler/") == 2


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_figure_is_the_same_to_the_byte(pair: list[Run], tmp_path: Path, kind: str) -> None:
    files = [tmp_path / f"{name}.{kind}" for name in ("one", "two")]
    for file in files:
        figure.pareto(make(pair), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not re.search(rb"CreationDate|dc:date", files[0].read_bytes())


def test_a_figure_names_rules_and_points(pair: list[Run], tmp_path: Path) -> None:
    """Matplotlib leaves every text of an svg in a comment."""
    figure.pareto(make(pair), tmp_path / "a.SVG")
    text = (tmp_path / "a.SVG").read_text()
    for shown in (
        "eb entropy",
        "topk entropy",
        "baseline",
        f"{GAMMA}=0.1",
        "solved (%, 95 % interval)",
    ):
        assert f"<!-- {shown} -->" in text


def test_a_figure_that_cannot_be_drawn_is_the_users_to_mend(
    pair: list[Run], tmp_path: Path
) -> None:
    rows = make(pair)
    with pytest.raises(UserError, match=r"cannot draw a\.jpg\nname the picture \.svg, \.png or"):
        figure.pareto(rows, tmp_path / "a.jpg")
    with pytest.raises(UserError, match="no run to draw"):
        figure.pareto([], tmp_path / "a.svg")
    with pytest.raises(UserError, match=r"cannot write .*a\.svg: No such file"):
        figure.pareto(rows, tmp_path / "no" / "a.svg")


def test_reading_runs_needs_no_torch_and_importing_no_heavy_library() -> None:
    code = (
        "import sys, mdmbench.table, mdmbench.stats, mdmbench.figure, mdmbench.store;"
        "print({'torch', 'scipy', 'pandas', 'matplotlib', 'rich'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_samples_of_an_example_are_one_example(tmp_path: Path) -> None:
    """Their scores and calls are averaged first; pass@k counts them."""
    made = [
        record(f"e{i}#{j}", 4 + 4 * i, scores={"pass@1": float(j < i)}, meta={"example": f"e{i}"})
        for i in range(2)
        for j in range(5)
    ]
    stored = {"headline": "pass@1"}
    (row,) = rows.rows([write(tmp_path, "eb", EB, made, stored)])
    assert row.n == 2
    values = {name: score.value for name, score in row.scores.items() if score}
    assert values == pytest.approx({"pass@1": 0.1, "pass@5": 0.5})
    assert row.nfe is not None and tuple(row.nfe) == pytest.approx((6, 4, 8))


def test_a_score_may_be_called_as_a_number_of_the_record_is(tmp_path: Path) -> None:
    """Both stand side by side, whatever is measured by the other one."""
    scores = {"solved": 1.0, "nfe": 0.25, "length": 0.5, "decode": 0.75, "example": 0.125}
    (row,) = make([write(tmp_path, "eb", EB, [record("a", 4, scores=scores)])])
    assert {name: v and v.value for name, v in row.scores.items()} == scores
    assert (row.nfe and row.nfe.value, row.tpf) == (4, 12)
    assert row.seconds["decode"] == pytest.approx(0.1)


@pytest.mark.parametrize("gone", ["settings", "headline", "a setting"])
def test_a_run_whose_settings_are_not_whole_is_a_mistake(tmp_path: Path, gone: str) -> None:
    """As another version may have written them."""
    run = write(tmp_path, "eb", EB, [record("a", 4)])
    content = dict(run.spec)
    if gone == "a setting":
        content["settings"] = {k: v for k, v in run.spec["settings"].items() if k != "seed"}
    else:
        del content[gone]
    (run.path / "spec.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        make([Run(run.path)])
    assert error.value.message == f"{run.path}/spec.json is not a run's settings"
    assert error.value.hint == "was it written by another version?"


def test_a_table_can_be_split_by_what_is_known_of_the_examples(tmp_path: Path) -> None:
    made = [
        record(f"e{i}", 4, i < 3, meta={"bucket": "hard" if i % 2 else "easy"}) for i in range(6)
    ]
    run = write(tmp_path, "eb", EB, made)
    easy, hard = rows.split([run], "bucket")
    assert (easy.n, hard.n) == (3, 3)
    assert easy.accuracy is not None and easy.accuracy.value == pytest.approx(2 / 3)
    assert "bucket=hard" in rows.title([hard]) and easy.group != hard.group
    with pytest.raises(UserError, match="did you mean 'bucket'"):
        rows.split([run], "buckets")
