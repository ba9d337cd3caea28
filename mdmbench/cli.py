"""The command line. Each command imports what it needs, so that help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from mdmbench.errors import UserError

if TYPE_CHECKING:
    from mdmbench.base import Observer
    from mdmbench.rows import Row
    from mdmbench.scoring.sandbox import Sandbox


class Guarded(TyperGroup):
    """Turns a user's mistake into one message and exit code 2, an interruption into 130."""

    def invoke(self, ctx: Any) -> Any:
        # Threads that wait by spinning slow a busy machine down tenfold, and those that sleep at
        # once an idle one by a quarter: spin for some microseconds. Read when torch loads.
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error.message}", err=True)
            if error.hint:
                typer.echo(f"  {error.hint}", err=True)
            raise typer.Exit(2) from None
        except OSError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command takes up where it stopped", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Benchmark samplers of masked diffusion models: what they save, and what it costs.",
)


class Format(StrEnum):
    rich = "rich"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


Many = "one value, or several with commas between them: each is run"
Out = Annotated[Path, typer.Option(help="Folder of the run folders.")]
ModelKnobs = Annotated[
    list[str] | None,
    typer.Option("-M", metavar="NAME=VALUE", help="Of the model: revision, quant, mask_id, ..."),
]
SandboxName = Literal["auto", "bwrap", "landlock", "none"]
SandboxOption = Annotated[SandboxName, typer.Option(help="What holds generated programs.")]
IKnow = Annotated[bool, typer.Option("--i-know", help="With --sandbox none: nothing holds them.")]


