"""What lies on disk survives: crashes, full disks, second writers, other settings."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.base import Seconds
from mdmbench.errors import UserError
from mdmbench.store import Record, Run, digest, runs

SPEC: dict[str, Any] = {"schema": 1, "settings": {"sampler": "eb", "knobs": {"gamma": 0.1}}}
ENVIRONMENT = {"python": "3.12", "device": "cpu"}
RECORD = Record(
    id="r0",
    answer="1234",
    scores={"solved": 1.0, "cells": 0.75},
    notes={"seen": "x"},
    pieces=["a"],
    meta={"bucket": "é"},
    nfe=3,
    nfe_until=None,
    length=4,
    filled=4,
    forward_tokens=12,
    forced=0,
    bound_spent=0.1 + 0.2,
    committed_at=[0, -1, 2, 2],
    batch_size=2,
    seconds=Seconds(1 / 3, 0.25, 1e-9),
)


def record(i: int, answer: str = "1234") -> Record:
    return replace(RECORD, id=f"r{i}", answer=answer)


def create(out: Path) -> Run:
    return Run.create(out, "sudoku-eb", SPEC)


def write(run: Run, *records: Record, environment: dict[str, str] = ENVIRONMENT) -> None:
    with run.writing(environment) as append:
        append(records)


def ids(run: Run) -> list[str]:
    return [r.id for r in run.records()]


def lines(run: Run) -> Path:
    return run.path / "records.jsonl"


def message(error: pytest.ExceptionInfo[UserError], path: Path) -> str:
    return str(error.value).replace(str(path), "OUT")


# Records


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    run = create(tmp_path)
    assert ids(run) == []
    write(run, record(0), record(1))
    write(run, record(2))
    assert list(Run(run.path).records()) == [record(0), record(1), record(2)]
    assert lines(run).read_text().count("\n") == 3


def test_records_are_on_disk_when_append_returns(tmp_path: Path) -> None:
    run = create(tmp_path)
    with run.writing(ENVIRONMENT) as append:
        append([record(0)])
        assert ids(run) == ["r0"]
        append([])
        append([record(1), record(2)])
        assert ids(run) == ["r0", "r1", "r2"]


def test_append_syncs_the_file_to_the_disk(tmp_path: Path, monkeypatch: Any) -> None:
    synced: list[int] = []
    run = create(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: synced.append(lines(run).stat().st_size))
    with run.writing(ENVIRONMENT) as append:
        append([record(0)])
        assert synced == [lines(run).stat().st_size]
        assert synced[0] > 0


def test_a_torn_last_line_is_dropped_wherever_it_is_cut(tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0), record(1))
    whole = lines(run).read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        lines(run).write_bytes(whole[:end])
        assert ids(run) == ["r0"]
    lines(run).write_bytes(whole[: first - 1])
    assert ids(run) == []


def test_a_torn_last_line_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0), record(1))
    whole = lines(run).read_bytes()
    for end in (len(whole) - 1, len(whole) - 40, whole.index(b"\n") + 1):
        lines(run).write_bytes(whole[:end])
        write(run, record(2), record(3))
        assert list(run.records()) == [record(0), record(2), record(3)]
    lines(run).write_bytes(whole[:9])
    write(run)
    assert lines(run).read_bytes() == b""


@pytest.mark.parametrize(
    "broken",
    [b"{", b"", b"3", b"null", b"{}", b'{"id": "x"}', b"\xff\xfe", b'{"seconds": 4}'],
)
def test_an_unreadable_line_that_is_not_the_last_is_named(broken: bytes, tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0), record(1))
    first, second = lines(run).read_bytes().splitlines(keepends=True)
    lines(run).write_bytes(first + broken + b"\n" + second)
    with pytest.raises(UserError) as error:
        ids(run)
    text = message(error, run.path)
    assert text.startswith("OUT/records.jsonl, line 2 is no record: ")


def test_a_record_with_a_field_too_many_is_named(tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0))
    fields = json.loads(lines(run).read_text()) | {"speed": 1}
    lines(run).write_text(json.dumps(fields) + "\n")
    with pytest.raises(UserError, match=r"line 1 is no record: speed Unexpected"):
        ids(run)


# One writer


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    run = create(tmp_path)
    with run.writing(ENVIRONMENT) as append:
        append([record(0)])
        with pytest.raises(UserError) as error, create(tmp_path).writing({"other": "machine"}):
            pass
        assert message(error, run.path) == "another process is writing to OUT\nwait for it"
        append([record(1)])
    write(run, record(2))
    assert ids(run) == ["r0", "r1", "r2"]
    assert json.loads((run.path / "env.json").read_text()) == [ENVIRONMENT]


def test_a_writer_in_another_process_is_refused_while_this_one_writes(tmp_path: Path) -> None:
    run = create(tmp_path)
    program = (
        "import sys; from pathlib import Path; from mdmbench.store import Run\n"
        "with Run(Path(sys.argv[1])).writing({}): print('in')"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    with run.writing(ENVIRONMENT) as append:
        refused = subprocess.run(command, capture_output=True, text=True, timeout=20)
        append([record(0)])
    assert "UserError: another process is writing to" in refused.stderr
    assert refused.stdout == ""
    let_in = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (let_in.stdout, let_in.stderr) == ("in\n", "")
    assert ids(run) == ["r0"]


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    run = create(tmp_path)
    with pytest.raises(ZeroDivisionError), run.writing(ENVIRONMENT) as append:
        append([record(0)])
        raise ZeroDivisionError
    write(run, record(1))
    assert ids(run) == ["r0", "r1"]


# Folders that cannot be written


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(UserError) as error:
        create(out)
    name = f"sudoku-eb-{digest(SPEC)}"
    hint = "\nchoose another --out, or make room"
    assert message(error, out) == f"cannot write OUT/{name}: Not a directory{hint}"
    assert out.read_text() == "mine"
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError) as error:
        create(tmp_path)
    assert message(error, tmp_path) == f"cannot write OUT/{name}: File exists{hint}"


def test_a_folder_in_the_records_place_is_an_error(tmp_path: Path) -> None:
    run = create(tmp_path)
    lines(run).unlink()
    lines(run).mkdir()
    with pytest.raises(UserError) as error, run.writing(ENVIRONMENT):
        pass
    text = "cannot write OUT/records.jsonl: Is a directory\nchoose another --out, or make room"
    assert message(error, run.path) == text


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [500, 100_000], ids=["buffered", "larger than the buffer"])
def test_a_disk_that_fills_up_costs_the_last_records_alone(size: int, tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0))
    room = lines(run).stat().st_size + 100
    with (
        pytest.raises(UserError) as error,
        files_end_at(room),
        run.writing(ENVIRONMENT) as append,
    ):
        append([record(1, "5" * size)])
    text = "cannot write OUT/records.jsonl: File too large\nchoose another --out, or make room"
    assert message(error, run.path) == text
    assert lines(run).stat().st_size == room  # torn
    assert ids(run) == ["r0"]
    write(run, record(2))
    assert list(run.records()) == [record(0), record(2)]


def test_no_room_for_the_settings_leaves_no_half_written_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File too large"), files_end_at(10):
        create(tmp_path)
    assert runs([tmp_path]) == []
    write(create(tmp_path), record(0))
    assert [ids(run) for run in runs([tmp_path])] == [["r0"]]


def test_no_room_for_the_environment_keeps_the_old_one(tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0))
    with (
        pytest.raises(UserError, match=r"env\.json: File too large"),
        files_end_at(10),
        run.writing({"device": "other"}),
    ):
        pass
    assert json.loads((run.path / "env.json").read_text()) == [ENVIRONMENT]
    assert ids(run) == ["r0"]


# Settings and environments


def test_each_different_environment_is_noted_once(tmp_path: Path) -> None:
    run, other = create(tmp_path), {**ENVIRONMENT, "device": "cuda"}
    for environment in (ENVIRONMENT, ENVIRONMENT, other, other):
        write(run, environment=environment)
    assert json.loads((run.path / "env.json").read_text()) == [ENVIRONMENT, other]


def test_a_run_is_taken_up_again_by_its_settings(tmp_path: Path) -> None:
    write(create(tmp_path), record(0))
    before = (create(tmp_path).path / "spec.json").stat().st_mtime_ns
    assert ids(create(tmp_path)) == ["r0"]
    assert (create(tmp_path).path / "spec.json").stat().st_mtime_ns == before
    other = Run.create(tmp_path, "sudoku-eb", {**SPEC, "schema": 2})
    assert ids(other) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"sudoku-eb-{digest(s)}" for s in (SPEC, {**SPEC, "schema": 2})
    )
    assert other.spec["schema"] == 2 and other.spec["settings"].items() >= SPEC["settings"].items()


def test_a_folder_with_other_settings_is_an_error(tmp_path: Path) -> None:
    run = create(tmp_path)
    write(run, record(0))
    (run.path / "spec.json").write_text(json.dumps({**SPEC, "schema": 2}))
    with pytest.raises(UserError) as error:
        create(tmp_path)
    text = "OUT holds a run of other settings\nmove it away, or choose another --out"
    assert message(error, run.path) == text
    assert ids(run) == ["r0"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "OUT/spec.json cannot be read: Expecting property name"),
        ("", "OUT/spec.json cannot be read: Expecting value"),
        ("[1]", "OUT/spec.json is not a run's settings"),
        (None, "OUT is not a run\na run folder holds spec.json"),
    ],
)
def test_a_broken_spec_is_an_error(content: str | None, text: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "spec.json").write_text(content)
    with pytest.raises(UserError) as error:
        Run(tmp_path)
    assert message(error, tmp_path).startswith(text)


def test_the_digest_is_the_same_on_every_machine() -> None:
    assert digest(SPEC) == "ad71b0394826"
    assert digest({}) == "44136fa355b3"


settings_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), settings_like, max_size=5), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_digest_is_blind_to_the_order_of_keys_and_survives_json(spec: Any, rng: Any) -> None:
    keys = list(spec)
    rng.shuffle(keys)
    assert digest({key: spec[key] for key in keys}) == digest(spec)
    assert digest(json.loads(json.dumps(spec))) == digest(spec)


def test_the_digest_sees_every_value() -> None:
    specs = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"a": None}, {"b": 1}, {"a": [1]}, {"a": {"a": 1}}]
    assert len({digest(spec) for spec in specs}) == len(specs)


# Finding runs


def test_runs_are_found_by_name_and_inside_folders(tmp_path: Path) -> None:
    made = [Run.create(tmp_path / "out", name, {**SPEC, "seed": i}) for i, name in enumerate("ab")]
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "figures").mkdir()
    assert [r.path for r in runs([tmp_path / "out"])] == [r.path for r in made]
    assert [r.path for r in runs([made[1].path])] == [made[1].path]
    assert [r.path for r in runs([made[1].path, tmp_path / "out"])] == [
        made[1].path,
        *(r.path for r in made),
    ]
    assert runs([tmp_path / "out" / "figures"]) == runs([]) == []


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name in ("nowhere", "file"):
        with pytest.raises(UserError) as error:
            runs([tmp_path / name])
        text = f"no folder OUT/{name}\ngive run folders, or the folder they are in"
        assert message(error, tmp_path) == text


def test_a_run_of_before_there_were_caches_is_a_run_without_one(tmp_path: Path) -> None:
    """The same command goes on with it, and readers find every setting."""
    old = create(tmp_path)
    write(old, record(1))
    now = {**SPEC["settings"], "cache": "none", "cache_knobs": {}}
    assert digest({**SPEC, "settings": now}) == digest(SPEC)
    again = Run.create(tmp_path, "sudoku-eb", {**SPEC, "settings": now})
    assert again.path == old.path and ids(again) == ["r1"]
    assert Run(old.path).spec["settings"] == now
    other = {**SPEC, "settings": {**now, "cache": "dual"}}
    assert Run.create(tmp_path, "sudoku-eb", other).path != old.path
