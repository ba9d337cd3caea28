"""From the records of a run back to the examples that it was asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, cast

from mdmbench.store import Run

if TYPE_CHECKING:
    from mdmbench.job import AnyTask, Item


MOST = 10_000
"""Examples that are looked through for a missing one: some tasks make new ones without end."""


def known_items(run: Run, task: AnyTask, ids: Collection[str], limit: int) -> dict[str, Item]:
    """The examples of these ids that the task still has, by id.

    The first `limit` of the task's are looked through, then many times as many.
    """
    seed = run.spec["settings"]["seed"]
    wanted = set(ids)
    known: dict[str, Item] = {}
    for many in (limit, max(MOST, 8 * limit)) if wanted else ():
        seen = 0
        for item in cast("Iterable[Item]", task.examples(many, seed)):
            seen += 1
            if item.id in wanted:
                known[item.id] = item
            if len(known) == len(wanted):
                return known
        if seen < many:
            break
    return known
