"""RunSpec: everything that can change an answer, as strings and numbers; and plans of several."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mdmbench.errors import UserError, unknown

COMMON_KNOBS = ("gamma", "k", "threshold", "factor", "proxy")
"""Sampler knobs that have an option, and a key in a recipe, of their own."""


class RunSpec(BaseModel):
    """The settings of one run. Its resolved form is stored, and its digest names the run's folder.

    Batch size, device and the number of examples are not among them: they change no answer.
    None stands for the default of the sampler's preset, of the task, of the model or of the loop.

    gen_length  answer tokens of a text task
    chat        whether prompts go through the model's chat template
    pad_to      canvas length up to which masks follow the answer, seen and never filled
    eos         free; never: EOS is not written; last: what proposes EOS or an end of turn comes
                last (LLaDA generate.py: logits_eos_inf, confidence_eos_eot_inf)
    cfg         scale of classifier-free guidance, two forwards a step
    cache       what forwards keep of the ones before (`models/cache.py`); none: nothing
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = None
    task: str = "sudoku"
    sampler: str = "eb"
    knobs: dict[str, Any] = Field(default_factory=dict)
    task_knobs: dict[str, Any] = Field(default_factory=dict)
    model_knobs: dict[str, Any] = Field(default_factory=dict)
    gen_length: int | None = Field(None, ge=1, le=1_000_000)
    chat: bool | None = None
    pad_to: int | Literal["max"] | None = None
    eos: Literal["free", "never", "last"] = "free"
    cfg: float = Field(0.0, ge=0, le=1000)
    cache: str | None = None
    cache_knobs: dict[str, Any] = Field(default_factory=dict)
    block_length: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1, le=1_000_000)
    schedule: str | None = None
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1, le=10_000_000)
    scores: Literal["raw", "filtered"] | None = None
    stop: Literal["full", "until"] = "full"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("pad_to", mode="before")
    @classmethod
    def _length(cls, value: object) -> object:
        if value in (None, "max") or (str(value).isdecimal() and int(str(value)) > 0):
            return value if value in (None, "max") else int(str(value))
        raise ValueError("a number of tokens, or max")

    @field_validator("temperature")
    @classmethod
    def _drawable(cls, value: float) -> float:
        if 0 < value < 0.01:
            raise ValueError("0 for the likeliest token, or at least 0.01")
        return value


def plan(recipe: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> list[RunSpec]:
    """One spec for each combination of the values that are lists.

    The recipe's `runs` are each laid over its other settings, and the options over both.
    """
    outer = {key: value for key, value in recipe.items() if key != "runs"}
    runs = recipe.get("runs") or [{}]
    return distinct([s for run in runs for s in _grid({**outer, **run, **(options or {})})])


def distinct(specs: Sequence[RunSpec]) -> list[RunSpec]:
    return list({spec.model_dump_json(): spec for spec in specs}.values())


def _grid(settings: Mapping[str, Any]) -> Iterator[RunSpec]:
    fields = dict(settings)
    common = {k: fields.pop(k) for k in COMMON_KNOBS if fields.get(k) is not None}
    inner = fields.pop("knobs", None) or {}
    if not isinstance(inner, dict):
        raise UserError(f"knobs is {inner!r}", "it takes names and values: {gamma: 0.1}")
    knobs = {**common, **inner}
    axes = {("knobs", k): v for k, v in knobs.items()}
    axes |= {("", k): v for k, v in fields.items() if v is not None}
    for (_, name), value in axes.items():
        if value == []:
            raise UserError(f"{name} is an empty list", "give it a value")
    values = [v if isinstance(v, list) else [v] for v in axes.values()]
    for chosen in product(*values):
        point = list(zip(axes, chosen, strict=True))
        plain = {name: value for (group, name), value in point if not group}
        chosen_knobs = {name: value for (group, name), value in point if group}
        yield validated({**plain, "knobs": chosen_knobs})


def validated(fields: Mapping[str, Any]) -> RunSpec:
    """Raises UserError for an unknown field or a value out of its range."""
    for name in fields:
        if name not in RunSpec.model_fields:
            raise unknown("setting", str(name), [*RunSpec.model_fields, *COMMON_KNOBS])
    try:
        return RunSpec(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(f"{name} is {first['input']!r}", first["msg"]) from None


class Recipe(NamedTuple):
    """A YAML file: what `plan` takes, how many examples, and what `check` times a run against."""

    settings: dict[str, Any]
    limit: int | None = None
    reference: dict[str, Any] | None = None


def recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises UserError where it is none."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings", "write one `name: value` a line")
    limit, reference = found.pop("limit", None), found.pop("reference", None)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"{path}: limit is {limit!r}", "it is a number of examples")
    runs = found.get("runs", [])
    some = isinstance(runs, list) and all(isinstance(run, dict) for run in runs)
    if not some or ("runs" in found and not runs):
        raise UserError(f"{path}: runs is no list of settings", "write `runs:` and `- sampler: eb`")
    if reference is not None and not isinstance(reference, dict):
        raise UserError(f"{path}: reference is {reference!r}", "write {sampler: topk, k: 8}")
    return Recipe(found, limit, reference)
