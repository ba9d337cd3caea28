"""A job: a spec come to life, with every default filled in and everything checked."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, cast, get_args

import torch

import mdmbench
from mdmbench import bundled, memory, models, resolve
from mdmbench import canvas as forms
from mdmbench.base import (
    Canvas,
    Choice,
    Decoded,
    Example,
    Model,
    PuzzleTask,
    Question,
    Sampler,
    Seconds,
    TextTask,
)
from mdmbench.canvas import Codec, Symbols, Text, Unfit, counts
from mdmbench.decoding import Decoding, blocks
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.memory import Need, added
from mdmbench.models import cache as caches
from mdmbench.models import checkpoint
from mdmbench.models.checkpoint import Options
from mdmbench.models.puzzle import PuzzleModel
from mdmbench.samplers.presets import PRESETS, Preset
from mdmbench.schedule import Schedule
from mdmbench.scoring.sandbox import Sandbox
from mdmbench.scoring.scorer import Judge, Scored, Workers, result
from mdmbench.shelves import shelved
from mdmbench.spec import RunSpec, validated
from mdmbench.step import Draw, Proxy, Step
from mdmbench.store import DIGITS, Record

BACKLOG = 8
"""Answers a worker that may wait for their scores before the model has to wait too."""

AnyTask = PuzzleTask | TextTask
Item = Example | Question


@dataclass(frozen=True)
class Job:
    """One run to be made; `stored` is what its spec.json says."""

    label: str
    stored: dict[str, Any]
    task: AnyTask
    examples: Sequence[Item]
    model: Model
    codec: Codec
    sampler: Sampler
    decoding: Decoding
    judge: Judge
    workers: Workers
    compiled: bool = False

    @property
    def usual_batch_size(self) -> int:
        """Where the user says nothing: texts are longer than puzzles, and their models larger; on a
        CPU more rows gain little, and more of them are empty in the end."""
        if isinstance(self.codec, Text):
            return 8
        return memory.CPU_ROWS if self.model.device.type == "cpu" else 64

    def fitting_batch_size(self, runs: int) -> int:
        """The largest that memory allows while so many runs are under way, by measuring; the usual
        one where that cannot be done."""
        canvases, _ = self._canvases(self.examples)
        longest = sorted(canvases.values(), key=lambda canvas: -len(canvas.tokens))
        device = self.model.device

        def need(rows: int) -> Need:
            with added(device) as most:
                before = memory.used(device)
                for decoded in self._once(longest, rows):
                    kept, size = memory.used(device) - before, decoded.batch_size
            return Need(size, most(), kept)

        found = memory.fitting(need, device, len(longest), runs)
        return self.usual_batch_size if found is None else found

    def records(
        self,
        examples: Sequence[Item],
        batch_size: int,
        more: Callable[[], bool],
        notice: Callable[[str], None],
    ) -> Generator[Record]:
        """A record for each example, in the order in which their scores are known.

        Once `more` says no, only those under way are finished, and the lot they are of (`shelved`).
        `notice` is told of a batch that was made smaller because memory ran out.
        """
        batch_size = min(batch_size, len(examples))
        scoring: dict[Future[Scored], tuple[Item, Record]] = {}
        for record, item, answer in self._answers(examples, batch_size, more, notice):
            scoring[self.workers.submit(self.judge, self.task, item, answer)] = item, record
            yield from _scored(scoring)
            # What is not scored is not on the disk, and would be lost if the run were killed.
            while len(scoring) > BACKLOG * self.workers.count:
                wait(scoring, return_when=FIRST_COMPLETED)
                yield from _scored(scoring)
        while scoring:
            wait(scoring, return_when=FIRST_COMPLETED)
            yield from _scored(scoring)

    def _canvases(self, items: Sequence[Item]) -> tuple[dict[str, Canvas], dict[str, str]]:
        """By id the canvases of the examples, and why the others have none."""
        canvases: dict[str, Canvas] = {}
        unfit: dict[str, str] = {}
        for item in items:
            try:
                canvases[item.id] = self.codec.canvas(item)
            except Unfit as error:
                unfit[item.id] = str(error)
        return canvases, unfit

    def _answers(
        self,
        items: Sequence[Item],
        batch_size: int,
        more: Callable[[], bool],
        notice: Callable[[str], None],
    ) -> Iterator[tuple[Record, Item, Any]]:
        """Records without scores, with what is to be scored."""
        by_id = {item.id: item for item in items}
        canvases, unfit = self._canvases(items)
        if not canvases:
            raise UserError(
                f"no example of {self.label} can be asked: {unfit[items[0].id]}",
                "shorten the prompts or --gen-length",
            )
        for id, why in unfit.items():
            yield unanswered(by_id[id], why, batch_size), by_id[id], self.codec.answer([])
        queue = tuple(canvases.values())
        first = chain.from_iterable(shelved(queue, batch_size))
        for decoded in self._once(first, batch_size):
            batch_size = self._left(batch_size, decoded, notice)
        for few in self._special(queue) if self.compiled else ():
            deque(self._once(few, len(few)), maxlen=0)
        lots = takewhile(lambda _: more(), shelved(queue, batch_size))
        done = decode(
            self.model,
            self.sampler,
            chain.from_iterable(lots),
            batch_size=batch_size,
            decoding=self.decoding,
        )
        for decoded in done:
            batch_size = self._left(batch_size, decoded, notice)
            answer, record = self._record(by_id[decoded.id], canvases[decoded.id], decoded)
            yield record, by_id[decoded.id], answer

    def _record(self, item: Item, canvas: Canvas, decoded: Decoded) -> tuple[Any, Record]:
        tokens = decoded.tokens[canvas.start : canvas.end]
        answer = self.codec.answer(tokens)
        length, filled = counts(canvas, decoded, self.model.mask_id)
        record = Record(
            id=item.id,
            answer=self.codec.stored(answer),
            scores={},
            notes={},
            meta=dict(item.meta),
            nfe=decoded.nfe,
            nfe_until=decoded.nfe_until,
            length=length,
            filled=filled,
            forward_tokens=decoded.forward_tokens,
            forced=decoded.forced,
            bound_spent=decoded.bound_spent,
            committed_at=list(decoded.committed_at[canvas.start : canvas.end]),
            pieces=self.codec.pieces(tokens),
            batch_size=decoded.batch_size,
            seconds=decoded.seconds,
            confidence=_rounded(decoded.confidence[canvas.start : canvas.end]),
            entropy=_rounded(decoded.entropy[canvas.start : canvas.end]),
        )
        return answer, record

    def _left(self, batch_size: int, decoded: Decoded, notice: Callable[[str], None]) -> int:
        """What memory has left of a batch size; `notice` is told where that is less."""
        left = decoded.batch_size
        if left < batch_size:
            notice(f"{self.label}: out of memory at batch {batch_size}: going on with {left}")
        return left

    def _once(self, canvases: Iterable[Canvas], batch_size: int) -> Iterator[Decoded]:
        """One whole step of a batch of the first canvases, in which all that is asked for is
        committed: it keeps what first calls cost out of the clock, and says whether that fits."""

        def rule(step: Step) -> Choice:
            self.sampler(step)
            return Choice(step.eligible)

        opening = map(self._opening, islice(canvases, batch_size))
        decoding = replace(self.decoding, stop=None, early=False)
        return decode(self.model, rule, opening, batch_size=batch_size, decoding=decoding)

    def _special(self, canvases: Sequence[Canvas]) -> list[Sequence[Canvas]]:
        """Batches that machine code of their own is made for: one row, and rows that are padded."""
        order = sorted(canvases, key=lambda canvas: len(canvas.tokens))
        ragged = len(order[0].tokens) < len(order[-1].tokens)
        return [order[:1], *([[order[0], order[-1]]] if ragged else [])]

    def _opening(self, canvas: Canvas) -> Canvas:
        """As far as the end of the block that is filled first."""
        size, mask = self.decoding.block_length, self.model.mask_id
        region = canvas.tokens[: canvas.end]
        if size is None or mask not in region:
            return canvas
        origin = 0 if self.decoding.from_zero else canvas.start
        behind = origin + ((region.index(mask) - origin) // size + 1) * size
        return replace(canvas, end=min(len(region), behind))


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]


def _scored(scoring: dict[Future[Scored], tuple[Item, Record]]) -> Iterator[Record]:
    """Takes out what has been scored."""
    for future in [future for future in scoring if future.done()]:
        item, record = scoring.pop(future)
        found = result(item, future)
        yield replace(record, scores=found.scores, notes={**found.notes, **record.notes})


def unanswered(item: Item, why: str, batch_size: int) -> Record:
    """The record of an example that the model cannot be asked: scored, but not measured."""
    return Record(
        id=item.id,
        answer="",
        scores={},
        notes={"unasked": why},
        meta=dict(item.meta),
        nfe=0,
        nfe_until=None,
        length=0,
        filled=0,
        forward_tokens=0,
        forced=0,
        bound_spent=0.0,
        committed_at=[],
        pieces=[],
        batch_size=batch_size,
        seconds=Seconds(),
    )


class Jobs:
    """Makes jobs; models and examples are made once for all of them."""

    def __init__(
        self,
        limit: int | None,
        device: torch.device,
        sandbox: Callable[[], Sandbox],
        compiled: bool = False,
    ) -> None:
        """`sandbox` is asked for the first time when a task has programs to run; `compiled`: so are
        the models."""
        self.limit, self.device, self.sandbox = limit, device, cache(sandbox)
        self.workers = Workers()
        self.compiled = compiled
        self._load, self._compile = cache(models.load), cache(models.compiled)
        self._digest = cache(models.digest)
        self._tokenizer = cache(forms.tokenizer)
        self._examples: dict[str, Sequence[Item]] = {}

    def make(self, spec: RunSpec) -> Job:
        """Raises UserError for whatever in the spec does not exist or does not go together."""
        task = cast(AnyTask, resolve.task(spec.task, spec.task_knobs))
        sampler = sampler_of(spec)
        if spec.cache is not None:
            caches.policy(spec.cache, spec.cache_knobs)
        asked = Judge(spec.task, spec.task_knobs)
        name = spec.model or own_model(spec.task)
        options, revision = models.options(name, spec.model_knobs)
        folder = models.folder(name, revision)
        examples = self.examples(spec, task)
        if not models.is_puzzle(folder):
            options = self._with_mask(folder, options)
        dtype = spec.dtype or checkpoint.stored_dtype(folder)
        spec = texted(spec.model_copy(update={"model": name, "dtype": dtype}), task)
        net = self._load(folder, device=self.device, dtype=dtype, options=options)
        codec = self._codec(spec, task, net, folder)
        if codec.stop is None and spec.stop == "until":
            raise UserError(f"model {name} has no end symbol to stop at", "leave --stop out")
        spec, schedule = scheduled(spec, sampler, answer_length(spec, examples), net.block)
        spec, model = caching(with_knobs(spec, sampler, task), net)
        if self.compiled and spec.cache != "none":
            raise UserError(
                f"--compile with cache {spec.cache}: what it lets through has too many shapes",
                "leave --compile out, or take --cache none",
            )
        if self.compiled:
            self._compile(net)
        return Job(
            label=label(spec),
            stored={**described(spec, task), "model_digest": self._digest(folder)},
            task=task,
            examples=examples,
            model=model,
            codec=codec,
            sampler=resolve.blamed("sampler", spec.sampler, sampler),
            decoding=Decoding(
                block_length=spec.block_length,
                from_zero=model.block is not None,
                schedule=schedule,
                draw=draw(spec, model, codec),
                stop=codec.stop,
                early=spec.stop == "until",
                guidance=spec.cfg,
                seed=spec.seed,
            ),
            judge=replace(asked, sandbox=self.sandbox() if hasattr(task, "programs") else None),
            workers=self.workers,
            compiled=self.compiled,
        )

    def _with_mask(self, folder: Path, options: Options) -> Options:
        """The options with the tokenizer's mask token, where nothing else names it."""
        if not checkpoint.wants_mask(checkpoint.read_config(folder), options):
            return options
        found = forms.mask_id(self._tokenizer(folder))
        if found is None:
            raise UserError(
                f"neither the config nor the tokenizer in {folder} names a mask token",
                "say which it is by -M mask_id=N",
            )
        return replace(options, mask_id=found)

    def _codec(self, spec: RunSpec, task: AnyTask, model: Any, folder: Path) -> Codec:
        """What stands between this task and this model; raises UserError where nothing can."""
        name = spec.model or spec.task
        if isinstance(model, PuzzleModel):
            if not forms.is_puzzle(task):
                raise UserError(
                    f"model {name} cannot hold task {spec.task}: it has no words",
                    "choose a language model by --model",
                )
            symbols = Symbols(model.symbols, model.end_symbols)
            symbols.check(task, name)
            return symbols
        if forms.is_puzzle(task):
            raise UserError(
                f"model {name} is a language model, and task {spec.task} a puzzle",
                "leave --model out, or choose a task in words",
            )
        assert spec.gen_length is not None and spec.chat is not None
        return Text(
            self._tokenizer(folder),
            model,
            cast(TextTask, task),
            gen_length=spec.gen_length,
            chat=spec.chat,
            pad_to=spec.pad_to,
        )

    def examples(self, spec: RunSpec, task: AnyTask) -> Sequence[Item]:
        """The task's examples; raises UserError where there is none, or one that is not whole."""
        key = f"{spec.task} {sorted(spec.task_knobs.items())} {spec.seed}"
        if key not in self._examples:
            with resolve.blaming("task", spec.task):
                found = cast(tuple[Item, ...], tuple(task.examples(self.limit, spec.seed)))
                check(task, spec.task, found)
            self._examples[key] = found
        return self._examples[key]


