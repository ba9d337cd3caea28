"""The harness measures itself: beside the bare forwards, and the loop as papers print it."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_cli
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import document, fails, mdmbench
from torch import Tensor
from toy import HashModel
from typer.testing import CliRunner

from mdmbench import memory
from mdmbench.base import Batch, Canvas, Choice, Model, Seconds
from mdmbench.bench import cases as bench_cases
from mdmbench.bench import end_to_end, textbook
from mdmbench.bench import gate as bench_gate
from mdmbench.bench import measure as measuring
from mdmbench.bench import setting as bench_setting
from mdmbench.bench.measure import Case, Floor, Ours, Row, Textbook
from mdmbench.bench.rehearsal import rehearsed, replay
from mdmbench.bench.setting import Setting
from mdmbench.cli import app
from mdmbench.clock import Work
from mdmbench.decoding import Decoding
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.memory import added
from mdmbench.models import checkpoint, shapes
from mdmbench.models.encoder import NativeModel
from mdmbench.samplers.ranked import TopK
from mdmbench.stats import Interval
from mdmbench.step import Step

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parent / "golden"
SMALL = ["--shape", "tiny-vocab126k", "-M", "vocab_rows=600", "-M", "layers=1", "-M", "width=64"]
FAST = [*SMALL, "--prompt-length", "8", "--gen-length", "16", "--block-length", "8"]
FAST += ["--rounds", "3", "--batch-size", "2"]


@st.composite
def canvases(draw: st.DrawFn) -> Canvas:
    """A prompt, an answer of givens and masks, and perhaps masks behind it."""
    blocks, size = draw(st.tuples(st.integers(1, 3), st.integers(1, 6)))
    start = draw(st.integers(0, 4))
    prompt = draw(st.lists(st.integers(1, 6), min_size=start, max_size=start))
    length = blocks * size
    answer = draw(st.lists(st.sampled_from([0, 0, 0, 3]), min_size=length, max_size=length))
    tokens = (*prompt, *answer, *[0] * draw(st.integers(0, 3)))
    return Canvas(f"{size}", tokens, start, start + length)


def by_loop(model: Model, canvas: Canvas, k: int, block_length: int | None) -> textbook.Filled:
    decoding = Decoding(block_length=block_length, from_zero=model.block is not None)
    (one,) = decode(model, TopK(k), [canvas], batch_size=1, decoding=decoding)
    return textbook.Filled(one.tokens, one.committed_at)


@settings(max_examples=60, deadline=None)
@given(canvases(), st.integers(1, 5), st.booleans(), st.booleans())
def test_the_textbook_loop_commits_what_ours_commits(
    canvas: Canvas, k: int, whole: bool, causal: bool
) -> None:
    size = None if whole else int(canvas.id)
    model = HashModel(block=size if causal else None)
    assert textbook.fill(model, canvas, k, size) == by_loop(model, canvas, k, size)


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_the_textbook_loop_commits_what_ours_commits_on_real_layers(name: str) -> None:
    options = checkpoint.Options(mask_id=250)
    model = checkpoint.load(GOLDEN / name, device=CPU, dtype=torch.float32, options=options)
    for i in range(3):
        prompt = tuple(range(10 * i + 1, 10 * i + 6 + i))
        canvas = Canvas("", (*prompt, *[250] * 12), len(prompt))
        for k in (1, 3):
            assert textbook.fill(model, canvas, k, 6) == by_loop(model, canvas, k, 6)


def test_the_textbook_loop_asks_for_the_logits_of_every_position() -> None:
    model = Watched()
    textbook.fill(model, Canvas("", (1, 0, 0, 0), 1), 2)
    assert [batch["rows"] for _, batch in model.seen] == [[[0, 1, 2, 3]]] * 2


class Watched(HashModel):
    """Keeps what its Forward was asked, as it was then."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Any]] = []

    def start(self) -> "Watched":
        return self

    def __call__(self, batch: Batch) -> Tensor:
        told = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in vars(batch).items()}
        self.seen.append(("call", told))
        return super().__call__(batch)

    def seat(self, rows: Any) -> None:
        self.seen.append(("seat", list(rows)))

    def move(self, source: Any, target: Any) -> None:
        self.seen.append(("move", (list(source), list(target))))


