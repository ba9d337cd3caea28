"""Options that several commands have, and how their values are read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mdmbench.errors import UserError

if TYPE_CHECKING:
    from mdmbench.scoring.sandbox import Sandbox


class Format(StrEnum):
    rich = "rich"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


Many = "one value, or several with commas between them: each is run"
Each = "one value, or several with commas between them: each is a variation"
Out = Annotated[Path, typer.Option(help="Folder of the run folders.")]
ModelKnobs = Annotated[
    list[str] | None,
    typer.Option("-M", metavar="NAME=VALUE", help="Of the model: revision, quant, mask_id, ..."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Examples. Default: 200; a data file is read whole.")
]
BatchSize = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Examples at a time; changes no answer. auto: as many as fit into memory. "
        "Default: texts 8; puzzles 16, or 64 on a GPU.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the model first: pays in runs of many minutes.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line.")]
Timed = Annotated[
    bool, typer.Option(help="--no-seconds says nothing of time: for a machine that was busy.")
]
Points = typer.Option(min=0.01, max=99, help="Say which speed-up loses no more points of a score.")
SandboxName = Literal["auto", "bwrap", "landlock", "none"]
SandboxOption = Annotated[SandboxName, typer.Option(help="What holds generated programs.")]
IKnow = Annotated[bool, typer.Option("--i-know", help="With --sandbox none: nothing holds them.")]


def listed(text: str | None) -> list[str] | None:
    """The values of an option that takes several."""
    return None if text is None else [part.strip() for part in text.split(",")]


def rows(text: str | None) -> int | Literal["auto"] | None:
    """What --batch-size says."""
    if text is None or text == "auto":
        return None if text is None else "auto"
    if not text.isdecimal() or not int(text):
        raise UserError(f"batch size {text!r}", "it is a number of examples, at least 1, or auto")
    return int(text)


def pairs(texts: list[str] | None) -> dict[str, str]:
    """`name=value` arguments."""
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"{text!r} is no NAME=VALUE", "write for example -S gamma=0.1")
        found[name] = value
    return found


def boxed(name: SandboxName, trusted: bool) -> Sandbox:
    """The sandbox of that name; what it does not hold is said on stderr."""
    from mdmbench.scoring import sandbox

    found, warnings = sandbox.find(name, trusted=trusted)
    for warning in warnings:
        warn(warning)
    return found


def warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)
