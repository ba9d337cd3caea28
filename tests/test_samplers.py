"""Each rule, statistic and cut against a plain float64 derivation of its own, loop by loop."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdmbench.base import Sampler
from mdmbench.errors import UserError
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import LeftToRight, Random, TopK
from mdmbench.samplers.threshold import EntropyThreshold, Factor, Threshold
from mdmbench.schedule import Schedule
from mdmbench.step import Draw, Proxy, Step
from mdmbench.vocabulary import Reader

PROXIES: tuple[Proxy, ...] = ("confidence", "entropy", "margin")
every_proxy = pytest.mark.parametrize("proxy", PROXIES)
seeds = st.integers(0, 10**6)
some = settings(max_examples=60, deadline=None)


def make(logits: Tensor, eligible: Tensor | None = None, **how: Any) -> Step:
    """A step whose row b holds logits[b]; its positions are the columns."""
    rows, width, _ = logits.shape
    if eligible is None:
        eligible = torch.ones(rows, width, dtype=torch.bool)
    zero = torch.zeros(rows, dtype=torch.int64)
    given = {
        "tokens": torch.zeros(rows, width, dtype=torch.int64),
        "positions": torch.arange(width).expand(rows, width),
        "index": zero,
        "block_index": zero,
        "block_masks": eligible.sum(1),
        "keys": torch.arange(rows),
        "draw": Draw(),
        "schedule": None,
    }
    return Step(logits, eligible=eligible, **{**given, **how})


def random_step(seed: int, rows: int = 3, width: int = 9, vocab: int = 6, **how: Any) -> Step:
    """Logits from nearly flat to nearly certain, and rows with padding."""
    rng = torch.Generator().manual_seed(seed)
    sharpness = torch.rand(rows, width, 1, generator=rng) * 8
    logits = torch.randn(rows, width, vocab, generator=rng) * sharpness
    left = torch.randint(1, width + 1, (rows, 1), generator=rng)
    return make(logits, torch.arange(width) < left, **how)


def softmax(row: Sequence[float]) -> list[float]:
    peak = max(row)
    e = [math.exp(x - peak) for x in row]
    return [x / sum(e) for x in e]


def plain(step: Step, b: int) -> list[dict[str, float]]:
    """Confidence, entropy and margin of row b's eligible positions."""
    found = []
    for i in range(int(step.left[b])):
        p = sorted(softmax(step._raw[b, i].double().tolist()), reverse=True)
        entropy = -sum(x * math.log(x) for x in p if x)
        found.append({"confidence": p[0], "entropy": entropy, "margin": p[0] - p[1]})
    return found


def surest_first(row: list[dict[str, float]], proxy: Proxy) -> list[int]:
    sign = 1 if proxy == "entropy" else -1
    return sorted(range(len(row)), key=lambda i: sign * row[i][proxy])


def chosen(rule: Sampler, step: Step) -> list[list[int]]:
    """What the loop would commit, save what it forces."""
    commit = rule(step).commit & step.eligible
    return [row.nonzero().flatten().tolist() for row in commit]


def matches(rule: Sampler, step: Step, expected: Callable[[list[dict[str, float]]], Any]) -> None:
    for b, got in enumerate(chosen(rule, step)):
        assert got == sorted(expected(plain(step, b)))


# Rules that take a count


@given(seeds, st.sampled_from(PROXIES), st.integers(1, 10))
@some
def test_topk_takes_the_k_surest(seed: int, proxy: Proxy, k: int) -> None:
    matches(TopK(k, proxy), random_step(seed), lambda row: surest_first(row, proxy)[:k])