def ragged(number: int) -> list[Canvas]:
    """Of different lengths and costs, so that slots are refilled, moved and padded."""
    return [
        Canvas(f"{i}", (*range(1, 2 + i % 3), *[0] * (2 + 5 * i % 7)), 1 + i % 3)
        for i in range(number)
    ]


def test_the_floor_makes_the_forwards_that_ours_made_and_nothing_else() -> None:
    model = Watched()
    trial = rehearsed(model, TopK(), ragged(9), batch_size=4, decoding=Decoding())
    first, model.seen = model.seen, []
    replay(model, trial.calls)
    assert model.seen == first
    assert {name for name, _ in first} == {"call", "seat", "move"}
    assert len(trial.batches) == sum(name == "call" for name, _ in first)


def test_a_rehearsal_decodes_as_ever() -> None:
    how: Any = {"batch_size": 3, "decoding": Decoding()}
    trial = rehearsed(HashModel(), TopK(), ragged(9), **how)
    for decoded in decode(HashModel(), TopK(), ragged(9), **how):
        assert trial.decoded[decoded.id].committed_at == decoded.committed_at


def test_slots_are_full_as_long_as_an_example_waits() -> None:
    trial = rehearsed(HashModel(), TopK(), ragged(9), batch_size=3, decoding=Decoding())
    rows = [len(batch.tokens) for batch in trial.batches]
    assert 0 < trial.waiting < len(rows)
    assert rows[: trial.waiting] == [3] * trial.waiting
    assert rehearsed(HashModel(), TopK(), ragged(3), batch_size=3, decoding=Decoding()).waiting == 0


def reading(times: int) -> Callable[[Step], Choice]:
    """Top-1 that looks at so many values besides."""
    looks = [
        lambda step: step.left[0].item(),
        lambda step: bool(step.left.any()),
        lambda step: step.positions[step.eligible],
        lambda step: step.left.cpu().tolist(),
        lambda step: int(step.left[0]),
    ]

    def rule(step: Step) -> Choice:
        for look in looks[:times]:
            look(step)
        return TopK()(step)

    return rule


@pytest.mark.parametrize("times", range(6))
def test_every_read_of_a_step_is_counted(times: int) -> None:
    for batch_size in (1, 3):
        trial = rehearsed(
            HashModel(), reading(times), ragged(7), batch_size=batch_size, decoding=Decoding()
        )
        # One more at the end, of what was done at the last step.
        assert trial.reads == (1 + times) * len(trial.batches) + 1


def case(**how: Any) -> Case:
    defaults: dict[str, Any] = {
        "sampler": "topk",
        "knobs": {"k": 1},
        "cache": None,
        "rule": TopK(),
        "model": HashModel(),
        "plain": HashModel(),
        "canvases": ragged(4),
        "batch_size": 2,
        "decoding": Decoding(),
        "parameters": 5,
        "weights": 1000,
        "k": 1,
    }
    return Case(**{**defaults, **how})


def test_rounds_run_every_contestant_and_each_begins_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[str] = []
    for kind in (Ours, Floor, Textbook):

        def told(self: Any, name: str = kind.__name__, run: Any = kind.__call__) -> None:
            turns.append(name)
            run(self)

        monkeypatch.setattr(kind, "__call__", told)
    heard: list[tuple[str, int, int]] = []
    measuring.measure(case(), 3, lambda *news: heard.append(news))
    assert turns == [
        *("Ours", "Floor", "Textbook"),
        *("Floor", "Textbook", "Ours"),
        *("Textbook", "Ours", "Floor"),
    ]
    assert heard[0] == ("topk k=1, batch 2", 0, 3)
    assert heard[-1][1:] == (3, 3)


