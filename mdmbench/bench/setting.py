"""What is asked of `mdmbench bench`, with its defaults, and what of it goes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mdmbench import bundled, models
from mdmbench.errors import UserError, unknown
from mdmbench.models import shapes
from mdmbench.samplers import SAMPLERS

AXES = {
    "length": (128, 256, 512, 1024),
    "batch": (1, 2, 4, 8, 16, 32),
    "vocabulary": tuple(1 << bits for bits in range(10, 19)),
    "size": (),
}
"""What a curve grows by, and its usual points: positions of the canvas, slots, rows of the
vocabulary, and the model's width with layers in proportion, up to the shape's own.
"""

FEWEST = 3
"""Rounds that an interval needs."""


@dataclass(frozen=True)
class Setting:
    """All that a ratio may depend on. None and (): as the shape, the model or the task has it.

    shape          random weights, and canvases of random tokens and masks
    samplers       by name; `all`: every built-in rule
    knobs          of each sampler; model_knobs of the model or shape, cache_knobs of each cache
    batch_sizes    each is measured, as is each cache
    blocks         only so many of the answer are filled; the model sees the others' masks
    answer         positions after which the answer has ended, and ours stops
    limit          examples of a round; None: one batch
    textbook       whether the textbook loop is measured too
    axis, points   what a curve grows by, and how far
    """

    shape: str | None = None
    model: str | None = None
    task: str | None = None
    samplers: tuple[str, ...] = ("topk", "eb")
    knobs: Mapping[str, Any] = field(default_factory=dict)
    model_knobs: Mapping[str, Any] = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = ()
    prompt_length: int | None = None
    gen_length: int | None = None
    block_length: int | None = None
    blocks: int | None = None
    answer: int | None = None
    limit: int | None = None
    textbook: bool = False
    caches: tuple[str, ...] = ()
    cache_knobs: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    device: str = "auto"
    axis: str | None = None
    points: tuple[int, ...] = ()


def resolved(setting: Setting) -> Setting:
    """The setting with its defaults. Raises UserError for what does not exist or go together."""
    _check(setting)
    device = models.device(setting.device)
    names = tuple(SAMPLERS) if setting.samplers == ("all",) else setting.samplers
    points = setting.points or AXES.get(setting.axis or "", ())
    sizes = points if setting.axis == "batch" else setting.batch_sizes
    found = replace(setting, device=str(device), samplers=names, points=points, batch_sizes=sizes)
    return _task(found) if setting.shape is None else _shape(found)


def _task(setting: Setting) -> Setting:
    own = setting.model if setting.model in bundled.models() else None
    task = setting.task or own or ("sudoku" if setting.model is None else None)
    if task is None:
        raise UserError(f"model {setting.model} has no task of its own", "choose one by --task")
    return replace(setting, task=task)


def _shape(setting: Setting) -> Setting:
    assert setting.shape is not None
    whole = shapes.described(setting.shape, setting.model_knobs)
    sizes = tuple(whole.width // part for part in (4, 2, 1))
    kept = {
        "prompt_length": 64,
        "gen_length": 256,
        "block_length": 32,
        "blocks": 1 if setting.axis else None,
        "dtype": "float32" if setting.device == "cpu" else "bfloat16",
    }
    given = {name: getattr(setting, name) for name in kept}
    filled: dict[str, Any] = {k: kept[k] if v is None else v for k, v in given.items()}
    if setting.axis == "size":
        filled["points"] = setting.points or sizes
    return replace(setting, batch_sizes=setting.batch_sizes or (1, 8), **filled)


def _check(setting: Setting) -> None:
    if setting.axis is not None and setting.axis not in AXES:
        raise unknown("axis", setting.axis, AXES)
    other = next((n for n in ("model", "task") if getattr(setting, n) is not None), None)
    if setting.shape is not None and other:
        raise UserError(
            f"shape {setting.shape}, and {other} {getattr(setting, other)}",
            "a shape has random weights and random canvases: give one of the two",
        )
    for name in ("prompt_length", "blocks", "answer"):
        if setting.shape is None and getattr(setting, name) is not None:
            raise UserError(
                f"{name} is {getattr(setting, name)}, and there is no shape",
                "the canvases are the task's: leave it out, or choose one by --shape",
            )
    if setting.shape is None and setting.axis not in (None, "batch"):
        raise UserError(f"a model cannot grow by {setting.axis}", "choose a --shape, or batch")
    if setting.axis == "batch" and setting.batch_sizes:
        raise UserError("batch sizes, and a curve over them", "give them as --grow batch=1,2,4")
    for size in setting.batch_sizes + setting.points * (setting.axis == "batch"):
        if setting.limit is not None and setting.limit < size:
            raise UserError(
                f"limit is {setting.limit}, and a batch takes {size}", "raise it, or leave it out"
            )