def described(spec: RunSpec, task: AnyTask) -> dict[str, Any]:
    """What spec.json says but for the model: the settings, and digests of all that they name."""
    files = {
        "sampler": resolve.source("sampler", spec.sampler),
        "task": resolve.source("task", spec.task),
        **{knob: _file(value) for knob, value in spec.task_knobs.items()},
    }
    return {
        "schema": 1,
        "version": mdmbench.__version__,
        "settings": spec.model_dump(),
        "task_version": task.version,
        "headline": task.headline,
        "files": {
            what: sha256(path.read_bytes()).hexdigest()[:12] if path else None
            for what, path in files.items()
            if path or what in ("sampler", "task")
        },
    }


def _file(value: object) -> Path | None:
    """The file that a task's knob names, if it does."""
    return Path(value) if isinstance(value, str) and value and Path(value).is_file() else None


def texted(spec: RunSpec, task: AnyTask) -> RunSpec:
    """The spec with a text task's defaults; raises UserError for settings of texts on a puzzle."""
    if not forms.is_puzzle(task):
        task = cast(TextTask, task)
        defaults = {"gen_length": task.gen_length, "chat": task.chat}
        missing = {k: v for k, v in defaults.items() if getattr(spec, k) is None}
        return spec.model_copy(update=missing)
    plain = validated({})
    for name in ("gen_length", "chat", "pad_to", "eos", "cfg"):
        if getattr(spec, name) != getattr(plain, name):
            raise UserError(
                f"{name} is {getattr(spec, name)!r}, and {spec.task} is a puzzle", "leave it out"
            )
    return spec


