"""The command line. Each command imports what it needs, so that help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer
from typer.core import TyperGroup

from mdmbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

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
    int | None,
    typer.Option(min=1, help="Examples at a time; changes no answer. Default: 64, texts 8."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document as the last line.")]
Timed = Annotated[bool, typer.Option(help="Say nothing of time: for a busy machine.")]
Points = Annotated[
    float | None,
    typer.Option(min=0.01, max=100, help="Say which speed-up loses no more points of the score."),
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
    limit: Limit = None,
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
    batch_size: BatchSize = None,
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    device: Device = "auto",
    out: Out = Path("results"),
    baseline: Annotated[
        bool, typer.Option(help="Also run top-1 with the same proxy, to compare with.")
    ] = True,
    json: Json = False,
) -> None:
    """Decode a task's examples with one sampler or several, and compare them with top-1."""
    from mdmbench import bundled, job, models, runner, spec

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
    written = spec.recipe(bundled.config(config)) if config else spec.Recipe({})
    specs = spec.plan(written.settings, given)
    if baseline:
        specs = spec.distinct([*map(job.baseline, specs), *specs])
    with progress() as observer:
        bench = runner.Runner(
            out,
            limit=limit or written.limit,
            batch_size=batch_size,
            device=models.device(device),
            observer=observer,
            sandbox=lambda: boxed(sandbox, i_know),
        )
        done = bench.run(specs)
    tabulate(done, Format.json if json else Format.rich)


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled recipe.")],
    limit: Limit = None,
    margin: Points = 1.0,
    until: Annotated[
        Literal["decided"] | None,
        typer.Option(help="decided: stop a run once its loss is shown within or beyond --margin."),
    ] = None,
    batch_size: BatchSize = None,
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    device: Device = "auto",
    out: Out = Path("results"),
    seconds: Timed = True,
    json: Json = False,
) -> None:
    """Run a grid, the cheap points first, and say which speed-up costs no quality."""
    from mdmbench import bundled, job, models, pace, runner, spec

    written = spec.recipe(bundled.config(recipe))
    specs = spec.plan(written.settings)
    with progress() as observer:
        bench = runner.Runner(
            out,
            limit=limit or written.limit,
            batch_size=batch_size,
            device=models.device(device),
            observer=observer,
            sandbox=lambda: boxed(sandbox, i_know),
            order=runner.shuffled if until else runner.as_given,
        )
        rounds = pace.Sweep(margin / 100 if until and margin else None)
        done = bench.run(spec.distinct([*map(job.baseline, specs), *specs]), rounds)
    tabulate(done, Format.json if json else Format.rich, seconds=seconds, margin=margin)


@app.command("table")
def table_(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders that hold some.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.rich,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    seconds: Timed = True,
    margin: Points = None,
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
    from mdmbench import compare, store, verdict_table

    format = Format.json if json else format
    if format in (Format.latex, Format.csv):
        raise UserError(f"compare writes no {format}", "choose rich, markdown or json")
    pairs = compare.pairs(store.runs([a]), store.runs([b]))
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
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write pictures and a LaTeX table there."),
    ] = None,
) -> None:
    """Write the runs as one HTML page that needs no network: tables, pictures, traces to play."""
    from mdmbench import report, rows, store

    report.check(output)
    folders = runs or [Path("results")]
    there = store.runs(folders)
    found = rows.rows(there)
    if not found:
        raise UserError(f"no records in {', '.join(map(str, folders))}", "run something first")
    if not seconds:
        found = [row.untimed() for row in found]
    for path in report.figures(found, figures) if figures else []:
        typer.echo(path)
    page = report.build(there, found, title, examples)
    report.write(page, output)
    typer.echo(f"{output} {len(page) / 1e6:.2f} MB")


