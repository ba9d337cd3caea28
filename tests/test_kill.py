"""A run that is killed and started again ends like one that was left alone."""

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mdmbench.base import Seconds
from mdmbench.store import Record, runs

COMMAND = [sys.executable, "-m", "mdmbench", "run", "--no-baseline", "--sampler", "eb"]


def command(out: Path, limit: int, batch_size: int) -> list[str]:
    sizes = ["--limit", str(limit), "--batch-size", str(batch_size)]
    return [*COMMAND, "--gamma", "0", *sizes, "--out", str(out)]


def records(out: Path) -> dict[str, Record]:
    """By id, with everything that the batch or the clock may change set aside."""
    (run,) = runs([out])
    found = [replace(r, seconds=Seconds(), batch_size=0, session=0) for r in run.records()]
    assert len({r.id for r in found}) == len(found)
    return {r.id: replace(r, bound_spent=round(r.bound_spent, 6)) for r in found}


def killed_until_done(out: Path, times: int, limit: int) -> int:
    """Kills the run `times` times at random moments, then lets it end; how many kills hit it."""
    rng, hits = random.Random(times), 0
    for _ in range(times):
        process = subprocess.Popen(command(out, limit, 8), stderr=subprocess.DEVNULL)
        # From the imports to well into the records.
        time.sleep(rng.uniform(1, 5))
        hits += process.poll() is None
        process.kill()
        process.wait()
    subprocess.run(command(out, limit, 8), check=True, capture_output=True)
    return hits


@pytest.mark.parametrize(
    ("times", "limit"), [(2, 60), pytest.param(20, 300, marks=pytest.mark.slow)]
)
def test_killed_runs_end_with_the_same_records(tmp_path: Path, times: int, limit: int) -> None:
    subprocess.run(command(tmp_path / "alone", limit, 64), check=True, capture_output=True)
    assert killed_until_done(tmp_path / "killed", times, limit) > times // 2
    alone = records(tmp_path / "alone")
    assert len(alone) == limit
    assert records(tmp_path / "killed") == alone
