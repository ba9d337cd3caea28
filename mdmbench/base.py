"""The core types. Nothing here imports torch at run time, so every command starts fast.

Shapes, used in every docstring of the package:
    B  rows of the batch, one example each (a slot)
    L  canvas length: prompt and answer region together
    W  window: the eligible positions that are gathered for one step, padded to the widest row
    V  vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mdmbench.step import Step

NEVER = -1
"""In `Decoded.committed_at`: the position was given, or lies behind an early stop."""


@dataclass(frozen=True)
class Example:
    """One item of a task, in the task's own symbols.

    `cells` is the whole canvas: a symbol where it is given, None where the model has to answer.
    The answer region is everything from `start` on; `target` holds its reference symbols.
    """

    id: str
    cells: tuple[str | None, ...]
    target: tuple[str, ...]
    start: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """How an answer lies on a plane: row by row, `width` cells a row.

    walls  of each cell, the sides that are closed: the sum of north 1, east 2, south 4, west 8;
           none where empty
    marks  of each cell, what the prompt says of it, such as a maze's S and T; none where empty
    """

    width: int
    walls: tuple[int, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


@dataclass(frozen=True)
class Question:
    """One item of a text task.

    prompt  what a base model is given; under a chat template it is one user turn
    turns   the conversation that a chat model is given instead, where the task has one
    prefix  how the assistant's turn begins under a chat template; given, not part of the answer
    target  the gold answer, in the form that the task's score reads
    """

    id: str
    prompt: str
    target: str
    turns: tuple[Turn, ...] = ()
    prefix: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Python source that passes its tests if it runs to its end.

    branch  which way of reading the answer made it
    """

    source: str
    branch: str


@dataclass(frozen=True)
class Canvas:
    """The token sequence of one example; where it holds the mask id is the sampler's to fill.

    start  the first position of the answer region: blocks are counted from there
    end    the first position behind it, None: the canvas ends there too. Masks behind it are seen
           by the model and never filled
    """

    id: str
    tokens: tuple[int, ...]
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class Seconds:
    """Device-synchronised time in the loop; a row's share of a step is its time / rows in it."""

    model: float = 0.0
    sampler: float = 0.0
    host: float = 0.0

    @property
    def decode(self) -> float:
        return self.model + self.sampler + self.host

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(
            self.model + other.model, self.sampler + other.sampler, self.host + other.host
        )

    def __truediv__(self, parts: int) -> Seconds:
        return Seconds(self.model / parts, self.sampler / parts, self.host / parts)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(
            self.model - other.model, self.sampler - other.sampler, self.host - other.host
        )


@dataclass(frozen=True)
class Decoded:
    """What the loop says of one finished canvas.

    tokens          the filled canvas, length L; behind an early stop the end token is repeated
    committed_at    length L: the step (from 0) that committed the position, or NEVER
    confidence      length L: the probability of what was proposed there at that step
    entropy         length L: of the model's distribution there at that step, nats; as is the
                    confidence, 0 where nothing was committed
    nfe             forwards the example took part in
    nfe_until       forwards until the answer was whole up to its end; None without an end
    end             first position behind EOS or the stop phrase, None without one
    forward_tokens  sum over forwards of the positions that went through the model for this example
    forced          positions the loop committed because the rule chose none
    bound_spent     sum over steps of (sum of the entropies committed - the largest), nats
    seconds         the example's share of the loop's time
    batch_size      rows that there could be beside it, itself included
    """

    id: str
    tokens: tuple[int, ...]
    committed_at: tuple[int, ...]
    confidence: tuple[float, ...]
    entropy: tuple[float, ...]
    nfe: int
    nfe_until: int | None
    end: int | None
    forward_tokens: int
    forced: int
    bound_spent: float
    seconds: Seconds
    batch_size: int


@dataclass(frozen=True)
class Choice:
    """A sampler's answer to one step.

    commit  bool [B, W]: positions to unmask now; what lies outside `step.eligible` is dropped
    tokens  int64 [B, W]: what to write there, `step.proposal` when None
    order   float [B, W]: where a row chose nothing, the loop commits the eligible position with
            the largest value ("forced"); `step.confidence` when None
    """

    commit: Tensor
    tokens: Tensor | None = None
    order: Tensor | None = None


Sampler = Callable[["Step"], Choice]
"""A rule. Pure: it never calls the model, prints, times, or writes the canvas."""


Observer = Callable[[str, int, int], None]
"""Is told what is under way, how much of it is done, and how much there is."""