@app.command("check")
def check_(
    config: Annotated[str, typer.Option(help="The recipe of the runs that are gated.")] = "ci",
    baseline: Annotated[
        Path | None, typer.Option(help="Default: results/baselines/RECIPE.json.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline.")] = False,
    max_drop: Annotated[
        list[str] | None,
        typer.Option(help="Loss that passes: solved=1 in points, tpf=2%. Repeatable."),
    ] = None,
    max_rise: Annotated[
        list[str] | None, typer.Option(help="Rise that passes: nfe=2%, seconds=25%. Repeatable.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    gamma: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
    sampler_knob: Annotated[
        list[str] | None, typer.Option("-S", metavar="NAME=VALUE", help="A knob of the sampler.")
    ] = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Keep the runs in this new folder. Default: thrown away.")
    ] = None,
    json: Json = False,
) -> None:
    """Gate a change: exit code 1 where it lost quality or speed beyond chance, 3 where so few
    examples cannot tell."""
    from mdmbench import bundled, check, models, runner, spec, verdict_table

    file = baseline or Path("results/baselines") / f"{Path(config).stem}.json"
    old = [] if update else check.read(file)
    scores = {name for entry in old for name in entry.scores}
    drops, rises = max_drop or [], max_rise or []
    gated = check.limits(drops, rises, sorted(scores))
    written = spec.recipe(bundled.config(config))
    given = {"sampler": sampler, "gamma": gamma, "knobs": pairs(sampler_knob)}
    specs = spec.plan(written.settings, {k: v for k, v in given.items() if v not in (None, {})})
    with kept(out) as folder, progress() as observer:
        bench = runner.Runner(
            folder,
            limit=limit or written.limit,
            batch_size=batch_size,
            device=models.device(device),
            observer=observer,
            sandbox=lambda: boxed(sandbox, i_know),
        )
        new = check.measured(bench.run, specs, check.reference(written.reference))
    if update:
        check.write(file, new)
        typer.echo(f"{file}: {len(new)} runs, {sum(len(entry.ids) for entry in new)} examples")
        return
    checked = check.check(old, new, gated, {text.partition("=")[0] for text in drops})
    console = wide(sys.stderr if json else sys.stdout)
    console.print(verdict_table.rich_gates(checked))
    console.print(verdict_table.GATES, style="dim", markup=False, highlight=False)
    if json:
        print_json(verdict_table.gates_document(checked))
    if checked.code:
        raise typer.Exit(checked.code)


@app.command("noise")
def noise_(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    batch_size: Annotated[str | None, typer.Option(help=f"Examples at a time; {Each}.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help=f"float32, bfloat16 or float16; {Each}.")
    ] = None,
    device: Annotated[str | None, typer.Option(help=f"cpu, cuda or cuda:N; {Each}.")] = None,
    order: Annotated[str | None, typer.Option(help=f"reversed or shuffled; {Each}.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Of the run's examples. Default: all.")
    ] = None,
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    json: Json = False,
) -> None:
    """Make a run again under other numerics. What that alone changes is no progress: later tables
    and comparisons know. Without options: another batch size, and the reversed order."""
    from dataclasses import asdict

    from mdmbench import drift, floor, store, vary

    options = {"batch-size": batch_size, "dtype": dtype, "device": device, "order": order}
    there = store.Run(run)
    wanted = vary.variations(there, {what: listed(text) or [] for what, text in options.items()})
    with progress() as observer:
        box = cache(lambda: boxed(sandbox, i_know))
        vary.make(there, wanted, limit=limit, observer=observer, sandbox=box)
    found = drift.measured(there)
    floor.write(there, found)
    console = wide(sys.stderr if json else sys.stdout)
    console.print(drift.table(there, found))
    console.print(drift.LEGEND, style="dim", markup=False, highlight=False)
    console.print(drift.told(there, found), markup=False, highlight=False)
    if json:
        print_json({"schema": 1, "run": str(run), **asdict(found)})


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


def tabulate(
    only: Mapping[Path, set[str] | None],
    format: Format,
    seconds: bool = True,
    margin: float | None = None,
) -> list[Row]:
    """Prints the rows of run folders, of these of their examples, and with a margin in points what
    speed-up it allows."""
    from mdmbench import frontier, rows, store

    runs = [store.Run(path) for path in only]
    known = rows.read(runs, only)
    found = rows.tabled(runs, known)
    if not found:
        raise UserError(f"no records in {', '.join(map(str, only))}", "run something first")
    if not seconds:
        found = [row.untimed() for row in found]
    if margin is None:
        print_rows(found, format)
        return found
    saved = frontier.savings(found, known, margin / 100)
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
def kept(out: Path | None) -> Iterator[Path]:
    """A folder for runs that have to be made now: a new one, or one that is thrown away."""
    from tempfile import TemporaryDirectory

    if out is None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
    elif out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty", "a check makes its runs anew: name a new folder")
    else:
        yield out


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
