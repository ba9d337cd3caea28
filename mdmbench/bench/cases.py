"""From a setting of `mdmbench bench` to the cases that it measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, product
from random import Random
from typing import Any, NamedTuple

from torch import nn

from mdmbench import job, models, resolve
from mdmbench.base import Canvas, Model, Sampler, Stop
from mdmbench.bench.measure import Case
from mdmbench.bench.setting import Setting
from mdmbench.canvas import Codec, Unfit
from mdmbench.decoding import Decoding, blocks
from mdmbench.errors import UserError
from mdmbench.models import cache, shapes
from mdmbench.models.encoder import ModelSpec, NativeModel
from mdmbench.rows import Rule, rule_of
from mdmbench.samplers.ranked import TopK
from mdmbench.scoring import sandbox
from mdmbench.shelves import shelved
from mdmbench.spec import RunSpec, validated


def cases(setting: Setting) -> Iterator[Case]:
    """Of a resolved setting. Raises UserError, before the first one, for whatever does not exist or
    cannot be done."""
    return _of_task(setting) if setting.shape is None else _of_shape(setting.shape, setting)


@dataclass(frozen=True)
class Layout:
    """The canvases of a shape, in positions.

    filled  of the answer, in whole blocks from its start
    ends    where the answer has ended; None: nowhere
    """

    prompt: int
    answer: int
    block: int
    filled: int
    ends: int | None

    def canvases(self, spec: ModelSpec, count: int) -> list[Canvas]:
        """The same ones every time."""
        draw, masks = Random(0), (spec.mask_id,) * self.answer
        prompts = ([draw.randrange(spec.mask_id) for _ in range(self.prompt)] for _ in range(count))
        end = self.prompt + self.filled
        return [Canvas(f"{i}", (*p, *masks), self.prompt, end) for i, p in enumerate(prompts)]

    @property
    def stop(self) -> Stop | None:
        ends = self.ends
        return None if ends is None else lambda prefix: ends if len(prefix) >= ends else None


class Point(NamedTuple):
    """A model's shape and its canvases, and where they stand on the axis of a curve."""

    value: int | None
    spec: ModelSpec
    layout: Layout


class Ruled(NamedTuple):
    """A rule by name and in person, what the loop does for it, and what a textbook's takes."""

    rule: Rule
    sampler: Sampler
    decoding: Decoding
    k: int | None


def _of_shape(name: str, setting: Setting) -> Iterator[Case]:
    values = (None,) if setting.axis in (None, "batch") else setting.points
    points = [_point(name, setting, value) for value in values]
    # What can be wrong is found before a model is made.
    ruled = [_ruled(setting, point.layout) for point in points]
    kept = setting.caches or ("none",)
    _cached(NativeModel(shapes.empty(points[0].spec)), name, kept, setting)
    device, dtype = models.device(setting.device), models.DTYPES[setting.dtype or "float32"]
    for spec, group in groupby(zip(points, ruled, strict=True), key=lambda pair: pair[0].spec):
        plain = shapes.build(spec, device=device, dtype=dtype)
        cached = _cached(plain, name, kept, setting)
        for point, rules in group:
            for one, size, kind in product(rules, setting.batch_sizes, kept):
                canvases = point.layout.canvases(spec, setting.limit or size)
                value = size if setting.axis == "batch" else point.value
                yield _case(one, cached[kind], plain, canvases, size, value, kind)
        # Before the next one is made.
        del plain, cached


def _cached(
    plain: NativeModel, name: str, kept: Sequence[str], setting: Setting
) -> dict[str, Model]:
    """The model with each cache."""
    policies = {kind: cache.policy(kind, setting.cache_knobs) for kind in kept}
    return {
        kind: cache.cached(plain, name, kind, policy, guided=False) if policy else plain
        for kind, policy in policies.items()
    }


def _point(name: str, setting: Setting, value: int | None) -> Point:
    knobs: dict[str, Any] = dict(setting.model_knobs)
    prompt, answer = setting.prompt_length or 0, setting.gen_length or 0
    if setting.axis == "length" and value is not None:
        answer = value - prompt
    elif setting.axis == "vocabulary":
        knobs["vocab_rows"] = value
    elif setting.axis == "size" and value is not None:
        whole = shapes.described(name, knobs)
        knobs |= {"width": value, "layers": max(1, round(whole.layers * value / whole.width))}
    spec = shapes.described(name, knobs)
    if answer < 1:
        raise UserError(
            f"{prompt + answer} positions have no room for an answer behind a prompt of {prompt}",
            "shorten --prompt-length, or begin the curve later",
        )
    if prompt + answer > spec.max_length:
        raise UserError(
            f"a canvas of {prompt + answer} tokens, the model takes {spec.max_length} at most",
            "shorten --prompt-length or --gen-length",
        )
    block = setting.block_length or answer
    there = blocks(answer, block)
    if setting.blocks is not None and setting.blocks > there:
        raise UserError(f"blocks is {setting.blocks}", f"the answer has {there}")
    filled = (setting.blocks or there) * block
    if setting.answer is not None and setting.answer > filled:
        raise UserError(
            f"answer is {setting.answer}, and only {filled} positions are filled",
            "choose at most that",
        )
    return Point(value, spec, Layout(prompt, answer, block, filled, setting.answer))


