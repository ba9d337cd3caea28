"""How the loop runs, whatever the rule."""

from __future__ import annotations

from dataclasses import dataclass, field

from mdmbench.base import Stop
from mdmbench.errors import UserError
from mdmbench.schedule import Schedule
from mdmbench.step import Draw


@dataclass(frozen=True)
class Decoding:
    """How the loop runs, whatever the rule.

    block_length  the answer region is filled block by block from the left; None: one block
    schedule      what `Step.asked` says; None: one position a step
    from_zero     blocks are counted from position 0 instead of from the start of the answer, so
                  that they are those of a model with block-causal attention
    stop          finds the answer's end; with `early` an example leaves as soon as it is found
    guidance      scale s of classifier-free guidance: logits are u + (s + 1)(c - u), where u does
                  not see the prompt (LLaDA generate.py); every step is then two forwards
    seed          of the noise; an example's own noise also depends on its id
    """

    block_length: int | None = None
    from_zero: bool = False
    schedule: Schedule | None = None
    draw: Draw = field(default_factory=Draw)
    stop: Stop | None = None
    early: bool = False
    guidance: float = 0.0
    seed: int = 0

    @property
    def forwards(self) -> int:
        """Of a step."""
        return 2 if self.guidance else 1


def blocks(answer: int, block_length: int | None) -> int:
    """How many blocks an answer region of `answer` positions has."""
    if block_length is None:
        return 1
    if block_length < 1 or answer % block_length:
        raise UserError(
            f"block length {block_length} does not divide the answer's {answer} positions",
            "choose one that does, or none for a single block",
        )
    return answer // block_length