def test_ratios_are_those_of_the_same_round() -> None:
    made = case(canvases=ragged(2))
    trial = rehearsed(made.model, made.rule, made.canvases, batch_size=2, decoding=made.decoding)
    ours, floor, book = Ours(made), Floor(made, trial), Textbook(made, 1, trial)
    for model, sampler, host in ((8.0, 1.0, 1.0), (4.0, 0.5, 0.5), (16.0, 2.0, 2.0)):
        work = Work(steps=4, slots=8, rows=6, positions=100, tokens=90)
        work.seconds = Seconds(model, sampler, host)
        ours.works.append(work)
    ours.meter.seconds, ours.meter.added = [10.0, 5.0, 20.0], [7000, 5000, 6000]
    floor.meter.seconds, floor.meter.added = [5.0, 2.5, 10.0], [2000, 3000, 2500]
    book.meter.seconds, book.steps, book.same = [50.0, 25.0, 100.0], [7, 7, 7], [True, True, False]
    row = measuring.row(made, trial, ours, floor, book)
    assert row.share == pytest.approx((0.25, 0.25, 0.25))
    assert row.over_floor == pytest.approx((2, 2, 2))
    assert row.speedup == pytest.approx((10, 10, 10))
    assert row.ms == Seconds(7000 / 3, 3500 / 12, 3500 / 12)
    assert (row.n, row.examples, row.steps) == (3, 2, 4)
    assert row.floor_ms == pytest.approx(1e3 * 17.5 / 12)
    assert row.textbook_ms == pytest.approx(1e3 * 175 / 21)
    assert row.per_second == pytest.approx(2 * 3 / 35)
    assert row.same_tokens == pytest.approx(2 / 3)
    assert row.occupancy == 0.75
    assert row.padding == pytest.approx(0.1)
    assert (row.peak, row.floor_peak) == (6000, 3000)


def test_an_interval_over_rounds_is_that_of_the_logarithms() -> None:
    e = math.e
    # t(0.975, 2) = 4.3027, of a standard deviation of 1 and three rounds.
    value, low, high = measuring.across([2 / e, 2, 2 * e])
    assert value == pytest.approx(2)
    assert high / value == pytest.approx(math.exp(4.3027 / math.sqrt(3)), rel=1e-4)
    assert low * high == pytest.approx(value**2)


def test_what_cannot_be_measured_is_none() -> None:
    made = case(canvases=ragged(2), k=None)
    trial = rehearsed(made.model, made.rule, made.canvases, batch_size=2, decoding=made.decoding)
    ours, floor = Ours(made), Floor(made, trial)
    for _ in range(3):
        ours()
        floor()
    floor.meter.added = [None] * 3
    row = measuring.row(made, trial, ours, floor, None)
    nothing = (row.speedup, row.same_tokens, row.textbook_ms, row.floor_peak, row.occupancy_waiting)
    assert set(nothing) == {None}


def test_the_textbook_fills_one_of_equal_canvases_a_round_and_all_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    equal = [Canvas(f"{i}", (i + 1, 0, 0), 1) for i in range(3)]
    for found, sizes in ((equal, [1, 1, 1]), (ragged(3), [3, 3, 3])):
        ticks = count(0, 12)
        monkeypatch.setattr(measuring, "perf_counter", lambda ticks=ticks: next(ticks))
        made = case(canvases=found)
        trial = rehearsed(made.model, made.rule, found, batch_size=2, decoding=made.decoding)
        book = Textbook(made, 1, trial)
        turns = [book.canvases(turn) for turn in range(3)]
        assert list(map(len, turns)) == sizes
        assert {c.id for turn in turns for c in turn} == {"0", "1", "2"}
        for _ in turns:
            book()
        # A round of 12 seconds, and what one example had of it.
        assert book.meter.seconds == [12 / size for size in sizes]
        assert book.steps == [sum(c.tokens.count(0) for c in turn) / len(turn) for turn in turns]
        assert book.same == [True] * sum(sizes)


