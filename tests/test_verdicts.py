"""Marks whose answer follows by arithmetic."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from mdmbench import verdicts
from mdmbench.errors import UserError
from mdmbench.samples import SCORE, Samples, made
from mdmbench.stats import Interval
from mdmbench.verdicts import (
    COSTS,
    Mark,
    Measure,
    Verdict,
    amount,
    margins,
    measures,
    quality,
)

SOLVED = quality("solved")
SCORES = ("solved", "strict", "cells", "other")
COST = {cost.name: cost for cost in COSTS}


def side(n: int, clock: str = "cpu", **columns: Any) -> Samples:
    """n examples; a column is one value for all of them, or one for each; SCORES are scores."""
    given = {"nfe": 4, "length": 48, "forward_tokens": 324, "model": 0.1, "clock": clock, **columns}
    lists = {k: v if isinstance(v, list) else [v] * n for k, v in given.items()}
    named = {SCORE + k if k in SCORES else k: v for k, v in lists.items()}
    return made([f"{i:05}" for i in range(n)], named)


def scored(n: int, solved: int) -> Samples:
    """The first `solved` of n examples are."""
    return side(n, solved=[1] * solved + [0] * (n - solved))


def one(a: Samples, b: Samples, measure: Measure = SOLVED) -> Verdict:
    (found,) = verdicts.verdicts(a, b, [measure])
    return found


def flips(n: int, lost: int, gained: int) -> tuple[Samples, Samples]:
    """Of n examples some are solved in A only, and some in B only; the others in both."""
    rest = [1] * (n - lost - gained)
    return (
        side(n, solved=[1] * lost + [0] * gained + rest),
        side(n, solved=[0] * lost + [1] * gained + rest),
    )


@pytest.mark.parametrize(
    ("n", "lost", "gained", "p", "mark"),
    [
        (100, 6, 0, 2 / 64, Mark.worse),
        (100, 0, 6, 2 / 64, Mark.better),
        (100, 5, 0, 2 / 32, Mark.undecided),
        (100, 8, 1, 20 / 512, Mark.worse),
        (100, 7, 1, 18 / 256, Mark.undecided),
        (100, 3, 3, 1, Mark.undecided),
        (6, 0, 6, 2 / 64, Mark.better),
        (381, 0, 0, 1, Mark.same),
        (380, 0, 0, 1, Mark.undecided),
        (10_000, 30, 0, 2 / 2**30, Mark.same),
    ],
)
def test_a_score_is_marked_by_its_flips(
    n: int, lost: int, gained: int, p: float, mark: Mark
) -> None:
    """McNemar's p by hand; without a flip the interval is 3.8415 / (n + 3.8415) wide to each side.
    In the last row the loss is certain, and smaller than a point."""
    found = one(*flips(n, lost, gained))
    assert (found.mark, found.n, found.why) == (mark, n, "")
    assert found.test and found.test.change.value == pytest.approx((gained - lost) / n)
    assert found.p == found.test.p == pytest.approx(p)
    assert found.before and found.before.value == pytest.approx((n - gained) / n)
    assert found.after and found.after.value == pytest.approx((n - lost) / n)


@pytest.mark.parametrize(
    ("before", "after", "mark"),
    [
        (50, 51, Mark.same),
        (51, 50, Mark.same),
        (50, 52, Mark.worse),
        (52, 50, Mark.better),
        (10_000, 9_803, Mark.better),
        (10_000, 9_804, Mark.same),
        (48, 2, Mark.better),
    ],
)
@pytest.mark.parametrize("name", ["nfe", "nfe_until", "forward_tokens", "seconds"])
def test_a_cost_is_marked_by_its_ratio(name: str, before: int, after: int, mark: Mark) -> None:
    """It has no spread here: the interval is the ratio alone, and p that of the swaps. A fall by
    1 / 51 is as much as a rise by 1 / 50."""
    measure = COST[name]
    top = "model" if name == "seconds" else measure.top
    found = one(side(6, **{top: before}), side(6, **{top: after}), Measure(name, measure.top, 0.02))
    assert (found.mark, found.n, found.p) == (mark, 6, 2 / 64)
    ratio = after / before
    assert found.test and found.test.change == pytest.approx(Interval(ratio, ratio, ratio))
    assert found.before and found.before == pytest.approx([before] * 3)
    assert found.after and found.after == pytest.approx([after] * 3)


def test_of_tokens_a_forward_more_is_better() -> None:
    found = one(side(6, nfe=48), side(6, nfe=8), COST["tpf"])
    assert found.mark == Mark.better and found.test and found.test.change.value == 6
    assert found.before == Interval(1, 1, 1) and found.after == Interval(6, 6, 6)
    assert one(side(6, nfe=8), side(6, nfe=48), COST["tpf"]).mark == Mark.worse
    longer = one(side(6, nfe=[8, 4] * 3), side(6, nfe=[4, 8] * 3), COST["tpf"])
    assert longer.test and longer.test.change.value == 1  # of the sums, not of the examples


@pytest.mark.parametrize(
    ("score", "mark"), [(0.7, Mark.better), (0.3, Mark.worse), (0.501, Mark.better)]
)
def test_a_graded_score_is_marked_as_any_other(score: float, mark: Mark) -> None:
    """All six move alike: p is 2 / 64, however little it is."""
    found = one(side(6, solved=0.5), side(6, solved=score))
    assert found.test and found.test.change.value == pytest.approx(score - 0.5)
    assert (found.p, found.mark) == (2 / 64, mark)


def test_a_certain_change_inside_the_margin_is_the_same() -> None:
    """All of 10,000 graded scores fall by half a point."""
    found = one(side(10_000, solved=0.5), side(10_000, solved=0.495))
    assert found.mark == Mark.same and found.p is not None and found.p < 1e-9


def test_nothing_is_decided_by_fewer_than_six_examples() -> None:
    for n, marks in ((5, [Mark.undecided] * 2), (6, [Mark.better, Mark.same])):
        found = [
            one(side(n, nfe=48), side(n, nfe=4), COST["nfe"]),
            one(side(n), side(n), COST["nfe"]),
        ]
        assert [verdict.mark for verdict in found] == marks
        assert found[0].test and found[0].test.change.value == 1 / 12
    assert one(*flips(1, 1, 0)).mark == Mark.undecided


def test_a_margin_decides_what_is_the_same() -> None:
    """100 examples without a flip leave 3.7 points possible."""
    for points, mark in ((3.6, Mark.undecided), (3.7, Mark.same)):
        (measure,) = margins([f"solved={points}"], [SOLVED])
        assert one(*flips(100, 0, 0), measure).mark == mark
    for per_cent, mark in ((9, Mark.worse), (10, Mark.same), (0, Mark.worse)):
        (measure,) = margins([f"nfe={per_cent}%"], [COST["nfe"]])
        assert one(side(6, nfe=100), side(6, nfe=110), measure).mark == mark


def test_without_a_margin_only_what_is_equal_is_the_same() -> None:
    (nfe,) = margins(["nfe=0%"], [COST["nfe"]])
    assert one(side(6), side(6), nfe).mark == Mark.same
    (solved,) = margins(["solved=0"], [SOLVED])
    assert one(*flips(10_000, 0, 0), solved).mark == Mark.undecided


def test_p_is_corrected_for_all_measures_together() -> None:
    """Three of p 2 / 64: alone each is better, together none. Holm leaves equal ones equal."""
    a, b = side(6, nfe=48, nfe_until=48), side(6, nfe=4, nfe_until=4)
    asked = [COST[name] for name in ("nfe", "nfe_until", "tpf")]
    assert [one(a, b, measure).mark for measure in asked] == [Mark.better] * 3
    together = verdicts.verdicts(a, b, asked)
    assert [v.p for v in together] == [6 / 64] * 3
    assert [v.test.p for v in together if v.test] == [2 / 64] * 3
    assert [v.mark for v in together] == [Mark.undecided] * 3


def test_the_smallest_p_is_corrected_most() -> None:
    """9 flips of 9: 2 / 512, times two. Six of six: 2 / 64, as it is."""
    a = side(50, strict=[1] * 9 + [0] * 41, solved=[1] * 6 + [0] * 44)
    b = side(50, strict=0, solved=0)
    strict = quality("strict")
    for order in ([strict, SOLVED], [SOLVED, strict]):
        found = {v.measure.name: v.p for v in verdicts.verdicts(a, b, order)}
        assert found == pytest.approx({"strict": 4 / 512, "solved": 2 / 64})


def test_what_cannot_be_compared_takes_no_part_in_the_correction() -> None:
    a, b = side(6, nfe=48), side(6, "cuda", nfe=4)
    nfe, seconds = verdicts.verdicts(a, b, [COST["nfe"], COST["seconds"]])
    assert (nfe.p, nfe.mark) == (2 / 64, Mark.better)
    assert (seconds.p, seconds.mark, seconds.test) == (None, Mark.incomparable, None)


def test_seconds_of_two_machines_are_not_compared() -> None:
    why = "no example was timed in both on the same machine"
    for a, b in ((side(9), side(9, "cuda")), (side(9), side(9, model=0)), (side(9), side(0))):
        found = one(a, b, COST["seconds"])
        assert (found.mark, found.why, found.n) == (Mark.incomparable, why, 0)
    mixed = side(9, ["cpu"] * 6 + ["cuda"] * 3, model=0.05)  # type: ignore[arg-type]
    half = one(side(9), mixed, COST["seconds"])
    assert (half.n, half.mark) == (6, Mark.better)


def test_the_examples_that_both_have_count() -> None:
    """Of 10 and 8 examples 8 are in both; the order in which they stand is that of their ids."""
    found = one(scored(10, 9), scored(8, 2))
    assert found.n == 8 and found.why == ""
    assert found.test and found.test.change.value == -6 / 8 and found.p == 2 / 64


@pytest.mark.parametrize("swapped", [False, True])
def test_scores_that_are_no_numbers_are_left_out_and_said(swapped: bool) -> None:
    a, b = side(10, solved=1), side(10, solved=[math.nan, math.inf, *[0] * 8])
    found = one(*((b, a) if swapped else (a, b)))
    assert (found.n, found.why) == (8, "2 of 10 examples have no number")
    assert found.mark == (Mark.better if swapped else Mark.worse)
    assert found.test and abs(found.test.change.value) == 1


def test_a_score_that_only_one_has_is_not_compared() -> None:
    solved, none = side(6, solved=1), side(6)
    for a, b, name in ((solved, none, "B"), (none, solved, "A")):
        found = one(a, b)
        assert (found.mark, found.why) == (Mark.incomparable, f"{name} has no such score")
        assert (found.n, found.test, found.p) == (0, None, None)


def test_runs_without_a_common_example_have_nothing_in_both() -> None:
    other = made(["x"], {SCORE + "solved": [1], "nfe": [4]})
    for measure in (SOLVED, COST["nfe"]):
        found = one(side(6, solved=1), other, measure)
        assert (found.mark, found.why) == (Mark.incomparable, "no example has it in both")


def test_where_no_score_is_a_number_nothing_is_compared() -> None:
    found = one(side(10, solved=1), side(10, solved=math.nan))
    assert (found.mark, found.n) == (Mark.incomparable, 0)
    assert found.why == "10 of 10 examples have no number"


def test_examples_with_several_samples_count_once() -> None:
    """Ten samples of each of 7 examples: 70 flips are 7."""
    example = [f"e{i % 7}" for i in range(70)]
    found = one(side(70, solved=1, example=example), side(70, solved=0, example=example))
    assert (found.n, found.p) == (7, 2 / 128)
    assert found.test and found.test.change.value == -1
    half = [i // 7 % 2 for i in range(70)]
    found = one(side(70, solved=1, example=example), side(70, solved=half, example=example))
    assert found.test and found.test.change.value == -0.5


@pytest.mark.parametrize("swapped", [False, True])
def test_a_sample_without_a_number_is_left_out_of_both(swapped: bool) -> None:
    """Each of six examples has two samples. Both runs solve the second alone, and A has no score
    of the first: half of B's would be no loss."""
    example = [f"e{i // 2}" for i in range(12)]
    a = side(12, solved=[math.nan, 1] * 6, example=example)
    b = side(12, solved=[0, 1] * 6, example=example)
    found = one(*((b, a) if swapped else (a, b)))
    assert (found.n, found.why) == (6, "")
    assert found.test and found.test.change.value == 0
    assert found.before and found.after and found.before.value == found.after.value == 1


