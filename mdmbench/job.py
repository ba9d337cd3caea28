"""A job: a spec come to life, with every default filled in and everything checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from hashlib import sha256
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any, get_args

import torch

import mdmbench
from mdmbench import models, resolve
from mdmbench.base import Canvas, Example, Sampler, Task
from mdmbench.canvas import Symbols, counts, first_end, join
from mdmbench.errors import UserError
from mdmbench.loop import Decoding, blocks, decode
from mdmbench.models.puzzle import PuzzleModel
from mdmbench.samplers.presets import PRESETS, Preset
from mdmbench.schedule import Schedule
from mdmbench.spec import RunSpec
from mdmbench.step import Draw, Proxy
from mdmbench.store import Record


@dataclass(frozen=True)
class Job:
    """One run to be made; `stored` is what its spec.json says."""

    label: str
    stored: dict[str, Any]
    task: Task
    examples: Sequence[Example]
    model: PuzzleModel
    sampler: Sampler
    decoding: Decoding

    def records(self, examples: Sequence[Example], batch_size: int) -> Iterator[Record]:
        """A record for each example, in the order in which they finish."""
        symbols = Symbols(self.model.symbols)
        batch_size = min(batch_size, len(examples))
        by_id = {e.id: (e, symbols.canvas(e)) for e in examples}
        canvases = [canvas for _, canvas in by_id.values()]
        self._warm_up(canvases[:batch_size])
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
                scores=self._scores(example, answer),
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

    def _warm_up(self, canvases: Sequence[Canvas]) -> None:
        """One step of the batch's shape, so that first-call costs stay out of the clock."""
        mask = self.model.mask_id
        nearly = []
        for canvas in canvases:
            last = max((i for i, t in enumerate(canvas.tokens) if t == mask), default=0)
            tokens = (0 if t == mask and i != last else t for i, t in enumerate(canvas.tokens))
            nearly.append(replace(canvas, tokens=tuple(tokens)))
        once = replace(self.decoding, schedule=None)
        list(decode(self.model, self.sampler, nearly, batch_size=len(nearly), decoding=once))

    def _scores(self, example: Example, answer: Sequence[str]) -> dict[str, float]:
        name = self.stored["settings"]["task"]
        with resolve.blaming("task", name):
            found = self.task.score(example, answer)
        good = isinstance(found, dict) and self.task.headline in found
        if not good or not all(isinstance(v, Real) and isfinite(v) for v in found.values()):
            raise UserError(
                f"task {name} scores {example.id} as {found!r}",
                f"score returns numbers by name, {self.task.headline!r} among them",
            )
        return {str(key): float(value) for key, value in found.items()}


