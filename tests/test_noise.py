"""The noise: uniform, without collisions, a function of its coordinates alone, and pinned."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from mdmbench import noise

ALL_ONES = (1 << 64) - 1


def grid(seed: int, *sizes: int) -> Tensor:
    """The noise of every combination of coordinates below `sizes`, the first ones examples."""
    axes = torch.meshgrid(*(torch.arange(n) for n in sizes), indexing="ij")
    keys = torch.tensor([noise.key(seed, f"example{i}") for i in range(sizes[0])])
    return noise.uniform(keys[axes[0]], *axes[1:])


def chi_square(values: Tensor, bins: int) -> float:
    """The chance of a deviation from uniform at least as large as that of `values`."""
    counts = torch.histc(values.flatten(), bins, 0, 1)
    expected = values.numel() / bins
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum().item(), bins - 1))


@pytest.mark.parametrize("seed", range(4))
def test_it_is_uniform_on_each_axis_and_pair_of_neighbours(seed: int) -> None:
    """Fixed seeds: the p-values are what they are. Under uniformity each of the 5 falls below
    1e-4 with that probability, so a sound generator fails here for 1 choice of seeds in 500."""
    values = grid(seed, 40, 3, 50, 40)
    assert chi_square(values, 64) > 1e-4
    for axis in range(4):
        sums = values.narrow(axis, 1, values.shape[axis] - 1) + values.narrow(
            axis, 0, values.shape[axis] - 1
        )
        assert chi_square(sums % 1, 64) > 1e-4


def test_low_bits_are_uniform_too() -> None:
    assert chi_square(grid(0, 20, 3, 50, 40) * 2**30 % 1, 64) > 1e-4


def test_no_two_coordinates_share_a_value() -> None:
    """1.2 million values of 52 bits collide by chance with a probability of 1.6e-4."""
    values = grid(0, 30, 2, 100, 200)
    assert len(values.unique()) == values.numel()


def test_the_order_of_coordinates_matters() -> None:
    keys, i = torch.arange(50)[:, None, None], torch.arange(30)
    one = noise.uniform(keys, i[:, None], i)
    swapped = one.transpose(1, 2)
    same = (one == swapped).sum((1, 2))
    assert (same == 30).all()  # the diagonal alone


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_a_value_depends_on_its_coordinates_alone(
    key: int, at: list[int], rows: int, width: int
) -> None:
    """Not on the shape it is drawn in, nor on whether coordinates are tensors or numbers."""
    alone = noise.uniform(torch.tensor(key), *at)
    keys = torch.arange(rows)[:, None] * 7 + 1
    keys[rows - 1] = key
    places = torch.arange(width) + at[-1] - (width - 1)
    batch = noise.uniform(keys, *at[:-1], places.clamp(min=0))
    assert batch.shape == (rows, width)
    assert batch[-1, -1] == alone
    assert 0 < alone < 1


def by_hand(key: int, *coordinates: int) -> float:
    """The same in Python's unbounded integers."""
    h = key & ALL_ONES
    for c in coordinates:
        h = (h + (c + 1) * 0x9E3779B97F4A7C15) & ALL_ONES
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & ALL_ONES
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB & ALL_ONES
        h ^= h >> 31
    return ((h >> 12) + 0.5) / 2**52


@given(st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(0, 2**62), min_size=1, max_size=4))
@settings(deadline=None)
def test_it_is_splitmix64_written_out(key: int, at: list[int]) -> None:
    assert noise.uniform(torch.tensor(key), *at).item() == by_hand(key, *at)


def test_the_first_step_is_that_of_the_published_splitmix64() -> None:
    """nextLong() of Java's SplittableRandom and of splitmix64.c, seed 0."""
    published = 0xE220A8397B1DCDAF
    assert noise.uniform(torch.tensor(0), 0).item() == ((published >> 12) + 0.5) / 2**52


@pytest.mark.parametrize(
    ("seed", "id", "coordinates", "value"),
    [
        (0, "a", (1, 0, 0), 0.8932105905283781),
        (0, "a", (2, 0, 0, 5), 0.5185648932987071),
        (1, "9x9:test:0:7", (1, 12, 80), 0.5182785311163652),
        (-3, "ü", (2, 255, 4095, 151665), 0.3007836820992077),
    ],
)
def test_the_same_numbers_on_every_machine(
    seed: int, id: str, coordinates: tuple[int, ...], value: float
) -> None:
    assert noise.uniform(torch.tensor(noise.key(seed, id)), *coordinates).item() == value


def test_keys_are_pinned_and_differ_by_seed_and_id() -> None:
    assert noise.key(0, "a") == -1882998351095209539
    assert noise.key(1, "9x9:test:0:7") == -5375016992560963514
    assert noise.key(-3, "ü") == 493795358022878416
    keys = [noise.key(seed, str(id)) for seed in range(100) for id in range(100)]
    assert len(set(keys)) == 10_000
    assert min(keys) < 0 < max(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_order_and_token_are_streams_of_their_own() -> None:
    keys = torch.arange(1000)
    order, token = (noise.uniform(keys, stream, 0, 0) for stream in (noise.ORDER, noise.TOKEN))
    correlation = torch.corrcoef(torch.stack([order, token]))[0, 1]
    assert abs(correlation) < 0.13  # 4 standard deviations


def unshifted(x: int, bits: int) -> int:
    """The y with y ^ (y >> bits) = x."""
    y = x
    for _ in range(64 // bits):
        y = x ^ (y >> bits)
    return y


def key_for(hashed: int) -> int:
    """The key whose hash at coordinate 0 is `hashed`: every step of SplitMix64 can be undone."""
    h = unshifted(hashed, 31) * pow(0x94D049BB133111EB, -1, 1 << 64) & ALL_ONES
    h = unshifted(h, 27) * pow(0xBF58476D1CE4E5B9, -1, 1 << 64) & ALL_ONES
    h = (unshifted(h, 30) - 0x9E3779B97F4A7C15) & ALL_ONES
    return h - (1 << 64) if h >> 63 else h


@pytest.mark.parametrize("hashed", [0, 1, ALL_ONES, ALL_ONES - 1, 1 << 63])
def test_the_extreme_hashes_stay_within_0_and_1(hashed: int) -> None:
    """With one bit more the largest hash would be rounded to 1, and its Gumbel to infinity."""
    keys = torch.tensor([key_for(hashed)])
    value = noise.uniform(keys, 0).item()
    assert value == ((hashed >> 12) + 0.5) / 2**52
    assert 0 < value < 1
    assert math.isfinite(noise.gumbel(keys, 0).item())


def test_gumbel_noise_has_its_distribution() -> None:
    """exp(-exp(-g)) of a Gumbel is uniform; its mean is Euler's constant."""
    keys = torch.arange(20_000)
    values = noise.gumbel(keys, noise.TOKEN, 3)
    assert chi_square(torch.exp(-torch.exp(-values)), 64) > 1e-4
    # The mean of 20000 has a standard deviation of 0.0091.
    assert values.mean().item() == pytest.approx(0.577216, abs=0.036)
