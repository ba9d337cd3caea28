"""What becomes of a batch that memory does not hold, and how large a batch is chosen to be."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import fails, mdmbench
from test_laws import answers, canvases
from test_text import TASK
from tiny import llada
from torch import Tensor
from toy import HashModel

from mdmbench import memory, resolve, slots
from mdmbench.base import Batch, Canvas, Choice, Decoded, Forward, Sampler
from mdmbench.clock import Work
from mdmbench.decoding import Decoding
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.memory import Need, exhausted, fitting
from mdmbench.models import checkpoint
from mdmbench.models.encoder import NativeForward
from mdmbench.models.puzzle import PuzzleForward
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import TopK
from mdmbench.schedule import Schedule
from mdmbench.slots import Rows, Slots
from mdmbench.step import Draw, Step

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GONE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
ERRORS: dict[str, Exception] = {
    "cuda": GONE,
    "cpu": RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "python": MemoryError(),
}
ITEMS = canvases(12)
HOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "blocks": {"block_length": 4},
    "sampled": {"draw": Draw(temperature=0.8), "seed": 3},
    "scheduled": {"block_length": 6, "schedule": Schedule("linear", 3)},
    "guided": {"guidance": 1.5},
}
every_how = pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)


@dataclass
class Small(HashModel):
    """Has memory for so many rows, or runs out of it at these calls where there are several."""

    rows: int = 99
    at: frozenset[int] = frozenset()
    error: Exception = GONE

    def __call__(self, batch: Batch) -> Tensor:
        rows = len(batch.tokens)
        if rows > self.rows or (rows > 1 and self.calls in self.at):
            self.calls += 1
            raise self.error
        return super().__call__(batch)


def run(
    model: HashModel, rule: Sampler, batch_size: int, how: dict[str, Any] | None = None
) -> dict[str, Decoded]:
    decoding = Decoding(**(how or {}))
    found = list(decode(model, rule, ITEMS, batch_size=batch_size, decoding=decoding))
    assert sorted(d.id for d in found) == sorted(c.id for c in ITEMS)
    return {d.id: d for d in found}


# Running out


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@every_how
def test_where_memory_runs_out_the_batch_is_halved_and_no_answer_changes(
    how: dict[str, Any], error: Exception
) -> None:
    alone = answers(run(HashModel(), EB(0.5), 1, how))
    rows = 6 if "guidance" in how else 3
    done = run(Small(rows=rows, error=error), EB(0.5), 12, how)
    assert answers(done) == alone
    assert {d.batch_size for d in done.values()} == {3}


@settings(max_examples=30)
@given(st.frozensets(st.integers(0, 40), max_size=8), st.integers(2, 12))
def test_no_answer_changes_whenever_it_runs_out(at: frozenset[int], batch_size: int) -> None:
    done = run(Small(at=at), TopK(k=2), batch_size)
    assert answers(done) == ALONE


ALONE = answers(run(HashModel(), TopK(k=2), 1))


def failing(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The function, which runs out of memory once: after its work, at this call."""
    calls = 0

    def call(*given: Any, **how: Any) -> Any:
        nonlocal calls
        calls += 1
        found = function(*given, **how)
        if calls == at:
            raise GONE
        return found

    return call


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (slots, "fetched"),
        (Rows, "put"),
        (Rows, "select"),
        (Slots, "_first"),
        (Slots, "_turn"),
        (Slots, "_close"),
        (Slots, "_decoded"),
        (Slots, "window"),
        (Slots, "write"),
    ],
)
def test_wherever_in_a_step_it_runs_out_every_example_is_done_once(
    owner: Any, name: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answers(run(HashModel(), EB(0.5), 5))
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), at))
    done = run(HashModel(), EB(0.5), 5)
    assert answers(done) == whole
    assert min(d.batch_size for d in done.values()) < 5


@pytest.mark.parametrize("name", ["eb", "mine.py:rule"])
def test_a_sampler_that_runs_out_is_not_to_blame(name: str) -> None:
    """A user's own included, whose exceptions are turned into messages."""

    def rule(step: Step) -> Choice:
        if len(step.tokens) > 2:
            raise GONE
        return EB(0.5)(step)

    done = run(HashModel(), resolve.blamed("sampler", name, rule), 12)
    assert answers(done) == answers(run(HashModel(), EB(0.5), 12))
    assert {d.batch_size for d in done.values()} <= {1, 2}


