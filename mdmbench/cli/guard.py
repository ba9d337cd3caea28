"""The application, and what becomes of a user's mistake."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any

import typer
from typer.core import TyperGroup

from mdmbench.errors import UserError


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
            typer.echo(
                "interrupted; run, sweep, noise and train take up where they stopped", err=True
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Benchmark samplers of masked diffusion models: what they save, and what it costs.",
)