def test_examples_that_were_never_asked_have_a_score_and_no_cost() -> None:
    a, b = side(10, nfe=48, solved=1), side(10, nfe=[0, 0, *[4] * 8], solved=[0, 0, *[1] * 8])
    for before, after in ((a, b), (b, a)):
        cost = one(before, after, COST["nfe"])
        assert (cost.n, cost.why) == (8, "2 of 10 examples have no number")
    assert cost.after == Interval(48, 48, 48) and cost.before == Interval(4, 4, 4)
    assert one(a, b).n == 10


@pytest.mark.parametrize(
    ("a", "b", "name", "why"),
    [
        ({"nfe": 0}, {}, "nfe", "10 of 10 examples have no number"),
        ({"forward_tokens": math.nan}, {}, "forward_tokens", "10 of 10 examples have no number"),
        ({"length": 0}, {}, "tpf", "there is no such ratio"),
        ({"forward_tokens": 0}, {}, "forward_tokens", "there is no such ratio"),
    ],
)
def test_a_cost_that_does_not_exist_is_not_compared(
    a: dict[str, Any], b: dict[str, Any], name: str, why: str
) -> None:
    found = one(side(10, **a), side(10, **b), COST[name])
    assert (found.mark, found.why, found.test, found.p) == (Mark.incomparable, why, None, None)