def test_answers_are_compared_as_far_as_ours_went() -> None:
    canvas = Canvas("a", (1, 0, 0, 0), 1)
    stop = Decoding(stop=lambda prefix: 1 if prefix else None, early=True)
    (ours,) = decode(HashModel(), TopK(), [canvas], batch_size=1, decoding=stop)
    assert ours.end == 2
    assert measuring.same(ours, (*ours.tokens[:2], 5, 6))
    assert not measuring.same(ours, (1, ours.tokens[1] % 6 + 1, *ours.tokens[2:]))


def test_a_batch_that_memory_does_not_hold_is_not_measured() -> None:
    class Short(HashModel):
        def start(self) -> "Short":
            return self

        def __call__(self, batch: Batch) -> Tensor:
            if len(batch.tokens) > 1:
                raise MemoryError
            return super().__call__(batch)

    with pytest.raises(UserError, match="out of memory at batch 2"):
        measuring.measure(case(model=Short()), 3, lambda *_: None)


def test_a_peak_knows_what_came_and_went() -> None:
    size = 64 << 20
    with added(CPU) as most:
        torch.ones(size // 4)
    found = most()
    assert found is None or 0.9 * size <= found <= 1.5 * size
    with added(CPU) as most:
        pass
    rest = most()
    assert rest is None or rest < size / 4


SMALLEST = {"vocab_rows": "600", "layers": "1", "width": "64"}


def test_a_seed_gives_the_same_weights() -> None:
    spec = shapes.described("tiny-vocab126k", SMALLEST)

    def weights(seed: int) -> list[Tensor]:
        model = shapes.build(spec, device=CPU, dtype=torch.bfloat16, seed=seed)
        return [p.float() for p in model.encoder.parameters()]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    matrices = torch.cat([w.flatten() for w in first if w.dim() == 2])
    assert matrices.std().item() == pytest.approx(0.02, rel=0.05)
    assert all((w == 1).all() for w in first if w.dim() == 1)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_shape_is_a_model_that_sees_every_position(name: str) -> None:
    width = {"llada-8b": 128, "dream-7b": 896, "tiny-vocab126k": 64}[name]
    spec = shapes.described(name, {"vocab_rows": "512", "layers": "1", "width": width})
    model = shapes.build(spec, device=CPU, dtype=torch.float32)
    checkpoint.probe(model)
    assert (model.mask_id, model.eos_ids) == (511, (510,))
    assert spec.heads * spec.head_dim == width


def test_the_named_shapes_are_those_of_the_checkpoints() -> None:
    """The parameters that their authors count: 8.02 B, and 7.62 B as Qwen2.5-7B."""
    assert shapes.parameters(shapes.SHAPES["llada-8b"]) == 8_015_581_184
    assert shapes.parameters(shapes.SHAPES["dream-7b"]) == 7_615_616_512


def test_a_shape_that_does_not_fit_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda device: (3_000_000_000, 9_000_000_000))
    with pytest.raises(UserError, match=r"need 16\.0 GB, and 3\.0 GB are free on cpu"):
        shapes.build(shapes.SHAPES["llada-8b"], device=CPU, dtype=torch.bfloat16)


def made(**how: Any) -> list[Case]:
    small: dict[str, Any] = {"shape": "tiny-vocab126k", "model_knobs": SMALLEST}
    return list(bench_cases.cases(bench_setting.resolved(Setting(**{**small, **how}))))


