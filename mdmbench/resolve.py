"""From names and knobs to objects: the one place where a spec comes to life."""

from __future__ import annotations

import importlib.util
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from mdmbench import bundled
from mdmbench.base import Choice, Sampler, Task
from mdmbench.errors import UserError, reason, unknown

if TYPE_CHECKING:
    from mdmbench.step import Step


def sampler(name: str, knobs: Mapping[str, Any]) -> Sampler:
    """A built-in rule by name, or a user's own as `file.py:Name`."""
    return cast(Sampler, build("sampler", name, sampler_class(name), knobs))


def sampler_class(name: str) -> Callable[..., Any]:
    """What a sampler's name stands for: a dataclass, or a plain function of a Step."""
    if ":" in name:
        return from_file("sampler", name)
    # They import torch, which the workers that score answers do without.
    from mdmbench.samplers import SAMPLERS
    from mdmbench.samplers.presets import PRESETS

    if name in PRESETS:
        name = PRESETS[name].sampler
    if name not in SAMPLERS:
        raise unknown("sampler", name, [*SAMPLERS, *PRESETS, "FILE.py:NAME"])
    return SAMPLERS[name]


def task(name: str, knobs: Mapping[str, Any]) -> Task:
    """A task that ships with the package by name, or a user's own as `file.py:Name`."""
    return cast(Task, build("task", name, task_class(name), knobs))


def task_class(name: str) -> Callable[..., Any]:
    if ":" in name:
        return from_file("task", name)
    file = task_file(name)
    known = variants(file) if file else {}
    if name not in known:
        names = [task for path in bundled.tasks().values() for task in variants(path)]
        raise unknown("task", name, [*names, "FILE.py:NAME"])
    return known[name]


def task_file(name: str) -> Path | None:
    """The file of a task that ships with the package: its folder's name begins the task's."""
    fitting = [path for folder, path in bundled.tasks().items() if name.startswith(folder)]
    return max(fitting, key=lambda path: len(path.parent.name), default=None)


@cache
def variants(file: Path) -> dict[str, Callable[..., Any]]:
    """The tasks of a file that ships with the package, by name."""
    return cast(dict[str, Callable[..., Any]], module("task", str(file), file).TASKS)


def source(what: str, name: str) -> Path | None:
    """The file that defines a task or a sampler; None for a rule of the package."""
    if ":" in name:
        return Path(name.rpartition(":")[0])
    return task_file(name) if what == "task" else None


@contextmanager
def blaming(what: str, name: str) -> Iterator[None]:
    """Turns an exception of the user's own code into one message that names the line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if ":" not in name:
            raise
        file = Path(name.rpartition(":")[0]).resolve()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == file]
        where = f" in line {lines[-1]}" if lines else ""
        raise UserError(
            f"{what} {name} failed{where}: {type(error).__name__}: {reason(error)}"
        ) from error


def blamed(what: str, name: str, rule: Sampler) -> Sampler:
    """A rule whose exceptions are its author's."""

    def call(step: Step) -> Choice:
        with blaming(what, name):
            return rule(step)

    return call


def from_file(what: str, name: str) -> Callable[..., Any]:
    """The object `Name` of `file.py:Name`. Raises UserError where there is none."""
    path, _, attribute = name.rpartition(":")
    file = Path(path)
    loaded = module(what, name, file)
    found = getattr(loaded, attribute, None)
    if not callable(found):
        names = [k for k, v in vars(loaded).items() if callable(v) and not k.startswith("_")]
        raise unknown(f"{what} in {path}", attribute, names)
    return cast(Callable[..., Any], found)


def module(what: str, name: str, file: Path) -> types.ModuleType:
    """The module in `file`. Raises UserError where importing it fails."""
    if not file.is_file():
        raise UserError(f"no file {str(file)!r} for {what} {name!r}", "write FILE.py:NAME")
    # By its path: type hints are looked up in the module of this name, and many are a task.py.
    module_name = f"mdmbench_user_{sha256(str(file.resolve()).encode()).hexdigest()}"
    spec = importlib.util.spec_from_file_location(module_name, file.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file", "write FILE.py:NAME")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(made)
    except (Exception, SystemExit) as error:
        raise UserError(f"importing {file} failed: {type(error).__name__}: {error}") from error
    return made


def knob_names(made_by: Callable[..., Any]) -> list[str]:
    return [f.name for f in fields(made_by)] if is_dataclass(made_by) else []


def build(what: str, name: str, made_by: Callable[..., Any], knobs: Mapping[str, Any]) -> Any:
    """Calls a dataclass with its knobs, read from strings where need be; a function has none."""
    names = knob_names(made_by)
    for knob in knobs:
        if knob not in names:
            raise unknown(f"knob of {what} {name}", knob, names)
    if not is_dataclass(made_by):
        if isinstance(made_by, type):
            raise UserError(f"{what} {name} is a class", "make it a frozen dataclass")
        return made_by
    for f in fields(made_by):
        if f.name not in knobs and f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"{what} {name} needs its knob {f.name}", "it has no default")
    try:
        with blaming(what, name):
            types_of = get_type_hints(made_by)
            return made_by(**{k: convert(k, v, types_of[k]) for k, v in knobs.items()})
    except UserError as error:
        raise UserError(f"{what} {name}: {error.message}", error.hint) from None


def convert(knob: str, value: Any, kind: Any) -> Any:
    """`value`, perhaps a string from the command line, as the knob's type."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if value in (None, "none") and type(None) in options:
        return None
    for option in () if value is None else options:
        if option is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        if option in (int, float, str):
            try:
                number = option(value)
            except (ValueError, TypeError, OverflowError):
                continue
            if option is not int or isinstance(value, str) or number == value:
                return number
        if get_origin(option) is Literal:
            if value not in get_args(option):
                raise unknown(knob, str(value), map(str, get_args(option)))
            return value
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in options if o is not type(None))
    raise UserError(f"{knob} is {value!r}", f"it takes {wanted}")