def draw(spec: RunSpec, model: Model, codec: Codec) -> Draw:
    ends = tuple(sorted(codec.ends)) if isinstance(codec, Text) else ()
    return Draw(
        spec.temperature,
        spec.top_p,
        spec.top_k,
        spec.scores == "filtered",
        never=model.eos_ids if spec.eos == "never" else (),
        late=ends if spec.eos == "last" else (),
    )


def check(task: AnyTask, name: str, examples: Sequence[Item]) -> None:
    """Raises UserError unless these can be decoded and stored."""
    if not examples:
        raise UserError(f"task {name} has no examples", "raise --limit, or check -T")
    if len({example.id for example in examples}) < len(examples):
        raise UserError(f"task {name} gives several examples the same id")
    for e in examples:
        if not isinstance(e.id, str):
            raise UserError(f"task {name}, example {e.id!r}: no text as id")
        json.dumps(dict(e.meta))
    if forms.is_puzzle(task):
        _check_puzzle(task, name, cast(Sequence[Example], examples))
    else:
        _check_text(cast(TextTask, task), name, cast(Sequence[Question], examples))


def _check_puzzle(task: PuzzleTask, name: str, examples: Sequence[Example]) -> None:
    symbols = {None, *task.symbols}
    for e in examples:
        odd = next((cell for cell in e.cells if cell not in symbols), None)
        if odd is not None:
            raise UserError(f"task {name}, example {e.id}: {odd!r} is not among its symbols")
        if not 0 <= e.start < len(e.cells):
            raise UserError(f"task {name}, example {e.id!r}: start is out of range")


