"""Commands that decode: run, sweep, check, noise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mdmbench.cli.guard import app
from mdmbench.cli.options import (
    BatchSize,
    Compile,
    Device,
    Each,
    Format,
    IKnow,
    Json,
    Limit,
    Many,
    ModelKnobs,
    Out,
    Points,
    SandboxName,
    SandboxOption,
    Timed,
    boxed,
    listed,
    pairs,
    rows,
    warn,
)
from mdmbench.cli.output import print_json, progress, tabulate, wide
from mdmbench.errors import UserError

if TYPE_CHECKING:
    from mdmbench.runner import Order, Runner


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
    cache: Annotated[
        str | None,
        typer.Option(
            help="none, prefix, dual, dkv, dllm or exact: what forwards keep of the ones before; "
            f"{Many}. Default: exact where attention is by blocks, else none."
        ),
    ] = None,
    cache_knob: Annotated[
        list[str] | None, typer.Option("-C", metavar="NAME=VALUE", help="A knob of the cache.")
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
    compiled: Compile = False,
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
    from mdmbench import bundled, job, spec

    settings = {
        "model": model,
        "task": task,
        "gen_length": gen_length,
        "chat": chat,
        "pad_to": pad_to,
        "eos": eos,
        "cfg": cfg,
        "cache": listed(cache),
        "cache_knobs": pairs(cache_knob),
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
    count = limit or written.limit
    with benching(out, count, batch_size, device, sandbox, i_know, compiled=compiled) as bench:
        done = dict(bench.run(specs))
    tabulate(done, Format.json if json else Format.rich)


@app.command()
def sweep(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled recipe.")],
    limit: Limit = None,
    margin: Annotated[float, Points] = 1.0,
    until: Annotated[
        Literal["decided"] | None,
        typer.Option(help="decided: stop a run once its loss is shown within or beyond --margin."),
    ] = None,
    batch_size: BatchSize = None,
    compiled: Compile = False,
    sandbox: SandboxOption = "auto",
    i_know: IKnow = False,
    device: Device = "auto",
    out: Out = Path("results"),
    seconds: Timed = True,
    json: Json = False,
) -> None:
    """Run a grid, the cheap points first, and say which speed-up costs no quality."""
    from mdmbench import bundled, job, pace, runner, spec

    written = spec.recipe(bundled.config(recipe))
    specs = spec.plan(written.settings)
    count = limit or written.limit
    mixed = runner.shuffled
    with benching(
        out, count, batch_size, device, sandbox, i_know, mixed, compiled=compiled
    ) as bench:
        rounds = pace.Sweep(margin / 100 if until else None)
        done = dict(bench.run(spec.distinct([*map(job.baseline, specs), *specs]), rounds))
    format = Format.json if json else Format.rich
    tabulate(done, format, seconds=seconds, margin=margin, early=until is not None)


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
    from mdmbench import bundled, check, spec, verdict_table

    file = baseline or Path("results/baselines") / f"{Path(config).stem}.json"
    old = [] if update else check.read(file)
    drops, rises = max_drop or [], max_rise or []
    gated = [] if update else check.limits(drops, rises, check.scores(old))
    written = spec.recipe(bundled.config(config))
    given = {"gamma": gamma, "knobs": pairs(sampler_knob)}
    specs = spec.plan(written.settings, {k: v for k, v in given.items() if v not in (None, {})})
    if not update:
        check.expect(old, specs)
    count = limit or written.limit
    with (
        kept(out) as folder,
        benching(folder, count, batch_size, device, sandbox, i_know) as bench,
    ):
        new = check.measured(bench.run, specs, check.reference(written.reference))
    if update:
        check.write(file, new)
        for entry in new:
            typer.echo(f"{file}: {len(entry.ids)} examples of {check.name(entry)}")
        return
    checked = check.check(old, new, gated, {text.partition("=")[0] for text in drops})
    console = wide(sys.stderr if json else sys.stdout)
    console.print(verdict_table.rich_gates(checked))
    console.print(verdict_table.GATES, style="dim", markup=False, highlight=False)
    if json:
        print_json(verdict_table.gates_document(checked))
    if checked.code:
        raise typer.Exit(checked.code)


@contextmanager
def benching(
    out: Path,
    limit: int | None,
    batch_size: str | None,
    device: str,
    sandbox: SandboxName,
    i_know: bool,
    order: Order | None = None,
    compiled: bool = False,
) -> Iterator[Runner]:
    """What makes runs under `out`, with a progress bar; `order` is the task's unless given."""
    from mdmbench import models, runner

    with progress() as observer:
        yield runner.Runner(
            out,
            limit=limit,
            batch_size=rows(batch_size),
            device=models.device(device),
            observer=observer,
            notice=warn,
            sandbox=lambda: boxed(sandbox, i_know),
            order=order or runner.as_given,
            compiled=compiled,
        )


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
        vary.make(there, wanted, limit=limit, observer=observer, notice=warn, sandbox=box)
    found = drift.measured(there)
    floor.write(there, found)
    console = wide(sys.stderr if json else sys.stdout)
    console.print(drift.table(there, found))
    console.print(drift.LEGEND, style="dim", markup=False, highlight=False)
    console.print(drift.told(there, found), markup=False, highlight=False)
    if json:
        print_json({"schema": 1, "run": str(run), **asdict(found)})
