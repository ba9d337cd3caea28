"""How much memory there is, what work takes of it at most, and the largest batch that fits."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from mdmbench import vocabulary
from mdmbench.base import Canvas, Model
from mdmbench.errors import UserError
from mdmbench.models.encoder import ModelSpec, NativeModel

PAGE = os.sysconf("SC_PAGE_SIZE")
OWN = Path("/proc/self")

SHARE = 0.8
"""Of the memory that is free, what a batch may take that was found by measuring a smaller one."""

CPU_ROWS = 16
"""Rows beyond which a CPU gains little: 64 do a fifth more Sudokus a second on two cores by top-1,
and no more by EB, which leaves more of their slots empty in the end."""

TABLES = 4
"""Float32 tables as large as the logits that are read at a time: these, and three of statistics."""

SIGNS = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
"""What says so in the RuntimeErrors of torch on a CPU, of CUDA, and of its libraries."""


def exhausted(error: BaseException | None) -> bool:
    """Whether memory ran out, or the error was raised because it had."""
    if error is None:
        return False
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    said = isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    return known or said or exhausted(error.__cause__)


def release(device: torch.device) -> None:
    """Hands back what torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free(device: torch.device) -> tuple[int, int]:
    """Bytes that are free, and that there are."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    whole = PAGE * os.sysconf("SC_PHYS_PAGES")
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return whole, whole
    return 1024 * int(facts["MemAvailable"].split()[0]), whole


def used(device: torch.device) -> int:
    """Bytes in use: by torch on a GPU, else by the process; 0 where nobody says."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return PAGE * int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0


def logits(positions: int, vocab: int, itemsize: int, device: torch.device) -> int:
    """Bytes of logits at so many positions, and of what is made of them a chunk at a time."""
    chunk = vocabulary.CHUNK.get(device.type, vocabulary.CHUNK["cuda"])
    return positions * vocab * itemsize + 4 * TABLES * min(positions * vocab, chunk)


def stream(spec: ModelSpec, length: int) -> int:
    """About the bytes of what goes through the layers for a canvas of `length` tokens."""
    heads = (spec.heads + 2 * spec.kv_heads) * spec.head_dim
    return length * (4 * spec.width + 3 * max(spec.ff, heads)) * 4


def unfit(model: Model, canvas: Canvas, block_length: int | None) -> UserError:
    """For a canvas that runs out of memory even alone."""
    length, device = len(canvas.tokens), model.device
    positions = min(canvas.tokens.count(model.mask_id), block_length or length)
    need = logits(positions, model.vocab_size, 4, device)
    if isinstance(model, NativeModel):
        need += stream(model.encoder.spec, length)
    there, left = used(device), free(device)[0]
    return UserError(
        f"example {canvas.id}: memory does not hold its canvas of {length} tokens even alone: it "
        f"needs about {gb(there + need)}, {gb(need)} of it for a step, and beside the {gb(there)} "
        f"in use {gb(left)} are free on {device}",
        "try a shorter --gen-length, -M quant=int8, a narrower --dtype or another --device",
    )


def gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


@dataclass(frozen=True)
class Need:
    """What a batch takes beside the model.

    rows  that it had in the end: fewer than were asked for where memory ran out
    most  bytes at a time; None where that cannot be measured
    kept  bytes from one step to the next
    """

    rows: int
    most: int | None
    kept: int


def fitting(
    need: Callable[[int], Need], device: torch.device, limit: int, runs: int = 1
) -> int | None:
    """The largest batch, at most `limit`, that takes no more than SHARE of what is free while so
    many runs are under way; None where that cannot be measured.

    `need` of one row and of two is measured, what the others take is extrapolated.
    """
    limit = min(limit, CPU_ROWS) if device.type == "cpu" else limit
    if limit < 2:
        return limit
    need(2)  # what a first call costs would be taken for what a row does
    release(device)
    room = SHARE * free(device)[0]
    one, two = need(1), need(2)
    if two.rows < 2:
        return 1
    if one.most is None or two.most is None:
        return None
    others = runs - 1
    first = one.most + others * one.kept
    each = max(1, two.most - one.most) + others * max(0, two.kept - one.kept)
    return max(1, min(limit, 1 + int((room - first) // each)))


@contextmanager
def added(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """Says, once the block is done, by how many bytes it went at most beyond what was there when it
    began: on a GPU of torch's memory, on Linux of what is resident, elsewhere None."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    resident = _resident("VmRSS") if _reset() else None
    yield lambda: None if resident is None else max(0, _resident("VmHWM") - resident)


def _reset() -> bool:
    """Whether the high-water mark could be set to what is resident now. Free memory is handed back
    first: it would be used again, and seem to add nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (OWN / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident(name: str) -> int:
    """Bytes: now, as VmRSS, or at most, as VmHWM."""
    lines = dict(line.split(":") for line in (OWN / "status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])
