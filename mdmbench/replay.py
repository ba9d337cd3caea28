"""One decoded example, ready to be played: what its record holds, laid out as its task says."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mdmbench import resolve
from mdmbench.base import NEVER, Example, Grid, PuzzleTask, Question
from mdmbench.errors import UserError, reason
from mdmbench.items import known_items
from mdmbench.spec import RunSpec, validated
from mdmbench.store import Record, Run, nothing, runs

if TYPE_CHECKING:
    from mdmbench.job import AnyTask, Item


NEAR = 10_000
"""Ids among which those like an unknown one are looked for."""

SOME = 5
"""Ids that a message names."""


@dataclass(frozen=True)
class Replay:
    """One decoded example. Its lists run over the positions of the answer region.

    They are empty where the record has no trace; `notes["unasked"]` says why the model was not
    asked, `notes["task"]` why what only the task knows is missing here.

    prompt        of a text task; "" for a puzzle, or where the task can no longer be asked
    symbols       what stands there in the end: a puzzle's symbols or a text's pieces; "" where
                  nothing was ever filled
    committed_at  the step (from 0) that filled the position; NEVER: given, or never filled
    confidence, entropy  see `base.Decoded`; empty in records that did not keep them
    grid          None: a text, one piece after another. A puzzle that is no square is one row
    target        the reference answer as text, "" where unknown; `split` parts a puzzle's
    """

    id: str
    prompt: str
    symbols: list[str]
    committed_at: list[int]
    confidence: list[float]
    entropy: list[float]
    grid: Grid | None
    scores: dict[str, float]
    notes: dict[str, str]
    target: str
    nfe: int


def replays(run: Run, ids: Container[str] | None, limit: int | None) -> list[Replay]:
    """The first `limit` of the run's examples with these ids, in the order of its records.

    None stands for all. What a record does not hold comes from the task; where that fails, the
    record alone has to do.
    """
    numbered = enumerate(run.records(), start=1)
    kept = list(islice(((n, r) for n, r in numbered if ids is None or r.id in ids), limit))
    if not kept:
        return []
    alone = [_alone(run, record) for _, record in kept]
    try:
        spec = validated(run.spec.get("settings", {}))
        task = cast("AnyTask", resolve.task(spec.task, spec.task_knobs))
        items = known_items(run, task, {replay.id for replay in alone}, kept[-1][0])
    except Exception as error:  # a task of the user's own raises whatever it meets
        return [_without(replay, reason(error)) for replay in alone]
    return [_completed(replay, spec, task, items.get(replay.id)) for replay in alone]


def opened(path: Path) -> Run:
    """The run at `path`, or the only one there. Raises UserError where there is not just one."""
    found = runs([path])
    if len(found) > 1:
        raise UserError(f"{path} holds {len(found)} runs", f"name one, such as {found[0].path}")
    return found[0] if found else Run(path)


def find(run: Run, name: str) -> str:
    """The id of the example that `name` is, or that alone begins or ends with it.

    Raises UserError where there is none, or more than one.
    """
    fitting: list[str] = []
    first: list[str] = []
    for record in run.records():
        if record.id == name:
            return name
        if record.id.startswith(name) or record.id.endswith(name):
            fitting.append(record.id)
        if len(first) < NEAR:
            first.append(record.id)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        some = ", ".join(fitting[:SOME])
        raise UserError(
            f"{name!r} is {len(fitting)} examples of {run.path}",
            f"write more of the id: {some}{', ...' * (len(fitting) > SOME)}",
        )
    if not first:
        raise nothing(run)
    near = get_close_matches(name, first, n=SOME, cutoff=0.4) or first[:SOME]
    raise UserError(
        f"{run.path} has no example {name!r}", f"there are, for example, {', '.join(near)}"
    )


def one(run: Run, id: str) -> Replay:
    """The replay of one example. Raises UserError where the run has not had it."""
    found = replays(run, {id}, 1)
    if not found:
        raise UserError(f"{run.path} has no example {id!r}", "are both runs of the same task?")
    return found[0]


def split(text: str, count: int) -> list[str]:
    """The `count` symbols of a puzzle's answer: run together, or with spaces between them."""
    return list(text) if len(text) == count else text.split(" ")


def _alone(run: Run, record: Record) -> Replay:
    """What the record says without its task. Raises UserError where its lists do not agree."""
    count = len(record.committed_at)
    grid = None
    symbols = [
        "" if at == NEVER else piece
        for piece, at in zip(record.pieces, record.committed_at, strict=False)
    ]
    if count and not record.pieces:
        symbols = split(record.answer, count)
        side = isqrt(count)
        grid = Grid(side if side * side == count else count)
    kept = len(record.pieces), len(record.confidence), len(record.entropy)
    lengths = {count, len(symbols), *(length for length in kept if length)}
    if len(lengths) > 1:
        raise UserError(f"{run.path}: the lists of record {record.id!r} differ in length")
    return Replay(
        id=record.id,
        prompt="",
        symbols=symbols,
        committed_at=record.committed_at,
        confidence=record.confidence,
        entropy=record.entropy,
        grid=grid,
        scores=record.scores,
        notes=record.notes,
        target="",
        nfe=record.nfe,
    )


def _without(alone: Replay, why: str) -> Replay:
    return replace(alone, notes={**alone.notes, "task": why})


def _completed(alone: Replay, spec: RunSpec, task: AnyTask, item: Item | None) -> Replay:
    """The replay with what the task knows of its example."""
    if item is None:
        return _without(alone, f"not found among the examples of {spec.task}")
    try:
        with resolve.blaming("task", spec.task):
            if isinstance(item, Question):
                prompt = _prompt(item, bool(spec.chat))
                return replace(alone, prompt=prompt, target=item.target)
            return _puzzle(alone, cast(PuzzleTask, task), item)
    except Exception as error:  # as above
        return _without(alone, reason(error))


def _puzzle(alone: Replay, task: PuzzleTask, example: Example) -> Replay:
    """Raises UserError where the record cannot be that example's, or the grid not its answer's."""
    cells, count = example.cells[example.start :], len(alone.symbols)
    pairs = list(zip(cells, alone.symbols, alone.committed_at, strict=False))
    if len(cells) != count or any(cell not in (None, symbol) for cell, symbol, _ in pairs):
        raise UserError(f"{task.name} has another example of this id")
    grid = alone.grid
    if hasattr(task, "grid"):
        grid = task.grid(example) or Grid(count)
        if count % grid.width or any(len(x) not in (0, count) for x in (grid.walls, grid.marks)):
            raise UserError(f"{task.name}: its grid does not hold {count} cells")
    symbols = ["" if at == NEVER and cell is None else symbol for cell, symbol, at in pairs]
    gap = "" if all(len(symbol) == 1 for symbol in example.target) else " "
    return replace(alone, symbols=symbols, grid=grid, target=gap.join(example.target))


def _prompt(question: Question, chat: bool) -> str:
    if not chat or not question.turns:
        return question.prompt
    turns = [f"{turn.role}: {turn.text}" for turn in question.turns]
    return "\n\n".join([*turns, *([question.prefix] if question.prefix else [])])
