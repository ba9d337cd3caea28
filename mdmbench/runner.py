"""A run: from its spec to records on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

import mdmbench
from mdmbench import environment, models, resolve
from mdmbench.base import Canvas, Example, Sampler, Task
from mdmbench.canvas import Symbols, counts, first_end, join
from mdmbench.errors import UserError
from mdmbench.loop import Decoding, blocks, decode
from mdmbench.models.puzzle import PuzzleModel
from mdmbench.samplers.presets import PRESETS, Preset
from mdmbench.schedule import Schedule
from mdmbench.spec import RunSpec
from mdmbench.step import Draw
from mdmbench.store import Record, Run

Observer = Callable[[str, int, int], None]
"""Is told a run's label, how many of its records exist, and how many there will be."""

SYNC_SECONDS = 1.0
"""Finished examples wait at most this long for the disk."""


@dataclass(frozen=True)
class Job:
    """A spec come to life; `stored` is what spec.json says of it."""

    label: str
    stored: dict[str, Any]
    task: Task
    examples: Sequence[Example]
    model: PuzzleModel
    sampler: Sampler
    decoding: Decoding

    def missing(self, run: Run) -> list[Example]:
        """The examples that `run` has no record of."""
        known = {record.id for record in run.records()}
        return [e for e in self.examples if e.id not in known]

    def decode(self, examples: Sequence[Example], batch_size: int) -> Iterator[Record]:
        """A record for each example, in the order in which they finish."""
        symbols = Symbols(self.model.symbols)
        by_id = {e.id: (e, symbols.canvas(e)) for e in examples}
        canvases = [canvas for _, canvas in by_id.values()]
        warm_up(self.model, canvases[:batch_size])
        done = decode(
            self.model, self.sampler, canvases, batch_size=batch_size, decoding=self.decoding
        )
        for decoded in done:
            example, canvas = by_id[decoded.id]
            answer = symbols.answer(decoded.tokens[canvas.start :])
            length, filled = counts(canvas, decoded, self.model.mask_id)
            yield Record(
                id=example.id,
                answer=join(answer),
                scores=self.task.score(example, answer),
                meta=dict(example.meta),
                nfe=decoded.nfe,
                nfe_until=decoded.nfe_until,
                length=length,
                filled=filled,
                forward_tokens=decoded.forward_tokens,
                forced=decoded.forced,
                bound_spent=decoded.bound_spent,
                committed_at=list(decoded.committed_at),
                batch_size=batch_size,
                seconds=decoded.seconds,
            )


def warm_up(model: PuzzleModel, canvases: Sequence[Canvas]) -> None:
    """One forward of the batch's shape, so that first-call costs stay out of the clock."""
    if canvases:
        tokens = torch.tensor([c.tokens for c in canvases], device=model.device)
        model.start()(tokens, torch.zeros_like(tokens[:, :1]), None)