def _ruled(setting: Setting, layout: Layout) -> list[Ruled]:
    found = []
    for name in setting.samplers:
        fields = {"sampler": name, "knobs": dict(setting.knobs), "dtype": setting.dtype}
        spec = validated({**fields, "block_length": layout.block})
        sampler = job.sampler_of(spec)
        spec, schedule = job.scheduled(spec, sampler, layout.filled, None)
        knobs = job.knobs_of(sampler)
        if schedule is None and "k" in knobs:
            knobs["k"] = knobs["k"] or 1
        decoding = Decoding(
            block_length=layout.block,
            schedule=schedule,
            stop=layout.stop,
            early=layout.stop is not None,
        )
        k = _k(sampler, decoding, setting)
        found.append(
            Ruled(Rule(name, knobs, {}), resolve.blamed("sampler", name, sampler), decoding, k)
        )
    _comparable(found, setting)
    return found


def _k(sampler: Sampler, decoding: Decoding, setting: Setting) -> int | None:
    """Positions a step of the textbook loop; None where it lacks the rule or is not asked for."""
    if not setting.textbook or decoding.schedule is not None or not isinstance(sampler, TopK):
        return None
    return (sampler.k or 1) if sampler == TopK(sampler.k) else None


def _comparable(found: Sequence[Ruled], setting: Setting) -> None:
    """Raises UserError where the textbook loop has none of the rules."""
    if setting.textbook and all(one.k is None for one in found):
        raise UserError(
            "the textbook loop is top-k by confidence, which sampler"
            f" {', '.join(setting.samplers)} with these knobs is not",
            "leave --textbook out, or choose --sampler topk",
        )


def _of_task(setting: Setting) -> Iterator[Case]:
    device, sizes = models.device(setting.device), setting.batch_sizes
    jobs = job.Jobs(
        setting.limit or max((*sizes, 64)),
        device,
        lambda: sandbox.find("auto", trusted=False)[0],
    )
    shared = vars(setting).keys() & RunSpec.model_fields.keys()
    given = {name: getattr(setting, name) for name in shared}
    fields = {name: value for name, value in given.items() if value is not None}
    found, rules = [], []
    for name, kind in product(setting.samplers, setting.caches or (None,)):
        rule = {"sampler": name, "knobs": dict(setting.knobs), "cache": kind}
        spec = validated({**fields, **rule})
        one = jobs.make(spec)
        k = _k(job.sampler_of(spec), one.decoding, setting)
        ruled = Ruled(rule_of(one.stored), one.sampler, one.decoding, k)
        rules.append(ruled)
        plain = NativeModel(one.model.encoder) if isinstance(one.model, NativeModel) else one.model
        for size in sizes or (one.usual_batch_size,):
            items = one.examples[: setting.limit or size]
            canvases = list(chain(*shelved([_canvas(one.codec, item) for item in items], size)))
            if len(canvases) < size:
                raise UserError(
                    f"task {setting.task} has {len(canvases)} examples, and a batch takes {size}",
                    "choose a smaller --batch-size",
                )
            value = size if setting.axis == "batch" else None
            cached = one.stored["settings"]["cache"]
            found.append(_case(ruled, one.model, plain, canvases, size, value, cached))
    _comparable(rules, setting)
    yield from found


def _canvas(codec: Codec, item: job.Item) -> Canvas:
    try:
        return codec.canvas(item)
    except Unfit as error:
        raise UserError(f"example {item.id} cannot be asked: {error}") from None


def _case(
    ruled: Ruled,
    model: Model,
    plain: Model,
    canvases: Sequence[Canvas],
    batch_size: int,
    value: int | None,
    cached: str,
) -> Case:
    net = _net(plain)
    return Case(
        sampler=ruled.rule.sampler,
        knobs=ruled.rule.knobs,
        cache=None if cached == "none" else cached,
        rule=ruled.sampler,
        model=model,
        plain=plain,
        canvases=canvases,
        batch_size=batch_size,
        decoding=ruled.decoding,
        parameters=sum(p.numel() for p in net.parameters()),
        weights=sum(t.nbytes for t in chain(net.parameters(), net.buffers())),
        value=value,
        k=ruled.k,
    )


def _net(model: Any) -> nn.Module:
    found = model.encoder if isinstance(model, NativeModel) else model.net
    assert isinstance(found, nn.Module)
    return found