def test_what_is_done_before_keeps_its_batch_size() -> None:
    done = run(Small(at=frozenset({8})), TopK(k=2), 4)
    assert {d.batch_size for d in done.values()} == {4, 2}


def test_lost_work_is_in_nobodys_seconds() -> None:
    """All rows are under way when memory runs out: every second until then is lost."""
    model, work, lost = Small(at=frozenset({2})), Work(), 0.0

    def rule(step: Step) -> Choice:
        nonlocal lost
        if len(step.tokens) == 12:
            lost = work.seconds.decode
        return TopK(k=1)(step)

    done = list(decode(model, rule, ITEMS, batch_size=12, work=work))
    whole, shared = work.seconds.decode, sum(d.seconds.decode for d in done)
    assert 0 < lost < whole and model.calls == work.steps + 1
    assert shared < whole - lost / 2


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(Small(rows=3, error=RuntimeError("shapes do not match")), EB(0.5), 12)
    assert not exhausted(None) and not exhausted(ValueError("can't allocate memory"))


def test_a_canvas_that_does_not_fit_alone_is_an_error_with_the_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: (3_000_000_000, 8_000_000_000))
    monkeypatch.setattr(memory, "used", lambda device: 5_000_000_000)
    model = Small(rows=0, vocab_size=1_000_000)
    with pytest.raises(UserError) as raised:
        list(decode(model, EB(), [Canvas("x", (1, *[0] * 40), 1)], batch_size=1))
    assert raised.value.message == (
        "example x: memory does not hold its canvas of 41 tokens even alone: it needs about 5.2 GB,"
        " 0.2 GB of it for a step, and beside the 5.0 GB in use 3.0 GB are free on cpu"
    )
    assert "--gen-length" in raised.value.hint and "-M quant" in raised.value.hint


def test_the_need_of_a_language_model_counts_its_layers(tmp_path: Path) -> None:
    folder = llada(tmp_path)
    model = checkpoint.load(folder, device=CPU, dtype=torch.float32, options=checkpoint.Options())
    of_step = r"([\d.]+ GB) of it for a step"
    messages = [memory.unfit(model, Canvas("x", (9,) * n), None).message for n in (10**6, 10**7)]
    short, long = (re.search(of_step, message) for message in messages)
    assert short and long and short[1] != long[1] != "0.0 GB"


# Through the command line


