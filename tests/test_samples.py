"""Records as columns: order, samples of an example, gaps, clocks, and a million of them."""

import json
import math
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from test_table import EB, TOP1, record, write

from mdmbench import samples
from mdmbench.base import Seconds
from mdmbench.errors import UserError
from mdmbench.samples import COUNTS, PARTS, SCORE, Samples, common, made, timed
from mdmbench.store import Record, Run


def drawn(id: str, solved: float, nfe: int = 4) -> Record:
    """Sample `e#j` of example e."""
    return record(id, nfe, solved, meta={"example": id.partition("#")[0]})


def column(found: Samples, name: str) -> list[float]:
    return list(found.numbers[name])


def test_every_number_of_a_record_has_a_column(tmp_path: Path) -> None:
    one = record(
        "a",
        9,
        scores={"solved": 1.0, "cells": 0.5},
        nfe_until=7,
        length=40,
        filled=64,
        forward_tokens=81,
        forced=2,
        bound_spent=0.25,
        meta={"bucket": "easy"},
    )
    found = samples.read(write(tmp_path, "eb", EB, [one]), "bucket")
    assert list(found.numbers) == [*COUNTS, *PARTS, "score.cells", "score.solved", "decode"]
    assert found.numbers.loc["a"].tolist() == pytest.approx(
        [9, 7, 40, 64, 81, 2, 0.25, 0.08, 0.015, 0.005, 0.5, 1, 0.1]
    )
    assert set(found.numbers.dtypes.astype(str)) == {"float64"}
    assert found.scores == ("cells", "solved")
    assert (found.example["a"], found.value["a"], len(found)) == ("a", "easy", 1)


def test_a_score_may_have_the_name_of_a_number(tmp_path: Path) -> None:
    one = record("a", 9, scores={"nfe": 0.5, "decode": 0.25})
    found = samples.read(write(tmp_path, "eb", EB, [one]))
    assert found.scores == ("decode", "nfe")
    assert (column(found, "nfe"), column(found, SCORE + "nfe")) == ([9], [0.5])
    assert column(found, "decode") == pytest.approx([0.1])


def test_a_clock_is_what_a_reader_knows_the_machine_by(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 4)])
    named = [
        ({"device": "cpu", "processor": "Zen", "threads": 2}, "cpu, Zen, 2 threads"),
        ({"device": "cuda", "gpu": "H200", "processor": None}, "cuda, H200, unknown threads"),
    ]
    for id, (environment, _) in zip("bc", named, strict=True):
        with run.writing(environment) as append:
            append([record(id, 4)])
    assert list(samples.read(run).clock["b":]) == [f"{text}, batch size 4" for _, text in named]


def test_entries_stand_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """As text, whatever the order in which the examples finished."""
    records = [record(id, int(id)) for id in ("10", "9", "2", "1")]
    found = samples.read(write(tmp_path, "eb", EB, records))
    assert list(found.numbers.index) == ["1", "10", "2", "9"]
    assert column(found, "nfe") == [1, 10, 2, 9]
    assert list(found.clock.index) == list(found.example) == ["1", "10", "2", "9"]
    assert found.averaged("nfe") == [1, 10, 2, 9]


def test_of_an_id_that_stands_twice_the_last_record_counts(tmp_path: Path) -> None:
    records = [record("a", 5, 0), record("b", 7), record("a", 6, 1, batch_size=9)]
    found = samples.read(write(tmp_path, "eb", EB, records))
    assert column(found, "nfe") == [6, 7] and column(found, SCORE + "solved") == [1, 1]
    assert found.clock["a"].endswith("batch size 9") and len(found) == 2


def test_samples_of_an_example_are_averaged_before_anything_else(tmp_path: Path) -> None:
    records = [drawn("b#0", 0, 10), *(drawn(f"a#{i}", i > 0, 2 * i) for i in range(4))]
    found = samples.read(write(tmp_path, "eb", EB, records))
    assert len(found) == 5 and found.example.nunique() == 2
    assert found.averaged(SCORE + "solved") == [0.75, 0]
    assert found.averaged("nfe") == [3, 10]


def test_examples_that_were_never_asked_are_not_measured(tmp_path: Path) -> None:
    """They have a score, and no forwards."""
    records = [record("a", 4), record("b", 0, 0, filled=0, length=0)]
    found = samples.read(write(tmp_path, "eb", EB, records))
    assert column(found, SCORE + "solved") == [1, 0]
    assert list(found.measured.numbers.index) == list(found.measured.clock.index) == ["a"]
    assert found.measured.scores == found.scores


