"""--compile: another machine code, the same answers."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_cli import fails, mdmbench
from tiny import llada

from mdmbench import models
from mdmbench.base import Canvas
from mdmbench.decoding import Decoding
from mdmbench.job import Job
from mdmbench.loop import decode
from mdmbench.models.checkpoint import Options
from mdmbench.samplers.budget import EB

CPU = torch.device("cpu")


def test_a_compiled_run_is_the_same_run_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def compile(function: Any, **how: Any) -> Any:
        made.append((function.__name__, how))
        return function

    monkeypatch.setattr(torch, "compile", compile)
    asked = ("run", "--no-baseline", "--batch-size", 3, "--out", tmp_path)
    assert mdmbench(*asked, "--limit", 4).exit_code == 0
    assert not made
    assert mdmbench(*asked, "--limit", 8, "--compile").exit_code == 0
    assert made == [("hidden", {"dynamic": True})]
    (run,) = tmp_path.iterdir()
    noted = [e["compiled"] for e in json.loads((run / "env.json").read_text())]
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert noted == [False, True]
    assert sorted(noted[r["session"]] for r in records) == [False] * 4 + [True] * 4


def test_a_compiled_model_has_no_cache(tmp_path: Path) -> None:
    ask = ("run", "--task", "arithmetic", "--limit", 2, "--compile", "--out", tmp_path / "out")
    assert "--compile with cache dual" in fails(*ask, "--cache", "dual")
    assert not (tmp_path / "out").exists()


def test_other_shapes_are_compiled_before_the_clock_starts() -> None:
    """One row alone, and rows of which one is padded."""
    job = SimpleNamespace()
    long, short = Canvas("a", (0,) * 9), Canvas("b", (0,) * 4)
    assert Job._special(job, [long, short, short]) == [[short], [short, long]]
    assert Job._special(job, [short, short]) == [[short]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["puzzle", "text"])
def test_compiling_changes_no_token(kind: str, tmp_path: Path) -> None:
    from mdmbench import bundled

    folder = bundled.models()["sudoku"] if kind == "puzzle" else llada(tmp_path)
    plain, other = (
        models.load(folder, device=CPU, dtype="float32", options=Options()) for _ in range(2)
    )
    rng = torch.Generator().manual_seed(0)
    items = []
    for i in range(20):
        prompt = 0 if kind == "puzzle" else i % 5 + 1
        tokens = torch.randint(9, (prompt + 81,), generator=rng)
        tokens[prompt:][torch.rand(81, generator=rng) < 0.6] = plain.mask_id
        items.append(Canvas(f"{i}", tuple(tokens.tolist()), prompt))

    def answers(model: Any, batch_size: int) -> dict[str, Any]:
        done = decode(model, EB(0.5), items, batch_size=batch_size, decoding=Decoding(None))
        return {d.id: (d.tokens, d.committed_at, d.nfe) for d in done}

    want = answers(plain, 8)
    compiled = models.compiled(other)
    for batch_size in (8, 3):
        assert answers(compiled, batch_size) == want
