"""Rows as JSON, CSV, Markdown, LaTeX and terminal tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mdmbench.rows import Row, grouped, label, title
from mdmbench.stats import Interval

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

LEGEND = (
    "[low, high] is the 95 % interval. Speed-up: the baseline's mean / the row's, on the examples "
    "both have (seconds: decoded at the same batch size). Baselines come first, dimmed; a row's "
    "own is the one with its proxy, if there is one."
)

INSIDE = "~"
"""Before a value that is no farther from its baseline's than numerics alone move it."""
NOTE = f"{INSIDE}: no farther from the baseline than numerics alone move it (mdmbench noise)."


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """What `--json` prints, in the units of `Row`; an infinite knob is a string."""
    names = [f.name for f in fields(Row) if f.name not in ("group", "headline", "inside")]
    return {"schema": 1, "rows": [{k: _plain(getattr(row, k)) for k in names} for row in rows]}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value._asdict()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Path) or (isinstance(value, float) and not isfinite(value)):
        return str(value)
    return value


def csv(rows: Sequence[Row]) -> str:
    """The document's rows with a column for each number that some row has: `speedup.nfe.low`."""
    import pandas as pd

    table = pd.DataFrame([dict(_flat("", row)) for row in document(rows)["rows"]], dtype=object)
    names = [f.name for f in fields(Row)]
    ordered = sorted(table.columns, key=lambda column: names.index(column.partition(".")[0]))
    return table[ordered].to_csv(index=False)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else key, inner)
    elif value is not None:
        yield name, value


class Cell(NamedTuple):
    text: str
    interval: str = ""


class Column(NamedTuple):
    """`measure` is what of a row's may be `inside` its noise floor."""

    header: str
    cell: Callable[[Row], Cell]
    measure: str = ""

    def marked(self, row: Row) -> Cell:
        cell = self.cell(row)
        inside = self.measure in row.inside
        return cell._replace(text=INSIDE + cell.text) if inside else cell


def _cell(value: Interval | float | None, form: str, factor: float = 1, unit: str = "") -> Cell:
    if value is None:
        return Cell("-")
    if not isinstance(value, Interval):
        return Cell(form.format(factor * value) + unit)
    middle, low, high = (form.format(factor * v) for v in value)
    return Cell(middle + unit, f"[{low}, {high}]" if value.low < value.high else "")


def _split(row: Row) -> Cell:
    """The parts of the decode seconds, in per cent."""
    whole = row.seconds["decode"]
    parts = [row.seconds[part] for part in ("model", "sampler", "host")]
    return Cell("/".join(f"{100 * (p or 0) / whole:.0f}" for p in parts) if whole else "-")


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Those that some row has a value for, the most wanted first: a narrow terminal shows fewer."""
    headline = rows[0].headline
    columns = [
        Column(f"{headline}\n%", lambda r: _cell(r.accuracy, "{:.1f}", 100), headline),
        Column("NFE", lambda r: _cell(r.nfe, "{:.1f}")),
        Column("speed-up\nNFE", lambda r: _cell(r.speedup["nfe"], "{:.1f}", unit="x"), "nfe"),
        Column("speed-up\nseconds", lambda r: _cell(r.speedup["seconds"], "{:.1f}", unit="x")),
        Column("TPF", lambda r: _cell(r.tpf, "{:.2f}")),
        Column("decode\ns", lambda r: _cell(r.seconds["decode"], "{:.3g}")),
        Column("model/\nsampler/\nhost %", _split),
        Column("forward\ntokens", lambda r: _cell(r.forward_tokens, "{:.0f}")),
        Column("forced\n%", lambda r: _cell(r.forced, "{:.1f}", 100)),
        Column("bound\nnats", lambda r: _cell(r.bound_spent, "{:.2f}")),
    ]
    others = sorted({name for row in rows for name in row.scores} - {headline})
    columns += [Column(f"{name}\n%", partial(_score, name=name), name) for name in others]
    return [c for c in columns if any(c.cell(row) != Cell("-") for row in rows)]


def _score(row: Row, name: str) -> Cell:
    return _cell(row.scores.get(name), "{:.1f}", 100)


def _flat_header(column: Column) -> str:
    return column.header.replace("/\n", "/").replace("\n", " ")


def _lines(group: Sequence[Row]) -> list[list[str]]:
    """Header and rows as plain text."""
    columns = columns_of(group)
    head = [_flat_header(column) for column in columns]
    marks = {True: " (baseline)", False: ""}
    body = [
        [label(r) + marks[r.baseline], *(" ".join(filter(None, c.marked(r))) for c in columns)]
        for r in group
    ]
    return [["sampler", *head], *body]


def _noted(group: Sequence[Row], columns: Sequence[Column]) -> bool:
    """Whether a value is marked."""
    return any(column.measure in row.inside for row in group for column in columns)


def markdown(rows: Sequence[Row]) -> str:
    """A table a group under its title."""
    return "\n".join(map(_markdown, grouped(rows)))


def _markdown(group: Sequence[Row]) -> str:
    note = f"\n{NOTE}\n" * _noted(group, columns_of(group))
    return f"**{title(group)}**\n\n{markdown_table(_lines(group))}{note}"


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Of header and rows; the first column is the one with words."""
    head, *body = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))


