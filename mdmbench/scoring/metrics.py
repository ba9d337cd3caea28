"""Metrics of the `evaluate` library by name, for a whole run at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

from mdmbench.errors import UserError, reason


def measure(name: str, answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """The numbers that a metric of the hub, or a metric's own script, gives for these answers.

    Raises UserError where it cannot be loaded, or takes something else than texts.
    """
    import evaluate

    try:
        metric = evaluate.load(name)
        if metric is None:
            raise ValueError("the script defines no evaluate.Metric")
        found = metric.compute(predictions=[*answers], references=[*targets])
    except Exception as error:  # a metric is a script, and raises what it likes
        raise UserError(
            f"metric {name} cannot be used: {reason(error)}",
            "give a metric of the hub that compares texts, or the path of a script of your own",
        ) from None
    numbers = found if isinstance(found, Mapping) else {}
    return {str(k): float(v) for k, v in numbers.items() if isinstance(v, Real)}
