"""Checks of a sampler's knobs, made when it is built."""

from typing import Any, get_args

from mdmbench.errors import UserError, unknown


def at_least(name: str, value: float | None, low: float) -> None:
    if value is not None and not value >= low:
        raise UserError(f"{name} is {value}", f"it must be at least {low}")
    if isinstance(value, int) and value > 2**31:
        raise UserError(f"{name} is {value}", "no canvas has so many positions")


def one_of(name: str, value: str, literal: Any) -> None:
    if value not in get_args(literal):
        raise unknown(name, value, get_args(literal))
