"""How many positions each schedule asks for, against the published loops written out."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.errors import UserError
from mdmbench.schedule import SCHEDULES, Schedule
from mdmbench.step import Draw, Step

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
masks, steps = st.integers(1, 40), st.integers(1, 50)


def at(schedule: Schedule, n: int, left: int, done: int, rows: int = 1, seed: int = 0) -> Step:
    """The step behind `done` forwards of a block that began with `n` masks, `left` still there."""

    def column(value: int) -> Any:
        return torch.full((rows,), value)

    return Step(
        torch.zeros(rows, n, 2),
        torch.zeros(rows, n, dtype=torch.int64),
        torch.arange(n).expand(rows, n),
        torch.arange(n).expand(rows, n) < left,
        index=column(done),
        block_index=column(done),
        block_masks=column(n),
        keys=torch.arange(rows) + seed * rows,
        draw=Draw(),
        schedule=schedule,
    )


def counts(name: str, n: int, steps: int, seed: int = 0) -> list[int]:
    """What a rule commits that takes what the schedule asks for, until nothing is left."""
    left, found = n, []
    while left:
        step = at(Schedule(name, steps), n, left, len(found), seed=seed)
        assert step.asked.dtype == torch.float64
        found.append(min(left, int(step.quota)))
        left -= found[-1]
        assert len(found) <= steps
    return found


@every_schedule
@given(n=masks, steps=steps, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_all_is_spent_by_the_last_step(name: str, n: int, steps: int, seed: int) -> None:
    found = counts(name, n, steps, seed)
    assert sum(found) == n
    assert all(count >= 0 for count in found)
    assert name in ("dream", "ancestral") or all(found)


@every_schedule
@given(n=masks, steps=steps, left=masks)
@settings(max_examples=40, deadline=None)
def test_the_last_step_and_those_behind_it_ask_for_all_that_is_left(
    name: str, n: int, steps: int, left: int
) -> None:
    """Whatever was missed before; a rule that takes less is asked again."""
    for done in (steps - 1, steps, steps + 7):
        assert at(Schedule(name, steps), n, min(n, left), done).quota.tolist() == [min(n, left)]


@given(masks, steps)
@settings(deadline=None)
def test_linear_is_lladas(n: int, steps: int) -> None:
    """get_num_transfer_tokens: n // S each, one more in the first n % S steps."""
    published = [n // steps + (i < n % steps) for i in range(steps)]
    assert counts("linear", n, steps) == [count for count in published if count]


def test_linear_asks_again_for_what_was_missed() -> None:
    assert at(Schedule("linear", 5), 10, 8, 1).quota.tolist() == [2]
    assert at(Schedule("linear", 5), 10, 10, 1).quota.tolist() == [4]
    assert at(Schedule("linear", 5), 10, 9, 3).quota.tolist() == [7]
    assert at(Schedule("linear", 5), 10, 3, 1).quota.tolist() == [1]  # ahead: one all the same


def dreams(n: int, steps: int, eps: float = 1e-3) -> list[int]:
    """generation_utils.py: times = linspace(1, eps, steps + 1), the last step takes all."""
    times = torch.linspace(1, eps, steps + 1, dtype=torch.float64).tolist()
    found = []
    for i in range(steps):
        share = 1 - times[i + 1] / times[i]
        found.append(int(n * share) if i < steps - 1 else n)
        n -= found[-1]
    return found


@given(masks, steps)
@settings(deadline=None)
def test_dream_is_dreams(n: int, steps: int) -> None:
    found = counts("dream", n, steps)
    assert found == dreams(n, steps)[: len(found)]


@pytest.mark.parametrize("length", [2, 5, 32, 256])
def test_dream_with_a_step_a_position_wastes_the_first_and_ends_with_a_pair(length: int) -> None:
    assert counts("dream", length, length) == [0, *[1] * (length - 2), 2]


def test_dream_with_half_the_steps() -> None:
    assert counts("dream", 32, 16) == [1, *[2] * 14, 3]


def test_eps_is_where_dreams_time_ends() -> None:
    asked = at(Schedule("dream", 4, eps=0.5), 16, 16, 0).asked.item()
    assert asked == pytest.approx(16 * 0.125)
    asked = at(Schedule("dream", 4, eps=0.5), 16, 16, 2).asked.item()
    assert asked == pytest.approx(16 * (1 - 0.625 / 0.75))


@given(masks, steps)
@settings(deadline=None)
def test_cosine_leaves_the_masks_of_maskgit(n: int, steps: int) -> None:
    """floor(n cos(pi/2 j/S)) masks behind step j, one fewer than before at least."""
    left = n
    for j, count in enumerate(counts("cosine", n, steps), start=1):
        left -= count
        share = n * math.cos(math.pi / 2 * j / steps)
        assert left <= share + 1e-9
        assert count == 1 or left == math.floor(share + 1e-9) or left == math.floor(share - 1e-9)


def test_cosine_starts_slowly_and_ends_fast() -> None:
    assert counts("cosine", 100, 5) == [5, 15, 22, 28, 30]


def test_ancestral_reveals_each_mask_with_dreams_probability() -> None:
    """Means of 2000 rows of 20 masks: off by more than 0.014 a mask with a probability below
    4 * 2 * exp(-2 * 40000 * 0.014**2) = 1.3e-6 (Hoeffding); the keys are fixed."""
    schedule = Schedule("ancestral", 5)
    for done in range(4):
        step = at(schedule, 24, 20, done, rows=2000)
        want = 0.999 / 5 / (1 - done * 0.999 / 5)
        assert step.asked.mean().item() / 20 == pytest.approx(want, abs=0.014)
        assert len(step.asked.unique()) > 5  # binomial, not a fixed count
        assert (step.asked == step.asked.floor()).all()


@given(masks, steps, st.integers(0, 60), st.integers(0, 40), st.integers(0, 999))
@settings(deadline=None)
def test_ancestral_never_asks_for_more_than_is_left(
    n: int, steps: int, done: int, left: int, seed: int
) -> None:
    step = at(Schedule("ancestral", steps), n, min(n, left), done, rows=3, seed=seed)
    assert (step.asked <= step.left).all()
    assert (step.asked >= 0).all()


@every_schedule
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    """Dream's own count is a mean over the batch."""
    schedule = Schedule(name, 4)
    many = at(schedule, 12, 9, 1, rows=3, seed=5)
    many.block_masks, many.eligible = torch.tensor([12, 9, 10]), many.eligible.clone()
    many.eligible[0] = True
    for b in range(3):
        one = at(schedule, 12, 9, 1, rows=1)
        one.block_masks, one.eligible = many.block_masks[b : b + 1], many.eligible[b : b + 1]
        one._keys = many._keys[b : b + 1]
        assert one.asked.tolist() == many.asked[b : b + 1].tolist()


def test_a_schedule_that_does_not_exist_or_has_no_steps_is_refused() -> None:
    with pytest.raises(UserError) as error:
        Schedule("liner", 3)
    known = "known: ancestral, cosine, dream, linear"
    assert str(error.value) == f"unknown schedule 'liner'\ndid you mean 'linear'? {known}"
    for steps in (0, -1):
        with pytest.raises(UserError) as error:
            Schedule("linear", steps)
        text = f"steps is {steps}\na schedule needs at least one step a block"
        assert str(error.value) == text
