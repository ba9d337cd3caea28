"""Arithmetic: the problems are what they claim, and the shipped model solves them."""

import re
from hashlib import sha256
from itertools import islice
from zlib import crc32

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdmbench import bundled, canvas, models, resolve
from mdmbench.base import Question, Sampler
from mdmbench.errors import UserError
from mdmbench.loop import decode
from mdmbench.models import checkpoint
from mdmbench.samplers.budget import EB
from mdmbench.samplers.ranked import TopK
from mdmbench.trainees import tokenizer

TASK = resolve.task("arithmetic", {})
LINE = re.compile(r"(\d+)([-+*/])(\d+)=(\d+) ([a-z]+)")
seeds = st.integers(0, 2**31 - 1)


def first(seed: int, n: int, **knobs: str) -> list[Question]:
    return list(resolve.task("arithmetic", knobs).examples(n, seed))


def solved(prompt: str) -> int:
    """The answer, read off the words alone."""
    *told, asked = re.split(r"(?<=[.])\s+", prompt.removeprefix("Question: "))
    owned: dict[str, int] = {}
    who, value = "", 0
    for sentence in told:
        if sentence.split()[0] not in ("He", "She"):
            who, value = sentence.split()[0], 0
        numbers = [int(number) for number in re.findall(r"\d+", sentence)]
        amount = numbers[0] * numbers[1] if len(numbers) == 2 else sum(numbers)
        compared = re.search(
            r"(more than|fewer than|times as many as|twice as many as) (\w+)", sentence
        )
        if compared:
            other = owned[compared[2]]
            times = 2 if "twice" in sentence else 3
            value = {"more": other + amount, "fewe": other - amount}.get(
                compared[1][:4], times * other
            )
        elif "shares" in sentence:
            value //= amount
        elif re.search(r"drops|loses|sells|uses", sentence):
            value -= amount
        else:
            value += amount
        owned[who] = value
    return sum(list(owned.values())[-2:]) if "together" in asked else value


@given(seeds)
def test_the_gold_answer_is_what_the_words_say(seed: int) -> None:
    for question in first(seed, 5):
        assert question.target.endswith(f"\n#### {solved(question.prompt)}")


@given(seeds)
def test_every_line_is_right_and_the_last_one_is_the_result(seed: int) -> None:
    for question in first(seed, 5):
        *lines, result = question.target.removeprefix(" ").split("\n")
        worked = [LINE.fullmatch(line) for line in lines]
        assert len(worked) == question.meta["steps"]
        for line in worked:
            assert line
            a, b, c = int(line[1]), int(line[3]), int(line[4])
            assert {"+": a + b == c, "-": a - b == c, "*": a * b == c, "/": b * c == a}[line[2]]
            assert all(1 <= number <= 20 for number in (a, b, c))
        assert worked[-1] and result == f"#### {worked[-1][4]}"


@given(seeds, st.sampled_from(["1", "2", "3-4", "4"]))
def test_steps_sets_the_number_of_lines(seed: int, steps: str) -> None:
    low, high = int(steps[0]), int(steps[-1])
    for question in first(seed, 5, steps=steps):
        assert low <= question.target.count("\n") <= high


def test_the_sides_of_a_sum_stand_in_either_order() -> None:
    """The dependence that entropy-bounded samplers have to respect."""
    orders = set()
    for question in first(0, 50):
        given_first = [int(n) for n in re.findall(r"\d+", question.prompt)][:2]
        line = LINE.search(question.target)
        if line and line[2] in "+*" and given_first[0] != given_first[1]:
            orders.add(int(line[1]) == given_first[0])
    assert orders == {True, False}


def test_the_questions_are_the_same_on_every_machine() -> None:
    questions = first(0, 200)
    text = "\n".join(q.id + q.prompt + q.target for q in questions)
    assert questions[1].prompt + questions[1].target == (
        "Question: Leo has 6 nuts. He loses 5 of them. He finds 9 more."
        " How many nuts does Leo have now?\nAnswer: 6-5=1 nuts\n1+9=10 nuts\n#### 10"
    )
    assert sha256(text.encode()).hexdigest()[:12] == "017dabb6b7f6"
    assert first(0, 20) == questions[:20]