def test_a_score_that_a_record_lacks_is_no_number(tmp_path: Path) -> None:
    """A name that comes late, and one that goes early."""
    scores: list[dict[str, float]] = [{"old": 1}, {"old": 0.5, "new": 0.5}, {"new": 1}, {}]
    records = [record(f"{i}", 4, scores=s) for i, s in enumerate(scores)]
    found = samples.read(write(tmp_path, "eb", EB, records))
    assert found.scores == ("new", "old")
    assert column(found, SCORE + "old") == pytest.approx([1, 0.5, math.nan, math.nan], nan_ok=True)
    assert column(found, SCORE + "new") == pytest.approx([math.nan, 0.5, 1, math.nan], nan_ok=True)
    assert (found.averaged(SCORE + "old"), found.averaged(SCORE + "new")) == ([1, 0.5], [0.5, 1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_counts_for_nothing(tmp_path: Path, bad: float) -> None:
    """The other samples of its example do; an example of nothing else is left out."""
    records = [drawn("a#0", bad), drawn("a#1", 1), drawn("b#0", bad), drawn("c#0", 0)]
    found = samples.read(write(tmp_path, "eb", EB, records))
    assert found.averaged(SCORE + "solved") == [1, 0]
    assert list(found.by_example(found.numbers[SCORE + "solved"]).index) == ["a", "c"]


def test_records_can_be_picked_out_while_they_are_read(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record(id, 4) for id in "dcba"])
    assert list(samples.read(run, only={"a", "c", "z"}).numbers.index) == ["a", "c"]
    assert len(samples.read(run, only=set())) == 0
    assert len(samples.read(run)) == 4


def test_an_empty_run_has_every_column_but_scores(tmp_path: Path) -> None:
    found = samples.read(write(tmp_path, "eb", EB, []))
    assert (len(found), found.scores) == (0, ())
    assert list(found.numbers) == [*COUNTS, *PARTS, "decode"]
    assert found.averaged("nfe") == [] and len(found.measured) == 0


def test_what_two_runs_have_in_common_stands_in_one_order(tmp_path: Path) -> None:
    one = samples.read(write(tmp_path, "topk", TOP1, [record(id, 48) for id in "dba"]))
    other = samples.read(write(tmp_path, "eb", EB, [record(id, 4) for id in "cabe"]))
    for pair in (common(one, other), common(other, one)):
        assert [list(s.numbers.index) for s in pair] == [["a", "b"]] * 2
    assert column(common(one, other)[0], "nfe") == [48, 48]


def test_seconds_are_those_of_one_clock(tmp_path: Path) -> None:
    """The same machine at the same batch size, and it ran: of five only e is left."""
    there = [
        record("a", 4, batch_size=1),
        record("b", 4, seconds=Seconds()),
        *(record(id, 4) for id in "ce"),
    ]
    run = write(tmp_path / "one", "eb", EB, there)
    with run.writing({"device": "cuda"}) as append:
        append([record("d", 4)])
    one = samples.read(run)
    other = samples.read(
        write(tmp_path / "other", "eb", EB, [record(id, 4) for id in "abcde" if id != "c"])
    )
    assert [list(s.numbers.index) for s in timed(one, other)] == [["e"]] * 2
    assert len(set(one.clock)) == 3


def test_a_record_of_a_lost_session_has_a_clock_of_its_own(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 4)])
    (run.path / "env.json").unlink()
    assert list(samples.read(run).clock) == ["unknown, batch size 4"]


def test_columns_can_be_given_without_a_run() -> None:
    found = made(["b", "a"], {SCORE + "solved": [1, None], "nfe": [4, 5], "example": ["x", "x"]})
    assert list(found.numbers.index) == ["a", "b"] and found.scores == ("solved",)
    assert column(found, SCORE + "solved") == pytest.approx([math.nan, 1], nan_ok=True)
    assert found.averaged("nfe") == [4.5] and found.numbers["length"].isna().all()
    assert list(made(["b", "a"], {"nfe": [4, 5]}).example) == ["a", "b"]


def test_a_line_that_a_crash_cut_off_is_skipped_and_a_broken_one_is_named(tmp_path: Path) -> None:
    run = write(tmp_path, "eb", EB, [record("a", 4), record("b", 4)])
    file = run.path / "records.jsonl"
    file.write_text(file.read_text() + '{"id": "c", "answ')
    assert len(samples.read(run)) == 2
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match=r"records\.jsonl, line 3 is no record: .*JSON"):
        samples.read(run)


def test_one_record_at_a_time_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is being read, and the one before it."""
    run = write(tmp_path, "eb", EB, [record(f"{i}", 4) for i in range(50)])
    seen: list[weakref.ref[Record]] = []
    counts = []
    original = Run.records

    def watched(self: Run) -> Iterator[Record]:
        for found in original(self):
            seen.append(weakref.ref(found))
            counts.append(sum(there() is not None for there in seen))
            yield found

    monkeypatch.setattr(Run, "records", watched)
    assert len(samples.read(run)) == len(counts) == 50
    assert max(counts) <= 2


def test_of_very_many_records_little_more_than_their_numbers_is_held(tmp_path: Path) -> None:
    """20,000 of them, 4 kB each on the disk: the answers alone would take three times as much."""
    run, n = write(tmp_path, "eb", EB, []), 20_000
    line = json.dumps(asdict(record("ID", 4, answer="x" * 3800)))
    with (run.path / "records.jsonl").open("w") as file:
        file.writelines(line.replace('"ID"', f'"{i:06}"') + "\n" for i in range(n))
    samples.read(run, only=set())  # what reading itself needs, once
    tracemalloc.start()
    found = samples.read(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == n and peak < 1500 * n
