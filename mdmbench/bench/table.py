"""What `mdmbench bench` measured, as JSON, Markdown, CSV and a terminal table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from mdmbench.bench.end_to_end import Whole
from mdmbench.bench.measure import Row
from mdmbench.stats import Interval
from mdmbench.table import markdown_table

if TYPE_CHECKING:
    from rich.table import Table

LEGEND = (
    "ms: of a step. Share: (sampler + host) / model. Over floor: seconds over those of the same "
    "forwards and nothing else. Speed-up: the textbook loop's seconds an example over ours. Reads: "
    "a step, of the device by the host. Slots: share that held an example, and while one waited. "
    "Padded: share of positions. Memory: weights and what is added to them, and that over the "
    "floor's. [low, high] is the 95 % interval over rounds."
)


class Column(NamedTuple):
    header: str
    cell: Callable[[Row], str]


def _number(value: float | None, form: str = "{:.3g}", factor: float = 1) -> str:
    return "-" if value is None else form.format(factor * value)


def _interval(value: Interval | None, form: str = "{:.2f}", factor: float = 1) -> str:
    if value is None:
        return "-"
    middle, low, high = (form.format(factor * v) for v in value)
    return f"{middle} [{low}, {high}]"


def _parts(row: Row) -> str:
    return "/".join(f"{part:.3g}" for part in (row.ms.model, row.ms.sampler, row.ms.host))


def _slots(row: Row) -> str:
    waiting = row.occupancy_waiting
    return f"{100 * row.occupancy:.0f}" + ("" if waiting is None else f" ({100 * waiting:.0f})")


def _memory(row: Row) -> str:
    if row.peak is None or not row.floor_peak:
        return "-"
    return f"{row.peak / 1e6:.0f} ({row.peak / row.floor_peak:.2f}x)"


COLUMNS = (
    Column("batch", lambda r: f"{r.batch_size}"),
    Column("steps", lambda r: f"{r.steps}"),
    Column("ms model/ sampler/host", _parts),
    Column("floor ms", lambda r: _number(r.floor_ms)),
    Column("textbook ms", lambda r: _number(r.textbook_ms)),
    Column("share %", lambda r: _interval(r.share, "{:.1f}", 100)),
    Column("over floor", lambda r: _interval(r.over_floor)),
    Column("speed-up textbook", lambda r: _interval(r.speedup)),
    Column("same %", lambda r: _number(r.same_tokens, "{:.0f}", 100)),
    Column("examples /s", lambda r: _number(r.per_second)),
    Column("reads", lambda r: _number(r.host_reads, "{:.2f}")),
    Column("slots %", _slots),
    Column("padded %", lambda r: _number(r.padding, "{:.1f}", 100)),
    Column("memory MB", _memory),
)


def document(
    environment: dict[str, Any], setting: dict[str, Any], rows: Sequence[Row]
) -> dict[str, Any]:
    """What `--json` prints, in the units of `Row`."""
    found = list(map(_plain, rows))
    return {"schema": 1, "environment": environment, "setting": setting, "rows": found}


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row).items()
    return {k: v._asdict() if isinstance(v, Interval) else v for k, v in values}


def csv(rows: Sequence[Row]) -> str:
    """The document's rows with a column for each number: `share.low`."""
    import pandas as pd

    return pd.json_normalize(list(map(_plain, rows))).to_csv(index=False)


def markdown(rows: Sequence[Row], axis: str | None) -> str:
    return markdown_table(lines(rows, axis))


def lines(rows: Sequence[Row], axis: str | None) -> list[list[str]]:
    """Header and rows as plain text; columns that say nothing are left out."""
    grown = Column(axis or "", lambda r: _number(r.value, "{}"))
    first = [] if axis in (None, "batch") else [grown]
    columns = [c for c in (*first, *COLUMNS) if any(c.cell(row) != "-" for row in rows)]
    body = [[row.name, *(column.cell(row) for column in columns)] for row in rows]
    return [["sampler", *(column.header for column in columns)], *body]


def whole(found: Whole) -> list[list[str]]:
    """Header and row of a whole command."""
    times = (found.wall, found.decode, 100 * found.overhead, found.start)
    head = ["run", "examples", "wall s", "decode s", "beyond %", "first step after s"]
    return [head, ["eb, topk k=1", f"{found.examples}", *(f"{value:.2f}" for value in times)]]


def rich_table(lines: Sequence[Sequence[str]]) -> Table:
    """Of header and rows; intervals stand below their values."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    head, *body = ([cell.replace(" ", "\n", 1) for cell in rest] for _, *rest in lines)
    table.add_column(lines[0][0])
    for name in head:
        table.add_column(name, justify="right", no_wrap=True)
    for (name, *_), cells in zip(lines[1:], body, strict=True):
        table.add_row(*map(Text, [name, *cells]))
    return table
