"""Runs as rows, and rows as JSON, CSV, Markdown, LaTeX and terminal tables. Reads records only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mdmbench.spec import RunSpec
from mdmbench.stats import Interval, mean, ratio, resampled
from mdmbench.store import Record, Run

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

Baseline = Callable[[Run, Sequence[Run]], Run | None]
"""Picks a run's baseline among the runs of its group; the run itself if it is one."""

RULE = ("schedule", "steps", "scores")
"""Loop settings that belong to the rule: runs that differ in them are compared with each other."""

LEGEND = (
    "[low, high] is the 95 % interval. Speed-up: the baseline's mean / the row's, on the examples "
    "both have (seconds: decoded at the same batch size). Baselines come first, dimmed; a row's "
    "own is the one with its proxy, if there is one."
)


@dataclass(frozen=True)
class Row:
    """One run. None stands for what was not measured.

    group           runs with the same one can be compared: same model, task and loop settings
    settings        loop settings that are not the default
    scores          mean over the examples, in [0, 1]; `headline` names the one to quote
    nfe, nfe_until  mean forwards an example; until the end, all of them where the answer has none
    speedup         of `nfe` and of decode `seconds`: baseline / this run, on common examples
    tpf, tpf_tail   answer positions a forward, without and with the tail behind the answer's end
    forward_tokens  mean positions an example that went through the model
    forced          share of the filled positions
    bound_spent     mean nats an example
    seconds         mean an example: decode, and its parts model, sampler and host
    """

    group: str
    headline: str
    model: str
    task: str
    task_knobs: dict[str, Any]
    settings: dict[str, Any]
    sampler: str
    knobs: dict[str, Any]
    n: int
    scores: dict[str, Interval | None]
    nfe: Interval | None
    nfe_until: Interval | None
    speedup: dict[str, Interval | None]
    tpf: float | None
    tpf_tail: float | None
    forward_tokens: float | None
    forced: float | None
    bound_spent: float | None
    seconds: dict[str, float | None]
    baseline: bool
    run: Path

    @property
    def accuracy(self) -> Interval | None:
        """The score to quote."""
        return self.scores.get(self.headline)


def rows(runs: Sequence[Run], baseline: Baseline | None = None) -> list[Row]:
    """A row for each run that has records: by group, baselines first, then by rule and numbers."""
    choose = baseline or top1
    records: dict[Path, dict[str, Record]] = {}
    groups: dict[str, list[Run]] = {}
    for path, run in sorted({run.path: run for run in runs}.items()):
        # By id: a resampled interval must not depend on the order in which examples finished.
        records[path] = {r.id: r for r in sorted(run.records(), key=lambda r: r.id)}
        if records[path]:
            groups.setdefault(_group(run), []).append(run)
    found = []
    for group, members in groups.items():
        for run in members:
            other = choose(run, members)
            old = records[other.path] if other else {}
            found.append(_row(run, group, records[run.path], old, other is run))
    return sorted(found, key=_order)


def top1(run: Run, group: Sequence[Run]) -> Run | None:
    """One position a step: by the run's proxy (confidence if it has none), else by any."""
    if _is_top1(run):
        return run
    known = [other for other in group if _is_top1(other)]
    proxy = run.spec["settings"]["knobs"].get("proxy", "confidence")
    same = [other for other in known if other.spec["settings"]["knobs"].get("proxy") == proxy]
    return next(iter(same + known), None)


def _is_top1(run: Run) -> bool:
    settings = run.spec["settings"]
    knobs = settings["knobs"]
    greedy = knobs.get("k") in (None, 1) and not knobs.get("alg_temp")
    return settings["sampler"] == "topk" and greedy and settings["schedule"] is None


def _group(run: Run) -> str:
    """What two runs must share to be compared, the content of model and task included."""
    settings = run.spec["settings"]
    shared = {k: v for k, v in settings.items() if k not in ("sampler", "knobs", *RULE)}
    named = [settings["task"], *map(str, settings["task_knobs"].values())]
    kept = {str(Path(name.rpartition(":")[0] or name)) for name in named}
    files = {k: v for k, v in run.spec.get("files", {}).items() if k in kept}
    content = [run.spec.get("model_digest"), run.spec.get("task_version"), files]
    return json.dumps([settings["model"], settings["task"], shared, content], sort_keys=True)


