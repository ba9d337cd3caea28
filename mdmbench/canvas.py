"""Between a task's own form and a model's tokens. Nothing else knows both.

A codec makes the canvas of an example and reads the answer off a filled one: `Symbols` for puzzles,
`Text`, the only owner of a tokenizer, for questions in words.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard

from mdmbench.base import (
    NEVER,
    Canvas,
    Decoded,
    Example,
    Model,
    PuzzleTask,
    Question,
    Stop,
    TextTask,
    Turn,
)
from mdmbench.errors import UserError, reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|role_end|>")
"""How the chat templates of LLaDA, of Dream and SDAR (ChatML), and of LLaDA-MoE close a turn."""

MASKS = ("<|mdm_mask|>", "<|mask|>", "<|MASK|>", "<[MASK]>", "[MASK]")
"""What the mask is called where no config says its id: LLaDA, LLaDA-MoE and Dream, Fast-dLLM v2,
iLLaDA, Open-dCoder."""


class Codec(Protocol):
    """From examples to canvases, and from filled canvases to answers."""

    def canvas(self, example: Any) -> Canvas:
        """Raises Unfit where no canvas of the model can hold the example."""
        ...

    def answer(self, tokens: Sequence[int]) -> Any:
        """What the task scores, from the tokens of the answer region."""
        ...

    def stored(self, answer: Any) -> str:
        """The answer as it is kept in a record."""
        ...

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token; none where the answer says it all."""
        ...

    @property
    def stop(self) -> Stop | None: ...


class Unfit(Exception):
    """An example that this model cannot be asked; the message says why."""


@dataclass(frozen=True)
class Symbols:
    """A vocabulary of whole symbols: token i is `symbols[i]`, the mask follows the last one."""

    symbols: tuple[str, ...]
    end_symbols: tuple[str, ...] = ()

    def check(self, task: PuzzleTask, model: str) -> None:
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

    def stored(self, answer: Sequence[str]) -> str:
        return _gap(self.symbols).join(answer)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        return []

    @property
    def stop(self) -> Stop | None:
        return first_end([self.symbols.index(s) for s in self.end_symbols])


def _gap(symbols: Sequence[str]) -> str:
    """Symbols of one letter run together in a stored answer, others are spaced."""
    return "" if all(len(symbol) == 1 for symbol in symbols) else " "


def restored(task: PuzzleTask | TextTask, text: str) -> Any:
    """What the task scores, from the answer as it is kept in a record."""
    if not is_puzzle(task):
        return text
    return text.split(" ") if _gap(task.symbols) else list(text)


def is_puzzle(task: PuzzleTask | TextTask) -> TypeGuard[PuzzleTask]:
    return hasattr(task, "symbols")


