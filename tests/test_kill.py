"""A run that is killed and started again ends like one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mdmbench.base import Seconds
from mdmbench.store import Record, runs

COMMAND = [sys.executable, "-m", "mdmbench", "run", "--no-baseline", "--sampler", "eb"]
SETTINGS = ["--gamma", "0.001", "--limit", "96"]


def command(out: Path, batch_size: int) -> list[str]:
    return [*COMMAND, *SETTINGS, "--batch-size", str(batch_size), "--out", str(out)]


def records(out: Path) -> dict[str, Record]:
    """By id, with everything that the batch or the clock may change set aside."""
    (run,) = runs([out])
    found = [replace(r, seconds=Seconds(), batch_size=0) for r in run.records()]
    assert len({r.id for r in found}) == len(found) == 96
    return {r.id: replace(r, bound_spent=round(r.bound_spent, 6)) for r in found}


def killed_until_done(out: Path, times: int, batch_size: int) -> int:
    """Kills the run `times` times at random moments, then lets it end; how many kills hit it."""
    rng, hits = random.Random(times), 0
    for _ in range(times):
        process = subprocess.Popen(
            command(out, batch_size), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        # From the imports to the last records: most moments of a run are hit.
        time.sleep(rng.uniform(1, 7))
        hits += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(out, batch_size), check=True, capture_output=True)
    return hits


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_records(tmp_path: Path, times: int) -> None:
    subprocess.run(command(tmp_path / "alone", 64), check=True, capture_output=True)
    assert killed_until_done(tmp_path / "killed", times, 8) >= min(times, 2)
    assert records(tmp_path / "killed") == records(tmp_path / "alone")