@app.command()
def run(
    config: Annotated[
        str | None, typer.Option(help="A recipe: a YAML file, or the name of a bundled one.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A bundled model, a folder, or a hub id. Default: the task's own."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="A task by name, or FILE.py:NAME. Default: sudoku.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help=f"A rule by name, or FILE.py:NAME; {Many}. Default: eb.")
    ] = None,
    gamma: Annotated[str | None, typer.Option(help=f"eb: the bound, nats; {Many}.")] = None,
    k: Annotated[str | None, typer.Option(help=f"topk: positions a step; {Many}.")] = None,
    threshold: Annotated[
        str | None, typer.Option(help=f"threshold, entropy-threshold: the bar; {Many}.")
    ] = None,
    factor: Annotated[str | None, typer.Option(help=f"factor: the factor; {Many}.")] = None,
    proxy: Annotated[
        str | None, typer.Option(help=f"topk, eb: confidence, entropy or margin; {Many}.")
    ] = None,
    sampler_knob: Annotated[
        list[str] | None, typer.Option("-S", metavar="NAME=VALUE", help="A knob of the sampler.")
    ] = None,
    task_knob: Annotated[
        list[str] | None, typer.Option("-T", metavar="NAME=VALUE", help="A knob of the task.")
    ] = None,
    model_knob: ModelKnobs = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Examples. Default: 200; a data file is read whole.")
    ] = None,
    gen_length: Annotated[
        int | None, typer.Option(help="Answer tokens of a text task. Default: the task's.")
    ] = None,
    chat: Annotated[
        bool | None, typer.Option(help="Use the chat template. Default: the task's.")
    ] = None,
    pad_to: Annotated[
        str | None, typer.Option(help="Let masks follow the answer up to this length, or max.")
    ] = None,
    eos: Annotated[
        str | None, typer.Option(help="free; never: EOS is not written; last: it comes last.")
    ] = None,
    cfg: Annotated[
        float | None, typer.Option(help="Scale of classifier-free guidance: two forwards a step.")
    ] = None,
    block_length: Annotated[
        int | None, typer.Option(help="Fill the answer in blocks of this many positions.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Forwards that a schedule spreads the answer over.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="linear, cosine, dream or ancestral; for counting rules.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest mass.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the likeliest tokens.")] = None,
    scores: Annotated[
        str | None, typer.Option(help="Score the raw distribution, or the filtered one.")
    ] = None,
    stop: Annotated[
        str | None, typer.Option(help="full: fill the canvas; until: stop at the answer's end.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of puzzles and noise.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples at a time; changes no answer. Default: 64, texts 8."),
    ] = None,
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Out = Path("results"),
    baseline: Annotated[
        bool, typer.Option(help="Also run top-1 with the same proxy, to compare with.")
    ] = True,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document as the last line.")
    ] = False,
) -> None:
    """Decode a task's examples with one sampler or several, and compare them with top-1."""
    from mdmbench import bundled, job, models, rows, runner, spec, store

    settings = {
        "model": model,
        "task": task,
        "gen_length": gen_length,
        "chat": chat,
        "pad_to": pad_to,
        "eos": eos,
        "cfg": cfg,
        "model_knobs": pairs(model_knob),
        "sampler": listed(sampler),
        "block_length": block_length,
        "steps": steps,
        "schedule": schedule,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "scores": scores,
        "stop": stop,
        "seed": seed,
        "dtype": dtype,
        "gamma": listed(gamma),
        "k": listed(k),
        "threshold": listed(threshold),
        "factor": listed(factor),
        "proxy": listed(proxy),
        "knobs": {name: listed(value) for name, value in pairs(sampler_knob).items()},
        "task_knobs": pairs(task_knob),
    }
    given = {name: value for name, value in settings.items() if value not in (None, {})}
    written = spec.recipe(bundled.config(config)) if config else {}
    usual = written.pop("limit", None)
    specs = spec.plan(written, given)
    if baseline:
        specs = spec.distinct([*map(job.baseline, specs), *specs])
    with progress() as observer:
        bench = runner.Runner(
            out,
            limit=limit or usual,
            batch_size=batch_size,
            device=models.device(device),
            observer=observer,
            sandbox=lambda: boxed(sandbox, i_know),
        )
        done = bench.run(specs)
    found = rows.rows([store.Run(path) for path in done], done)
    show(found, Format.json if json else Format.rich)


@app.command("table")
def table_(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders that hold some.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.rich,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    seconds: Annotated[
        bool, typer.Option(help="Say nothing of time: for runs made on a busy machine.")
    ] = True,
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
    there = store.runs(folders)
    found = rows.split(there, by) if by else rows.rows(there)
    if not found:
        raise UserError(f"no records in {', '.join(map(str, folders))}", "run something first")
    if not seconds:
        found = [row.untimed() for row in found]
    if figure:
        drawing.pareto(found, figure)
    show(found, Format.json if json else format)


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


@app.command()
def doctor(
    model: Annotated[str, typer.Option(help="A bundled model, a folder, or a hub id.")],
    model_knob: ModelKnobs = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. Default: the model's.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Say what a model is, whether it would load, what it needs, and what its authors used."""
    from mdmbench import doctor

    for line in doctor.lines(model, pairs(model_knob), dtype, device):
        typer.echo(line)


@app.command("list")
def list_(out: Out = Path("results")) -> None:
    """List samplers with their knobs, tasks, models, recipes, and the runs under --out."""
    from mdmbench import listing

    for line in listing.lines(out):
        typer.echo(line)


@app.command()
def train(
    task: Annotated[str, typer.Option(help="What it learns: sudoku, maze, arithmetic.")],
    out: Annotated[Path, typer.Option(help="Folder of the model, its card and checkpoints.")],
    task_knob: Annotated[
        list[str] | None, typer.Option("-T", metavar="NAME=VALUE", help="A knob of the task.")
    ] = None,
    test_knob: Annotated[
        list[str] | None,
        typer.Option("-E", metavar="NAME=VALUE", help="A task knob of the held-out examples only."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 10_000,
    batch_size: Annotated[int, typer.Option(min=8, help="Examples a step.")] = 64,
    puzzles: Annotated[
        int, typer.Option(min=0, help="Examples to draw from; 0: fresh ones at every step.")
    ] = 0,
    learning_rate: Annotated[
        float, typer.Option(help="AdamW, after 200 steps of warm-up.")
    ] = 1.5e-3,
    width: Annotated[int, typer.Option(help="Of the residual stream.")] = 128,
    layers: Annotated[int, typer.Option(help="Blocks with weights of their own.")] = 3,
    loops: Annotated[int, typer.Option(help="Times that the blocks are run.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    evaluate_every: Annotated[
        int, typer.Option(min=1, help="Steps between held-out scores.")
    ] = 500,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(help="Of weights, examples and masks.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch decides.")] = 0,
) -> None:
    """Train a small model by masked diffusion; the same command takes up where it stopped."""
    from mdmbench import training

    recipe = training.Recipe(
        task=task,
        task_knobs=pairs(task_knob),
        test_knobs=pairs(test_knob),
        steps=steps,
        batch_size=batch_size,
        puzzles=puzzles,
        learning_rate=learning_rate,
        width=width,
        layers=layers,
        loops=loops,
        heads=heads,
        evaluate_every=evaluate_every,
        seed=seed,
    )
    with progress() as observer:
        training.train(
            recipe, out, device, threads=threads, save_every=checkpoint_every, observer=observer
        )


def boxed(name: SandboxName, trusted: bool) -> Sandbox:
    """The sandbox of that name; what it does not hold is said on stderr."""
    from mdmbench.scoring import sandbox

    found, warnings = sandbox.find(name, trusted=trusted)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    return found


def listed(text: str | None) -> list[str] | None:
    """The values of an option that takes several."""
    return None if text is None else [part.strip() for part in text.split(",")]


def pairs(texts: list[str] | None) -> dict[str, str]:
    """`name=value` arguments."""
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"{text!r} is no NAME=VALUE", "write for example -S gamma=0.1")
        found[name] = value
    return found


def show(rows: list[Row], format: Format) -> None:
    """Prints the rows; with JSON the table goes to stderr and stdout ends with the document."""
    from rich.console import Console

    from mdmbench import table

    text = {
        Format.markdown: table.markdown,
        Format.latex: table.latex,
        Format.csv: table.csv,
        Format.json: table.as_json,
    }
    if format in (Format.rich, Format.json):
        stream = sys.stderr if format is Format.json else sys.stdout
        # A pipe has no width of its own; every column fits in this one.
        width = None if stream.isatty() or "COLUMNS" in os.environ else 170
        Console(file=stream, width=width).print(table.rich_table(rows))
    if format in text:
        typer.echo(text[format](rows).rstrip("\n"))


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
