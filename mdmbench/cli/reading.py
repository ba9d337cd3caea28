"""Commands that read what runs have left: table, compare, report, show, rescore."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import typer

from mdmbench.cli.guard import app
from mdmbench.cli.options import Format, IKnow, Json, Points, SandboxOption, Timed, boxed
from mdmbench.cli.output import print_json, print_rows, progress, tabulate, wide
from mdmbench.errors import UserError


@app.command("table")
def table_(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders that hold some.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.rich,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    seconds: Timed = True,
    margin: Annotated[float | None, Points] = None,
    by: Annotated[
        str | None, typer.Option(help="A table for each value of this: bucket, steps, ...")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw accuracy against NFE: .svg, .png or .pdf.")
    ] = None,
    paper: Annotated[
        str | None, typer.Option(help="A paper's tables with our numbers beside its own: eb.")
    ] = None,
) -> None:
    """Print the runs as one table: a row a setting, speed-ups against top-1."""
    from mdmbench import figure as drawing
    from mdmbench import paper as papers
    from mdmbench import rows, store

    folders = runs or [Path("results")]
    if paper:
        known = [folder for folder in folders if runs or folder.is_dir()]
        lines = papers.beside(paper, rows.rows(store.runs(known)))
        typer.echo(papers.markdown(lines).rstrip("\n"))
        return
    format = Format.json if json else format
    there = store.runs(folders)
    if by:
        found = rows.split(there, by)
        print_rows(found if seconds else [row.untimed() for row in found], format)
    else:
        found = tabulate({run.path: None for run in there}, format, seconds=seconds, margin=margin)
    if figure:
        drawing.pareto(found, figure)


@app.command("compare")
def compare_(
    a: Annotated[Path, typer.Argument(help="A run folder, or a folder that holds some.")],
    b: Annotated[Path, typer.Argument(help="What is compared with it.")],
    margin: Annotated[
        list[str] | None,
        typer.Option(help="How much counts as the same: solved=1 in points, nfe=2%. Repeatable."),
    ] = None,
    flips: Annotated[int, typer.Option(min=0, help="Examples to name each way.")] = 10,
    format: Annotated[Format, typer.Option(help="rich, markdown or json.")] = Format.rich,
    json: Json = False,
) -> None:
    """Say what is better, worse or the same in B, example by example; a mark a measure."""
    from mdmbench import compare, verdict_table

    format = Format.json if json else format
    if format in (Format.latex, Format.csv):
        raise UserError(f"compare writes no {format}", "choose rich, markdown or json")
    pairs, alone = compare.pairs(a, b)
    for run in alone:
        typer.echo(f"{run.path} goes with no run of the other folder", err=True)
    found = [compare.compare(*pair, margin or []) for pair in pairs]
    if format is Format.markdown:
        typer.echo("\n".join(verdict_table.markdown(c, flips) for c in found).rstrip("\n"))
        return
    console = wide(sys.stderr if format is Format.json else sys.stdout)
    for comparison in found:
        console.print(verdict_table.rich(comparison, flips))
    console.print(verdict_table.LEGEND, style="dim", markup=False, highlight=False)
    if format is Format.json:
        print_json({"schema": 1, "comparisons": [verdict_table.document(c) for c in found]})


@app.command("report")
def report_(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders that hold some.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")
    ] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Its heading. Default: names the tasks.")] = "",
    examples: Annotated[
        int, typer.Option(min=0, help="Examples of a group that can be played, if they fit.")
    ] = 50,
    seconds: Timed = True,
    margin: Annotated[float, Points] = 1.0,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write pictures and a LaTeX table there."),
    ] = None,
) -> None:
    """Write the runs as one HTML page that needs no network: tables, pictures, traces to play."""
    from mdmbench import frontier, report, rows, store

    report.check(output)
    folders = runs or [Path("results")]
    there = store.runs(folders)
    known = rows.read(there)
    found = rows.tabled(there, known)
    if not found:
        raise UserError(f"no records in {', '.join(map(str, folders))}", "run something first")
    if not seconds:
        found = [row.untimed() for row in found]
    for path in report.figures(found, figures) if figures else []:
        typer.echo(path)
    saved = frontier.savings(found, known, margin / 100)
    page = report.build(there, found, saved, title, examples)
    report.write(page, output)
    typer.echo(f"{output} {len(page) / 1e6:.2f} MB")


@app.command("show")
def show_(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    id: Annotated[
        str | None, typer.Argument(help="An example's id, or how it begins or ends.")
    ] = None,
    other: Annotated[
        Path | None, typer.Option("--with", help="Another run's decoding of it, beside this one.")
    ] = None,
    by: Annotated[
        Literal["step", "entropy", "confidence"], typer.Option(help="What the colours say.")
    ] = "step",
    step: Annotated[
        int | None, typer.Option(min=0, help="Show the canvas as it was after this step.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play the steps first.")] = False,
    delay: Annotated[float, typer.Option(min=0, help="Seconds a step is shown.")] = 0.3,
    color: Annotated[bool, typer.Option(help="Colour on a terminal.")] = True,
    json: Json = False,
) -> None:
    """Show how an example was decoded: what stood where after which step. Without ID: which."""
    from mdmbench import replay, show

    console = wide(sys.stderr if json else sys.stdout)
    console.no_color = console.no_color or not color
    runs = [replay.opened(path) for path in (run, other) if path]
    if id is None:
        console.print(show.listing(runs[0]))
        return
    found = [replay.one(there, replay.find(runs[0], id)) for there in runs]
    views = show.views(runs, found, by, step)
    if play:
        show.play(console, views, delay)
    console.print(show.Beside(views))
    if json:
        print_json(show.document(views))


@app.command("rescore")
def rescore_(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold some.")],
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Also a metric of the evaluate library: its name, or a script's path."),
    ] = None,
) -> None:
    """Score stored answers again, without a model; exit code 1 where a score has changed."""
    from mdmbench import rescore, store

    changed = failed = False
    box = cache(lambda: boxed(sandbox, i_know))
    with progress() as observer:
        for run in store.runs(runs):
            try:
                done = rescore.rescore(run, box, observer)
            except UserError as error:
                typer.echo(f"error: {error}", err=True)
                failed = True
                continue
            typer.echo(f"{done.path}: {done.records} answers, {len(done.changed)} scores changed")
            for line in done.changed:
                typer.echo(f"  {line}")
            for name in metric or []:
                for key, value in rescore.measured(run, name).items():
                    typer.echo(f"  {key} {value:.4f}")
            changed = changed or bool(done.changed)
    if failed or changed:
        raise typer.Exit(2 if failed else 1)
