"""Canvases of like length share a batch, and a run that stops early still leaves a fair sample."""

import json
import random
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import mdmbench
from test_pace import made
from test_text import TASK
from tiny import llada
from toy import HashModel

from mdmbench import sequential
from mdmbench.base import Canvas, Choice
from mdmbench.clock import Work
from mdmbench.loop import decode
from mdmbench.shelves import WINDOW, shelved
from mdmbench.step import Step

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
FILES = {"gsm8k_test.jsonl": "question", "math500.jsonl": "problem", "mbpp.jsonl": "text"}


def canvases(prompts: Sequence[int], answer: int) -> list[Canvas]:
    return [Canvas(f"{i}", (1,) * n + (0,) * answer, n) for i, n in enumerate(prompts)]


def lengths(lot: Sequence[Canvas]) -> list[int]:
    return [len(canvas.tokens) for canvas in lot]


@given(st.lists(st.integers(1, 5), max_size=100), st.integers(1, 4))
def test_every_canvas_is_there_once_and_whole_lots_are_the_first_ones(
    prompts: list[int], batch_size: int
) -> None:
    given, seen = canvases(prompts, 2), []
    for lot in shelved(given, batch_size):
        seen += lot
        assert {c.id for c in seen} == {c.id for c in given[: len(seen)]}
    assert sorted(seen, key=lambda c: int(c.id)) == given


@given(st.integers(0, 100), st.integers(1, 4))
def test_where_all_are_equally_long_the_order_stays_and_each_may_be_the_last(
    count: int, batch_size: int
) -> None:
    given = canvases([3] * count, 2)
    assert list(shelved(given, batch_size)) == [[canvas] for canvas in given]


def test_lots_fall_and_rise_by_turns_and_the_longest_comes_first() -> None:
    rng = random.Random(0)
    prompts = [rng.randrange(1, 1000) for _ in range(7 * WINDOW * 2)]
    lots = [lengths(lot) for lot in shelved(canvases(prompts, 1), 2)]
    assert lots == [sorted(lot, reverse=not i % 2) for i, lot in enumerate(lots)]
    assert [len(lot) for lot in lots] == [WINDOW * 2] * 7
    assert lots[0][0] == max(prompts[: WINDOW * 2]) + 1


def test_lots_of_one_length_between_others_turn_nothing_round() -> None:
    size = WINDOW * 2
    given = canvases([*range(size), *[9] * size, *range(size)], 1)
    falling, *equal, rising = [lengths(lot) for lot in shelved(given, 2)]
    assert falling == rising[::-1] == sorted(rising, reverse=True)
    assert equal == [[10]] * size


def waste(given: Sequence[Canvas], batch_size: int) -> float:
    """The share of the positions that go through the model which only pad their rows; examples take
    from a few forwards to some dozens, whatever their length."""

    def rule(step: Step) -> Choice:
        share = step.noise[:, 0] ** 2
        return Choice(step.top(step.confidence, (step.left * share).ceil().long()))

    work = Work()
    done = list(decode(TALL, rule, given, batch_size=batch_size, work=work))
    assert len({d.nfe for d in done}) > 4
    return 1 - work.tokens / work.positions


TALL = HashModel(vocab_size=3, max_length=4096)


@pytest.mark.parametrize("batch_size", [8, 16])
def test_padding_is_less_than_a_tenth(batch_size: int) -> None:
    """Prompts of 100 to 700 tokens, answers of 512."""
    rng = random.Random(batch_size)
    given = canvases([rng.randrange(100, 700) for _ in range(200)], 512)
    mixed = list(chain.from_iterable(shelved(given, batch_size)))
    assert waste(mixed, batch_size) < 0.1 < waste(given, batch_size)


@pytest.mark.parametrize("file", FILES)
def test_padding_is_less_than_a_tenth_with_real_prompts(file: str) -> None:
    """Four letters a token; answers of 256."""
    if not (DATA / file).exists():
        pytest.skip("needs the data")
    lines = (DATA / file).read_text().splitlines()[:200]
    given = canvases([len(json.loads(line)[FILES[file]]) // 4 for line in lines], 256)
    assert waste(list(chain.from_iterable(shelved(given, 8))), 8) < 0.1


def test_what_stops_early_has_whole_lots_on_disk(tmp_path: Path) -> None:
    """Prompts of unlike length, 16 to a lot: a run is decided by fewer, and ends with its lot."""
    (tmp_path / "echo.py").write_text(TASK)
    recipe = tmp_path / "grid.yaml"
    recipe.write_text(
        f"task: {tmp_path}/echo.py:Echo\nmodel: {llada(tmp_path / 'model')}\n"
        "task_knobs: {longest: 9}\nruns:\n- {sampler: eb, gamma: 9}\n"
    )
    command = ["sweep", recipe, "--out", tmp_path / "out", "--limit", "70", "--batch-size", "2"]
    assert mdmbench(*command, "--until", "decided", "--margin", "60").exit_code == 0
    order = sorted((f"q{i}" for i in range(70)), key=sequential.place)
    runs = made(tmp_path / "out")
    assert len(runs) == 2
    for ids in runs.values():
        assert 0 < len(ids) < 70 and len(ids) % (2 * WINDOW) == 0
        assert set(ids) == set(order[: len(ids)])
        assert ids != order[: len(ids)]
