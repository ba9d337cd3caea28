"""A run's records as columns: what statistics need of them, without the answers.

Records are read one at a time, so a run may have millions.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from sys import intern
from typing import TYPE_CHECKING, Any

from mdmbench.base import Example, Question
from mdmbench.errors import UserError
from mdmbench.store import Record, Run

if TYPE_CHECKING:
    from pandas import DataFrame, Series

COUNTS = ("nfe", "nfe_until", "length", "filled", "forward_tokens", "forced", "bound_spent")
PARTS = ("model", "sampler", "host")
"""Columns of seconds; `decode` is their sum."""
SCORE = "score."
"""What the columns of scores begin with: a task may call its scores as it likes."""


@dataclass(frozen=True)
class Samples:
    """One entry a record, in the order of their ids.

    numbers  float64 columns COUNTS, PARTS, decode, and SCORE + name for each score; indexed by
             id; NaN where a record has no such value
    example  what each record is a sample of: samples of one example are not independent
    clock    what seconds can be compared with: those of the same clock
    value    of the property that was asked for; None where a record has none
    scores   the scores' names
    """

    numbers: DataFrame
    example: Series[str]
    clock: Series[str]
    value: Series[Any]
    scores: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def only(self, wanted: Any) -> Samples:
        """The entries that a list of ids, or a bool for each entry, picks out."""
        return Samples(
            self.numbers.loc[wanted],
            self.example.loc[wanted],
            self.clock.loc[wanted],
            self.value.loc[wanted],
            self.scores,
        )

    @property
    def measured(self) -> Samples:
        """Without the examples that the model was never asked."""
        return self.only(self.numbers["nfe"] > 0)

    def by_example(self, values: Series[float]) -> Series[float]:
        """The mean over the samples of each example; finite values only."""
        known = values[values.abs() < inf]
        return known.groupby(self.example.loc[known.index]).mean()

    def averaged(self, column: str) -> list[float]:
        """A column's value for each example, in the order of their names."""
        return self.by_example(self.numbers[column]).tolist()


def read(run: Run, by: str = "", only: Container[str] | None = None) -> Samples:
    """The records of a run, or those whose ids are in `only`; `by` names a property of examples."""
    clocks = [_clock(entry) for entry in run.environments()]
    columns = {name: array("d") for name in (*COUNTS, *PARTS)}
    scores: dict[str, array[float]] = {}
    texts: dict[str, list[Any]] = {"id": [], "example": [], "clock": [], "value": []}
    for record in run.records():
        if only is not None and record.id not in only:
            continue
        for name in COUNTS:
            value = getattr(record, name)
            try:
                columns[name].append(nan if value is None else value)
            except OverflowError:
                raise UserError(f"{run.path}: {name} of {record.id} is out of range") from None
        for name in PARTS:
            columns[name].append(getattr(record.seconds, name))
        for name in record.scores.keys() - scores.keys():
            scores[name] = array("d", [nan] * len(texts["id"]))
        for name, values in scores.items():
            values.append(record.scores.get(name, nan))
        texts["id"].append(record.id)
        texts["example"].append(example(record))
        clock = clocks[record.session] if record.session < len(clocks) else "unknown"
        texts["clock"].append(intern(f"{clock}, batch size {record.batch_size}"))
        texts["value"].append(record.meta.get(by))
    named = {SCORE + name: scores[name] for name in sorted(scores)}
    return made(texts.pop("id"), {**columns, **named, **texts})


def made(ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Samples:
    """Of columns by name; those that are missing hold nothing, and each example one sample."""
    from pandas import DataFrame, Index, Series

    index = Index(list(ids), dtype="object")
    same: Mapping[str, Sequence[Any]] = {
        "example": ids,
        "clock": ["unknown"] * len(ids),
        "value": [None] * len(ids),
    }
    texts = {name: columns.get(name, same[name]) for name in same}
    scores = tuple(name for name in columns if name.startswith(SCORE))
    numbers = DataFrame(
        {name: columns.get(name, nan) for name in (*COUNTS, *PARTS, *scores)},
        index=index,
        dtype="float64",
    )
    numbers["decode"] = numbers[list(PARTS)].sum(axis=1)
    rest = {name: Series(list(of), index=index, dtype="object") for name, of in texts.items()}
    names = tuple(name.removeprefix(SCORE) for name in scores)
    whole = Samples(numbers, **rest, scores=names).only(~index.duplicated("last"))
    # A resampled interval must not depend on the order in which examples finished.
    return whole.only(sorted(whole.numbers.index))


def common(one: Samples, other: Samples) -> tuple[Samples, Samples]:
    """Both, cut to the records that both have."""
    both = one.numbers.index.intersection(other.numbers.index, sort=False)
    return one.only(both), other.only(both)


def paired(one: Samples, other: Samples, column: str) -> tuple[Series[float], Series[float]]:
    """A column of both by example, of the records that have a number in both.

    By record first: a sample without a number must not change the mean of one side alone.
    """
    one, other = common(one, other)
    pair = [samples.numbers[column] for samples in (one, other)]
    if column == "nfe_until":
        pair = [v.fillna(s.numbers["nfe"]) for v, s in zip(pair, (one, other), strict=True)]
    known = (pair[0].abs() < inf) & (pair[1].abs() < inf)
    return one.by_example(pair[0][known]), other.by_example(pair[1][known])


def timed(one: Samples, other: Samples) -> tuple[Samples, Samples]:
    """Both, cut to the records that both have by the same clock, and that took time."""
    one, other = common(one, other)
    ran = (one.numbers["decode"] > 0) & (other.numbers["decode"] > 0)
    same = ran & (one.clock == other.clock)
    return one.only(same), other.only(same)


def example(of: Record | Example | Question) -> str:
    """What a record, or an item of a task, is a sample of."""
    return str(of.meta.get("example", of.id))


def _clock(environment: Mapping[str, Any]) -> str:
    named = ("device", "gpu", "processor")
    found = [str(environment[name]) for name in named if environment.get(name)]
    found += ["compiled"] if environment.get("compiled") else []
    return ", ".join([*found, f"{environment.get('threads', 'unknown')} threads"])