@every_proxy
def test_ties_are_broken_left_first(proxy: Proxy) -> None:
    a, b = [3.0, 1.0, 0.0], [1.0, 0.5, 0.0]
    step = make(torch.tensor([[b, a, b, a, a], [a] * 5, [b] * 5]))
    assert chosen(TopK(2, proxy), step) == [[1, 3], [0, 1], [0, 1]]
    assert chosen(TopK(4, proxy), step) == [[0, 1, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert chosen(EB(0, proxy), step) == [[1], [0], [0]]


@every_proxy
def test_ties_stay_left_first_in_a_wide_window(proxy: Proxy) -> None:
    """An unstable sort is stable by accident on a few columns."""
    step = make(torch.zeros(2, 5000, 3))
    assert chosen(TopK(7, proxy), step) == [list(range(7))] * 2


def test_without_k_the_schedule_counts_and_without_a_schedule_it_is_one() -> None:
    step = random_step(1)
    for rule in (TopK(), Random(), LeftToRight()):
        assert [len(row) for row in chosen(rule, step)] == [1, 1, 1]
    linear = random_step(1, schedule=Schedule("linear", 2))
    for rule in (TopK(), Random(), LeftToRight()):
        counts = [len(row) for row in chosen(rule, linear)]
        assert counts == [-(-int(n) // 2) for n in linear.left]


@given(seeds, st.integers(1, 10))
@some
def test_left_to_right_and_random_take_k_whatever_the_logits(seed: int, k: int) -> None:
    step, other = random_step(seed), random_step(seed)
    other._raw = -step._raw
    for b, got in enumerate(chosen(LeftToRight(k), step)):
        assert got == list(range(min(k, int(step.left[b]))))
    assert chosen(Random(k), step) == chosen(Random(k), other)
    for b, got in enumerate(chosen(Random(k), step)):
        assert len(got) == min(k, int(step.left[b]))


def test_random_takes_every_position_equally_often() -> None:
    """3 of 8 positions in 4000 rows: a share differs from 3/8 by more than 0.034 with a probability
    below 8 * 2 * exp(-2 * 4000 * 0.034**2) = 0.0016 (Hoeffding); the keys are fixed."""
    picks = Random(3)(make(torch.zeros(4000, 8, 3))).commit.double().mean(0)
    assert (picks - 3 / 8).abs().max() < 0.034


def test_alg_temp_draws_positions_from_the_softmax_of_their_scores() -> None:
    """First draws of 4000 rows: a share is off by more than 0.034 with a probability below
    4 * 2 * exp(-2 * 4000 * 0.034**2) = 0.0008 (Hoeffding); the keys are fixed."""
    logits = torch.tensor([[4.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).expand(4000, 4, 2)
    step = make(logits)
    want = softmax([c / 0.2 for c in step.confidence[0].tolist()])
    got = TopK(1, alg_temp=0.2)(step).commit.double().mean(0)
    assert (got - torch.tensor(want)).abs().max() < 0.034
    assert int(TopK(3, alg_temp=0.2)(step).commit.sum(1).unique()) == 3


# Rules that take what is sure enough


@given(seeds, st.floats(0, 1.2))
@some
def test_threshold_takes_what_reaches_it(seed: int, bar: float) -> None:
    step = random_step(seed)
    expected = [i for row in [plain(step, b) for b in range(3)] for i in row]
    if any(abs(i["confidence"] - bar) < 1e-6 for i in expected):
        return
    matches(
        Threshold(bar),
        step,
        lambda row: [i for i, s in enumerate(row) if s["confidence"] >= bar],
    )


def test_thresholds_are_inclusive() -> None:
    step = make(torch.zeros(1, 3, 4))
    assert step.confidence[0].tolist() == [0.25] * 3
    assert chosen(Threshold(0.25), step) == [[0, 1, 2]]
    assert chosen(Threshold(math.nextafter(0.25, 1)), step) == [[]]
    entropy = step.entropy[0, 0].item()
    assert chosen(EntropyThreshold(entropy), step) == [[0, 1, 2]]
    assert chosen(EntropyThreshold(math.nextafter(entropy, 0)), step) == [[]]


@given(seeds, st.floats(0.01, 0.99), st.integers(1, 6))
@some
def test_a_capped_threshold_looks_at_the_surest_quota_only(
    seed: int, bar: float, steps: int
) -> None:
    step = random_step(seed, schedule=Schedule("linear", steps))
    for b, got in enumerate(chosen(Threshold(bar, capped=True), step)):
        row = plain(step, b)
        if any(abs(s["confidence"] - bar) < 1e-6 for s in row):
            continue
        few = surest_first(row, "confidence")[: -(-len(row) // steps)]
        assert got == sorted(i for i in few if row[i]["confidence"] >= bar)


@given(seeds, st.floats(0, 2))
@some
def test_entropy_threshold_takes_the_low_ones_and_falls_back_on_the_lowest(
    seed: int, bar: float
) -> None:
    step = random_step(seed)
    for b, got in enumerate(chosen(EntropyThreshold(bar), step)):
        row = plain(step, b)
        if any(abs(s["entropy"] - bar) < 1e-6 for s in row):
            continue
        assert got == [i for i, s in enumerate(row) if s["entropy"] <= bar]
        order = EntropyThreshold(bar)(step).order
        assert order is not None
        lowest = int(step.order(order)[b, 0])
        assert row[lowest]["entropy"] == pytest.approx(min(s["entropy"] for s in row), abs=1e-9)


def factor_prefix(row: list[dict[str, float]], factor: float) -> int:
    """The largest n with (n + 1)(1 - c_n) <= factor; rank 1 always."""
    ranked = sorted((s["confidence"] for s in row), reverse=True)
    count = 1
    for n in range(2, len(ranked) + 1):
        if (n + 1) * (1 - ranked[n - 1]) <= factor:
            count = n
    return count


def factor_as_published(row: list[dict[str, float]], factor: float) -> int:
    """Fast-dLLM llada/generate.py, get_transfer_index_dynamic: leaves at the first rank that fails,
    and cannot tell whether the last one did."""
    ranked = sorted((s["confidence"] for s in row), reverse=True)
    bars = [1 - factor / (n + 1) for n in range(1, len(ranked) + 1)]
    bars[0] = -1.0
    for top in range(len(bars)):
        if ranked[top] < bars[top]:
            break
    if top == 0 or top == len(bars) - 1:
        top += 1
    return top


def near_the_bar(row: list[dict[str, float]], factor: float) -> bool:
    ranked = sorted((s["confidence"] for s in row), reverse=True)
    return any(abs((n + 1) * (1 - c) - factor) < 1e-5 for n, c in enumerate(ranked, start=1))


FACTORS = st.floats(0, 5)


@pytest.mark.parametrize(("slip", "count"), [(False, factor_prefix), (True, factor_as_published)])
@given(seed=seeds, factor=FACTORS)
@settings(max_examples=120, deadline=None)
def test_factor_takes_the_longest_passing_prefix(
    slip: bool, count: Callable[..., int], seed: int, factor: float
) -> None:
    step = random_step(seed, width=5)
    for b, got in enumerate(chosen(Factor(factor, slip=slip), step)):
        row = plain(step, b)
        if not near_the_bar(row, factor):
            assert got == sorted(surest_first(row, "confidence")[: count(row, factor)])


def test_the_slip_takes_a_failing_last_rank_and_that_alone() -> None:
    sure, unsure = [20.0, 0.0], [0.0, 0.0]
    for left, plain_count, slipped in (
        ([sure, sure, unsure], 2, 3),
        ([sure, unsure], 1, 2),
        ([sure, sure, unsure, unsure], 2, 2),
        ([sure, sure], 2, 2),
        ([unsure], 1, 1),
        ([unsure, unsure], 1, 2),
        ([unsure, unsure, unsure], 1, 1),
    ):
        step = make(torch.tensor([left]))
        assert len(chosen(Factor(0.1), step)[0]) == plain_count
        assert len(chosen(Factor(0.1, slip=True), step)[0]) == slipped


# EB


def eb_by_the_paper(row: list[dict[str, float]], proxy: Proxy, gamma: float) -> tuple[int, bool]:
    """k of Algorithm 1, 2505.24857; and whether rounding may decide it."""
    total = most = 0.0
    close = False
    for k, i in enumerate(surest_first(row, proxy)):
        total += row[i]["entropy"]
        most = max(most, row[i]["entropy"])
        close |= k > 0 and abs(total - most - gamma) < 1e-6
        if total - most > gamma:
            return k, close
    return len(row), close


def eb_count(gamma: float, proxy: Proxy, step: Step) -> list[int]:
    return [len(row) for row in chosen(EB(gamma, proxy), step)]


gammas = st.one_of(st.just(0.0), st.floats(1e-3, 8), st.just(math.inf))


@given(seeds, st.sampled_from(PROXIES), gammas)
@settings(max_examples=200, deadline=None)
def test_eb_commits_the_prefix_of_algorithm_1(seed: int, proxy: Proxy, gamma: float) -> None:
    step = random_step(seed)
    for b, got in enumerate(chosen(EB(gamma, proxy), step)):
        row = plain(step, b)
        k, close = eb_by_the_paper(row, proxy, gamma)
        if not close:
            assert got == sorted(surest_first(row, proxy)[:k])


@every_proxy
def test_eb_subtracts_the_largest_entropy_so_far_not_the_last(proxy: Proxy) -> None:
    """By confidence and margin the surest position here has the largest entropy of the three."""
    wide = [3.4, *[0.0] * 20]  # p = 0.6, entropy 1.9
    narrow = [1.0, 0.9, *[-30.0] * 19]  # p = 0.52, entropy 0.69
    middle = [1.2, 1.1, 0.9, *[-30.0] * 18]  # p = 0.38, entropy 1.1
    step = make(torch.tensor([[wide, narrow, middle]]))
    row = plain(step, 0)
    for gamma in [0.1 * i for i in range(1, 40)]:
        k, close = eb_by_the_paper(row, proxy, gamma)
        assert close or eb_count(gamma, proxy, step) == [k]


@given(seeds, st.sampled_from(PROXIES), st.floats(0, 9), st.floats(0, 9))
@some
def test_eb_a_k_never_falls_with_gamma(seed: int, proxy: Proxy, one: float, two: float) -> None:
    low, high = sorted((one, two))
    step = random_step(seed)
    for a, b in zip(eb_count(low, proxy, step), eb_count(high, proxy, step), strict=True):
        assert a <= b


@given(seeds, st.sampled_from(PROXIES))
@some
def test_eb_b_gamma_zero_takes_one_while_entropies_are_positive(seed: int, proxy: Proxy) -> None:
    step = random_step(seed)
    assert (step.entropy > 0).all()
    assert eb_count(0.0, proxy, step) == [1, 1, 1]


@every_proxy
def test_eb_b_gamma_zero_takes_one_far_in_saturation(proxy: Proxy) -> None:
    """Entropies around 1e-20 are not 0, and neither are their sums beside one of 1."""
    gaps = torch.tensor([50.0, 45.0, 1.0, 55.0])
    step = make(torch.stack([gaps, 0 * gaps], -1)[None])
    assert eb_count(0.0, proxy, step) == [1]


@given(seeds, st.sampled_from(PROXIES))
@some
def test_eb_c_a_gamma_that_no_prefix_exceeds_takes_all(seed: int, proxy: Proxy) -> None:
    step = random_step(seed, rows=1)
    entropies = [s["entropy"] for s in plain(step, 0)]
    bound = sum(entropies) - max(entropies)
    assert eb_count(bound + 1e-5, proxy, step) == [len(entropies)]
    if len(entropies) > 1 and bound > 1e-4:
        assert eb_count(bound - 1e-5, proxy, step)[0] < len(entropies)


@given(seeds, st.sampled_from(PROXIES), gammas, st.permutations(range(9)))
@some
def test_eb_d_permuted_positions_permute_the_choice(
    seed: int, proxy: Proxy, gamma: float, order: list[int]
) -> None:
    step = random_step(seed)
    moved = make(step._raw[:, order], step.eligible[:, order])
    before, after = EB(gamma, proxy)(step).commit, EB(gamma, proxy)(moved).commit
    assert torch.equal(before[:, order], after)


@given(seeds)
@some
def test_eb_e_by_entropy_the_largest_is_the_last(seed: int) -> None:
    step = random_step(seed)
    ranked = step.entropy.gather(1, step.order(step.score("entropy")))
    for b, left in enumerate(step.left.tolist()):
        assert ranked[b, :left].cummax(0).values.tolist() == ranked[b, :left].tolist()


@given(seeds, st.sampled_from(PROXIES), gammas)
@some
def test_eb_f_a_row_alone_gets_the_same_k(seed: int, proxy: Proxy, gamma: float) -> None:
    step = random_step(seed)
    for b in range(3):
        alone = make(step._raw[b : b + 1], step.eligible[b : b + 1])
        assert chosen(EB(gamma, proxy), alone) == [chosen(EB(gamma, proxy), step)[b]]


@given(seeds, st.sampled_from(PROXIES), gammas, st.floats(-40, 40))
@some
def test_eb_g_padding_never_counts(seed: int, proxy: Proxy, gamma: float, noise: float) -> None:
    step = random_step(seed)
    other = step._raw.clone()
    other[~step.eligible] = torch.tensor([noise, 0, 1, 2, 3, -torch.inf])
    assert chosen(EB(gamma, proxy), make(other, step.eligible)) == chosen(EB(gamma, proxy), step)


# Statistics


@given(seeds, st.integers(2, 40))
@some
def test_scores_are_those_of_a_float64_softmax(seed: int, vocab: int) -> None:
    step = random_step(seed, vocab=vocab)
    p = step._raw.double().softmax(-1)
    top = p.topk(2).values
    want = {
        "confidence": top[..., 0],
        "entropy": torch.special.entr(p).sum(-1),
        "margin": top[..., 0] - top[..., 1],
    }
    assert torch.equal(step.proposal, step._raw.argmax(-1))
    for name, value in want.items():
        got = getattr(step, name)
        assert got.dtype == torch.float64
        assert (got - value).abs().max() < 1e-6, name
    assert torch.equal(step.score("entropy"), -step.entropy)
    assert torch.allclose(step.logprobs, step._raw.log_softmax(-1))


def saturated(gaps: Tensor, rest: int) -> tuple[Tensor, list[float], list[float]]:
    """Logits [1, W, V] with the peak `gap` above the others, their exact entropies, and 1 - p."""
    logits = torch.cat([gaps[:, None], torch.zeros(len(gaps), rest)], 1)
    tails = [[math.exp(-g)] * rest for g in gaps.double().tolist()]
    sums = [math.fsum(t) for t in tails]
    entropies = [
        math.log1p(s) + s * g / (1 + s) for s, g in zip(sums, gaps.double().tolist(), strict=True)
    ]
    return logits[None], entropies, [s / (1 + s) for s in sums]


@pytest.mark.parametrize("others", [1, 7, 1000])
def test_entropy_and_doubt_are_exact_far_into_saturation(others: int) -> None:
    """Up to a gap of 60, where a float32 softmax rounds to 1 from 17 on, a float64 one from 37."""
    gaps = torch.arange(1, 61).float()
    logits, entropies, doubts = saturated(gaps, others)
    reading = Reader()(logits[0])
    entropy, doubt = reading.entropy[None], (reading.rest / (1 + reading.rest))[None]
    assert torch.equal(make(logits).entropy, entropy)
    assert entropy[0].tolist() == pytest.approx(entropies, rel=1e-5, abs=0)
    assert doubt[0].tolist() == pytest.approx(doubts, rel=1e-5, abs=0)
    rising = gaps > math.log(others) + 2  # beyond it entropy falls with the gap
    for values in (entropy[0, rising], doubt[0]):
        assert (values > 0).all()
        assert (values.diff() < 0).all()
    seen = [i for i, d in enumerate(doubts) if d > 1e-10]
    one_minus = (1 - make(logits).confidence)[0]
    assert one_minus[seen].tolist() == pytest.approx([doubts[i] for i in seen], rel=1e-5, abs=0)


def test_margins_near_zero_are_exact() -> None:
    """Two tokens a hair apart: the difference of two rounded probabilities would lose it."""
    gap = torch.tensor([2.0**-k for k in range(1, 21)])
    step = make(torch.stack([gap, 0 * gap], -1)[None])
    want = [math.tanh(g / 2) for g in gap.double().tolist()]
    assert step.margin[0].tolist() == pytest.approx(want, rel=1e-6, abs=0)


def test_impossible_tokens_give_no_nan() -> None:
    inf = torch.inf
    logits = torch.tensor([[[0.0, -inf, -inf], [-inf, 1.0, 1.0], [2.0, -inf, 0.0]]])
    step = make(logits)
    assert step.entropy[0, :2].tolist() == pytest.approx([0, math.log(2)])
    assert step.confidence[0, :2].tolist() == [1.0, 0.5]
    assert step.margin[0, :2].tolist() == [1.0, 0.0]
    for score in (step.entropy, step.confidence, step.margin):
        assert score.isfinite().all()
    sampled = make(logits, draw=Draw(0.7))
    assert sampled.proposal[0, 0] == 0
    assert sampled.confidence.isfinite().all()


# How tokens are drawn


def dreams_cut(row: list[float], draw: Draw) -> list[float]:
    """Dream's generation_utils.py for one position: temperature, then top_p, then top_k."""
    z = [x / draw.temperature for x in row] if draw.temperature else list(row)
    if draw.top_p is not None and draw.top_p < 1:
        p = softmax(z)
        kept, mass = set(), 0.0
        for v in sorted(range(len(z)), key=lambda v: -z[v]):
            if kept and mass > draw.top_p:
                break
            kept.add(v)
            mass += p[v]
        z = [x if v in kept else -math.inf for v, x in enumerate(z)]
    if draw.top_k is not None:
        low = sorted(z, reverse=True)[min(draw.top_k, len(z)) - 1]
        z = [x if x >= low else -math.inf for x in z]
    return z


@given(
    seeds,
    st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    st.sampled_from([None, 0.0, 0.3, 0.8, 0.95, 1.0]),
    st.sampled_from([None, 1, 3, 6, 99]),
)
@settings(max_examples=120, deadline=None)
def test_the_cut_is_dreams(
    seed: int, temperature: float, top_p: float | None, top_k: int | None
) -> None:
    draw = Draw(temperature, top_p, top_k, filtered=True)
    step = random_step(seed, rows=1, vocab=8, draw=draw)
    p = step.logprobs.double().exp()[0]
    for i in range(9):
        want = torch.tensor(softmax(dreams_cut(step._raw[0, i].tolist(), draw)))
        assert (p[i] - want).abs().max() < 1e-5
        assert want[step.proposal[0, i]] > 0
        assert step.confidence[0, i].item() == pytest.approx(
            want[step.proposal[0, i]].item(), abs=1e-5
        )
        entropy = torch.special.entr(want.double()).sum().item()
        assert step.entropy[0, i].item() == pytest.approx(entropy, abs=1e-5)


def test_the_order_of_the_cuts_is_temperature_top_p_top_k() -> None:
    """p = .4 .3 .2 .1 at temperature 1. Squared (temperature 0.5) top_p=.5 keeps one token fewer;
    and top_k first would renormalise .4 .3 to .57 .43, of which top_p=.55 keeps one."""
    logits = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]]).log()

    def kept(draw: Draw) -> int:
        return int(make(logits, draw=draw).logprobs.isfinite().sum())

    assert kept(Draw(1.0, 0.5, filtered=True)) == 2
    assert kept(Draw(0.5, 0.5, filtered=True)) == 1
    assert kept(Draw(1.0, 0.55, 2, filtered=True)) == 2
    assert kept(Draw(1.0, 0.75, 2, filtered=True)) == 2
    assert kept(Draw(1.0, 0.75, 9, filtered=True)) == 3


def test_a_sampled_token_is_scored_raw_or_as_it_was_drawn() -> None:
    logits = torch.randn(200, 4, 6, generator=torch.Generator().manual_seed(0)) * 2
    raw, filtered = (make(logits, draw=Draw(1.7, 0.9, 4, f)) for f in (False, True))
    assert torch.equal(raw.proposal, filtered.proposal)
    assert (raw.proposal != logits.argmax(-1)).any()
    tokens = raw.proposal[..., None]
    want = logits.double().softmax(-1).gather(-1, tokens)[..., 0]
    assert (raw.confidence - want).abs().max() < 1e-6
    cut = [[dreams_cut(z, Draw(1.7, 0.9, 4)) for z in row] for row in logits.tolist()]
    want = torch.tensor(cut).double().softmax(-1).gather(-1, tokens)[..., 0]
    assert (filtered.confidence - want).abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_proposals_follow_the_tempered_softmax(temperature: float) -> None:
    """20000 draws: a share is off by more than 0.016 with a probability below
    6 * 2 * exp(-2 * 20000 * 0.016**2) = 0.0005 (Hoeffding); the keys are fixed."""
    logits = torch.tensor([1.5, 1.0, 0.0, -1.0, 0.3, -torch.inf])
    step = make(logits.expand(5000, 4, 6), draw=Draw(temperature))
    shares = torch.bincount(step.proposal.flatten(), minlength=6) / 20_000
    want = (logits.double() / temperature).softmax(-1)
    assert (shares - want).abs().max() < 0.016
    assert shares[5] == 0


def test_temperature_zero_proposes_the_likeliest_whatever_the_seed() -> None:
    logits = torch.randn(3, 4, 6)
    for draw in (Draw(), Draw(0.0, top_p=0.5), Draw(0.0, top_k=2, filtered=True)):
        assert torch.equal(make(logits, draw=draw).proposal, logits.argmax(-1))


# Knobs

BAD_KNOBS: list[tuple[Callable[[], Any], str]] = [
    (lambda: EB(-0.1), "gamma is -0.1\nit must be at least 0"),
    (lambda: EB(math.nan), "gamma is nan\nit must be at least 0"),
    (lambda: Threshold(math.nan), "threshold is nan\nit must be at least 0"),
    (lambda: Threshold(-1), "threshold is -1\nit must be at least 0"),
    (lambda: EntropyThreshold(math.nan), "threshold is nan\nit must be at least 0"),
    (lambda: Factor(math.nan), "factor is nan\nit must be at least 0"),
    (lambda: TopK(0), "k is 0\nit must be at least 1"),
    (lambda: Random(0), "k is 0\nit must be at least 1"),
    (lambda: LeftToRight(-3), "k is -3\nit must be at least 1"),
    (lambda: TopK(alg_temp=-0.5), "alg_temp is -0.5\nit must be at least 0"),
    (
        lambda: EB(proxy="entrpy"),  # type: ignore[arg-type]
        "unknown proxy 'entrpy'\ndid you mean 'entropy'? known: confidence, entropy, margin",
    ),
    (
        lambda: TopK(proxy="margins"),  # type: ignore[arg-type]
        "unknown proxy 'margins'\ndid you mean 'margin'? known: confidence, entropy, margin",
    ),
]


@pytest.mark.parametrize(("make_rule", "text"), BAD_KNOBS)
def test_a_knob_out_of_range_is_refused(make_rule: Callable[[], Any], text: str) -> None:
    with pytest.raises(UserError) as error:
        make_rule()
    assert str(error.value) == text
