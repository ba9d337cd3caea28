"""What there is to choose from, as lines for the terminal."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from mdmbench import bundled, resolve, store
from mdmbench.models.cache import CACHES
from mdmbench.samplers import SAMPLERS
from mdmbench.samplers.presets import PRESETS


def lines(out: Path) -> Iterator[str]:
    """Samplers, presets, caches, tasks, models, recipes, and the runs under `out`."""
    yield "samplers (--sampler, knobs by -S name=value)"
    for name, rule in SAMPLERS.items():
        yield f"  {name:22}{_knobs(rule):44}{_summary(rule)}"
    yield "samplers as published (a rule and its settings)"
    for name, preset in PRESETS.items():
        inner = " ".join(f"{k}={v}" for k, v in preset.knobs.items())
        schedule = f"schedule={preset.schedule}" if preset.schedule else ""
        yield f"  {name:22}{preset.sampler} {inner} {schedule}".rstrip()
    yield "caches (--cache, knobs by -C name=value)"
    for name, policy in CACHES.items():
        yield f"  {name:22}{_knobs(policy):44}{_summary(policy)}"
    yield "tasks (--task, knobs by -T name=value)"
    for file in bundled.tasks().values():
        for name, made_by in resolve.variants(file).items():
            yield f"  {name:22}{_knobs(made_by):44}{_summary(made_by)}"
    yield "models (--model)"
    for name, folder in bundled.models().items():
        yield f"  {name:22}{(folder / 'README.md').read_text().splitlines()[0].lstrip('# ')}"
    yield "recipes (--config)"
    for path in sorted(bundled.CONFIGS.rglob("*.yaml")):
        yield f"  {path.stem:22}{path.read_text().splitlines()[0].lstrip('# ')}"
    yield f"runs in {out}"
    for run in store.runs([out]) if out.is_dir() else []:
        yield f"  {sum(1 for _ in run.records()):6} examples  {run.path}"


def _knobs(made_by: Callable[..., Any]) -> str:
    if not is_dataclass(made_by):
        return ""
    return " ".join(f"{f.name}={f.default}" for f in fields(made_by) if f.default is not MISSING)


def _summary(made_by: Callable[..., Any]) -> str:
    return (made_by.__doc__ or "").strip().splitlines()[0]
