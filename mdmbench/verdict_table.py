"""Comparisons as JSON, Markdown and terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from mdmbench.check import Checked, Gate
from mdmbench.compare import Comparison
from mdmbench.stats import Interval
from mdmbench.table import markdown_table
from mdmbench.verdicts import Mark, Measure, Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

SIGNS = {
    Mark.better: "+",
    Mark.worse: "-",
    Mark.same: "=",
    Mark.undecided: "?",
    Mark.incomparable: "x",
}
STYLES = {Mark.better: "green", Mark.worse: "bold red", Mark.undecided: "yellow"}
LEGEND = (
    "[low, high] is the 95 % interval; p is corrected for all rows together (Holm). better, worse: "
    "p < 0.05, and of seconds a change of more than 25 %, as machines drift between runs; "
    "same: the whole interval lies within the margin; undecided: neither. Shows: the "
    "smallest change that so many examples bring to light four times in five."
)
OUTCOMES = {"passes": "green", "too few": "yellow", "fails": "bold red"}
GATES = (
    "fails: worse with p < 0.05 (one-sided, corrected for all gates together) and by more than the "
    "limit. Too few: a loss of the limit is not excluded, and so many examples would not show it. "
    "seconds: of the rule over the reference rule's, both measured in this run."
)
HEAD = ("measure", "n", "A", "B", "change", "p", "margin", "shows", "mark")


def document(comparison: Comparison) -> dict[str, Any]:
    """What `--json` prints; shares and ratios, not per cent."""
    return {
        "a": str(comparison.runs[0].path),
        "b": str(comparison.runs[1].path),
        "n": comparison.n,
        "alone": list(comparison.alone),
        "verdicts": [plain(verdict) for verdict in comparison.verdicts],
        "lost": comparison.lost,
        "gained": comparison.gained,
        "differences": [
            {"name": d.name, "a": d.one, "b": d.other, "matters": d.matters.name}
            for d in comparison.differences
        ],
    }


def plain(verdict: Verdict) -> dict[str, Any]:
    test = verdict.test
    intervals = {"a": verdict.before, "b": verdict.after, "change": test and test.change}
    return {
        "measure": verdict.measure.name,
        "mark": verdict.mark.value,
        "n": verdict.n,
        **{k: v._asdict() if v else None for k, v in intervals.items()},
        "p": verdict.p,
        "margin": verdict.measure.margin,
        "detectable": test.detectable if test and isfinite(test.detectable) else None,
        "why": verdict.why,
    }


def cells(verdict: Verdict) -> list[str]:
    """A verdict under HEAD."""
    measure, test, mark = verdict.measure, verdict.test, verdict.mark
    change, shows = ("-", "-") if test is None else (_change(measure, test.change), "")
    if test and mark not in (Mark.better, Mark.worse):
        shows = _size(measure, test.detectable)
    said = f"{SIGNS[mark]} {mark}" + (f": {verdict.why}" if verdict.why else "")
    return [
        measure.name,
        str(verdict.n),
        _value(measure, verdict.before),
        _value(measure, verdict.after),
        change,
        "-" if verdict.p is None else _p(verdict.p),
        _size(measure, measure.margin),
        shows,
        said,
    ]


def _value(measure: Measure, value: Interval | None) -> str:
    if value is None:
        return "-"
    middle, low, high = (f"{100 * v:.1f}" if measure.score else number(v) for v in value)
    unit = " %" if measure.score else ""
    return f"{middle}{unit} [{low}, {high}]" if low != high else f"{middle}{unit}"


def number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _change(measure: Measure, change: Interval) -> str:
    """In points of a score; of a cost in per cent, or as a factor where that is easier to read."""
    unit = "" if measure.score else " %"
    if measure.score:
        middle, low, high = (signed(100 * v) for v in change)
    elif 0.5 <= change.value <= 2:
        middle, low, high = (signed(100 * (v - 1)) for v in change)
    else:
        unit = "x"
        middle, low, high = map(number, change)
    return f"{middle}{unit} [{low}, {high}]" if low != high else f"{middle}{unit}"


def signed(value: float) -> str:
    """Without the sign of a zero."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _size(measure: Measure, share: float) -> str:
    if not isfinite(share):
        return "-"
    return f"{round(100 * share, 6):.3g}" + ("" if measure.score else " %")


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _below(comparison: Comparison, most: int) -> list[str]:
    """What stands under the table."""
    lines = [
        f"{count} more examples are in {name} alone"
        for name, count in zip("AB", comparison.alone, strict=True)
        if count
    ]
    for word, ids in (("lost", comparison.lost), ("gained", comparison.gained)):
        if ids:
            more = f" and {len(ids) - most} more" if ids[most:] else ""
            shown = f": {', '.join(ids[:most])}{more}" if most else ""
            lines.append(f"{len(ids)} of {comparison.n} {word} {comparison.headline}{shown}")
    lines += [f"{d.name}: {d.one!r} / {d.other!r} ({d.matters})" for d in comparison.differences]
    return lines