class Jobs:
    """Makes jobs; models and examples are made once for all of them."""

    def __init__(self, limit: int | None, device: torch.device) -> None:
        self._model = cache(lambda name, dtype: models.load(name, device=device, dtype=dtype))
        self._digest = cache(models.digest)
        self._examples: dict[str, Sequence[Example]] = {}
        self.limit = limit

    def make(self, spec: RunSpec) -> Job:
        """Raises UserError for whatever in the spec does not exist or does not go together."""
        task = resolve.task(spec.task, spec.task_knobs)
        examples = self.examples(spec, task)
        length = len(examples[0].cells) - examples[0].start
        sampler = sampler_of(spec)
        spec = completed(spec, sampler, length)
        name = spec.model or own_model(spec.task)
        model = self._model(name, spec.dtype)
        Symbols(model.symbols).check(task, name)
        stop = first_end(model.eos_ids)
        if stop is None and spec.stop == "until":
            raise UserError(f"model {name} has no end symbol to stop at", "leave --stop out")
        schedule = None
        if spec.schedule and spec.steps:
            schedule = Schedule(spec.schedule, spec.steps // blocks(length, spec.block_length))
        resolved: dict[str, Any] = {
            "model": name,
            "knobs": knobs_of(sampler),
            "task_knobs": knobs_of(task),
        }
        if schedule is None and "k" in resolved["knobs"] and resolved["knobs"]["k"] is None:
            resolved["knobs"]["k"] = 1
        spec = spec.model_copy(update=resolved)
        return Job(
            label=label(spec),
            stored=self._stored(spec, task),
            task=task,
            examples=examples,
            model=model,
            sampler=resolve.blamed("sampler", spec.sampler, sampler),
            decoding=Decoding(
                block_length=spec.block_length,
                schedule=schedule,
                draw=Draw(spec.temperature, spec.top_p, spec.top_k, spec.scores == "filtered"),
                stop=stop,
                early=spec.stop == "until",
                seed=spec.seed,
            ),
        )

    def examples(self, spec: RunSpec, task: Task) -> Sequence[Example]:
        """The task's examples; raises UserError where there is none, or one that is not whole."""
        key = f"{spec.task} {sorted(spec.task_knobs.items())} {spec.seed}"
        if key not in self._examples:
            with resolve.blaming("task", spec.task):
                found = tuple(task.examples(self.limit, spec.seed))
                check(task, spec.task, found)
            self._examples[key] = found
        return self._examples[key]

    def _stored(self, spec: RunSpec, task: Task) -> dict[str, Any]:
        """What spec.json says: the settings, and digests of all that they name."""
        files = {
            "sampler": resolve.source("sampler", spec.sampler),
            "task": resolve.source("task", spec.task),
            "data": Path(data) if (data := getattr(task, "data", "")) else None,
        }
        return {
            "schema": 1,
            "version": mdmbench.__version__,
            "settings": spec.model_dump(),
            "task_version": task.version,
            "headline": task.headline,
            "model_digest": self._digest(spec.model or ""),
            "files": {
                what: sha256(path.read_bytes()).hexdigest()[:12] if path else None
                for what, path in files.items()
            },
        }


def check(task: Task, name: str, examples: Sequence[Example]) -> None:
    """Raises UserError unless these can be decoded and stored."""
    if not examples:
        raise UserError(f"task {name} has no examples", "raise --limit, or check -T")
    if len({example.id for example in examples}) < len(examples):
        raise UserError(f"task {name} gives several examples the same id")
    symbols = {None, *task.symbols}
    for e in examples:
        odd = next((cell for cell in e.cells if cell not in symbols), None)
        if odd is not None:
            raise UserError(f"task {name}, example {e.id}: {odd!r} is not among its symbols")
        if not isinstance(e.id, str) or not 0 <= e.start < len(e.cells):
            raise UserError(f"task {name}, example {e.id!r}: no text as id, or start out of range")
        json.dumps(dict(e.meta))


def sampler_of(spec: RunSpec) -> Sampler:
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


def own_model(task: str) -> str:
    if ":" in task:
        raise UserError(f"task {task} has no model of its own", "choose one by --model")
    return task


def completed(spec: RunSpec, sampler: Sampler, answer: int) -> RunSpec:
    """The spec with the loop's settings filled in, for an answer region of `answer` positions."""
    preset = PRESETS.get(spec.sampler, Preset(spec.sampler))
    scores = spec.scores or ("filtered" if preset.filtered else "raw")
    if not spec.temperature and scores == "raw" and (spec.top_p or spec.top_k):
        raise UserError("top-p and top-k change nothing here", "add --temperature, or --scores")
    parts = blocks(answer, spec.block_length)
    name = spec.schedule or preset.schedule or ("linear" if spec.steps else None)
    capped = getattr(sampler, "capped", False)
    if name is None:
        if capped:
            raise UserError(f"sampler {spec.sampler} with capped needs a schedule", "add --steps")
        return spec.model_copy(update={"scores": scores})
    counting = hasattr(sampler, "k") and sampler.k is None
    if not (counting or capped or ":" in spec.sampler):
        raise UserError(
            f"sampler {spec.sampler} with these knobs follows no schedule",
            "choose topk, random or left-to-right without k, or leave the schedule out",
        )
    steps = spec.steps or answer
    if steps % parts:
        raise UserError(
            f"{steps} steps do not divide into {parts} blocks", f"choose a multiple of {parts}"
        )
    return spec.model_copy(update={"scores": scores, "schedule": name, "steps": steps})


def baseline(spec: RunSpec) -> RunSpec:
    """The quality reference of a spec: one position a step, by the same proxy.

    `rows.top1` finds it again among runs on disk.
    """
    proxy = getattr(sampler_of(spec), "proxy", None)
    known: dict[str, Any] = {"proxy": proxy if proxy in get_args(Proxy) else "confidence"}
    rule = {"sampler": "topk", "knobs": {"k": 1} | known, "steps": None, "schedule": None}
    cut = {} if spec.temperature else {"top_p": None, "top_k": None}
    return spec.model_copy(update={**rule, **cut, "scores": None})


def label(spec: RunSpec) -> str:
    """A short name for folders and progress bars: task, sampler and its knobs."""
    knobs = [f"{v}" if isinstance(v, str) else f"{k}{v}" for k, v in spec.knobs.items() if v]
    parts = [spec.task, spec.sampler, *knobs]
    plain = (Path(p.replace(":", "-")).name for p in parts)
    return "-".join("".join(c if c.isalnum() or c in ".-" else "_" for c in p) for p in plain)[:100]
