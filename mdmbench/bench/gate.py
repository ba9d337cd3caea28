"""A gate on what the harness costs: ratios of now against those of a baseline file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mdmbench.bench.measure import RATIOS, Row
from mdmbench.bench.setting import Setting
from mdmbench.errors import UserError
from mdmbench.stats import Interval
from mdmbench.store import baseline, keep_baseline

SCHEMA = 1
AGAIN = "write it with mdmbench bench --update"

Outcome = Literal["passes", "fails", "cannot tell"]


@dataclass(frozen=True)
class Gate:
    """One ratio of one row; `limit` is what it may come to."""

    name: str
    ratio: str
    was: float
    now: Interval
    limit: float

    @property
    def outcome(self) -> Outcome:
        """Only where the whole interval lies on one side of the limit can the rounds tell."""
        if RATIOS[self.ratio]:
            inside, outside = self.now.low >= self.limit, self.now.high < self.limit
        else:
            inside, outside = self.now.high <= self.limit, self.now.low > self.limit
        return "passes" if inside else "fails" if outside else "cannot tell"

    @property
    def told(self) -> str:
        middle, low, high = (f"{value:.3g}" for value in self.now)
        now = f"{middle} [{low}, {high}], {self.was:.3g} in the baseline"
        return f"{self.name}: {self.ratio} {now}, limit {self.limit:.3g}: {self.outcome}"


def code(gates: Sequence[Gate]) -> int:
    """The exit code: 1 where a gate fails, 3 where one cannot tell."""
    outcomes = {gate.outcome for gate in gates}
    return 1 if "fails" in outcomes else 3 if "cannot tell" in outcomes else 0


def write(path: Path, setting: Setting, rows: Sequence[Row]) -> None:
    """Raises UserError where the file cannot be written."""
    content = {"schema": SCHEMA, "setting": settings(setting), "rows": list(map(_ratios, rows))}
    keep_baseline(path, content, indent=1)


def settings(setting: Setting) -> dict[str, Any]:
    """As JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(vars(setting)))
    return found


def _ratios(row: Row) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in RATIOS}
    return {
        "name": _name(row),
        **{name: value and value._asdict() for name, value in values.items()},
    }


def _name(row: Row) -> str:
    grown = [] if row.value is None else [f"at {row.value}"]
    return " ".join([row.name, f"batch {row.batch_size}", *grown])


def read(path: Path, setting: Setting) -> list[dict[str, Any]]:
    """A baseline's rows. Raises UserError for a file that is none, or one of other settings."""
    found = baseline(path, SCHEMA, ["setting", "rows"], AGAIN)
    was, now = found["setting"], settings(setting)
    rows = found["rows"]
    if not isinstance(was, dict) or not isinstance(rows, list) or not all(map(_whole, rows)):
        raise UserError(f"{path} is no whole baseline file", AGAIN)
    for name in {**was, **now}:
        if was.get(name) != now.get(name):
            raise UserError(
                f"{name} is {was.get(name)!r} in the baseline and {now.get(name)!r} now",
                "measure with the same settings, or write the baseline anew with --update",
            )
    return rows


def _whole(row: Any) -> bool:
    """Whether it is what `write` writes of a row."""
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return False
    values = (row.get(ratio) for ratio in RATIOS)
    return all(
        value is None or (isinstance(value, dict) and isinstance(value.get("value"), float | int))
        for value in values
    )


def gates(old: Sequence[dict[str, Any]], rows: Sequence[Row], rise: float) -> list[Gate]:
    """Every ratio that both have; it may be worse by the share `rise`.

    Raises UserError where the baseline's rows are others.
    """
    names = [row["name"] for row in old], list(map(_name, rows))
    if names[0] != names[1]:
        raise UserError(f"the baseline has rows {names[0]}, and now they are {names[1]}", AGAIN)
    found = []
    for was, row in zip(old, rows, strict=True):
        for ratio, up in RATIOS.items():
            now = getattr(row, ratio)
            if now is None or was.get(ratio) is None:
                continue
            value = was[ratio]["value"]
            limit = value / (1 + rise) if up else value * (1 + rise)
            found.append(Gate(was["name"], ratio, value, now, limit))
    return found


def rise(text: str) -> float:
    """`25%` as a share. Raises UserError for anything else."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not text.endswith("%") or not 0 <= share < float("inf"):
        raise UserError(f"max-rise is {text!r}", "write for example 25%")
    return share