def test_a_shapes_canvases_are_a_prompt_and_masks_the_same_every_time() -> None:
    how: dict[str, Any] = {"prompt_length": 5, "gen_length": 64, "blocks": 1, "batch_sizes": (3,)}
    one, two = made(**how)
    assert one.canvases == two.canvases
    assert len({c.tokens for c in one.canvases}) == 3
    for canvas in one.canvases:
        assert canvas.tokens[5:] == (599,) * 64 and 599 not in canvas.tokens[:5]
        assert (canvas.start, canvas.end) == (5, 37)
    assert (one.sampler, two.sampler) == ("topk", "eb")
    assert one.weights >= 4 * one.parameters


def test_an_answers_end_stops_ours_and_not_the_textbook() -> None:
    (one,) = made(samplers=("topk",), gen_length=64, batch_sizes=(1,), answer=8, textbook=True)
    how: Any = {"batch_size": 1, "decoding": one.decoding}
    (decoded,) = decode(one.model, one.rule, one.canvases, **how)
    assert decoded.end == 64 + 8
    assert decoded.nfe <= 32
    filled = textbook.fill(one.plain, one.canvases[0], 1, 32)
    assert max(filled.committed_at) == 63
    assert measuring.same(decoded, filled.tokens)


@pytest.mark.parametrize(
    ("axis", "points", "seen"),
    [
        ("length", (128, 256), lambda c: len(c.canvases[0].tokens)),
        ("batch", (1, 2), lambda c: c.batch_size),
        ("vocabulary", (256, 512), lambda c: c.model.vocab_size),
        ("size", (64, 128), lambda c: c.model.encoder.spec.width),
    ],
)
def test_a_curve_has_a_case_at_each_point(
    axis: str, points: tuple[int, ...], seen: Callable[[Any], int]
) -> None:
    cases = made(samplers=("topk",), axis=axis, points=points, **({} if axis == "batch" else ONE))
    assert [c.value for c in cases] == [seen(c) for c in cases] == list(points)
    # One block is enough to say what a step costs.
    assert {(c.canvases[0].end or 0) - c.canvases[0].start for c in cases} == {32}


ONE = {"batch_sizes": (1,)}


def test_a_cached_model_is_a_case_of_its_own() -> None:
    (one,) = made(samplers=("topk",), batch_sizes=(1,), blocks=2, caches=("dual",), gen_length=64)
    assert one.cache == "dual" and type(one.plain) is NativeModel
    how: Any = {"batch_size": 1, "decoding": one.decoding}
    trial = rehearsed(one.model, one.rule, one.canvases, **how)
    (decoded,) = decode(one.model, one.rule, one.canvases, **how)
    # Two openings of 128 positions, and blocks of 32.
    assert trial.decoded["0"].forward_tokens == decoded.forward_tokens == 2 * 128 + 62 * 32
    assert measuring.measure(one, 3, lambda *_: None).cache == "dual"
    how = {"shape": None, "model": "arithmetic", "model_knobs": {}, "limit": 2}
    (one,) = made(**how, samplers=("topk",), batch_sizes=(1,), caches=("dual",), textbook=True)
    assert one.cache == "dual" and type(one.plain) is NativeModel and one.k == 1


def test_a_tasks_own_examples_are_measured_as_a_run_decodes_them() -> None:
    (one,) = made(
        shape=None, model="arithmetic", model_knobs={}, samplers=("eb",), batch_sizes=(2,), limit=3
    )
    assert len(one.canvases) == 3
    lengths = [len(c.tokens) for c in one.canvases]
    assert lengths == sorted(lengths, reverse=True)
    assert one.decoding.stop is not None and not one.decoding.early