def test_an_answer_without_an_end_took_all_its_forwards_until_then() -> None:
    """12 of A and 4 of B, whose second half never ended."""
    a = side(6, nfe=12, nfe_until=[6, 6, 6, *[math.nan] * 3])
    b = side(6, nfe=4, nfe_until=[3, 3, 3, *[math.nan] * 3])
    found = one(a, b, COST["nfe_until"])
    assert found.n == 6 and found.test and found.test.change.value == pytest.approx(21 / 54)
    assert found.before and found.before.value == 9 and found.after and found.after.value == 3.5


def named(a: Samples, b: Samples) -> Sequence[str]:
    return [measure.name for measure in measures(a, b)]


def test_runs_are_compared_by_the_scores_that_either_has_and_by_every_cost() -> None:
    costs = ["nfe", "tpf", "forward_tokens", "seconds"]
    a, b = side(6, solved=1, cells=1), side(6, cells=1, other=1, solved=1)
    assert named(a, b) == ["solved", "cells", "other", *costs]
    assert named(b, a) == ["cells", "other", "solved", *costs]
    assert named(side(6), b) == named(b, side(6)) == ["cells", "other", "solved", *costs]
    ended = side(6, nfe_until=[3, *[math.nan] * 5])
    assert named(ended, ended) == ["nfe", "nfe_until", *costs[1:]]
    assert named(ended, side(6)) == costs


