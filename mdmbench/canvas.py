"""Between a task's symbols and a model's tokens. Nothing else knows both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mdmbench.base import NEVER, Canvas, Decoded, Example, Task
from mdmbench.errors import UserError
from mdmbench.loop import Stop


@dataclass(frozen=True)
class Symbols:
    """A vocabulary of whole symbols: token i is `symbols[i]`, the mask follows the last one."""

    symbols: tuple[str, ...]

    def check(self, task: Task, model: str) -> None:
        """Raises UserError where the task has symbols the model does not know."""
        missing = [s for s in task.symbols if s not in self.symbols]
        if missing:
            raise UserError(
                f"model {model} cannot hold task {task.name}: it has no token for {missing[0]!r}"
                + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
                "choose the model that belongs to this task, or leave --model out",
            )

    def canvas(self, example: Example) -> Canvas:
        ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        mask = len(self.symbols)
        tokens = (mask if cell is None else ids[cell] for cell in example.cells)
        return Canvas(example.id, tuple(tokens), example.start)

    def answer(self, tokens: Iterable[int]) -> list[str]:
        return [self.symbols[t] for t in tokens]


def join(answer: Sequence[str]) -> str:
    """An answer as it is stored: symbols of one letter run together, others are spaced."""
    return ("" if all(len(s) == 1 for s in answer) else " ").join(answer)


def first_end(eos_ids: Sequence[int]) -> Stop | None:
    """Finds the end of an answer behind its first EOS token; None for a model without one."""
    if not eos_ids:
        return None

    def stop(prefix: Sequence[int]) -> int | None:
        return next((i + 1 for i, token in enumerate(prefix) if token in eos_ids), None)

    return stop


def counts(canvas: Canvas, decoded: Decoded, mask_id: int) -> tuple[int, int]:
    """Positions the model filled up to the answer's end, and all it filled."""
    at = [
        i for i, t in enumerate(canvas.tokens) if t == mask_id and decoded.committed_at[i] != NEVER
    ]
    end = len(canvas.tokens) if decoded.end is None else decoded.end
    return sum(i < end for i in at), len(at)