def _check_text(task: TextTask, name: str, examples: Sequence[Question]) -> None:
    for what, kind in {"gen_length": int, "chat": bool, "stops": tuple, "finish": str}.items():
        if not isinstance(getattr(task, what, None), kind):
            found = getattr(task, what, "missing")
            raise UserError(f"task {name}: {what} is {found!r}", f"it is of type {kind.__name__}")
    if not all(isinstance(stop, str) and stop for stop in task.stops):
        raise UserError(f"task {name}: stops is {task.stops!r}", "they are texts, none empty")
    try:
        re.compile(task.finish)
    except re.error as error:
        raise UserError(f"task {name}: finish is {task.finish!r}: {error}") from None
    if not (hasattr(task, "score") or hasattr(task, "programs")):
        raise UserError(f"task {name} cannot score", "give it a method score, or programs")
    for e in examples:
        texts = [e.prompt, e.prefix, *(turn.text for turn in e.turns)]
        if not all(map(_encodes, texts)):
            raise UserError(f"task {name}, example {e.id}: its prompt is no text", "see base.py")


def _encodes(text: object) -> bool:
    """Whether a text can be encoded: a lone surrogate cannot."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return isinstance(text, str)


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
    if task not in bundled.models():
        raise UserError(f"task {task} has no model of its own", "choose one by --model")
    return task


def answer_length(spec: RunSpec, examples: Sequence[Item]) -> int:
    """Positions of the answer region."""
    if spec.gen_length is not None:
        return spec.gen_length
    first = cast(Example, examples[0])
    return len(first.cells) - first.start


def scheduled(
    spec: RunSpec, sampler: Sampler, answer: int, block: int | None
) -> tuple[RunSpec, Schedule | None]:
    """The spec with the loop's settings filled in, and the schedule that they make.

    answer  positions of the answer region
    block   of the model's attention, where that is block-causal: its blocks are those of decoding,
            and the answer may begin and end within one
    """
    if block is None:
        parts = blocks(answer, spec.block_length)
    elif spec.block_length in (None, block):
        spec, parts = spec.model_copy(update={"block_length": block}), -(-answer // block)
    else:
        raise UserError(
            f"block length {spec.block_length}, but the model attends by blocks of {block}",
            "leave --block-length out, or give -M block=N where the model takes several",
        )
    preset = PRESETS.get(spec.sampler, Preset(spec.sampler))
    scores = spec.scores or ("filtered" if preset.filtered else "raw")
    if not spec.temperature and scores == "raw" and (spec.top_p or spec.top_k):
        raise UserError("top-p and top-k change nothing here", "add --temperature, or --scores")
    name = spec.schedule or preset.schedule or ("linear" if spec.steps else None)
    capped = getattr(sampler, "capped", False)
    if name is None:
        if capped:
            raise UserError(f"sampler {spec.sampler} with capped needs a schedule", "add --steps")
        return spec.model_copy(update={"scores": scores}), None
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
    spec = spec.model_copy(update={"scores": scores, "schedule": name, "steps": steps})
    return spec, Schedule(name, steps // parts)


def caching(spec: RunSpec, model: Model) -> tuple[RunSpec, Model]:
    """The spec with its cache and all knobs of that, and the model that has it."""
    guided = bool(spec.cfg)
    name = spec.cache or caches.usual(model, guided)
    policy = caches.policy(name, spec.cache_knobs)
    spec = spec.model_copy(update={"cache": name, "cache_knobs": knobs_of(policy)})
    if policy is None:
        return spec, model
    return spec, caches.cached(model, str(spec.model), name, policy, guided)


def with_knobs(spec: RunSpec, sampler: Sampler, task: AnyTask) -> RunSpec:
    """The spec with every knob of its sampler and its task, those left alone too."""
    knobs = knobs_of(sampler)
    if spec.schedule is None and "k" in knobs and knobs["k"] is None:
        knobs["k"] = 1
    return spec.model_copy(update={"knobs": knobs, "task_knobs": knobs_of(task)})


def baseline(spec: RunSpec) -> RunSpec:
    """The quality reference of a spec: one position a step, by the same proxy and with the same
    cache, so that a speed-up is the rule's own.

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
    model = [spec.model] if spec.model not in (None, spec.task) else []
    cache = [spec.cache] if spec.cache not in (None, "none") else []
    parts = [spec.task, *model, *cache, spec.sampler, *knobs]
    plain = (Path(p.replace(":", "-")).name for p in parts)
    return "-".join("".join(c if c.isalnum() or c in ".-" else "_" for c in p) for p in plain)[:100]
