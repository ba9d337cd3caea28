"""How commands print, and how they say how far they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from mdmbench.cli.options import Format
from mdmbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mdmbench.base import Observer
    from mdmbench.rows import Row


def tabulate(
    only: Mapping[Path, set[str] | None],
    format: Format,
    seconds: bool = True,
    margin: float | None = None,
    early: bool = False,
) -> list[Row]:
    """Prints the rows of run folders, of these of their examples, and with a margin in points what
    speed-up it allows; `early` says that the runs may have stopped early for what they showed."""
    from mdmbench import frontier, rows, store

    runs = [store.Run(path) for path in only]
    known = rows.read(runs, only)
    found = rows.tabled(runs, known)
    if not found:
        where = ", ".join(map(str, only)) or "these folders"
        raise UserError(f"no records in {where}", "run something first")
    if not seconds:
        found = [row.untimed() for row in found]
    if margin is None:
        print_rows(found, format)
        return found
    saved = frontier.savings(found, known, margin / 100, early)
    print_rows(found, format, frontier.lines(found, saved), frontier.document(found, saved))
    return found


def print_rows(
    rows: list[Row],
    format: Format,
    below: Iterable[str] = (),
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Prints the rows and the lines below them; with JSON all that goes to stderr, and stdout ends
    with the document, which has what is `beside` the rows too."""
    from rich.text import Text

    from mdmbench import table

    text = {Format.markdown: table.markdown, Format.latex: table.latex, Format.csv: table.csv}
    if format in text:
        typer.echo(text[format](rows).rstrip("\n"))
        comment = {Format.markdown: "- ", Format.latex: "% "}
        if format in comment:
            typer.echo("".join(f"\n{comment[format]}{line.strip()}" for line in below), nl=False)
        return
    console = wide(sys.stderr if format is Format.json else sys.stdout)
    console.print(table.rich_table(rows))
    for line in below:
        console.print(Text(line))
    if format is Format.json:
        print_json({**table.document(rows), **(beside or {})})


def print_json(document: Mapping[str, Any]) -> None:
    """The last line of stdout."""
    from json import dumps

    typer.echo(dumps(document, allow_nan=False))


def wide(stream: TextIO) -> Console:
    """A pipe has no width of its own; every column fits in this one."""
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else 170
    return Console(file=stream, width=width)


@contextmanager
def progress() -> Iterator[Observer]:
    """A progress bar on stderr, or nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda label, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        jobs: dict[str, Any] = {}

        def observe(label: str, done: int, total: int) -> None:
            if label not in jobs:
                jobs[label] = bar.add_task(label, total=total)
            bar.update(jobs[label], completed=done)

        yield observe