def test_a_floor_belongs_to_the_measure_of_its_name() -> None:
    found = measures(side(6, solved=1), side(6, solved=1), {"solved": 0.02, "tpf": 0.1, "x": 1})
    floors = {m.name: m.floor for m in found if m.floor}
    assert floors == {"solved": 0.02, "tpf": 0.1, "seconds": 0.25}


@pytest.mark.parametrize(
    ("seconds", "mark", "why"),
    [
        (0.125, Mark.undecided, "inside the noise floor of 25 %"),
        (0.08, Mark.undecided, "inside the noise floor of 25 %"),
        (0.126, Mark.worse, ""),
        (0.079, Mark.better, ""),
        (0.104, Mark.same, ""),
    ],
)
def test_a_quarter_of_the_seconds_may_be_the_machine(seconds: float, mark: Mark, why: str) -> None:
    """Two runs are made one after the other, and what else the machine did is in them."""
    found = one(side(6), side(6, model=seconds), COST["seconds"])
    assert (found.mark, found.why) == (mark, why)


def test_margins_are_points_of_a_score_and_per_cent_of_a_cost() -> None:
    known = [SOLVED, *COSTS]
    found = margins(["solved=2.5", "nfe=5%", "tpf=0%", "nfe=4%"], known)
    assert [m.name for m in found] == [m.name for m in known]
    changed = {m.name: m.margin for m in found}
    assert changed["solved"] == 0.025 and changed["nfe"] == 0.04 and changed["tpf"] == 0
    assert changed["seconds"] == 0.05 and changed["forward_tokens"] == 0.02
    assert margins([], known) == known


@pytest.mark.parametrize(
    "text", ["solved", "solved=", "solved=much", "solved=-1", "solved=nan", "solved=inf"]
)
def test_a_margin_of_a_score_is_a_number_of_points(text: str) -> None:
    with pytest.raises(UserError, match=r"is no margin\nwrite solved=1, in points") as error:
        margins([text], [SOLVED, *COSTS])
    assert repr(text) in error.value.message


@pytest.mark.parametrize("text", ["solved=1%", "nfe=2", "nfe=%", "nfe=-2%", "nfe"])
def test_a_margin_in_the_wrong_unit_is_refused(text: str) -> None:
    form = "solved=1, in points" if text.startswith("solved") else "nfe=2%"
    with pytest.raises(UserError) as error:
        margins([text], [SOLVED, *COSTS])
    assert str(error.value) == f"{text!r} is no margin\nwrite {form}"


def test_a_margin_of_an_unknown_measure_names_the_known() -> None:
    with pytest.raises(UserError, match=r"unknown measure 'solve'\ndid you mean 'solved'\?") as e:
        margins(["solve=1"], [SOLVED, *COSTS])
    assert e.value.hint.endswith("known: forward_tokens, nfe, nfe_until, seconds, solved, tpf")


def test_amounts_have_their_unit() -> None:
    assert [amount(v, True) for v in (0.01, 0.025, 0)] == ["1 point", "2.5 points", "0 points"]
    assert [amount(v, False) for v in (0.02, 0.0125)] == ["2 %", "1.25 %"]


def test_a_verdict_without_a_mark_holds_the_test() -> None:
    """For those who correct p themselves."""
    found = verdicts.tested(*flips(100, 6, 0), SOLVED)
    assert found.test and found.test.p == 2 / 64
    assert (found.p, found.mark) == (None, Mark.incomparable)
