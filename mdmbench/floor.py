"""What numerics alone change in a run, as `noise.json` in its folder keeps it.

The file is made from the runs in the folder beside it (`drift.measured`), and can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from math import hypot
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mdmbench.errors import UserError
from mdmbench.store import Run, replaced, reporting

FILE = "noise.json"
FOLDER = "noise"
"""In a run's folder: a folder a variation, and in that its run."""

Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Drift:
    """A variation against the run that it was made of.

    n        examples that both have
    answers  of them, those with an answer that is not the same
    nfe      those with another NFE
    lost     those whose headline score is lower; gained: higher
    changes  by measure: of a score the difference, of anything else the ratio - 1
    """

    variation: str
    n: int
    answers: int
    nfe: int
    lost: list[str]
    gained: list[str]
    changes: dict[str, float]


@dataclass(frozen=True)
class Noise:
    """Of a run; `floor` is how far its variations can move a measure, in the unit of `changes`."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    floor: dict[str, Size]
    drifts: list[Drift]


@cache
def _parser() -> TypeAdapter[Noise]:
    return TypeAdapter(Noise)


def read(run: Path) -> dict[str, float]:
    """The noise floor of a run by measure; empty where it was never measured.

    Raises UserError for a broken file.
    """
    path = run / FILE
    try:
        return dict(_parser().validate_json(path.read_bytes()).floor)
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise UserError(
            f"{path} cannot be read: {first}",
            f"delete it; mdmbench noise {run} makes it again from what lies beside it",
        ) from None


def write(run: Run, noise: Noise) -> None:
    """Raises UserError where the run's folder cannot be written."""
    path = run.path / FILE
    with reporting(path):
        replaced(path, json.dumps(asdict(noise), indent=1) + "\n")


def larger(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Of two variations of one run, how far either goes."""
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}


def together(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Of two runs' floors, what a difference between them has to exceed: both are in it."""
    return {name: hypot(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}
