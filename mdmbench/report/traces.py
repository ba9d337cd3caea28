"""The examples of a page that can be played, each with the trace that every run left of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mdmbench.errors import UserError
from mdmbench.replay import Replay, replays, split
from mdmbench.report.document import short
from mdmbench.report.page import encoded
from mdmbench.rows import Row, grouped
from mdmbench.store import Run


def fill(
    groups: Sequence[dict[str, Any]],
    runs: Sequence[Run],
    rows: Sequence[Row],
    wanted: int,
    room: int,
) -> None:
    """Gives each group up to `wanted` examples, in turns, as long as `room` bytes are left.

    `groups` are those of the document, which stand in the order of `grouped(rows)`.
    """
    known = {run.path: run for run in runs}
    waiting = []
    for group, members in zip(groups, grouped(rows), strict=True):
        ids = _ids(group["examples"])[:wanted]
        found = _loaded([known[row.run] for row in members], ids, group["traces"])
        waiting.append([found[id] for id in ids if id in found])
    for place in range(wanted):
        for group, examples in zip(groups, waiting, strict=True):
            if place < len(examples):
                size = len(encoded(examples[place])) + 1
                if size <= room:
                    group["traces"]["examples"].append(examples[place])
                    room -= size


def _ids(examples: Mapping[str, Any]) -> list[str]:
    """Those first on which runs disagree."""
    split = [
        len({score for score in scores if score is not None}) > 1
        for scores in zip(*examples["scores"], strict=True)
    ]
    pairs = sorted(zip(split, examples["ids"], strict=True), key=lambda pair: not pair[0])
    return [id for _, id in pairs]


def _loaded(runs: Sequence[Run], ids: Sequence[str], said: dict[str, Any]) -> dict[str, Any]:
    """By id: an example, and in `runs` its traces by the number of their row.

    What could not be read is told in `said["note"]`.
    """
    found: dict[str, Any] = {}
    for number, run in enumerate(runs):
        try:
            played = replays(run, set(ids), len(ids)) if ids else []
        except UserError as error:
            said["note"] = error.message
            continue
        for replay in played:
            said["note"] = replay.notes.get("task", said["note"])
            if replay.committed_at:
                example = found.setdefault(replay.id, _example(replay))
                example["runs"][number] = _trace(replay)
    return found


def _example(replay: Replay) -> dict[str, Any]:
    """What is the same in every run; the symbols of the target where they can be set side by side
    with those of the answer."""
    grid, count = replay.grid, len(replay.symbols)
    puzzle = grid is not None and replay.target
    return {
        "id": replay.id,
        "prompt": replay.prompt,
        "target": split(replay.target, count) if puzzle else replay.target,
        "width": grid.width if grid else 0,
        "walls": grid.walls if grid else (),
        "marks": grid.marks if grid else (),
        "runs": {},
    }


def _trace(replay: Replay) -> dict[str, Any]:
    return {
        "symbols": replay.symbols,
        "at": replay.committed_at,
        "confidence": _numbers(replay.confidence),
        "entropy": _numbers(replay.entropy),
        "scores": {name: short(score) for name, score in replay.scores.items()},
        "notes": {name: note for name, note in replay.notes.items() if name != "task"},
        "nfe": replay.nfe,
    }


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [short(value) for value in values]
