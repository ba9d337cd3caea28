"""GSM8K: school arithmetic in words, in four prompts that papers call by the same name.

Cobbe et al. 2021, arXiv 2110.14168. Prompts and scores: this folder's README.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

from mdmbench import sources
from mdmbench.base import Question, Turn
from mdmbench.errors import UserError
from mdmbench.scoring import numbers
from mdmbench.sources import Row


@dataclass(frozen=True)
class Gsm8k:
    """lm-eval's `gsm8k`, with the first examples of the train split before every question.

    shots  worked examples in the prompt
    data   a file of questions instead of the hub's test split
    train  a file of worked examples instead of the hub's train split
    """

    shots: int = 5
    data: str = ""
    train: str = ""

    name: ClassVar[str] = "gsm8k"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "flexible"
    gen_length: ClassVar[int] = 256
    chat: ClassVar[bool] = False
    stops: ClassVar[tuple[str, ...]] = ("Question:", "</s>", "<|im_end|>")
    finish: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self.shots)

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        rows = sources.rows(self.train, sources.GSM8K_TRAIN, knob="train") if self.shots else ()
        shots = [*islice(rows, self.shots)]
        if len(shots) < self.shots:
            where = self.train or "the train split"
            raise UserError(f"{where} holds {len(shots)} of {self.shots} worked examples")
        before = "".join(
            f"Question: {row.text('question')}\nAnswer: {row.text('answer')}\n\n" for row in shots
        )
        asked = questions(self.data, lambda text: f"{before}Question: {text}\nAnswer:")
        return sources.listed(asked, limit)

    def score(self, question: Question, answer: str) -> dict[str, float | str]:
        """lm-eval's filters strict and flexible, and our own reading, number."""
        found = numbers.scores(question.target, answer)
        return {**found, "extracted": numbers.flexible(answer)}


@dataclass(frozen=True)
class Gsm8kCot:
    """lm-eval's `gsm8k_cot`: the eight worked examples of Wei et al. 2022, from a file.

    shots      how many of them
    data       a file of questions instead of the hub's test split
    exemplars  the file of worked examples
    """

    shots: int = 8
    data: str = ""
    exemplars: str = ""

    name: ClassVar[str] = "gsm8k-cot"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "flexible"
    gen_length: ClassVar[int] = 256
    chat: ClassVar[bool] = False
    stops: ClassVar[tuple[str, ...]] = ("Q:", "</s>", "<|im_end|>")
    finish: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self.shots)

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        names = "question", "target"
        shots = sources.worked(self.exemplars, "gsm8k_cot_8shot", "samples", names, self.shots)
        before = "".join(f"Q: {row.text('question')}\nA: {row.text('target')}\n\n" for row in shots)
        asked = questions(self.data, lambda text: f"{before}Q: {text}\nA:")
        return sources.listed(asked, limit)

    def score(self, question: Question, answer: str) -> dict[str, float | str]:
        """As for `gsm8k`; strict looks for `The answer is N.`"""
        found = numbers.scores(question.target, answer, numbers.SENTENCE)
        return {**found, "extracted": numbers.flexible(answer)}


@dataclass(frozen=True)
class Gsm8kEb(Gsm8kCot):
    """The EB-Sampler paper's GSM8K (arXiv 2505.24857): an answer ends with its sentence."""

    name: ClassVar[str] = "gsm8k-eb"
    # Nothing but what stands before the match may decide it, or an early stop changes the answer.
    finish: ClassVar[str] = r"The answer is -?[0-9][0-9,]*\."


@dataclass(frozen=True)
class Gsm8kOpenCompass:
    """OpenCompass's 4-shot GSM8K, as LLaDA runs it: for a chat model the shots are turns.

    shots      worked examples
    data       a file of questions instead of the hub's test split
    exemplars  the file of worked examples
    """

    shots: int = 4
    data: str = ""
    exemplars: str = ""

    name: ClassVar[str] = "gsm8k-opencompass"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "opencompass"
    gen_length: ClassVar[int] = 256
    chat: ClassVar[bool] = True
    stops: ClassVar[tuple[str, ...]] = ()
    finish: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self.shots)

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        names = "role", "prompt"
        key = "opencompass_gsm8k_4shot"
        rounds = sources.worked(self.exemplars, key, "rounds", names, 2 * self.shots)
        texts = [row.text("prompt").replace("{{", "{").replace("}}", "}") for row in rounds]
        asked = questions(
            self.data, lambda text: f"Question: {text}\nLet's think step by step\nAnswer:"
        )
        return sources.listed((self._with(texts, question) for question in asked), limit)

    def _with(self, texts: list[str], question: Question) -> Question:
        """For a base model the rounds are joined by line ends (OpenCompass, LMTemplateParser)."""
        texts = [*texts, question.prompt]
        turns = [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
        return replace(question, prompt="\n".join(texts), turns=tuple(turns))

    def score(self, question: Question, answer: str) -> dict[str, float | str]:
        """OpenCompass's rules for chat and for base models, beside the scores of the others."""
        found, base = numbers.opencompass(answer), numbers.opencompass_base(answer)
        return {
            "opencompass": float(numbers.close(found, question.target)),
            "opencompass_base": float(numbers.close(base, question.target)),
            **numbers.scores(question.target, answer, numbers.SENTENCE),
            "extracted": found,
        }


def check(shots: int) -> None:
    if shots < 0:
        raise UserError(f"shots is {shots}", "it is 0 or more")


def questions(data: str, prompt: Callable[[str], str]) -> Iterator[Question]:
    """The questions of a file or of the hub, each by its number."""
    for i, row in enumerate(sources.rows(data, sources.GSM8K_TEST)):
        yield Question(f"gsm8k/{i}", prompt(row.text("question")), gold(row))


def gold(row: Row) -> str:
    """The number behind `#### `, without its commas."""
    text = row.text("answer")
    number = numbers.cleaned(text).strip()
    if "#### " not in text or not numbers.is_number(number):
        raise row.bad("answer", "does not end in `#### ` and a number")
    return number


TASKS = {
    "gsm8k": Gsm8k,
    "gsm8k-cot": Gsm8kCot,
    "gsm8k-eb": Gsm8kEb,
    "gsm8k-opencompass": Gsm8kOpenCompass,
}
