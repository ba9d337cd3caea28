"""The command in which the harness measures itself: bench."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdmbench.cli.guard import app
from mdmbench.cli.options import Device, Json, ModelKnobs, listed, pairs
from mdmbench.cli.output import print_json, progress, wide
from mdmbench.errors import UserError

if TYPE_CHECKING:
    from mdmbench.bench.gate import Gate
    from mdmbench.bench.measure import Row
    from mdmbench.bench.setting import Setting

BASELINE = Path("results/baselines/bench.json")
EXAMPLES = 500
"""Of --end-to-end."""
WHOLE = ("end_to_end", "limit", "device", "batch_size", "json")
"""Options that it goes with."""


class TableFormat(StrEnum):
    rich = "rich"
    markdown = "markdown"
    csv = "csv"


@app.command()
def bench(
    context: typer.Context,
    shape: Annotated[
        str | None,
        typer.Option(help="Random weights: llada-8b, dream-7b or tiny-vocab126k."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A bundled model, a folder, or a hub id. Default: sudoku.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Default: the model's own.")] = None,
    sampler: Annotated[
        str, typer.Option(help="Rules by name, with commas between them, or all.")
    ] = "topk,eb",
    k: Annotated[str | None, typer.Option(help="topk: positions a step.")] = None,
    sampler_knob: Annotated[
        list[str] | None, typer.Option("-S", metavar="NAME=VALUE", help="A knob of the samplers.")
    ] = None,
    model_knob: ModelKnobs = None,
    batch_size: Annotated[
        str | None,
        typer.Option(help="One or several, with commas. Default: as for run; for shapes 1,8."),
    ] = None,
    prompt_length: Annotated[
        int | None, typer.Option(min=0, help="Tokens of a shape's prompt. Default: 64.")
    ] = None,
    gen_length: Annotated[
        int | None, typer.Option(min=1, help="Answer tokens. Default: 256, or the task's.")
    ] = None,
    block_length: Annotated[
        int | None, typer.Option(min=1, help="Positions of a block. Default: 32 for shapes.")
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(min=1, help="Fill only the first N blocks: the same steps, but fewer."),
    ] = None,
    answer: Annotated[
        int | None, typer.Option(min=1, help="The answer ends after N tokens, where ours stops.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Examples a round. Default: one batch; --end-to-end 500."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Measurements of each; 3 at least.")] = 5,
    textbook: Annotated[
        bool, typer.Option("--textbook", help="Also the loop as papers print it: slow.")
    ] = False,
    cache: Annotated[
        str | None, typer.Option(help="none, prefix, dual, dkv, dllm or exact; with commas, each.")
    ] = None,
    cache_knob: Annotated[
        list[str] | None, typer.Option("-C", metavar="NAME=VALUE", help="A knob of the cache.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16. Shapes: by the device.")
    ] = None,
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as torch decides.")] = 0,
    grow: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS[=N,N,...]",
            help="A curve over length, batch, vocabulary or size; fills one block by default.",
        ),
    ] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Instead: a whole `mdmbench run`, and its start.")
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="Hold the ratios against this file.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help=f"Write the ratios to --baseline, or {BASELINE}.")
    ] = False,
    max_rise: Annotated[str, typer.Option(help="How much worse than the baseline passes.")] = "25%",
    format: Annotated[TableFormat, typer.Option(help="Of the table.")] = TableFormat.rich,
    json: Json = False,
) -> None:
    """Measure the harness: its loop beside the bare forwards, and the loop as papers print it.

    Exit code 1 where a ratio is worse than the baseline's by more than --max-rise, 3 where the
    rounds cannot tell.
    """
    from mdmbench.bench import gate as bench_gate
    from mdmbench.bench import setting as bench_setting

    if end_to_end:
        for name in context.params:
            source = context.get_parameter_source(name)
            if source and source.name == "COMMANDLINE" and name not in WHOLE:
                option = "--" + name.replace("_", "-")
                raise UserError(f"--end-to-end and {option}", "it runs the Sudokus: leave it out")
        _end_to_end(limit or EXAMPLES, device, batch_size, json)
        return
    if rounds < bench_setting.FEWEST:
        raise UserError(f"rounds is {rounds}", f"an interval needs {bench_setting.FEWEST}")
    rise = bench_gate.rise(max_rise)
    axis, points = _axis(grow)
    setting = bench_setting.resolved(
        bench_setting.Setting(
            shape=shape,
            model=model,
            task=task,
            samplers=tuple(listed(sampler) or ()),
            knobs=({} if k is None else {"k": k}) | pairs(sampler_knob),
            model_knobs=pairs(model_knob),
            batch_sizes=_numbers("batch-size", batch_size),
            prompt_length=prompt_length,
            gen_length=gen_length,
            block_length=block_length,
            blocks=blocks,
            answer=answer,
            limit=limit,
            textbook=textbook,
            caches=tuple(listed(cache) or ()),
            cache_knobs=pairs(cache_knob),
            dtype=dtype,
            device=device,
            axis=axis,
            points=points,
        )
    )
    held = baseline is not None and not update
    old = bench_gate.read(baseline, setting) if baseline and held else []
    rows = _measured(setting, rounds, threads)
    _print(setting, rows, format, json)
    if update:
        file = baseline or BASELINE
        bench_gate.write(file, setting, rows)
        typer.echo(f"{file}: {len(rows)} rows", err=json)
    if held:
        _gate(bench_gate.gates(old, rows, rise), json)


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    found = listed(text) or []
    for part in found:
        if not part.isdecimal() or int(part) < 1:
            raise UserError(f"{option} is {part!r}", "it is a number, or several with commas")
    return tuple(map(int, found))


def _axis(grow: str | None) -> tuple[str | None, tuple[int, ...]]:
    """`length=64,128`: the axis and its points."""
    if grow is None:
        return None, ()
    axis, equals, points = grow.partition("=")
    return axis, _numbers("grow", points) if equals else ()


def _measured(setting: Setting, rounds: int, threads: int) -> list[Row]:
    from functools import partial

    import torch

    from mdmbench.bench import cases as bench_cases
    from mdmbench.bench import measure

    if threads:
        torch.set_num_threads(threads)
    with progress() as observer:
        # A curve's next model is made when the last one is gone.
        measured = partial(measure.measure, rounds=rounds, observer=observer)
        return list(map(measured, bench_cases.cases(setting)))


def _print(setting: Setting, rows: list[Row], format: TableFormat, json: bool) -> None:
    import torch

    from mdmbench import environment
    from mdmbench.bench import gate as bench_gate
    from mdmbench.bench import table as bench_table

    if format is TableFormat.markdown:
        typer.echo(bench_table.markdown(rows, setting.axis).rstrip("\n"))
    elif format is TableFormat.csv:
        typer.echo(bench_table.csv(rows).rstrip("\n"))
    else:
        console = wide(sys.stderr if json else sys.stdout)
        console.print(bench_table.rich_table(bench_table.lines(rows, setting.axis)))
        console.print(bench_table.LEGEND, style="dim", markup=False, highlight=False)
    if json:
        where = environment.describe(torch.device(setting.device))
        print_json(bench_table.document(where, bench_gate.settings(setting), rows))


def _gate(gates: list[Gate], json: bool) -> None:
    """Says how each ratio does, and exits with 1 or 3 where not all of them pass."""
    from mdmbench.bench import gate as bench_gate

    for gate in gates:
        typer.echo(gate.told, err=json)
    if code := bench_gate.code(gates):
        raise typer.Exit(code)


def _end_to_end(examples: int, device: str, batch_size: str | None, json: bool) -> None:
    from dataclasses import asdict

    from mdmbench import environment, models
    from mdmbench.bench import end_to_end
    from mdmbench.bench import table as bench_table

    where = models.device(device)
    options = ["--device", device, *(["--batch-size", batch_size] if batch_size else [])]
    found = end_to_end.measured(examples, options)
    console = wide(sys.stderr if json else sys.stdout)
    console.print(bench_table.rich_table(bench_table.whole(found)))
    if json:
        document = {"schema": 1, "environment": environment.describe(where)}
        print_json({**document, "setting": {"examples": examples}, "rows": [asdict(found)]})