class Text:
    """A tokenizer, and how an answer region is laid behind a prompt."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        model: Model,
        task: TextTask,
        *,
        gen_length: int,
        chat: bool,
        pad_to: int | Literal["max"] | None = None,
    ) -> None:
        """`pad_to`: the canvas ends in masks up to this length, which are seen and never filled;
        "max" is the model's own (EB-Sampler 2505.24857, section 5).

        Raises UserError where there is no chat template to use.
        """
        if chat and not tokenizer.chat_template:
            raise UserError("the model's tokenizer has no chat template", "add --no-chat")
        self.tokenizer, self.model, self.chat = tokenizer, model, chat
        self.gen_length = gen_length
        self.length = model.max_length if pad_to == "max" else pad_to or 0
        if self.length > model.max_length:
            raise UserError(
                f"pad-to is {self.length}, the model takes {model.max_length} tokens",
                "choose at most that, or max",
            )
        if gen_length >= model.max_length:
            raise UserError(
                f"gen-length is {gen_length}, the model takes {model.max_length} tokens in all",
                "choose less, a prompt has to fit in too",
            )
        self.ends = end_ids(tokenizer, model)
        self._stops = task.stops
        self._finish = re.compile(task.finish) if task.finish else None
        # At every step of an early stop, most rows have the prefix that they had before.
        self._end_of = lru_cache(maxsize=4096)(self._end)

    def canvas(self, question: Question) -> Canvas:
        """The prompt, `gen_length` masks, and what of the padding the model's blocks need."""
        prompt = self.prompt(question)
        mask, limit = self.model.mask_id, self.model.max_length
        if mask in prompt:
            raise Unfit("the prompt holds the model's mask token")
        end = len(prompt) + self.gen_length
        block = self.model.block or 1
        length = max(-(-end // block) * block, self.length)
        if end > limit:
            raise Unfit(
                f"prompt of {len(prompt)} tokens and answer of {self.gen_length}"
                f" are longer than the model's {limit}"
            )
        tokens = (*prompt, *[mask] * (min(length, limit) - len(prompt)))
        return Canvas(question.id, tokens, len(prompt), end)

    def prompt(self, question: Question) -> list[int]:
        """Token ids of all that stands before the answer."""
        if not self.chat:
            return list(self.tokenizer(question.prompt)["input_ids"])
        turns = question.turns or (Turn("user", question.prompt),)
        text = self.tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.text} for turn in turns],
            tokenize=False,
            add_generation_prompt=True,
        )
        # The template has written the special tokens already.
        return list(
            self.tokenizer(f"{text}{question.prefix}", add_special_tokens=False)["input_ids"]
        )

    def answer(self, tokens: Sequence[int]) -> str:
        """The text up to the end of the answer's turn; stop phrases are not cut here."""
        return self._text(tokens[: self._end_token(tokens)])

    def stored(self, answer: str) -> str:
        return answer

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        return list(self.tokenizer.batch_decode([[token] for token in tokens]))

    def stop(self, prefix: Sequence[int]) -> int | None:
        """The answer's length: up to and with EOS, or the last token of a stop phrase."""
        return self._end_of(tuple(prefix))

    def _end(self, prefix: tuple[int, ...]) -> int | None:
        last = self._end_token(prefix)
        if self._said(prefix[:last]):
            return 1 + bisect_left(range(1, last), True, key=lambda n: self._said(prefix[:n]))
        return last + 1 if last < len(prefix) else None

    def _end_token(self, tokens: Sequence[int]) -> int:
        return next((i for i, token in enumerate(tokens) if token in self.ends), len(tokens))

    def _said(self, tokens: Sequence[int]) -> bool:
        """Whether a stop phrase is complete."""
        if not self._stops and self._finish is None:
            return False
        text = self._text(tokens)
        finished = self._finish is not None and self._finish.search(text) is not None
        return finished or any(stop in text for stop in self._stops)

    def _text(self, tokens: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def end_ids(tokenizer: PreTrainedTokenizerBase, model: Model) -> frozenset[int]:
    """Tokens that end an answer: the model's EOS, the tokenizer's, and what closes a turn."""
    known = tokenizer.get_vocab()
    own = [tokenizer.eos_token_id, *(known.get(token) for token in END_OF_TURN)]
    return frozenset([*model.eos_ids, *(i for i in own if i is not None)])


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder; no code of the checkpoint is run."""
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    # Dream's own class is a slow twin of Qwen2's; AutoTokenizer would want to run its code.
    reader = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else Qwen2Tokenizer
    known = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    try:
        if not known:
            raise OSError("there is none")
        return reader.from_pretrained(folder)  # type: ignore[no-any-return]
    except Exception as error:  # the libraries below raise whatever they meet, and bare Exception
        raise UserError(
            f"no tokenizer can be read from {folder}: {reason(error)}",
            "it needs tokenizer_config.json, and tokenizer.json or vocab.json with merges.txt",
        ) from None


def mask_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The tokenizer's mask token, declared or by the name that some checkpoints give it."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    known = tokenizer.get_vocab()
    return next((known[name] for name in MASKS if name in known), None)


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