class Runner:
    """Runs specs into folders under `out`; models and examples are made once for all of them."""

    def __init__(
        self,
        out: Path,
        *,
        limit: int | None,
        batch_size: int,
        device: torch.device,
        observer: Observer,
    ) -> None:
        self.out, self.limit, self.batch_size = out, limit, batch_size
        self.device, self.observer = device, observer
        self._model = cache(lambda name, dtype: models.load(name, device=device, dtype=dtype))
        self._examples: dict[str, Sequence[Example]] = {}

    def run(self, specs: Sequence[RunSpec]) -> list[Run]:
        """The runs of these settings, complete; all are checked before the first one starts."""
        return [self.complete(job) for job in [self.prepare(spec) for spec in specs]]

    def complete(self, job: Job) -> Run:
        """The run of a job; records that are on disk are not made again."""
        run = Run.create(self.out, job.label, job.stored)
        total = len(job.examples)
        if job.missing(run):
            with run.writing(environment.describe(self.device)) as append:
                # Asked again now that nobody else can add to the run.
                todo = job.missing(run)
                with closing(_flushing(job.decode(todo, self.batch_size), append)) as flushed:
                    for count in flushed:
                        self.observer(job.label, total - len(todo) + count, total)
        self.observer(job.label, total, total)
        return run

    def examples(self, spec: RunSpec, task: Task) -> Sequence[Example]:
        """Raises UserError for a task without examples, or with two of the same id."""
        key = f"{spec.task} {sorted(spec.task_knobs.items())} {spec.seed}"
        if key not in self._examples:
            found = tuple(task.examples(self.limit, spec.seed))
            if not found:
                raise UserError(f"task {spec.task} has no examples", "raise --limit, or check -T")
            if len({example.id for example in found}) < len(found):
                raise UserError(f"task {spec.task} gives several examples the same id")
            self._examples[key] = found
        return self._examples[key]

    def prepare(self, spec: RunSpec) -> Job:
        """Raises UserError for whatever in the spec does not exist or does not go together."""
        task = resolve.task(spec.task, spec.task_knobs)
        examples = self.examples(spec, task)
        name = spec.model or spec.task
        spec = completed(spec, name, task, examples[0])
        sampler = resolve.sampler(spec.sampler, spec.knobs)
        model = self._model(name, spec.dtype)
        Symbols(model.symbols).check(task, name)
        parts = blocks(answer_length(examples[0]), spec.block_length)
        schedule = None
        if spec.schedule and spec.steps:
            schedule = Schedule(spec.schedule, spec.steps // parts)
        draw = Draw(spec.temperature, spec.top_p, spec.top_k, spec.scores == "filtered")
        return Job(
            label=label(spec),
            stored=self._stored(spec, task, name),
            task=task,
            examples=examples,
            model=model,
            sampler=sampler,
            decoding=Decoding(
                block_length=spec.block_length,
                schedule=schedule,
                draw=draw,
                stop=first_end(model.eos_ids),
                early=spec.stop == "until",
                seed=spec.seed,
            ),
        )

    def _stored(self, spec: RunSpec, task: Task, model: str) -> dict[str, Any]:
        named = [spec.sampler, spec.task, *map(str, spec.task_knobs.values())]
        files = [Path(n.rpartition(":")[0] or n) for n in named]
        return {
            "schema": 1,
            "version": mdmbench.__version__,
            "settings": spec.model_dump(),
            "task_version": task.version,
            "headline": task.headline,
            "model_digest": models.digest(model),
            "files": {str(f): _digest(f) for f in files if f.is_file()},
        }


def completed(spec: RunSpec, model: str, task: Task, example: Example) -> RunSpec:
    """The spec with every default filled in: its preset's, its sampler's, and the schedule's."""
    preset = PRESETS.get(spec.sampler, Preset(spec.sampler))
    knobs = knobs_of(rule(spec))
    schedule, steps = _schedule(spec, preset, knobs, example)
    if schedule is None and "k" in knobs and knobs["k"] is None:
        knobs["k"] = 1
    return spec.model_copy(
        update={
            "model": model,
            "knobs": knobs,
            "task_knobs": knobs_of(task),
            "schedule": schedule,
            "steps": steps,
            "scores": spec.scores or ("filtered" if preset.filtered else "raw"),
        }
    )


def rule(spec: RunSpec) -> Sampler:
    """The sampler, with the knobs that its preset sets."""
    preset = PRESETS.get(spec.sampler, Preset(spec.sampler))
    clash = sorted(set(preset.knobs) & set(spec.knobs))
    if clash:
        raise UserError(
            f"sampler {spec.sampler} sets {clash[0]} itself", f"use sampler {preset.sampler}"
        )
    return resolve.sampler(spec.sampler, {**preset.knobs, **spec.knobs})


def knobs_of(made: object) -> dict[str, Any]:
    """All knobs of a sampler or task with their values; a plain function has none."""
    return asdict(made) if is_dataclass(made) and not isinstance(made, type) else {}


def _schedule(
    spec: RunSpec, preset: Preset, knobs: dict[str, Any], example: Example
) -> tuple[str | None, int | None]:
    """The schedule's name and its steps, both None for a rule that follows none."""
    name = spec.schedule or preset.schedule or ("linear" if spec.steps else None)
    if name is None:
        return None, None
    own = ":" in spec.sampler
    if not (own or knobs.get("capped") or ("k" in knobs and knobs["k"] is None)):
        raise UserError(
            f"sampler {spec.sampler} with these knobs follows no schedule",
            "leave --steps and --schedule out, or choose topk, random or left-to-right without k",
        )
    length = answer_length(example)
    parts = blocks(length, spec.block_length)
    steps = spec.steps or length
    if steps % parts:
        raise UserError(
            f"{steps} steps do not divide into {parts} blocks", f"choose a multiple of {parts}"
        )
    return name, steps


def answer_length(example: Example) -> int:
    return len(example.cells) - example.start


def label(spec: RunSpec) -> str:
    """A short name for folders and progress bars: task, sampler and its knobs."""
    knobs = [f"{v}" if isinstance(v, str) else f"{k}{v}" for k, v in spec.knobs.items() if v]
    parts = [spec.task, spec.sampler, *knobs]
    plain = (Path(p.replace(":", "-")).name for p in parts)
    return "-".join("".join(c if c.isalnum() or c in ".-" else "_" for c in p) for p in plain)


def baseline(spec: RunSpec) -> RunSpec:
    """The quality reference of a spec: one position a step, by the same proxy."""
    proxy = getattr(rule(spec), "proxy", "confidence")
    update = {"sampler": "topk", "knobs": {"k": 1, "proxy": proxy}, "steps": None, "schedule": None}
    return spec.model_copy(update={**update, "scores": None})


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:12]


def _flushing(
    records: Iterator[Record], append: Callable[[Sequence[Record]], None]
) -> Generator[int]:
    """Hands records to the disk every SYNC_SECONDS and, whatever happens, at the end.

    Yields how many have been made so far.
    """
    waiting: list[Record] = []
    count, last = 0, time.monotonic()
    try:
        for record in records:
            waiting.append(record)
            count += 1
            if time.monotonic() - last > SYNC_SECONDS:
                batch, waiting, last = waiting, [], time.monotonic()
                append(batch)
            yield count
    finally:
        append(waiting)