def test_bench_prints_a_row_a_rule_and_a_batch_size() -> None:
    result = mdmbench("bench", *FAST[:-1], "1,2", "--sampler", "all", "--json")
    found = document(result)
    assert found["schema"] == 1
    assert found["environment"]["device"] == "cpu"
    assert found["setting"]["batch_sizes"] == [1, 2]
    assert [(r["sampler"], r["batch_size"]) for r in found["rows"]][:2] == [
        ("random", 1),
        ("random", 2),
    ]
    assert len(found["rows"]) == 14
    for row in found["rows"]:
        assert row.keys() == Row.__dataclass_fields__.keys()
        assert row["ms"].keys() == {"model", "sampler", "host"}
        for name in ("share", "over_floor"):
            assert 0 < row[name]["low"] <= row[name]["value"] <= row[name]["high"]
        assert row["steps"] == 16 and row["n"] == 3
        assert row["host_reads"] == pytest.approx(17 / 16)
        assert row["speedup"] is row["same_tokens"] is row["textbook_ms"] is row["value"] is None
        assert row["occupancy"] == 1 and row["occupancy_waiting"] is None and row["padding"] == 0
    assert "over" in result.stderr


def test_the_textbook_is_measured_beside_ours_and_says_the_same() -> None:
    (row,) = document(
        mdmbench("bench", *FAST, "--sampler", "topk", "--k", "2", "--textbook", "--json")
    )["rows"]
    assert row["same_tokens"] == 1
    assert row["speedup"]["low"] < row["speedup"]["high"]
    assert row["steps"] == 8


def test_tables_are_for_the_terminal_for_markdown_and_for_csv() -> None:
    command = ["bench", *FAST[:-2], "--batch-size", "1", "--sampler", "topk"]
    command += ["--grow", "length=16,24", "--gen-length", "8"]
    lines = mdmbench(*command, "--format", "markdown").stdout.splitlines()
    assert lines[0].startswith("| sampler | length | batch |")
    assert "textbook" not in lines[0]
    assert [line.split(" | ")[1] for line in lines[2:]] == ["16", "24"]
    head, *rows = mdmbench(*command, "--format", "csv").stdout.splitlines()
    assert {"value", "share.low", "ms.model", "knobs.k"} <= set(head.split(","))
    assert len(rows) == 2
    assert "Over floor" in mdmbench(*command).stdout


def test_bench_measures_the_shipped_model_without_options_of_its_own() -> None:
    (row,) = document(
        mdmbench("bench", "--sampler", "eb", "--batch-size", "4", "--limit", "9", "--json", *R3)
    )["rows"]
    assert row["examples"] == 9
    assert 0 < row["occupancy"] <= row["occupancy_waiting"] == 1
    assert row["parameters"] == 397_801


R3 = ["--rounds", "3"]


def test_help_answers_without_torch() -> None:
    test_cli.test_help_answers_without_torch("bench")


def a_row(share: tuple[float, float, float], **how: Any) -> Row:
    """A row whose other ratios are 2 and certain."""
    found = dict.fromkeys(Row.__dataclass_fields__)
    known: dict[str, Any] = {"sampler": "topk", "knobs": {"k": 1}, "batch_size": 2}
    known |= {"share": Interval(*share), "over_floor": Interval(2, 2, 2)}
    return Row(**{**found, **known, **how})


SPEED = Interval(10, 9, 11)


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (a_row((0.12, 0.11, 0.125)), 0),
        (a_row((0.12, 0.11, 0.13)), 3),
        (a_row((0.14, 0.126, 0.15)), 1),
        (a_row((0.01, 0.005, 0.02)), 0),
        (a_row((0.1, 0.1, 0.1), over_floor=Interval(3, 2.6, 3.5)), 1),
        (a_row((0.1, 0.1, 0.1), speedup=SPEED), 0),
        (a_row((0.1, 0.1, 0.1), speedup=Interval(7, 6, 7.9)), 1),
        (a_row((0.1, 0.1, 0.1), speedup=Interval(8, 7, 9)), 3),
        (a_row((0.14, 0.126, 0.15), speedup=Interval(8, 7, 9)), 1),
    ],
)
def test_the_gate_fails_passes_or_cannot_tell(now: Row, code: int) -> None:
    """At 25 %: a share of 0.1 may come to 0.125, a speed-up of 10 to 8."""
    was = [{"name": "topk k=1 batch 2", "share": {"value": 0.1}, "over_floor": {"value": 2}}]
    was[0]["speedup"] = {"value": 10}
    assert bench_gate.code(bench_gate.gates(was, [now], 0.25)) == code