_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{GREEK SMALL LETTER GAMMA}": r"$\gamma$",
}


def latex(rows: Sequence[Row]) -> str:
    """A booktabs `tabular` a group; its title is a comment above it."""
    return "\n".join(map(_latex, grouped(rows)))


def _latex(group: Sequence[Row]) -> str:
    escapes = str.maketrans(_ESCAPES)
    head, *body = (
        " & ".join(cell.translate(escapes) for cell in line) + r" \\" for line in _lines(group)
    )
    columns = "l" + "r" * head.replace(r"\&", "").count("&")
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
    notes = [f"% {title(group)}", *[f"% {NOTE}"] * _noted(group, columns_of(group))]
    return "\n".join([*notes, *lines, r"\bottomrule", r"\end{tabular}", ""])


class _Fitting:
    """Tables that show as many columns as the terminal has room for."""

    def __init__(self, groups: list[list[Row]]) -> None:
        self.groups = groups

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        rows = [row for group in self.groups for row in group]
        heads = [_flat_header(column) for column in columns_of(rows)] if rows else []
        layouts = [(len(heads), True), *((count, False) for count in range(len(heads), 2, -1))]
        for count, wide in layouts:
            tables = [_rich(group, count, wide) for group in self.groups]
            widths = [console.measure(t, options=options.update(width=1000)) for t in tables]
            if max((width.maximum for width in widths), default=0) <= options.max_width:
                break
        yield from tables
        noted = any(_noted(group, columns_of(group)[:count]) for group in self.groups)
        missing = f" Not shown, for want of room: {', '.join(heads[count:])}."
        yield Text(LEGEND + f" {NOTE}" * noted + missing * (count < len(heads)), style="dim")


def _rich(group: Sequence[Row], count: int, wide: bool) -> Table:
    """The first `count` columns; intervals beside the values, or below them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = columns_of(group)[:count]
    gap, space = (" ", 1) if wide else ("\n", 0)
    table = Table(title=title(group), title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, space, 0, 0)
    table.add_column("sampler", max_width=32 if wide else 18)
    for column in columns:
        table.add_column(column.header, justify="right", no_wrap=True)
    for i, row in enumerate(group):
        cells = [column.marked(row) for column in columns]
        styles = ["dim" if column.measure in row.inside else "" for column in columns]
        texts = [
            Text(c.text, style).append(gap + c.interval if c.interval else "", "dim")
            for c, style in zip(cells, styles, strict=True)
        ]
        last = row.baseline and not group[min(i + 1, len(group) - 1)].baseline
        table.add_row(label(row), *texts, style="dim" if row.baseline else "", end_section=last)
    return table


def rich_table(rows: Sequence[Row]) -> _Fitting:
    """For a rich console: a table a group, baselines first, and the legend."""
    return _Fitting(grouped(rows))
