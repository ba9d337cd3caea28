"""Runs as one HTML page that opens from disk and never asks a network for anything.

document.py   what the page says, as one JSON document
tally.py      what it takes from single records: counts, properties, the table of examples
traces.py     the examples that can be played
page.py       how it all becomes one file
page.html, page.css and the scripts  how it looks, and what it does
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from mdmbench import figure, table
from mdmbench.errors import UserError
from mdmbench.frontier import Saving
from mdmbench.report import document, traces
from mdmbench.report.page import page
from mdmbench.rows import Row
from mdmbench.store import Run

LIMIT = 6_000_000
"""Bytes of a page."""

SLACK = 20_000
"""Of them, what is said about the examples besides their traces."""


def build(
    runs: Sequence[Run],
    rows: Sequence[Row],
    savings: Sequence[Saving] = (),
    title: str = "",
    examples: int = 50,
    made: date | None = None,
) -> bytes:
    """The page of these runs, smaller than LIMIT; `rows` are theirs, by `rows.rows`.

    savings   what it says of speed-up at equal quality
    examples  how many of a group can be played; fewer, where the page would grow too large
    made      the date that the page bears, today's when None

    Raises UserError where the rows alone are too many for a page.
    """
    found = document.document(runs, rows, savings, title, made or date.today())
    while (room := LIMIT - SLACK - len(page(found))) < 0:
        if not any(group["examples"]["ids"] for group in found["groups"]):
            raise UserError(
                f"{len(rows)} runs do not fit into a page of {LIMIT / 1e6:g} MB",
                "report fewer at a time",
            )
        for group in found["groups"]:
            document.halve(group["examples"])
    traces.fill(found["groups"], runs, rows, examples, room)
    return page(found)


def figures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes the front as pictures and the rows as a LaTeX table, for a paper; their paths.

    Raises UserError where they cannot be written.
    """
    drawings, text = [folder / "pareto.svg", folder / "pareto.png"], folder / "table.tex"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text.write_text(table.latex(rows), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {text}: {error.strerror}", "choose another folder") from None
    for path in drawings:
        figure.pareto(rows, path)
    return [*drawings, text]


def check(path: Path) -> None:
    """Raises UserError where a page could not be put there, before any work is done."""
    if not path.parent.is_dir():
        raise UserError(f"no folder {path.parent}", "make it, or choose another -o")
    if path.is_dir():
        raise UserError(f"{path} is a folder", "name the file, such as -o report.html")


def write(content: bytes, path: Path) -> None:
    """Puts a page on the disk, whole or not at all.

    Raises UserError where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", "choose another -o") from None
    finally:
        if draft.is_file():
            draft.unlink()
