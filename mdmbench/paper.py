"""A paper's numbers beside our own."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdmbench import bundled
from mdmbench.errors import unknown
from mdmbench.rows import Row
from mdmbench.stats import Interval


@dataclass(frozen=True)
class Published:
    """One line of a paper's table, and the run that measures the same; None: not yet."""

    table: str
    model: str
    task: str
    sampler: str
    gamma: float | None
    proxy: str
    block_length: int | None
    accuracy: float
    nfe: float | None
    nfe_until: float | None
    measured: Row | None = None


def papers() -> dict[str, Path]:
    """The published numbers that ship with the package, by the paper's short name."""
    found = sorted(bundled.CONFIGS.glob("*-paper/published.csv"))
    return {path.parent.name.removesuffix("-paper"): path for path in found}


def beside(name: str, rows: Sequence[Row]) -> list[Published]:
    """Every line of the paper's tables, with the row among `rows` that has its settings."""
    known = papers()
    if name not in known:
        raise unknown("paper", name, known)
    with known[name].open(newline="") as file:
        return [_published(line, rows) for line in csv.DictReader(file)]


def _published(line: dict[str, str], rows: Sequence[Row]) -> Published:
    def number(field: str) -> float | None:
        return float(line[field]) if line[field] else None

    block = int(line["block_length"]) if line["block_length"] else None
    gamma = number("gamma")

    def fits(row: Row) -> bool:
        rule = (row.model, row.task, row.sampler, row.knobs.get("gamma"), row.knobs.get("proxy"))
        same = rule == (line["model"], line["task"], line["sampler"], gamma, line["proxy"])
        canvas = row.settings.get("block_length"), row.settings.get("pad_to")
        asked = row.knobs.get("k") in (None, 1) and row.task_knobs.get("shots") != 0
        asked = asked and "cache" not in row.settings
        return same and asked and canvas == (block, line["pad_to"] or None)

    return Published(
        table=line["table"],
        model=line["model"],
        task=line["task"],
        sampler=line["sampler"],
        gamma=gamma,
        proxy=line["proxy"],
        block_length=block,
        accuracy=float(line["accuracy"]),
        nfe=number("nfe"),
        nfe_until=number("nfe_until"),
        measured=next(filter(fits, rows), None),
    )


def markdown(lines: Sequence[Published]) -> str:
    """A table for each of the paper's: its figure, and ours with the 95 % interval below it."""
    tables = dict.fromkeys(line.table for line in lines)
    return "\n".join(_table([line for line in lines if line.table == t]) for t in tables)


def _table(lines: Sequence[Published]) -> str:
    first = lines[0]
    head = ["sampler", "blocks", "n"]
    head += [f"{what} {whose}" for what in ("%", "NFE", "NFE until") for whose in ("paper", "here")]
    cells = [head, [":--", *["--:"] * (len(head) - 1)], *map(_cells, lines)]
    body = "".join(f"| {' | '.join(row)} |\n" for row in cells)
    return f"**Table {first.table}: {first.model}, {first.task}**\n\n{body}"


def _cells(line: Published) -> list[str]:
    rule = "top-1" if line.gamma is None else f"{line.sampler} {line.gamma:g}"
    row = line.measured
    return [
        f"{rule} {line.proxy}",
        str(line.block_length or "-"),
        str(row.n) if row else "-",
        *_pair(line.accuracy, row.accuracy if row else None, 100),
        *_pair(line.nfe, row.nfe if row else None),
        *_pair(line.nfe_until, row.nfe_until if row else None),
    ]


def _pair(published: float | None, measured: Interval | None, factor: float = 1) -> Iterator[str]:
    yield "-" if published is None else f"{published:.1f}"
    if measured is None:
        yield "-"
    else:
        value, low, high = (f"{factor * v:.1f}" for v in measured)
        yield f"{value} [{low}, {high}]"
