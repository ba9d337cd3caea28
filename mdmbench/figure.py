"""A picture of the trade: what rules cost in accuracy for what they save in model calls."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdmbench.errors import UserError
from mdmbench.rows import Row, grouped, parts, rule, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = "osD^vPX<"
"""Okabe and Ito's colours, which colour-blind readers can tell apart; markers for grey prints."""

UNDATED: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
"""Formats, and what is left out of their metadata: the same rows must give the same bytes."""


def pareto(rows: Sequence[Row], path: Path) -> None:
    """Writes headline score (%, 95 % bars) against mean NFE: a line a rule, a panel a group.

    Raises UserError for a type of file it cannot write, and where there is nothing to draw.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in UNDATED:
        raise UserError(f"cannot draw {path.name}", "name the picture .svg, .png or .pdf")
    groups = grouped(row for row in rows if row.accuracy and row.nfe and row.nfe.value)
    if not groups:
        raise UserError("no run to draw", "a run needs records with scores")
    from matplotlib import style
    from matplotlib.figure import Figure

    # The user's own matplotlibrc must not change the picture.
    with style.context(["default", {"svg.hashsalt": "mdmbench", "font.size": 9}]):
        figure = Figure(figsize=(7 * len(groups), 4), layout="constrained")
        axes = figure.subplots(1, len(groups), squeeze=False)[0]
        for panel, group in zip(axes, groups, strict=True):
            _panel(panel, group)
        try:
            figure.savefig(path, format=kind, dpi=200, metadata=UNDATED[kind])
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None


def _panel(axes: Axes, group: Sequence[Row]) -> None:
    from matplotlib.ticker import NullLocator, ScalarFormatter

    # From one power of two to another, with room around the points: there are always two ticks.
    calls = [_point(row)[0] for row in group]
    axes.set_xscale("log", base=2)
    axes.set_xlim(2 ** floor(log2(min(calls) / 1.1)), 2 ** ceil(log2(max(calls) * 1.1)))
    for i, name in enumerate(dict.fromkeys(map(rule, group))):
        _curve(axes, name, [row for row in group if rule(row) == name], i)
    points = [_point(row)[:2] for row in group if row.baseline]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, 130, facecolors="none", edgecolors="black", zorder=4, label="baseline")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("NFE: model calls an example (mean, log scale)")
    axes.set_ylabel(f"{group[0].headline} (%, 95 % interval)")
    axes.set_title(title(group), fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _point(row: Row) -> tuple[float, float, float, float]:
    """NFE; score, and how far its interval reaches down and up, per cent."""
    assert row.accuracy and row.nfe
    value, low, high = (100 * v for v in row.accuracy)
    return row.nfe.value, value, value - low, high - value


def _curve(axes: Axes, name: str, rows: Sequence[Row], i: int) -> None:
    """The i-th line, with its rows' numbers above the points or, every other line, below them."""
    color, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
    x, y, down, up = zip(*sorted(map(_point, rows)), strict=True)
    line = axes.errorbar(x, y, (down, up), label=name, color=color, linewidth=1.3, elinewidth=0.7)
    line[0].set(marker=marker, markersize=5)
    for row in rows:
        axes.annotate(
            "" if row.baseline else " ".join(parts(row)[1]),
            _point(row)[:2],
            (3, -10 if i % 2 else 5),
            textcoords="offset points",
            fontsize=6.5,
            color=color,
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "#ffffffb0", "edgecolor": "none"},
            zorder=5,
        )
