"""Replays in the terminal: one, two side by side, played, or what there is to choose from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mdmbench.base import NEVER
from mdmbench.errors import UserError
from mdmbench.frame import MASK, RAMP, By, Frame, plain
from mdmbench.replay import Replay
from mdmbench.store import Run, nothing

FIRST, LAST = 10, 5
"""Steps that a long list keeps at its ends."""

LISTED = 20
"""Examples that are named where none was asked for."""

LETTERS = 400
"""Of a prompt, a reference or a note."""

TEXT_WIDTH = 50
"""Columns that a text wants when another stands beside it."""

GAP = 3


@dataclass(frozen=True)
class View:
    """A frame for a rich console, with all that is known of its example.

    name   of the run
    brief  the canvas only
    """

    frame: Frame
    name: str
    brief: bool = False

    @property
    def width(self) -> int:
        """Columns that it wants when another stands beside it."""
        if self.frame.grid is None:
            return TEXT_WIDTH
        return max(map(len, self.frame.canvas().plain.splitlines()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        frame, replay = self.frame, self.frame.replay
        yield Text(plain(f"{replay.id}  {self.name}"), "bold")
        if self.brief:
            yield from self._planes()
            return
        scores = [f"{name} {value:.3g}" for name, value in replay.scores.items()]
        yield Text(", ".join([*map(plain, scores), f"NFE {replay.nfe}"]))
        if replay.prompt:
            yield Text(f"\n{shortened(replay.prompt, end=True)}", "dim")
        if replay.committed_at:
            yield from self._planes()
            yield legend(frame, colored=bool(console.color_system) and not console.no_color)
            yield mistakes(frame)
            yield steps(frame)
        else:
            why = replay.notes.get("unasked", "its record holds none")
            yield Text(f"\nno trace: {plain(why)}\n")
        if replay.target and replay.grid is None:
            yield Text.assemble(("reference\n", "dim"), shortened(replay.target))
        notes = {name: note for name, note in replay.notes.items() if name != "unasked"}
        for name, note in notes.items():
            yield Text(f"{plain(name)}: {shortened(' '.join(note.split()))}", "dim")

    def _planes(self) -> RenderResult:
        """The canvas and, where there is one and room for it, the numbers beside it."""
        frame = self.frame
        when = "in the end" if frame.step is None else f"after step {frame.step} of {frame.last}"
        if frame.step == NEVER:
            when = "before the first step"
        parts = [Text.assemble((f"{when}\n", "dim"), frame.canvas())]
        numbers = frame.numbers()
        if numbers is not None and not self.brief:
            parts.append(Text.assemble((f"{frame.by}\n", "dim"), numbers))
        for part in parts:
            part.no_wrap, part.overflow = frame.grid is not None, "ellipsis"
        yield Padding(Columns(parts, padding=(0, GAP)), (1, 0))


@dataclass(frozen=True)
class Beside:
    """Views side by side where there is room, else one below the other."""

    views: Sequence[View]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = (options.max_width + GAP) // len(self.views) - GAP
        if len(self.views) == 1 or any(view.width > width for view in self.views):
            for i, view in enumerate(self.views):
                yield from [Text()] * (i > 0)
                yield view
            return
        table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for _ in self.views:
            table.add_column(width=width)
        table.add_row(*self.views)
        yield table


def views(runs: Sequence[Run], found: Sequence[Replay], by: By, step: int | None) -> list[View]:
    """One a run. A run that took fewer steps than another is shown as it was in the end.

    Raises UserError where a record has not kept what colours it, or no run has the step.
    """
    for run, replay in zip(runs, found, strict=True):
        if len(Frame(replay, by).values) < len(replay.symbols):
            raise UserError(f"{run.path} has kept no {by}", "use --by step, or run it again")
    frames = [Frame(replay, by) for replay in found]
    last = max(frame.last for frame in frames)
    if step is not None and step > last:
        hint = f"its last step is {last}" if last != NEVER else "its record has no trace"
        raise UserError(f"{found[0].id} has no step {step}", hint)
    return [
        View(
            frame if step is None else replace(frame, step=min(step, frame.last)),
            run.path.resolve().name,
        )
        for run, frame in zip(runs, frames, strict=True)
    ]


def listing(run: Run) -> Group:
    """The first examples of a run with the score to quote and NFE, and how to go on.

    Raises UserError where it has none.
    """
    records = list(islice(run.records(), LISTED + 1))
    if not records:
        raise nothing(run)
    headline = run.spec.get("headline", "")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("example", overflow="fold")
    for header in (plain(headline), "NFE"):
        table.add_column(Text(header), justify="right")
    for record in records[:LISTED]:
        score = record.scores.get(headline)
        nfe = "unasked" if "unasked" in record.notes else str(record.nfe)
        table.add_row(Text(plain(record.id)), "-" if score is None else f"{score:.3g}", nfe)
    more = "and more; " * (len(records) > LISTED)
    hint = f"\n{more}to see one: mdmbench show {run.path} {records[0].id}"
    return Group(table, Text(plain(hint), overflow="fold"))


def legend(frame: Frame, colored: bool) -> Text:
    """What colours and signs stand for, those that are there."""
    low, high = frame.range
    digits = ".0f" if frame.by == "step" else ".2g"
    ramp = [("  ", style) for style in RAMP]
    scale = [(f"{frame.by} {low:{digits}} ", "dim"), *ramp, (f" {high:{digits}}  ", "dim")]
    return Text.assemble(*scale * colored, (", ".join(frame.signs()), "dim"))


def mistakes(frame: Frame) -> Text:
    """Where the end is not the reference."""
    symbols = frame.replay.symbols
    found = [
        f"{frame.place(i)} {plain(symbols[i]) or MASK} for {plain(right)}"
        for i, right in frame.wrong.items()
    ]
    filled = sum(at != NEVER for at in frame.replay.committed_at)
    text = f"{len(found)} of {filled} differ from the reference: {', '.join(found)}"
    return Text(f"{text}\n" * bool(found), no_wrap=True, overflow="ellipsis")


def steps(frame: Frame) -> Text:
    """What was filled, a line a step up to the one shown; the middle of a long list is left out."""
    replay = frame.replay
    filled = [i for i, at in enumerate(replay.committed_at) if at != NEVER]
    order = sorted(filled, key=lambda i: replay.committed_at[i])
    lines = []
    for step, group in groupby(order, key=lambda i: replay.committed_at[i]):
        at = list(group)
        spent = [replay.entropy[i] for i in at] if replay.entropy else []
        bound = f"{sum(spent) - max(spent):.3f}" if spent else "-"
        if frame.step is None or step <= frame.step:
            names = " ".join(map(frame.named, at))
            lines.append(f"{step:4}  {len(at):6}  {bound:>10}  {names}")
    folded = len(lines) - FIRST - LAST
    if folded > 1:
        lines[FIRST:-LAST] = [f" ...  {folded} steps more"]
    text = Text("step  filled  bound nats  where\n", "dim", no_wrap=True, overflow="ellipsis")
    return text.append("\n".join(lines) + "\n", "not dim")


def shortened(text: str, *, end: bool = False) -> str:
    """Its beginning, or its end, fit for the terminal."""
    text = plain(text.strip())
    if len(text) <= LETTERS:
        return text
    return f"... {text[-LETTERS:].lstrip()}" if end else f"{text[:LETTERS].rstrip()} ..."


def play(console: Console, views: Sequence[View], delay: float) -> None:
    """Every frame, one after another, in the same place. Raises UserError off a terminal."""
    if not console.is_terminal:
        raise UserError("--play needs a terminal", "--step N shows the canvas after one step")
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for step in range(NEVER, max(view.frame.last for view in views) + 1):
            shown = [
                replace(v, frame=replace(v.frame, step=min(step, v.frame.last)), brief=True)
                for v in views
            ]
            live.update(Beside(shown), refresh=True)
            time.sleep(delay)


def document(views: Sequence[View]) -> dict[str, Any]:
    """The replays, to be written as JSON."""
    found = [{"run": view.name, **asdict(view.frame.replay)} for view in views]
    return {"schema": 1, "replays": found}