def _row(
    run: Run, group: str, own: Mapping[str, Record], old: Mapping[str, Record], baseline: bool
) -> Row:
    settings, records = run.spec["settings"], list(own.values())
    n, forwards = len(records), sum(r.nfe for r in records)
    filled = sum(r.filled for r in records)
    ends = any(r.nfe_until is not None for r in records)
    until = [r.nfe if r.nfe_until is None else r.nfe_until for r in records if ends]
    names = sorted({name for r in records for name in r.scores})
    return Row(
        group=group,
        headline=run.spec["headline"],
        model=settings["model"],
        task=settings["task"],
        task_knobs=settings["task_knobs"],
        settings=_changed(settings),
        sampler=settings["sampler"],
        knobs=settings["knobs"],
        n=n,
        scores={k: _interval(mean, (r.scores[k] for r in records if k in r.scores)) for k in names},
        nfe=_interval(resampled, (r.nfe for r in records)),
        nfe_until=_interval(resampled, until),
        speedup=_speedup(old, own),
        tpf=_per(sum(r.length for r in records), forwards),
        tpf_tail=_per(filled, forwards),
        forward_tokens=_per(sum(r.forward_tokens for r in records), n),
        forced=_per(sum(r.forced for r in records), filled),
        bound_spent=_per(sum(r.bound_spent for r in records), n),
        seconds=_seconds(records),
        baseline=baseline,
        run=run.path,
    )


def _changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the loop's settings; "raw" is what the default of `scores` is resolved to."""
    shown = ("model", "task", "sampler", "knobs", "task_knobs")
    defaults = {k: f.default for k, f in RunSpec.model_fields.items() if k not in shown}
    defaults["scores"] = "raw"
    return {k: settings[k] for k, v in defaults.items() if settings[k] != v}


def _interval(of: Callable[[list[float]], Interval], values: Iterable[float]) -> Interval | None:
    measured = [v for v in values if isfinite(v)]
    return of(measured) if measured else None


def _per(total: float, count: int) -> float | None:
    return total / count if count and isfinite(total) else None


def _seconds(records: Sequence[Record]) -> dict[str, float | None]:
    """A clock that stands at 0 was not running."""
    timed = [r.seconds for r in records if r.seconds.decode]
    parts = ("decode", "model", "sampler", "host")
    return {part: _per(sum(getattr(s, part) for s in timed), len(timed)) for part in parts}


def _speedup(old: Mapping[str, Record], new: Mapping[str, Record]) -> dict[str, Interval | None]:
    pairs = [(old[id], record) for id, record in new.items() if id in old]
    timed = [(a.seconds.decode, b.seconds.decode) for a, b in pairs if a.batch_size == b.batch_size]
    timed = [(a, b) for a, b in timed if a and b]
    return {"nfe": _ratio([(a.nfe, b.nfe) for a, b in pairs]), "seconds": _ratio(timed)}