def test_a_baseline_gates_by_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bench.json"
    command = ["bench", *FAST, "--sampler", "topk", "--baseline", str(file)]
    rows = iter([a_row((0.1, 0.09, 0.11), **WHOLE)])
    monkeypatch.setattr(measuring, "measure", lambda case, rounds, observer: next(rows))
    assert mdmbench(*command, "--update").exit_code == 0
    written = json.loads(file.read_text())
    assert written["rows"][0]["share"] == {"value": 0.1, "low": 0.09, "high": 0.11}
    assert written["rows"][0]["speedup"] is None
    for share, rise, code in (
        ((0.12, 0.11, 0.124), "25%", 0),
        ((0.14, 0.13, 0.15), "25%", 1),
        ((0.14, 0.13, 0.15), "60%", 0),
        ((0.12, 0.11, 0.13), "25%", 3),
    ):
        rows = iter([a_row(share, **WHOLE)])
        result = mdmbench(*command, "--max-rise", rise)
        assert result.exit_code == code
        assert "topk k=1 batch 2: share" in result.stdout
    assert "batch_sizes is [2] in the baseline and [4] now" in fails(*command, "--batch-size", "4")
    file.write_text(json.dumps({**written, "rows": []}))
    rows = iter([a_row((0.1, 0.09, 0.11), **WHOLE)])
    assert "the baseline has rows []" in fails(*command)
    for text in ("", "[]", '{"schema": 2, "setting": {}, "rows": []}'):
        file.write_text(text)
        assert "is no baseline file" in fails(*command)


WHOLE: dict[str, Any] = {"ms": Seconds(1, 1, 1), "steps": 1, "occupancy": 1.0}