def limited(forward: type[Forward], rows: int, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Makes this kind of forward run out of memory at more rows; the batches that it is asked."""
    seen: list[Batch] = []
    plain: Any = forward.__call__

    def call(self: Any, batch: Batch) -> Tensor:
        seen.append(replace(batch, tokens=batch.tokens.clone()))
        if len(batch.tokens) > rows:
            raise GONE
        logits: Tensor = plain(self, batch)
        return logits

    monkeypatch.setattr(forward, "__call__", call)
    return seen


def records(out: Path) -> dict[str, dict[str, Any]]:
    (file,) = out.rglob("records.jsonl")
    return {r["id"]: r for r in map(json.loads, file.read_text().splitlines())}


def told(record: dict[str, Any]) -> list[Any]:
    """What no batch size may change."""
    return [record[k] for k in ("answer", "nfe", "committed_at", "forced", "scores", "length")]


def asked(kind: str, folder: Path) -> list[str | Path]:
    """A run of a puzzle, or of a text with prompts of unlike length."""
    if kind == "puzzle":
        return ["run", "--gamma", "0.1", "--no-baseline", "--limit", "16"]
    (folder / "echo.py").write_text(TASK)
    what = ["--task", f"{folder}/echo.py:Echo", "-T", "longest=9", "--model", llada(folder / "m")]
    return ["run", *what, "--gamma", "0.5", "--block-length", "8", "--no-baseline", "--limit", "30"]


FORWARDS: dict[str, type[Forward]] = {"puzzle": PuzzleForward, "text": NativeForward}


@pytest.mark.parametrize("kind", FORWARDS)
@pytest.mark.parametrize("batch_size", ["8", "auto"])
def test_out_of_memory_is_said_once_and_recorded_and_changes_no_answer(
    kind: str, batch_size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*asked(kind, tmp_path), "--out"]
    assert mdmbench(*command, tmp_path / "one", "--batch-size", "3").exit_code == 0
    seen = limited(FORWARDS[kind], 2, monkeypatch)
    found = mdmbench(*command, tmp_path / "two", "--batch-size", batch_size)
    assert found.exit_code == 0
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert {i: told(r) for i, r in two.items()} == {i: told(r) for i, r in one.items()}
    assert {r["batch_size"] for r in two.values()} == {2}
    (said,) = [line for line in found.stderr.splitlines() if "out of memory" in line]
    tried = [rows for batch in seen if (rows := len(batch.tokens)) > 2]
    assert tried == ([16, 8, 4] if batch_size == "auto" else [8, 4])
    assert said.startswith("warning") and said.endswith(f" batch {tried[0]}: going on with 2")


def test_a_batch_that_runs_out_later_is_halved_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Any = PuzzleForward.__call__
    monkeypatch.setattr(PuzzleForward, "__call__", failing(plain, 4))
    command = ["run", "--gamma", "0.1", "--no-baseline", "--batch-size", "4", "--limit", "16"]
    found = mdmbench(*command, "--out", tmp_path)
    assert {r["batch_size"] for r in records(tmp_path).values()} == {4, 2}
    assert found.stderr.count("out of memory at batch 4: going on with 2") == 1


def test_a_model_that_holds_no_example_ends_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(PuzzleForward, 0, monkeypatch)
    for batch_size in ("4", "auto"):
        said = fails("run", "--batch-size", batch_size, "--limit", "4", "--out", tmp_path)
        assert "memory does not hold its canvas of 81 tokens even alone" in said


def test_an_example_that_cannot_be_asked_is_no_lack_of_memory(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(TASK)
    model = llada(tmp_path / "m", max_length=24)
    what = ["--task", f"{tmp_path}/echo.py:Echo", "-T", "longest=9", "--model", model]
    done = mdmbench("run", *what, "--batch-size", "30", "--limit", "30", "--out", tmp_path / "out")
    assert done.exit_code == 0 and "out of memory" not in done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", ""])
def test_a_batch_size_that_is_none_is_refused_before_anything_is_done(
    text: str, tmp_path: Path
) -> None:
    for command in (["run"], ["sweep", "puzzles"], ["check", "--update"]):
        said = fails(*command, "--batch-size", text, "--out", tmp_path / "out")
        assert f"batch size {text!r}" in said and "or auto" in said
    assert not (tmp_path / "out").exists()


# The warm-up


@pytest.mark.parametrize("block_length", [None, 27])
def test_the_warm_up_is_one_whole_step_of_the_first_batch(
    block_length: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asks of the memory is what the first step will."""
    seen = limited(PuzzleForward, 99, monkeypatch)
    blocks = [] if block_length is None else ["--block-length", str(block_length)]
    command = ["run", "--gamma", "0.1", "--no-baseline", "--limit", "5", "--out", tmp_path]
    assert mdmbench(*command, *blocks).exit_code == 0
    warm, first = seen[:2]
    assert warm.rows.shape == first.rows.shape and torch.equal(warm.tokens, first.tokens)
    assert len(seen) == 1 + max(r["nfe"] for r in records(tmp_path).values())


def test_the_warm_up_runs_the_sampler_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = limited(PuzzleForward, 99, monkeypatch)
    (tmp_path / "mine.py").write_text(
        "from mdmbench.base import Choice\n"
        "def rule(step):\n"
        "    if len(step.tokens) > 2:\n"
        "        raise MemoryError\n"
        "    return Choice(step.eligible)\n"
    )
    command = ["run", "--sampler", f"{tmp_path}/mine.py:rule", "--no-baseline", "--limit", "8"]
    found = mdmbench(*command, "--out", tmp_path / "out", "--batch-size", "8")
    assert found.stderr.count("out of memory at batch 8: going on with 2") == 1
    assert [len(batch.tokens) for batch in seen] == [8, 4, *[2] * 8]


# Finding what fits


def line(first: int, each: int, kept: int = 0) -> Callable[[int], Need]:
    """The first row takes so much, and each that is added."""
    return lambda rows: Need(rows, first + (rows - 1) * each, kept * rows)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of which 1,000 bytes are free."""
    monkeypatch.setattr(memory, "free", lambda device: (1000, 4000))
    monkeypatch.setattr(memory, "release", lambda device: None)


@pytest.mark.usefixtures("free")
def test_a_batch_is_found_that_takes_four_fifths_of_what_is_free() -> None:
    assert fitting(line(100, 100), CUDA, 99) == 8
    assert fitting(line(300, 50), CUDA, 99) == 11
    assert fitting(line(300, 50), CUDA, 6) == 6
    assert fitting(line(100, 0), CUDA, 99) == 99
    assert fitting(line(900, 10), CUDA, 99) == 1
    assert fitting(line(1, 1), CPU, 99) == memory.CPU_ROWS


@pytest.mark.usefixtures("free")
def test_what_other_runs_keep_is_left_to_them() -> None:
    assert fitting(line(100, 100, kept=100), CUDA, 99, runs=1) == 8
    assert fitting(line(100, 100, kept=100), CUDA, 99, runs=3) == 2


@pytest.mark.usefixtures("free")
def test_what_a_first_call_costs_is_not_taken_for_a_row() -> None:
    calls: list[int] = []

    def need(rows: int) -> Need:
        calls.append(rows)
        return Need(rows, 100 * rows + 700 * (len(calls) == 1), 0)

    assert fitting(need, CUDA, 99) == 8


@pytest.mark.usefixtures("free")
def test_one_fits_where_two_do_not_and_nothing_is_said_of_what_is_not_measured() -> None:
    assert fitting(lambda rows: Need(1, 100, 0), CUDA, 99) == 1
    assert fitting(lambda rows: Need(rows, None, 0), CUDA, 99) is None

    def never(rows: int) -> Need:
        raise AssertionError

    assert fitting(never, CUDA, 1) == 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux")
def test_auto_measures_what_a_row_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB, where 400 are free."""
    plain: Any = PuzzleForward.__call__

    def hungry(self: Any, batch: Batch) -> Tensor:
        torch.ones(len(batch.tokens), 5_000_000)
        logits: Tensor = plain(self, batch)
        return logits

    monkeypatch.setattr(PuzzleForward, "__call__", hungry)
    monkeypatch.setattr(memory, "free", lambda device: (400_000_000, 800_000_000))
    monkeypatch.setattr(memory, "CPU_ROWS", 99)
    command = ["run", "--gamma", "0.1", "--no-baseline", "--limit", "40", "--batch-size", "auto"]
    assert mdmbench(*command, "--out", tmp_path).exit_code == 0
    (size,) = {r["batch_size"] for r in records(tmp_path).values()}
    assert 12 <= size <= 16


def test_auto_measures_the_longest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = limited(NativeForward, 99, monkeypatch)

    def fit(need: Callable[[int], Need], *_: object) -> int:
        need(2)
        return 2

    monkeypatch.setattr(memory, "fitting", fit)
    command = [*asked("text", tmp_path), "--out", tmp_path / "out", "--batch-size", "auto"]
    assert mdmbench(*command).exit_code == 0
    assert seen[0].tokens.shape == (2, max(batch.tokens.shape[1] for batch in seen))
    assert seen[0].lengths is None


def test_auto_gives_all_runs_that_are_compared_one_size_and_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def five(need: Callable[[int], Need], device: object, limit: int, runs: int) -> int:
        assert need(3).rows == 3
        asked.append((limit, runs))
        return 5

    monkeypatch.setattr(memory, "fitting", five)
    command = ["run", "-T", "givens=70", "--gamma", "0.1,0.5", "--limit", "6", "--json"]
    plain = mdmbench(*command, "--out", tmp_path / "one", "--batch-size", "2")
    found = mdmbench(*command, "--out", tmp_path / "two", "--batch-size", "auto")
    assert plain.exit_code == found.exit_code == 0 and asked == [(6, 3)]
    for one, two in zip(*(sorted((tmp_path / n).iterdir()) for n in ("one", "two")), strict=True):
        assert one.name == two.name
        kept, made = records(one), records(two)
        assert {i: told(r) for i, r in made.items()} == {i: told(r) for i, r in kept.items()}
        assert {r["batch_size"] for r in made.values()} == {5}


def test_auto_where_nothing_can_be_measured_is_the_usual_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "fitting", lambda *given: None)
    command = ["run", "--gamma", "0.1", "--no-baseline", "--limit", "20", "--batch-size", "auto"]
    assert mdmbench(*command, "--out", tmp_path).exit_code == 0
    assert {r["batch_size"] for r in records(tmp_path).values()} == {16}


def test_a_last_row_in_many_slots_is_tried_alone_before_it_is_given_up() -> None:
    """Its slots may hold what was made for all of them."""

    class Wide(HashModel):
        def start(self) -> "Wide":
            self.begun = getattr(self, "begun", 0) + 1
            return self

        def __call__(self, batch: Batch) -> Tensor:
            if self.begun == 1 and len(batch.tokens) == 1:
                raise GONE
            return super().__call__(batch)

    want = run(HashModel(), TopK(k=1), 5)
    assert answers(run(Wide(), TopK(k=1), 5)) == answers(want)