def _ratio(pairs: Sequence[tuple[float, float]]) -> Interval | None:
    return ratio([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def parts(row: Row) -> tuple[str, list[str], list[str]]:
    """Of a label: the sampler's name, the numbers, and the words."""
    name = row.sampler.rpartition(":")[2]
    numbers, words = [], []
    for knob, value in row.knobs.items():
        if value is None or value is False or (knob, value) == ("alg_temp", 0):
            continue
        if isinstance(value, int | float) and value is not True:
            short = "\N{GREEK SMALL LETTER GAMMA}" if knob == "gamma" else knob
            numbers.append(f"{value:g}" if knob in name.split("-") else f"{short}={value:g}")
        else:
            words.append(knob if value is True else str(value))
    if "steps" in row.settings:
        numbers.append(f"{row.settings['steps']} steps")
    words += [row.settings[k] for k in ("schedule", "scores") if k in row.settings]
    return name, numbers, words


def label(row: Row) -> str:
    """The rule and its numbers in a few words."""
    name, numbers, words = parts(row)
    return " ".join([name, *numbers, *words])


def rule(row: Row) -> str:
    """The label without its numbers: rows that share it are points of one curve."""
    name, _, words = parts(row)
    return " ".join([name, *words])


def _order(row: Row) -> tuple[Any, ...]:
    values = [*row.knobs.values(), row.settings.get("steps")]
    numbers = [v if isinstance(v, int | float) else -inf for v in values]
    return row.group, not row.baseline, row.sampler, rule(row), numbers, row.run


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    return [list(members) for _, members in groupby(rows, key=lambda row: row.group)]


def title(rows: Sequence[Row]) -> str:
    """Of a group: model, task, examples a row, and whatever was set."""
    first, counts = rows[0], sorted({row.n for row in rows})
    n = "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    shared = {k: v for k, v in first.settings.items() if k not in RULE}
    extra = [f"{k}={v}" for k, v in {**first.task_knobs, **shared}.items() if v]
    return " \N{MIDDLE DOT} ".join([first.model, first.task, f"n={n}", *extra])


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """What `--json` prints, in the units of `Row`; an infinite knob is a string."""
    names = [f.name for f in fields(Row) if f.name not in ("group", "headline")]
    return {"schema": 1, "rows": [{k: _plain(getattr(row, k)) for k in names} for row in rows]}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return value._asdict()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, Path) or (isinstance(value, float) and not isfinite(value)):
        return str(value)
    return value


def as_json(rows: Sequence[Row]) -> str:
    """The document in one line."""
    return json.dumps(document(rows), allow_nan=False)


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
    header: str
    cell: Callable[[Row], Cell]


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


def _columns(headline: str) -> list[Column]:
    """The most wanted first: a narrow terminal shows as many as fit."""
    return [
        Column(f"{headline}\n%", lambda r: _cell(r.accuracy, "{:.1f}", 100)),
        Column("NFE", lambda r: _cell(r.nfe, "{:.1f}")),
        Column("speed-up\nNFE", lambda r: _cell(r.speedup["nfe"], "{:.1f}", unit="x")),
        Column("speed-up\nseconds", lambda r: _cell(r.speedup["seconds"], "{:.1f}", unit="x")),
        Column("TPF", lambda r: _cell(r.tpf, "{:.2f}")),
        Column("decode\ns", lambda r: _cell(r.seconds["decode"], "{:.3g}")),
        Column("model/\nsampler/\nhost %", _split),
        Column("forward\ntokens", lambda r: _cell(r.forward_tokens, "{:.0f}")),
        Column("forced\n%", lambda r: _cell(r.forced, "{:.1f}", 100)),
        Column("bound\nnats", lambda r: _cell(r.bound_spent, "{:.2f}")),
    ]


def _flat_header(column: Column) -> str:
    return column.header.replace("/\n", "/").replace("\n", " ")


def _lines(group: Sequence[Row]) -> list[list[str]]:
    """Header and rows as plain text."""
    columns = _columns(group[0].headline)
    head = [_flat_header(column) for column in columns]
    marks = {True: " (baseline)", False: ""}
    body = [
        [label(r) + marks[r.baseline], *(" ".join(filter(None, c.cell(r))) for c in columns)]
        for r in group
    ]
    return [["sampler", *head], *body]


def markdown(rows: Sequence[Row]) -> str:
    """A table a group under its title."""
    return "\n".join(map(_markdown, grouped(rows)))


def _markdown(group: Sequence[Row]) -> str:
    head, *body = ([cell.replace("|", r"\|") for cell in line] for line in _lines(group))
    rule = [":--", *["--:"] * (len(head) - 1)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *body))
    return f"**{title(group)}**\n\n{table}"


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
    return "\n".join([f"% {title(group)}", *lines, r"\bottomrule", r"\end{tabular}", ""])


class _Fitting:
    """Tables that show as many columns as the terminal has room for."""

    def __init__(self, groups: list[list[Row]]) -> None:
        self.groups = groups

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        heads = [_flat_header(column) for column in _columns("score")]
        layouts = [(len(heads), True), *((count, False) for count in range(len(heads), 2, -1))]
        for count, wide in layouts:
            tables = [_rich(group, count, wide) for group in self.groups]
            widths = [console.measure(t, options=options.update(width=1000)) for t in tables]
            if max((width.maximum for width in widths), default=0) <= options.max_width:
                break
        yield from tables
        missing = f" Not shown, for want of room: {', '.join(heads[count:])}."
        yield Text(LEGEND + missing * (count < len(heads)), style="dim")


def _rich(group: Sequence[Row], count: int, wide: bool) -> Table:
    """The first `count` columns; intervals beside the values, or below them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = _columns(group[0].headline)[:count]
    gap, space = (" ", 1) if wide else ("\n", 0)
    table = Table(title=title(group), title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, space, 0, 0)
    table.add_column("sampler", max_width=32 if wide else 18)
    for column in columns:
        table.add_column(column.header, justify="right", no_wrap=True)
    for i, row in enumerate(group):
        cells = [column.cell(row) for column in columns]
        texts = [Text(c.text).append(gap + c.interval if c.interval else "", "dim") for c in cells]
        last = row.baseline and not group[min(i + 1, len(group) - 1)].baseline
        table.add_row(label(row), *texts, style="dim" if row.baseline else "", end_section=last)
    return table


def rich_table(rows: Sequence[Row]) -> _Fitting:
    """For a rich console: a table a group, baselines first, and the legend."""
    return _Fitting(grouped(rows))
