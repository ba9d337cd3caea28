"""Commands around a run: list, doctor, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdmbench.cli.guard import app
from mdmbench.cli.options import ModelKnobs, Out, pairs
from mdmbench.cli.output import progress


@app.command("list")
def list_(out: Out = Path("results")) -> None:
    """List samplers with their knobs, tasks, models, recipes, and the runs under --out."""
    from mdmbench import listing

    for line in listing.lines(out):
        typer.echo(line)


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