@given(seeds, seeds)
def test_no_training_question_is_ever_an_example(seed: int, other: int) -> None:
    learned = {q.prompt for q in islice(TASK.training(seed), 50)}
    assert all(training_side(p) for p in learned)
    assert not any(training_side(q.prompt) for q in first(other, 5))


def training_side(prompt: str) -> bool:
    """The two streams share no prompt, because each keeps to its own side of a checksum."""
    return crc32(prompt.encode()) % 16 != 0


def test_scores_read_the_number_behind_the_mark() -> None:
    question = first(0, 1)[0]
    gold = question.target.split("#### ")[1]
    right = {"strict": 1, "flexible": 1, "number": 1, "worked": 1}
    assert TASK.score(question, question.target) == right
    assert TASK.score(question, f" It is {gold}") == {**right, "strict": 0, "worked": 0}
    assert not any(TASK.score(question, f"{gold} nuts\n#### 100").values())
    assert not any(TASK.score(question, "").values())


@pytest.mark.parametrize(
    ("lines", "worked"),
    [
        (" 6-5=1 nuts\n1+9=10 nuts", 1),
        (" 9+1=10 nuts", 1),
        (" 20/2=10 nuts", 1),
        (" 6-5=2 nuts\n1+9=10 nuts", 0),
        (" 6-5=1 nuts\n9+9=10 nuts", 0),
        (" 5*5=10 nuts", 0),
        (" 20/0=10 nuts", 0),
        (" it is 10", 0),
        ("", 0),
    ],
)
def test_worked_asks_that_every_line_holds(lines: str, worked: int) -> None:
    question = first(0, 2)[1]
    found = TASK.score(question, f"{lines}\n#### 10")
    assert (found["strict"], found["worked"]) == (1, worked)
    assert TASK.score(question, f"{lines}\n#### 11")["worked"] == 0


@pytest.mark.parametrize("steps", ["0", "2-5", "3-2", "two", ""])
def test_steps_out_of_range_are_refused(steps: str) -> None:
    with pytest.raises(UserError, match=f"steps is '{steps}'"):
        resolve.task("arithmetic", {"steps": steps})


MODEL = bundled.models()["arithmetic"]


@pytest.fixture(scope="module")
def codec() -> canvas.Text:
    torch.set_num_threads(1)
    options = checkpoint.Options()
    model = models.load(MODEL, device=torch.device("cpu"), dtype="float32", options=options)
    made = canvas.tokenizer(MODEL)
    return canvas.Text(made, model, TASK, gen_length=TASK.gen_length, chat=False)


def share(codec: canvas.Text, rule: Sampler, score: str) -> float:
    n = 48
    questions = {q.id: q for q in first(1, n)}
    canvases = [codec.canvas(q) for q in questions.values()]
    starts = {c.id: c.start for c in canvases}
    done = decode(codec.model, rule, canvases, batch_size=n)
    answers = ((questions[d.id], codec.answer(d.tokens[starts[d.id] :])) for d in done)
    return sum(TASK.score(*answer)[score] for answer in answers) / n


def test_the_shipped_model_answers(codec: canvas.Text) -> None:
    assert share(codec, TopK(k=1), "worked") > 0.8


def test_the_shipped_model_cannot_work_it_out_in_one_forward(codec: canvas.Text) -> None:
    """Else samplers would have nothing to lose."""
    assert share(codec, EB(float("inf")), "worked") < 0.6


def test_the_shipped_tokenizer_loses_nothing(codec: canvas.Text) -> None:
    made = tokenizer(q.prompt + q.target for q in islice(TASK.training(0), 5000))
    assert made.get_vocab() == codec.tokenizer.get_vocab()
    for question in first(2, 300):
        text = question.prompt + question.target
        ids = codec.tokenizer(text)["input_ids"]
        assert codec.tokenizer.decode(ids) == text
        digits = [piece for piece in codec.pieces(ids) if any(c.isdigit() for c in piece)]
        assert all(len(piece) == 1 for piece in digits)
        assert len(codec.tokenizer(question.target)["input_ids"]) < TASK.gen_length