def test_a_whole_run_says_what_it_costs_beyond_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def here(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        """In this process, which has imported everything already."""
        assert command[:3] == [sys.executable, "-m", "mdmbench"]
        result = CliRunner().invoke(app, command[3:])
        if (file := Path(how["cwd"]) / "times").exists():
            told.append(file.read_text().split())
        return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)

    monkeypatch.setattr(end_to_end, "subprocess", SimpleNamespace(run=here))
    clock = SimpleNamespace(time=lambda: 0.0, perf_counter=time.perf_counter)
    monkeypatch.setattr(end_to_end, "time", clock)
    (row,) = document(mdmbench("bench", "--end-to-end", "--limit", "2", "--json"))["rows"]
    assert row["examples"] == 2
    assert 0 < row["decode"] < row["wall"]
    assert row["overhead"] == pytest.approx(row["wall"] / row["decode"] - 1)
    # The warm-up first, then the one step that fills both.
    assert len(told[0]) > 1
    assert row["start"] == float(told[0][-1])


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(UserError, match="No such option"):
        end_to_end.measured(1, ["--nonsense"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--shape tiny", "unknown shape 'tiny'"),
        ("--shape llada-8b --model sudoku", "shape llada-8b, and model sudoku"),
        ("--shape llada-8b --task maze", "shape llada-8b, and task maze"),
        ("--shape tiny-vocab126k -M widht=64", "did you mean 'width'?"),
        ("--shape tiny-vocab126k -M width=100", "choose a multiple of 64"),
        ("--shape tiny-vocab126k -M layers=0", "layers is 0"),
        ("--shape tiny-vocab126k -M layers=two", "layers is 'two'"),
        ("--shape tiny-vocab126k --block-length 30", "block length 30 does not divide"),
        ("--shape tiny-vocab126k --blocks 9", "the answer has 8"),
        ("--shape tiny-vocab126k --answer 257", "only 256 positions are filled"),
        ("--shape tiny-vocab126k --blocks 2 --answer 65", "only 64 positions are filled"),
        ("--shape tiny-vocab126k --gen-length 4096", "a canvas of 4160 tokens"),
        ("--shape tiny-vocab126k --grow length=64", "no room for an answer"),
        ("--shape tiny-vocab126k --grow width", "unknown axis 'width'"),
        ("--shape tiny-vocab126k --grow length=1,x", "grow is 'x'"),
        ("--shape tiny-vocab126k --grow batch --batch-size 2", "a curve over them"),
        ("--shape tiny-vocab126k --dtype float8", "dtype is 'float8'"),
        ("--shape tiny-vocab126k --sampler topp", "unknown sampler 'topp'"),
        ("--shape tiny-vocab126k --sampler eb --k 2", "unknown knob of sampler eb 'k'"),
        ("--shape tiny-vocab126k --sampler eb --textbook", "which sampler eb"),
        ("--shape tiny-vocab126k --sampler topk -S proxy=margin --textbook", "sampler topk with"),
        ("--shape tiny-vocab126k --sampler llada --textbook", "sampler llada"),
        ("--shape tiny-vocab126k --cache exact", "cannot use cache exact"),
        ("--shape tiny-vocab126k --cache nope", "unknown cache 'nope'"),
        ("--shape tiny-vocab126k --batch-size 8 --limit 4", "limit is 4, and a batch takes 8"),
        ("--batch-size 0", "batch-size is '0'"),
        ("--batch-size 4 --limit 3", "limit is 3"),
        ("--rounds 2", "rounds is 2"),
        ("--device tpu", "device 'tpu' cannot be used"),
        ("--grow length", "a model cannot grow by length"),
        ("--answer 3", "answer is 3, and there is no shape"),
        ("--blocks 3", "blocks is 3, and there is no shape"),
        ("--prompt-length 3", "prompt_length is 3, and there is no shape"),
        ("--model nowhere/such", "has no task of its own"),
        ("--gen-length 8", "sudoku is a puzzle"),
        ("--cache dual", "model sudoku cannot use a cache"),
        ("--max-rise 3", "max-rise is '3'"),
        ("--baseline nowhere.json", "no baseline file nowhere.json"),
        ("--end-to-end --textbook", "--end-to-end and --textbook"),
        ("--end-to-end --task maze", "--end-to-end and --task"),
        ("--end-to-end --threads 2", "--end-to-end and --threads"),
    ],
)
def test_a_mistake_is_told_before_anything_is_made(
    arguments: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("work was done")

    monkeypatch.setattr(shapes, "build", never)
    monkeypatch.setattr(measuring, "measure", never)
    assert told in fails("bench", *arguments.split())


@pytest.mark.parametrize(
    "content",
    [
        {"setting": [], "rows": []},
        {"setting": {}, "rows": {}},
        {"setting": {}, "rows": [{}]},
        {"setting": {}, "rows": [{"name": "a", "share": {"value": "x"}}]},
    ],
)
def test_a_baseline_that_is_not_whole_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"schema": 1, **content}))
    assert "is no whole baseline file" in fails("bench", "--baseline", file)


def test_the_textbook_is_measured_where_it_has_the_rule() -> None:
    cases = made(samplers=("topk", "eb"), batch_sizes=(1,), textbook=True, gen_length=64)
    assert [case.k for case in cases] == [1, None]


def test_a_floor_is_told_what_ours_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a Forward's work may depend on, in its order."""
    (one,) = made(samplers=("topk",), batch_sizes=(2,), blocks=1, caches=("dllm",), gen_length=64)
    trial = rehearsed(one.model, one.rule, one.canvases, batch_size=2, decoding=one.decoding)
    assert [name for name, _ in trial.calls[:3]] == ["opening", "seat", "__call__"]
    heard = []
    forward = one.model.start()
    monkeypatch.setattr(type(forward), "opening", lambda self, batch: heard.append(batch))
    replay(one.model, trial.calls)
    assert len(heard) == 1
