"""MATH: competition problems whose answers are formulas; the whole test split, or MATH-500.

Hendrycks et al. 2021, arXiv 2103.03874; Lightman et al. 2023, arXiv 2305.20050, for the 500.
Prompts and scores: this folder's README.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from mdmbench import sources
from mdmbench.base import Question
from mdmbench.errors import UserError
from mdmbench.scoring import latex
from mdmbench.sources import Hub, Row


@dataclass(frozen=True)
class Math:
    """lm-eval's `minerva_math`: the four worked examples of Lewkowycz et al. 2022, from a file.

    shots      how many of them
    data       a file of problems instead of the hub's test split
    exemplars  the file of worked examples
    verify     answers that are written differently are compared by math-verify, mdmbench[math]
    """

    shots: int = 4
    data: str = ""
    exemplars: str = ""
    verify: bool = False

    name: ClassVar[str] = "math"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "boxed"
    gen_length: ClassVar[int] = 512
    chat: ClassVar[bool] = False
    stops: ClassVar[tuple[str, ...]] = ("Problem:",)
    finish: ClassVar[str] = ""
    hubs: ClassVar[tuple[Hub, ...]] = sources.MATH

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise UserError(f"shots is {self.shots}", "it is 0 or more")
        if self.verify:
            latex.math_verify()

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        names = "problem", "solution"
        shots = sources.worked(self.exemplars, "minerva_math_4shot", "samples", names, self.shots)
        before = "".join(
            f"Problem:\n{row.text('problem')}\n\nSolution: {row.text('solution')}\n\n"
            for row in shots
        )
        asked = (
            Question(id, f"{before}Problem:\n{row.text('problem')}\n\nSolution:", gold(row))
            for id, row in problems(self.data, self.hubs)
        )
        return sources.listed(asked, limit)

    def score(self, question: Question, answer: str) -> dict[str, float | str]:
        """boxed: the last box, else Minerva's sentence; minerva: the sentence alone."""
        return judged(
            question.target,
            {"boxed": latex.answer(answer), "minerva": latex.minerva(answer)},
            verify=self.verify,
        )


@dataclass(frozen=True)
class Math500(Math):
    """The same prompt for the 500 problems of Lightman et al.; not the same problems as `math`."""

    name: ClassVar[str] = "math500"
    hubs: ClassVar[tuple[Hub, ...]] = (sources.MATH500,)


@dataclass(frozen=True)
class MathEb(Math):
    """The EB-Sampler paper's MATH (arXiv 2505.24857): an answer ends with its sentence."""

    name: ClassVar[str] = "math-eb"
    finish: ClassVar[str] = r"I hope it is correct\."


@dataclass(frozen=True)
class MathZeroShot:
    """OpenCompass's prompt for chat models: no worked example, the answer in a box.

    data    a file of problems instead of the hub's test split
    verify  answers that are written differently are compared by math-verify, mdmbench[math]
    """

    data: str = ""
    verify: bool = False

    name: ClassVar[str] = "math-0shot"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "boxed"
    gen_length: ClassVar[int] = 512
    chat: ClassVar[bool] = True
    stops: ClassVar[tuple[str, ...]] = ()
    finish: ClassVar[str] = ""
    hubs: ClassVar[tuple[Hub, ...]] = sources.MATH

    def __post_init__(self) -> None:
        if self.verify:
            latex.math_verify()

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        order = "Please reason step by step, and put your final answer within \\boxed{}."
        asked = (
            Question(id, f"{row.text('problem')}\n{order}", gold(row))
            for id, row in problems(self.data, self.hubs)
        )
        return sources.listed(asked, limit)

    def score(self, question: Question, answer: str) -> dict[str, float | str]:
        """As for `math`, and opencompass: the last box, else a sentence that names an answer."""
        found = {
            "boxed": latex.answer(answer),
            "minerva": latex.minerva(answer),
            "opencompass": latex.opencompass(answer),
        }
        return judged(question.target, found, verify=self.verify)


@dataclass(frozen=True)
class Math500ZeroShot(MathZeroShot):
    """The same prompt for the 500 problems of Lightman et al."""

    name: ClassVar[str] = "math500-0shot"
    hubs: ClassVar[tuple[Hub, ...]] = (sources.MATH500,)


def problems(data: str, hubs: tuple[Hub, ...]) -> Iterator[tuple[str, Row]]:
    """The rows with their ids: the data set's own, else the row's number."""
    for i, row in enumerate(sources.rows(data, *hubs)):
        yield f"math/{row.text('unique_id', str(i))}", row


def gold(row: Row) -> str:
    """The field answer, else the box of the solution."""
    found = row.text("answer", "") or latex.boxed(row.text("solution"))
    if not found:
        raise row.bad("solution", "holds no \\boxed{} answer")
    return found


def judged(gold: str, found: dict[str, str], *, verify: bool) -> dict[str, float | str]:
    """A score for each way to read the answer, and what the headline's way read."""
    marks = {text: float(latex.same(gold, text, verify=verify)) for text in set(found.values())}
    return {**{name: marks[text] for name, text in found.items()}, "extracted": found["boxed"]}


TASKS = {
    "math": Math,
    "math500": Math500,
    "math-eb": MathEb,
    "math-0shot": MathZeroShot,
    "math500-0shot": Math500ZeroShot,
}
