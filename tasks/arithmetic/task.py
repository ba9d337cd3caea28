"""Arithmetic: word problems of two to four steps, worked line by line as in GSM8K.

No number is above 20. The two sides of a sum or a product stand in either order, so
what is written in one position depends on what is written in another.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from random import Random
from typing import ClassVar, TypeVar
from zlib import crc32

from mdmbench.base import Question
from mdmbench.errors import UserError
from mdmbench.scoring import numbers

T = TypeVar("T")

NAMES = (
    ("Ada", "She"),
    ("Carl", "He"),
    ("Emma", "She"),
    ("Hugo", "He"),
    ("Ida", "She"),
    ("Leo", "He"),
    ("Maya", "She"),
    ("Noah", "He"),
    ("Rosa", "She"),
    ("Sam", "He"),
)
THINGS = ("apples", "books", "cards", "coins", "marbles", "nuts", "pens", "shells", "stamps")
HOLDERS = ("bags", "boxes", "jars", "packs")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("drops", "loses", "sells", "uses")
LINE = re.compile(r"(\d+)([-+*/])(\d+)=(\d+) [a-z]+", re.ASCII)
TIMES = {2: "twice", 3: "three times"}

LARGEST = 20
LARGEST_CHANGE = 9
HELD_OUT = 16
"""One text in so many is for examples, the others are for training."""


def pick(rng: Random, items: Sequence[T]) -> T:
    """By `rng.random()`, the one method whose values Python promises to keep."""
    return items[int(rng.random() * len(items))]


@dataclass
class Story:
    """A problem in the making: what has been told, and the lines that work it out.

    value  what `who` has by now
    left   lines that are still to be written
    """

    rng: Random
    left: int
    told: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    asked: str = ""
    people: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.enter()
        self.thing = pick(self.rng, THINGS)
        self.value = 0
        self.begin()
        while self.left:
            pick(self.rng, self.moves())()
        self.asked = self.asked or f"How many {self.thing} does {self.who} have now?"

    def number(self, low: int, high: int) -> int:
        return low + int(self.rng.random() * (high - low + 1))

    def work(self, a: int, sign: str, b: int) -> int:
        """Writes one line, and gives its result."""
        if sign in "+*" and self.rng.random() < 0.5:
            a, b = b, a
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
        self.lines.append(f"{a}{sign}{b}={result} {self.thing}")
        self.left -= 1
        return result

    def moves(self) -> list[Callable[[], None]]:
        """What may be told next: the numbers stay in range, and the lines suffice."""
        found: list[Callable[[], None]] = []
        if self.value <= LARGEST - 2:
            found += [self.gain, self.other_more]
        if self.value > 3:
            found += [self.lose, self.other_fewer]
        if self.value <= LARGEST // 2:
            found.append(self.other_times)
        if self.left > 1 and self.value <= LARGEST - 4:
            found.append(self.gain_packed)
        if self.left == 2 and self.value <= LARGEST // 2 - 2:
            found.append(self.together)
        if self.left == 1 and self.divisors():
            found.append(self.share)
        return found

    def enter(self) -> None:
        """Goes on with a person who has not been told of."""
        self.who, self.pronoun = pick(self.rng, [p for p in NAMES if p[0] not in self.people])
        self.people.append(self.who)

    def begin(self) -> None:
        if self.rng.random() < 0.5:
            self.value = self.number(2, LARGEST - 2)
            self.told.append(f"{self.who} has {self.value} {self.thing}.")
        else:
            self.value = self.packed(f"{self.who} has", LARGEST)

    def packed(self, beginning: str, largest: int) -> int:
        """Tells of some packs of the same content, and works out what they hold."""
        packs = self.number(2, min(9, largest // 2))
        each = self.number(2, min(9, largest // packs))
        holder = pick(self.rng, HOLDERS)
        self.told.append(f"{beginning} {packs} {holder} of {each} {self.thing} each.")
        return self.work(packs, "*", each)

    def gain(self) -> None:
        more = self.number(2, min(LARGEST_CHANGE, LARGEST - self.value))
        self.told.append(f"{self.pronoun} {pick(self.rng, GAINS)} {more} more.")
        self.value = self.work(self.value, "+", more)

    def gain_packed(self) -> None:
        more = self.packed(f"{self.pronoun} {pick(self.rng, GAINS)}", LARGEST - self.value)
        self.value = self.work(self.value, "+", more)

    def lose(self) -> None:
        less = self.number(2, min(LARGEST_CHANGE, self.value - 1))
        self.told.append(f"{self.pronoun} {pick(self.rng, LOSSES)} {less} of them.")
        self.value = self.work(self.value, "-", less)

    def other(self, compared: str) -> None:
        before = self.who
        self.enter()
        self.told.append(f"{self.who} has {compared} {before}.")

    def other_more(self) -> None:
        more = self.number(2, min(LARGEST_CHANGE, LARGEST - self.value))
        self.other(f"{more} more than")
        self.value = self.work(self.value, "+", more)

    def other_fewer(self) -> None:
        less = self.number(2, min(LARGEST_CHANGE, self.value - 1))
        self.other(f"{less} fewer than")
        self.value = self.work(self.value, "-", less)

    def other_times(self) -> None:
        times = pick(self.rng, [n for n in TIMES if n * self.value <= LARGEST])
        self.other(f"{TIMES[times]} as many as")
        self.value = self.work(times, "*", self.value)

    def together(self) -> None:
        """Another person, and the sum of both as the last line."""
        first, more = self.value, self.number(2, min(LARGEST_CHANGE, LARGEST - 2 * self.value))
        self.other(f"{more} more than")
        self.value = self.work(first, "+", more)
        self.value = self.work(first, "+", self.value)
        self.asked = f"How many {self.thing} do they have together?"

    def divisors(self) -> list[int]:
        return [n for n in range(2, 10) if self.value % n == 0 and self.value > n]

    def share(self) -> None:
        friends = pick(self.rng, self.divisors())
        self.told.append(f"{self.pronoun} shares them equally among {friends} friends.")
        self.value = self.work(self.value, "/", friends)
        self.asked = f"How many {self.thing} does each friend get?"


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic task.

    steps  `low-high`: the number of worked lines, drawn evenly
    """

    steps: str = "2-4"

    name: ClassVar[str] = "arithmetic"
    version: ClassVar[str] = "1"
    headline: ClassVar[str] = "worked"
    gen_length: ClassVar[int] = 48
    chat: ClassVar[bool] = False
    stops: ClassVar[tuple[str, ...]] = ("\nQuestion:",)
    finish: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self._range()

    def _range(self) -> tuple[int, int]:
        low, _, high = self.steps.partition("-")
        try:
            bounds = int(low), int(high or low)
        except ValueError:
            raise UserError(f"arithmetic: steps is {self.steps!r}", "write steps=2-4") from None
        if not 1 <= bounds[0] <= bounds[1] <= 4:
            raise UserError(f"arithmetic: steps is {self.steps!r}", "low <= high, both in 1..4")
        return bounds

    def examples(self, limit: int | None, seed: int) -> Iterable[Question]:
        return islice(self._questions("test", seed), 200 if limit is None else limit)

    def training(self, seed: int) -> Iterator[Question]:
        """An endless stream of questions whose prompts `examples` never gives, whatever the seed.

        A question's prompt and target together are the text to learn.
        """
        return self._questions("train", seed)

    def _questions(self, use: str, seed: int) -> Iterator[Question]:
        return (self._question(f"{use}:{seed}:{i}") for i in count())

    def _question(self, key: str) -> Question:
        """The question of this key: a function of it alone, on every machine."""
        rng = Random(f"arithmetic:{key}")
        low, high = self._range()
        while True:
            steps = low + int(rng.random() * (high - low + 1))
            story = Story(rng, steps)
            prompt = f"Question: {' '.join(story.told)} {story.asked}\nAnswer:"
            if (crc32(prompt.encode()) % HELD_OUT == 0) == key.startswith("test"):
                target = "\n".join([*story.lines, f"#### {story.value}"])
                return Question(key, prompt, f" {target}", meta={"steps": steps})

    def score(self, question: Question, answer: str) -> dict[str, float]:
        """The scores of GSM8K, and worked: strict, and every line before the result is true."""
        found = numbers.scores(question.target, answer)
        lines = answer.partition("\n####")[0].removeprefix(" ").split("\n")
        return {**found, "worked": found["strict"] * all(map(true, lines))}


def true(line: str) -> bool:
    """Whether a line is an equation that holds."""
    parts = LINE.fullmatch(line)
    if not parts:
        return False
    a, b, c = (int(parts[i]) for i in (1, 3, 4))
    return {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": b * c == a}[parts[2]]


TASKS = {"arithmetic": Arithmetic}
