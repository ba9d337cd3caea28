"""The loop's promises, for every sampler. A user's own sampler is held to the same."""

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import HashModel

from mdmbench.base import NEVER, Batch, Canvas, Choice, Decoded, Sampler
from mdmbench.bench.rehearsal import Reads
from mdmbench.canvas import first_end
from mdmbench.clock import Work
from mdmbench.decoding import Decoding
from mdmbench.errors import UserError
from mdmbench.loop import decode, progress
from mdmbench.samplers import SAMPLERS
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import LeftToRight, Random, TopK
from mdmbench.samplers.threshold import EntropyThreshold, Factor, Threshold
from mdmbench.schedule import SCHEDULES, Schedule
from mdmbench.step import Draw, Step

PROXIES = ("confidence", "entropy", "margin")


def surest_half(step: Step) -> Choice:
    """A plain function is a sampler too."""
    return Choice(step.top(step.confidence, (step.left + 1) // 2))


def nothing(step: Step) -> Choice:
    """The loop has to force every position."""
    return Choice(torch.zeros_like(step.eligible))


RULES: dict[str, Sampler] = {
    "random": Random(),
    "random-k3": Random(k=3),
    "left-to-right": LeftToRight(),
    "left-to-right-k2": LeftToRight(k=2),
    **{f"topk-{p}": TopK(proxy=p) for p in PROXIES},
    "topk-k4": TopK(k=4),
    "topk-alg-temp": TopK(alg_temp=0.3),
    "threshold": Threshold(0.5),
    "threshold-capped": Threshold(0.5, capped=True),
    "entropy-threshold": EntropyThreshold(1.0),
    "factor": Factor(1.5),
    "factor-slip": Factor(1.5, slip=True),
    **{f"eb-{p}": EB(0.5, p) for p in PROXIES},
    "function": surest_half,
    "nothing": nothing,
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
MODEL = HashModel()


def canvases(count: int = 9, length: int = 12, seed: int = 0) -> list[Canvas]:
    """Ragged canvases with a prompt, givens inside the answer, a mask inside the prompt, and masks
    behind the answer's end."""
    rng = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        prompt = i % 4 + 1
        tokens = torch.randint(1, MODEL.vocab_size, (prompt + length,), generator=rng)
        tokens[prompt:][torch.rand(length, generator=rng) < 0.8] = MODEL.mask_id
        if i == 2:
            tokens[0] = MODEL.mask_id
        tail = (MODEL.mask_id,) * 3 if i % 5 == 3 else ()
        made.append(Canvas(f"c{i}", (*tokens.tolist(), *tail), prompt, prompt + length))
    return made


def run(
    rule: Sampler, items: Sequence[Canvas], batch_size: int = 4, **how: Any
) -> dict[str, Decoded]:
    done = decode(MODEL, rule, items, batch_size=batch_size, decoding=Decoding(**how))
    return {d.id: d for d in done}


def answers(done: dict[str, Decoded]) -> dict[str, tuple[Any, ...]]:
    """All that must not depend on the batch."""
    return {
        i: (d.tokens, d.committed_at, d.nfe, d.nfe_until, d.forced, d.forward_tokens)
        for i, d in done.items()
    }


HOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "blocks": {"block_length": 4},
    "sampled": {"draw": Draw(temperature=0.8), "seed": 3},
    "filtered": {"draw": Draw(0.7, top_p=0.9, top_k=4, filtered=True)},
    **{name: {"schedule": Schedule(name, 5)} for name in SCHEDULES},
    "blocks-scheduled": {"block_length": 6, "schedule": Schedule("linear", 3)},
    "blocks-from-zero": {"block_length": 5, "from_zero": True},
    "guided": {"guidance": 1.5},
    "end-never": {"draw": Draw(never=(1, 2))},
    "end-last": {"draw": Draw(late=(1, 2))},
}
every_how = pytest.mark.parametrize("how", HOWS.values(), ids=HOWS)


@every_how
@every_rule
def test_givens_stay_and_no_mask_is_left(rule: Sampler, how: dict[str, Any]) -> None:
    items = canvases()
    done = run(rule, items, **how)
    assert set(done) == {c.id for c in items}
    for canvas in items:
        decoded = done[canvas.id]
        assert MODEL.mask_id not in decoded.tokens[: canvas.end]
        for i, (before, after, at) in enumerate(
            zip(canvas.tokens, decoded.tokens, decoded.committed_at, strict=True)
        ):
            asked = before == MODEL.mask_id and i < (canvas.end or len(canvas.tokens))
            assert (at == NEVER) != asked
            assert at != NEVER or before == after


@every_how
@every_rule
def test_each_step_commits_unless_the_schedule_asks_to_wait(
    rule: Sampler, how: dict[str, Any]
) -> None:
    waits = how.get("schedule") and how["schedule"].name in ("dream", "ancestral")
    for decoded in run(rule, canvases(), **how).values():
        steps = set(decoded.committed_at) - {NEVER}
        forwards = 2 if "guidance" in how else 1
        assert decoded.nfe == forwards * (max(steps) + 1)
        assert waits or steps == set(range(max(steps) + 1))
        assert decoded.forward_tokens == decoded.nfe * len(decoded.tokens)
        assert 0 <= decoded.forced <= decoded.nfe


@every_how
@every_rule
def test_the_trace_says_how_sure_the_model_was_of_each_commit(
    rule: Sampler, how: dict[str, Any]
) -> None:
    """What a step's commits gambled is the sum of their entropies less the largest."""
    for decoded in run(rule, canvases(), **how).values():
        at, entropy = decoded.committed_at, decoded.entropy
        together: dict[int, list[float]] = {}
        for step, nats in zip(at, entropy, strict=True):
            together.setdefault(step, []).append(nats)
        assert set(together.pop(NEVER)) == {0.0}
        spent = sum(sum(nats) - max(nats) for nats in together.values())
        assert decoded.bound_spent == pytest.approx(spent)
        late = "draw" in how and how["draw"].late  # what comes last counts as wholly unsure
        for step, confidence in zip(at, decoded.confidence, strict=True):
            assert 0 <= confidence <= 1
            assert (confidence > 0) == (step != NEVER) or late


@every_how
@every_rule
def test_the_batch_changes_nothing(rule: Sampler, how: dict[str, Any]) -> None:
    items = canvases()
    alone = answers(run(rule, items, batch_size=1, **how))
    assert answers(run(rule, items, batch_size=4, **how)) == alone
    assert answers(run(rule, items[::-1], batch_size=64, **how)) == alone


@given(
    rule=st.sampled_from(list(RULES.values())),
    masks=st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=7),
    prompts=st.lists(st.integers(0, 5), min_size=7, max_size=7),
    batch_size=st.integers(1, 9),
    block=st.sampled_from([None, 1, 2, 4, 8]),
    temperature=st.sampled_from([0.0, 0.5]),
)
@settings(deadline=None, max_examples=150)
def test_promises_hold_for_any_canvas(
    rule: Sampler,
    masks: list[list[bool]],
    prompts: list[int],
    batch_size: int,
    block: int | None,
    temperature: float,
) -> None:
    items = [
        Canvas(f"{i}", (*[2] * n, *[MODEL.mask_id if m else 3 for m in mask]), n)
        for i, (mask, n) in enumerate(zip(masks, prompts, strict=False))
    ]
    how = {"block_length": block, "draw": Draw(temperature)}
    done = run(rule, items, batch_size=batch_size, **how)
    assert answers(done) == answers(run(rule, items, batch_size=1, **how))
    for canvas in items:
        decoded = done[canvas.id]
        blanks = [t == MODEL.mask_id for t in canvas.tokens]
        assert [at != NEVER for at in decoded.committed_at] == blanks
        assert MODEL.mask_id not in decoded.tokens
        assert decoded.nfe <= sum(blanks)


@every_rule
def test_blocks_are_filled_from_the_left(rule: Sampler) -> None:
    for canvas, decoded in zip(
        canvases(), _in_order(run(rule, canvases(), block_length=3)), strict=True
    ):
        at = decoded.committed_at
        blocks = [at[i : i + 3] for i in range(canvas.start, canvas.end or len(at), 3)]
        steps = [[a for a in block if a != NEVER] for block in blocks]
        steps = [s for s in steps if s]
        assert all(max(a) < min(b) for a, b in pairwise(steps))


@every_rule
def test_blocks_from_zero_are_those_of_the_canvas(rule: Sampler) -> None:
    for decoded in run(rule, canvases(), block_length=5, from_zero=True).values():
        blocks = [decoded.committed_at[i : i + 5] for i in range(0, len(decoded.tokens), 5)]
        steps = [[at for at in block if at != NEVER] for block in blocks]
        assert all(max(a) < min(b) for a, b in pairwise(filter(None, steps)))


@every_rule
def test_a_token_that_is_never_written_is_not(rule: Sampler) -> None:
    items = {canvas.id: canvas for canvas in canvases()}
    for id, decoded in run(rule, canvases(), draw=Draw(never=(3, 4))).items():
        assert all(
            after == before or after not in (3, 4)
            for before, after in zip(items[id].tokens, decoded.tokens, strict=True)
        )


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("rule", [TopK(k=1), EB(0.5), EB(3.0), Threshold(0.3)], ids=repr)
def test_what_ends_an_answer_comes_last(rule: Any, proxy: Any) -> None:
    """No such token is written while a position proposes another one."""
    late, seen = (1, 3), 0

    def watched(step: Step) -> Choice:
        nonlocal seen
        choice = (replace(rule, proxy=proxy) if hasattr(rule, "proxy") else rule)(step)
        commit, _ = progress(step, choice)
        ends = torch.isin(step.proposal, torch.tensor(late))
        others = (step.eligible & ~ends).any(1)
        first = (commit & ends).any(1) & ~(commit & ~ends).any(1)
        assert not (first & others).any()
        seen += int((ends & step.eligible).any(1)[others].sum())
        return choice

    run(watched, canvases(30), draw=Draw(late=late))
    assert seen, "some step had both"


def test_guidance_costs_two_forwards_a_step_and_changes_answers() -> None:
    plain = run(TopK(k=1), canvases())
    led = run(TopK(k=1), canvases(), guidance=2.0)
    assert all(led[i].nfe == 2 * plain[i].nfe for i in plain)
    assert all(led[i].forward_tokens == 2 * plain[i].forward_tokens for i in plain)
    assert any(led[i].tokens != plain[i].tokens for i in plain)


def _in_order(done: dict[str, Decoded]) -> list[Decoded]:
    return [done[key] for key in sorted(done)]


@every_rule
def test_stopping_early_costs_what_the_full_run_says(rule: Sampler) -> None:
    """And gives the same answer up to its end."""
    stop = first_end((1, 2))
    full = run(rule, canvases(), block_length=4, stop=stop)
    early = run(rule, canvases(), block_length=4, stop=stop, early=True)
    assert any(d.nfe < full[i].nfe for i, d in early.items())
    for i, decoded in early.items():
        assert decoded.end == full[i].end
        assert decoded.nfe_until == full[i].nfe_until
        assert decoded.tokens[: decoded.end] == full[i].tokens[: decoded.end]
        assert decoded.nfe == (full[i].nfe if decoded.end is None else full[i].nfe_until)
    for canvas in canvases():
        assert MODEL.mask_id not in early[canvas.id].tokens[: canvas.end]


def test_every_finished_slot_is_taken_by_the_next_example() -> None:
    """40 examples of 1 to 12 steps in 4 slots: no forward has an idle slot while work is left."""
    items = [Canvas(f"{i}", (2,) * (12 - i % 12) + (0,) * (i % 12 + 1)) for i in range(40)]
    model = HashModel()
    done = list(decode(model, TopK(k=1), items, batch_size=4))
    work = sum(d.nfe for d in done)
    assert work == sum(i % 12 + 1 for i in range(40))
    assert model.calls <= work / 4 + 12


@every_how
@every_rule
def test_the_host_waits_for_the_device_once_a_step(rule: Sampler, how: dict[str, Any]) -> None:
    """And once for those that were done at the last one; one more is of the canvases, which are
    made on the host."""
    items, work = canvases(), Work()
    with Reads(MODEL.device) as reads:
        done = decode(MODEL, rule, items, batch_size=9, decoding=Decoding(**how), work=work)
        assert len(list(done)) == 9
    assert reads.count == work.steps + 2


def test_a_token_that_is_none_is_an_error() -> None:
    def wrong(token: int) -> Sampler:
        return lambda step: Choice(step.eligible, torch.full_like(step.proposal, token))

    for token in (-1, MODEL.mask_id, MODEL.vocab_size):
        with pytest.raises(UserError, match=f"the sampler writes token {token}"):
            run(wrong(token), canvases())


def test_rows_of_any_length_take_each_others_place() -> None:
    """A short one in a long one's place, and the other way, with masks left behind by both."""
    rng = random.Random(0)
    items = [
        Canvas(f"{i}", (2,) * rng.randrange(1, 40) + (0,) * rng.randrange(1, 20)) for i in range(60)
    ]
    for rule in (TopK(k=1), EB(1.0), Random(k=3)):
        alone = answers(run(rule, items, batch_size=1))
        for batch_size in (2, 3, 7, 60):
            assert answers(run(rule, items, batch_size=batch_size)) == alone


def test_work_says_what_the_steps_were_made_of() -> None:
    items = [Canvas(f"{n}", (2,) * 4 + (0,) * n) for n in (6, 3, 1)]
    work = Work()
    list(decode(MODEL, TopK(k=1), items, batch_size=2, work=work))
    # Two slots: 6 and 3 for three steps, 6 and 1 for one, 6 alone for two.
    assert (work.steps, work.slots, work.rows) == (6, 12, 10)
    assert (work.positions, work.tokens) == (4 * 2 * 10 + 2 * 10, 3 * 17 + 15 + 2 * 10)
    assert min(work.seconds.model, work.seconds.sampler, work.seconds.host) > 0


def test_logits_are_asked_for_at_eligible_positions_only() -> None:
    widths: list[int] = []

    class Watched(HashModel):
        def __call__(self, batch: Batch) -> Any:
            widths.append(batch.rows.shape[1])
            return super().__call__(batch)

    canvas = Canvas("x", (2,) * 10 + (0,) * 12, 10)
    list(decode(Watched(), TopK(k=2), [canvas], batch_size=1, decoding=Decoding(block_length=4)))
    assert widths == [4, 2] * 3


def test_the_seed_decides_the_noise() -> None:
    for rule, draw in ((Random(), Draw()), (TopK(), Draw(1.0)), (TopK(alg_temp=1.0), Draw())):
        first = answers(run(rule, canvases(), seed=1, draw=draw))
        assert answers(run(rule, canvases(), seed=1, draw=draw)) == first
        assert answers(run(rule, canvases(), seed=2, draw=draw)) != first


KNOBS: dict[str, dict[str, Any]] = {
    "random": {"k": 2},
    "left-to-right": {"k": 2},
    "topk": {"k": 2, "proxy": "margin", "alg_temp": 0.5},
    "threshold": {"threshold": 0.7, "capped": True},
    "entropy-threshold": {"threshold": 1.2},
    "factor": {"factor": 0.4, "slip": True},
    "eb": {"gamma": 1.0, "proxy": "confidence"},
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_knob_changes_some_trace(name: str) -> None:
    start = SAMPLERS[name]()
    if name == "threshold":
        start = replace(start, threshold=0.5)  # the toy model is rarely surer than that
    how = {"schedule": Schedule("linear", 9)}
    before = answers(run(start, canvases(30), **how))
    assert set(KNOBS[name]) == {f.name for f in fields(start)}
    for knob, value in KNOBS[name].items():
        assert answers(run(replace(start, **{knob: value}), canvases(30), **how)) != before, knob


@pytest.mark.parametrize("proxy", PROXIES)
def test_degenerate_knobs_meet_the_rule_they_should(proxy: Any) -> None:
    top1 = answers(run(TopK(k=1, proxy=proxy), canvases()))
    assert answers(run(EB(0, proxy), canvases())) == top1
    once = answers(run(TopK(k=99, proxy=proxy), canvases()))
    assert answers(run(EB(float("inf"), proxy), canvases())) == once
    if proxy == "confidence":
        forced = run(Threshold(1.1), canvases())
        assert [a[:3] for a in answers(forced).values()] == [a[:3] for a in top1.values()]
        assert all(d.forced == d.nfe for d in forced.values())
        assert answers(run(Factor(0), canvases())) == top1
        assert answers(run(Factor(float("inf")), canvases())) == once
        assert answers(run(Threshold(0), canvases())) == once
    if proxy == "entropy":
        lowest = run(EntropyThreshold(0), canvases())
        assert [a[:3] for a in answers(lowest).values()] == [a[:3] for a in top1.values()]


def test_a_canvas_without_blanks_costs_nothing() -> None:
    full = Canvas("full", (2, 3, 4))
    assert answers(run(EB(), [full])) == {"full": ((2, 3, 4), (NEVER,) * 3, 0, None, 0, 0)}
    mixed = run(EB(), [full, *canvases()])
    assert mixed["full"].nfe == 0
    assert answers(mixed) == answers(run(EB(), [full])) | answers(run(EB(), canvases()))


def test_a_block_length_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(UserError, match="block length 5 does not divide the answer's 12 positions"):
        run(EB(), canvases(), block_length=5)


def test_a_canvas_longer_than_the_model_is_an_error() -> None:
    with pytest.raises(
        UserError, match="example long: the canvas has 65 tokens, the model takes 64"
    ):
        run(EB(), [Canvas("long", (0,) * 65)])


def test_the_parts_of_the_time_are_shared_out_among_the_rows() -> None:
    done = run(EB(), canvases(), batch_size=4)
    for decoded in done.values():
        s = decoded.seconds
        assert min(s.model, s.sampler, s.host) > 0
        assert s.decode == pytest.approx(s.model + s.sampler + s.host)
