"""What a whole command costs beyond decoding: it is run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from mdmbench import store
from mdmbench.errors import UserError

RULE = """
import time
from pathlib import Path

from mdmbench.base import Choice


def told(step):
    with Path({file!r}).open("a") as file:
        print(time.time(), file=file)
    return Choice(step.eligible)
"""
"""A rule that fills a canvas in one step and says when."""


@dataclass(frozen=True)
class Whole:
    """One command, `run` of EB and its baseline; all in seconds.

    wall      from its start to its end
    decode    of the records that it left
    overhead  wall / decode - 1
    start     from the start of a command to its first step, the warm-up and that step's forward
              included
    """

    examples: int
    wall: float
    decode: float
    overhead: float
    start: float


def measured(examples: int, options: Sequence[str]) -> Whole:
    """Runs the Sudoku task in a new folder, with further `options` of `mdmbench run`."""
    common = ["--limit", str(examples), *options]
    with TemporaryDirectory() as folder:
        here = Path(folder)
        start = _first_step(here, common)
        wall = _run(here, [*common, "--sampler", "eb", "--out", str(here / "out")])
        runs = store.runs([here / "out"])
        decode = sum(record.seconds.decode for run in runs for record in run.records())
    return Whole(examples, wall, decode, wall / decode - 1, start)


def _first_step(folder: Path, common: Sequence[str]) -> float:
    rule, times = folder / "told.py", folder / "times"
    rule.write_text(RULE.format(file=str(times)))
    begin = time.time()
    sampler = ["--sampler", f"{rule}:told", "--no-baseline"]
    _run(folder, [*common, *sampler, "--out", str(folder / "first")])
    (run,) = store.runs([folder / "first"])
    sizes = [record.batch_size for record in run.records()]
    # What was before these steps was the warm-up.
    steps = ceil(len(sizes) / max(sizes))
    return float(times.read_text().split()[-steps]) - begin


def _run(folder: Path, arguments: Sequence[str]) -> float:
    """Seconds of `mdmbench run`."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "mdmbench", "run", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"mdmbench run failed: {done.stderr.strip()}")
    return time.perf_counter() - begin