Stop = Callable[[Sequence[int]], int | None]
"""From the answer's tokens up to the first mask to the answer's length, None while it is open."""


@dataclass(frozen=True)
class Batch:
    """What a forward is asked.

    tokens   int64 [B, L]; positions behind a row's length hold anything and are never seen
    rows     int64 [B, W] positions whose logits are wanted
    lengths  int64 [B], or None when every row is L long (keeps the fast attention kernels)
    first    int64 [B]: where the row's current block begins,
    behind   int64 [B]: and the first position behind it
    passing  what `Forward.passing` or `opening` said of each row; its length where they said None
    """

    tokens: Tensor
    rows: Tensor
    lengths: Tensor | None = None
    first: Tensor | None = None
    behind: Tensor | None = None
    passing: Sequence[int] | None = None


class Forward(Protocol):
    """The model at work on some rows. Caches, if any, live and die with the Forward.

    A row is a slot: until it is told otherwise, a cache may hold that row i is the example that it
    was, with tokens that have changed. One without a cache has nothing to do but to be called.
    """

    def __call__(self, batch: Batch) -> Tensor:
        """Logits `[B, W, V]` of any float dtype that predict the tokens at `batch.rows`.

        The checkpoint's own shift is undone. The mask id's column, where there is one, is -inf.
        They may lie in memory that the next call uses again.
        """
        ...

    def passing(self, batch: Batch) -> Tensor | None:
        """int64 [B]: the positions of each row that go through the model in the coming call, which
        gets the same tokens; None: all of them. It reads nothing back to the host."""
        return None

    def opening(self, batch: Batch) -> Sequence[int] | None:
        """What `passing` would say of examples that are about to be seated; the batch lies on the
        host."""
        return None

    def seat(self, rows: Sequence[int]) -> None:
        """From now on these rows hold other examples."""
        return

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """What was in each row of `source` is now in that of `target`."""
        return


class Model(Protocol):
    """A masked diffusion model, ready on its device.

    block  tokens of a block where attention is block-causal, on a grid from position 0; else None
    """

    block: int | None
    mask_id: int
    eos_ids: tuple[int, ...]
    max_length: int
    vocab_size: int
    device: torch.device

    def start(self) -> Forward: ...


class Task(Protocol):
    """What every task has. Its scores can be made again from a stored run, without a model.

    Scores lie in [0, 1]; `headline` names the one to quote. `version` changes when a prompt, an
    example or a score may.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def headline(self) -> str: ...


class PuzzleTask(Task, Protocol):
    """Canvases of symbols, for models that were made for them.

    It may have one more method. `grid(example)` returns the Grid that the answer lies on, or None
    where it is a row; without the method an answer of n * n symbols is taken for a square.
    """

    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def end_symbols(self) -> tuple[str, ...]: ...

    def examples(self, limit: int | None, seed: int) -> Iterable[Example]:
        """The first `limit` examples (all when None), the same ones on every machine."""
        ...

    def score(self, example: Example, answer: Sequence[str]) -> Mapping[str, float]:
        """The scores of the answer region's symbols. Pure."""
        ...


class TextTask(Task, Protocol):
    """Questions in words.

    It has one of two more methods. `score(question, answer)` returns numbers, which are scores,
    and texts, which are kept as notes; it is pure. `programs(question, answer)` returns a Program
    by the name of the score that is 1 if it passes; they are run in the sandbox, never by the task.

    gen_length  answer tokens, unless --gen-length says otherwise
    chat        whether its prompts are for the chat template, unless --chat or --no-chat says
    stops       texts that end the answer; neither they nor what follows is part of it
    finish      a regular expression: the answer is whole where it first matches, the match
                included; "" for none
    """

    @property
    def gen_length(self) -> int: ...
    @property
    def chat(self) -> bool: ...
    @property
    def stops(self) -> tuple[str, ...]: ...
    @property
    def finish(self) -> str: ...

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        """The first `limit` questions (all when None), the same ones on every machine."""
        ...


class Trainable(PuzzleTask, Protocol):
    """A task that a puzzle model can be trained on."""

    def layout(self) -> dict[str, Any]:
        """What the model has to know of the canvas: keyword arguments of `relations.build`."""
        ...

    def training(self, seed: int) -> Iterator[Example]:
        """An endless stream of examples, disjoint in its seed from those of `examples`."""
        ...

    def augment(self, example: Example, seed: int) -> Example:
        """The same example seen through a random symmetry of the task."""
        ...
