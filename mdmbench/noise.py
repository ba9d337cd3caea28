"""Random numbers that depend on their coordinates alone.

A number is a hash of (example, step, position, ...), so what an example draws does not depend on
its batch mates, on the batch size, on the device or on where a stopped run was taken up again.
The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), once a coordinate.
"""

from hashlib import blake2b

import torch
from torch import Tensor

ORDER, TOKEN = 1, 2
"""Streams: which position to take, which token to write."""

_FIRST, _SECOND, _STEP = (
    c - (1 << 64) for c in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)
)


def key(seed: int, id: str) -> int:
    """The key of one example under a seed: a signed 64-bit number."""
    digest = blake2b(f"{seed}:{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniform(keys: Tensor, *coordinates: Tensor | int) -> Tensor:
    """Uniform float64 in (0, 1), of the broadcast shape of `keys` and the coordinates (int64)."""
    h = keys
    for coordinate in coordinates:
        h = _mix(h + (torch.as_tensor(coordinate, device=keys.device) + 1) * _STEP)
    # 52 bits: with 53 the largest value would be rounded to 1, and its Gumbel to infinity.
    return (_shifted(h, 12).double() + 0.5) * 2.0**-52


def gumbel(keys: Tensor, *coordinates: Tensor | int) -> Tensor:
    """Standard Gumbel float64, coordinates as in `uniform`."""
    return -torch.log(-torch.log(uniform(keys, *coordinates)))


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
