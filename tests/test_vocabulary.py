"""One pass over the vocabulary: exact, the same in every chunk, and without large tensors."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mdmbench import vocabulary
from mdmbench.step import Draw, Step
from mdmbench.vocabulary import LARGE, SPAN, Reader, chunks, top2

GREEDY = Draw()
SIZES = (
    2,
    3,
    SPAN - 1,
    SPAN,
    SPAN + 1,
    2 * SPAN - 1,
    2 * SPAN,
    2 * SPAN + 1,
    5 * SPAN + 77,
    LARGE + 9,
)


def logits(rows: int, vocab: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    made = spread * torch.randn(rows, vocab, generator=rng)
    made[:, vocab // 2] = -torch.inf
    return made


def step(raw: torch.Tensor, draw: Draw = GREEDY) -> Step:
    """One row of the batch, all of whose positions are eligible."""
    count = torch.zeros(1, dtype=torch.int64)
    place = torch.arange(len(raw))[None]
    return Step(
        raw[None],
        place,
        place,
        place >= 0,
        index=count,
        block_index=count,
        block_masks=count,
        keys=count + 5,
        draw=draw,
        schedule=None,
    )


@given(
    vocab=st.sampled_from(SIZES),
    seed=st.integers(0, 2**20),
    kinds=st.integers(1, 4),
    off=st.floats(0, 1),
)
@settings(deadline=None, max_examples=200)
def test_the_two_largest_are_found_the_first_of_equals_before_the_others(
    vocab: int, seed: int, kinds: int, off: float
) -> None:
    """Few kinds of values, so that most are equal; and any share of them -inf."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(kinds, (5, vocab), generator=rng).float()
    x[torch.rand(x.shape, generator=rng) < off] = -torch.inf
    x[:, seed % vocab] = 0
    best, peak, second = top2(x)
    order = x.sort(dim=1, descending=True, stable=True)
    assert torch.equal(best, order.indices[:, 0])
    assert torch.equal(peak, order.values[:, 0])
    assert torch.equal(second, order.values[:, 1])


@pytest.mark.parametrize("vocab", SIZES)
def test_a_reading_is_that_of_the_softmax_in_float64(vocab: int) -> None:
    x = logits(6, vocab)
    p = x.double().softmax(1)
    seen = Reader()(x)
    top = p.topk(2, 1).values
    assert torch.allclose(seen.confidence, top[:, 0], rtol=1e-6)
    assert torch.allclose(seen.margin, top[:, 0] - top[:, 1], rtol=1e-5, atol=1e-12)
    assert torch.allclose(seen.entropy, -torch.xlogy(p, p).sum(1), rtol=1e-6, atol=1e-12)
    assert torch.equal(seen.best, x.argmax(1))


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1000.0])
def test_a_reading_knows_no_offset(offset: float) -> None:
    """Whole numbers, which an offset leaves as they are."""
    x = logits(6, 700).round()
    for plain, moved in zip(Reader()(x)[2:], Reader()(x + offset)[2:], strict=True):
        if plain.dtype == torch.float64:
            assert torch.equal(plain, moved)


DRAWS = {
    "greedy": GREEDY,
    "late": Draw(late=(3, 4), never=(0,)),
    "sampled": Draw(0.8),
    "cut": Draw(0.7, top_p=0.9, top_k=40, filtered=True),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("vocab", [9, 3 * SPAN + 5])
def test_chunks_change_no_bit(draw: Draw, vocab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = logits(23, vocab)
    whole = step(x, draw)._seen
    for rows in (2, 5, 22):
        monkeypatch.setitem(vocabulary.CHUNK, "cpu", rows * vocab)
        assert [s.stop - s.start for s in chunks(x)] == [rows] * math.ceil(23 / rows)
        for one, other in zip(whole, step(x, draw)._seen, strict=True):
            assert torch.equal(one, other)


def test_chunks_change_no_token_of_a_large_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    vocab = LARGE + 321
    x = logits(23, vocab)
    whole = step(x)._seen
    monkeypatch.setitem(vocabulary.CHUNK, "cpu", 5 * vocab)
    parts = step(x)._seen
    assert torch.equal(whole.proposal, parts.proposal)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_logits_of_any_dtype_are_read_in_float32(draw: Draw) -> None:
    x = logits(8, 300).bfloat16()
    for one, other in zip(step(x, draw)._seen, step(x.float(), draw)._seen, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_nothing_larger_than_a_chunk_is_made(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, vocab, largest = 4, 1500, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            given = {t.data_ptr() for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
            for out in tree_leaves(made):
                if isinstance(out, torch.Tensor) and out.data_ptr() not in given:
                    largest = max(largest, out.numel())
            return made

    x = logits(64, vocab)
    monkeypatch.setitem(vocabulary.CHUNK, "cpu", rows * vocab)
    with Watch():
        assert step(x, draw).entropy.shape == (1, 64)
    assert largest <= 2 * rows * vocab