def title(comparison: Comparison) -> str:
    return f"A {comparison.names[0]} \N{MIDDLE DOT} B {comparison.names[1]}"


def markdown(comparison: Comparison, most: int) -> str:
    """The table, and below it at most `most` flips each way and the settings that differ."""
    lines = [list(HEAD), *map(cells, comparison.verdicts)]
    below = "".join(f"- {line}\n" for line in _below(comparison, most))
    return f"**{title(comparison)}**\n\n{markdown_table(lines)}" + (f"\n{below}" if below else "")


def rich(comparison: Comparison, most: int) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.text import Text

    below = [Text(line) for line in _below(comparison, most)]
    return Group(rich_verdicts(title(comparison), comparison.verdicts), *below)


def rich_gates(checked: Checked) -> RenderableType:
    """The gates, failures last, where they are seen, and settings that are not the baseline's."""
    from rich.console import Group
    from rich.text import Text

    gates = sorted(checked.gates, key=lambda gate: list(OUTCOMES).index(gate.outcome))
    rows = [(gate.name, *cells(gate.verdict)[:-1], _outcome(gate)) for gate in gates]
    names = {"A": "baseline", "B": "now", "margin": "limit"}
    head = ("run", *(names.get(name, name) for name in HEAD[:-1]), "gate")
    below = [
        Text(f"{name}: {d.name}: {d.one!r} in the baseline, {d.other!r} now")
        for name, d in checked.differences
    ]
    return Group(_table("", head, rows, [OUTCOMES[gate.outcome] for gate in gates]), *below)


def _outcome(gate: Gate) -> str:
    verdict = gate.verdict
    if gate.outcome != "too few":
        return gate.outcome
    return f"too few: {verdict.why or f'{verdict.n} examples cannot show it'}"


def gates_document(checked: Checked) -> dict[str, Any]:
    """What `check --json` prints; `code` is the exit code."""
    gates = [
        {"run": gate.name, "outcome": gate.outcome, **plain(gate.verdict)} for gate in checked.gates
    ]
    for gate in gates:
        del gate["mark"]
    differences = [
        {"run": name, "name": d.name, "baseline": d.one, "now": d.other}
        for name, d in checked.differences
    ]
    return {"schema": 1, "code": checked.code, "gates": gates, "differences": differences}


def rich_verdicts(heading: str, verdicts: Sequence[Verdict]) -> RenderableType:
    styles = [STYLES.get(verdict.mark, "") for verdict in verdicts]
    return _table(heading, HEAD, list(map(cells, verdicts)), styles)


def _table(
    heading: str, head: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]
) -> RenderableType:
    """Numbers to the right; the last column, which says what they mean, in its row's style."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(heading) if heading else None
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in head:
        words = name in ("run", "measure", head[-1])
        table.add_column(name, justify="left" if words else "right", no_wrap=name != head[-1])
    for row, style in zip(rows, styles, strict=True):
        *front, last = map(Text, row)
        last.stylize(style)
        table.add_row(*front, last)
    return table
