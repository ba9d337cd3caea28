"""How much memory a piece of work needs at most."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

OWN = Path("/proc/self")


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
