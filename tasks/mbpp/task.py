"""MBPP: write a short Python function from a sentence and three tests.

Austin et al. 2021, arXiv 2108.07732. Prompts and scores: this folder's README.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from mdmbench import sources
from mdmbench.base import Program, Question
from mdmbench.errors import UserError
from mdmbench.scoring import code
from mdmbench.sources import Hub, Row

SPLITS = {
    "test": range(11, 511),
    "prompt": range(1, 11),
    "validation": range(511, 601),
    "train": range(601, 975),
    "all": range(1, 975),
}
"""Task ids; a file holds them all."""

FIRST_SHOT = 2
"""Worked examples are the tasks 2, 3, 4, ... (the data set's README)."""

SHOWN = 3
"""Tests in a prompt; sanitized tasks have up to seven."""


@dataclass(frozen=True)
class Mbpp:
    """lm-eval's `mbpp`, for base models.

    shots    worked examples: tasks 2, 3, 4, ... up to 10
    data     a file of tasks instead of the hub's, worked examples among them
    split    test, prompt, validation, train or all
    samples  answers to each task, for pass@k
    """

    shots: int = 3
    data: str = ""
    split: Literal["test", "prompt", "validation", "train", "all"] = "test"
    samples: int = 1

    name: ClassVar[str] = "mbpp"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "pass@1"
    gen_length: ClassVar[int] = 512
    chat: ClassVar[bool] = False
    stops: ClassVar[tuple[str, ...]] = ("[DONE]",)
    finish: ClassVar[str] = ""
    hub: ClassVar[Hub] = sources.MBPP
    told: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if not 0 <= self.shots <= 9:
            raise UserError(f"shots is {self.shots}", "it is 0 to 9: tasks 2 to 10")
        if self.samples < 1:
            raise UserError(f"samples is {self.samples}", "it is 1 or more")

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        by_id: dict[int, Row] = {}
        for row in sources.rows(self.data, self.hub):
            id = row.whole("task_id")
            if by_id.setdefault(id, row) is not row:
                raise row.bad("task_id", f"is {id}, as in {by_id[id].where}")
        return sources.listed(self._questions(by_id), limit, self.samples)

    def _questions(self, by_id: dict[int, Row]) -> Iterator[Question]:
        wanted = range(FIRST_SHOT, FIRST_SHOT + self.shots)
        missing = [id for id in wanted if id not in by_id]
        if missing:
            raise UserError(
                f"{self.data} lacks the worked examples {', '.join(map(str, missing))}",
                "their task_ids; or go without: -T shots=0",
            )
        before = "".join(self.shot(by_id[id]) for id in wanted)
        for id, row in by_id.items():
            if id in SPLITS[self.split]:
                yield self.question(f"mbpp/{id}", row, before)

    def question(self, id: str, row: Row, before: str) -> Question:
        return Question(
            id=id, prompt=before + self.ask(row), target=tests(row), meta={"setup": setup(row)}
        )

    def shot(self, row: Row) -> str:
        """A worked example, its code with the line ends it has in the data."""
        return f"{self.ask(row)}{row.text('code')}\n[DONE]\n\n"

    def ask(self, row: Row) -> str:
        shown = "\n".join(row.texts("test_list")[:SHOWN])
        return (
            f"You are an expert Python programmer, and here is your task: {row.text(self.told)} "
            f"Your code should pass these tests:\n\n{shown}\n[BEGIN]\n"
        )

    def programs(self, question: Question, answer: str) -> dict[str, Program]:
        """pass@1: the code found in the answer; lm_eval: all of it, and no set-up code."""
        literal = Program(f"{answer}\n{question.target}", "completion")
        return {**found(question, answer), "lm_eval": literal}


@dataclass(frozen=True)
class MbppEb(Mbpp):
    """The EB-Sampler paper's MBPP (arXiv 2505.24857), with four worked examples."""

    shots: int = 4

    name: ClassVar[str] = "mbpp-eb"


@dataclass(frozen=True)
class MbppSanitized(Mbpp):
    """The part of MBPP whose texts and tests its authors checked by hand, in the same prompt."""

    name: ClassVar[str] = "mbpp-sanitized"
    hub: ClassVar[Hub] = sources.MBPP_SANITIZED
    told: ClassVar[str] = "prompt"

    def programs(self, question: Question, answer: str) -> dict[str, Program]:
        """pass@1: the code found in the answer."""
        return found(question, answer)


@dataclass(frozen=True)
class MbppInstruct(Mbpp):
    """lm-eval's `mbpp_instruct`: the model's turn begins with a fence; no worked examples."""

    shots: int = 0

    name: ClassVar[str] = "mbpp-instruct"
    chat: ClassVar[bool] = True
    stops: ClassVar[tuple[str, ...]] = ()
    prefix: ClassVar[str] = "\n```python\n"

    def question(self, id: str, row: Row, before: str) -> Question:
        return Question(
            id=id,
            prompt=before + self.ask(row),
            target=tests(row),
            prefix=self.prefix,
            meta={"setup": setup(row)},
        )

    def shot(self, row: Row) -> str:
        return f"{self.ask(row)}{self.prefix}{row.text('code')}\n```\n\n"

    def ask(self, row: Row) -> str:
        shown = "\n".join(row.texts("test_list")[:SHOWN])
        return (
            f"You are an expert Python programmer, and here is your task:\n{row.text(self.told)}\n"
            f"Your code should pass these tests:\n{shown}"
        )

    def programs(self, question: Question, answer: str) -> dict[str, Program]:
        """pass@1: the code found in the answer."""
        return found(question, answer)


def tests(row: Row) -> str:
    """Every test, those that no prompt shows among them."""
    return "\n".join(row.texts("test_list")) + "\n"


def setup(row: Row) -> str:
    """What the tests need beside the solution: set-up code, or imports for sanitized tasks."""
    return "\n".join([row.text("test_setup_code", ""), *row.texts("test_imports", ())])


def found(question: Question, answer: str) -> dict[str, Program]:
    """The solution goes first: set-up code may use what it defines."""
    program = code.module(answer)
    source = f"{program.source}\n{question.meta['setup']}\n{question.target}"
    return {"pass@1": Program(source, program.branch)}


TASKS = {
    "mbpp": Mbpp,
    "mbpp-eb": MbppEb,
    "mbpp-sanitized": MbppSanitized,
    "mbpp-instruct": MbppInstruct,
}
