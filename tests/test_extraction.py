"""What answers are read as: each harness's rule with its oddities, and our own without them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmbench.errors import UserError
from mdmbench.scoring import code, latex, numbers

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets")

# Marks and pieces that the extractors look for, among any text.
PIECES = [
    *("#### ", "The answer is ", "\\boxed{", "{", "}", "\\", "$", ",", ".", "-", "1,080", "18."),
    *("\\frac", "\\text{", "Final Answer: The final answer is", " I hope it is correct.", "="),
    *("```", "```python\n", "\n", "    ", "\t", "def f(x):\n", "return 1", '"""', "(", "\0"),
    *("import os\n", "class A:\n", "x = ", "@f\n", "lambda: ", "\r", "\x0c", "\u2028"),
]
junk = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=40).map("".join)
many = settings(max_examples=300, deadline=None)


# Numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He pays a total 18 dollars ...", "..."),
        ("It is 18. I am 100% sure", "100"),
        ("$18.00", "$18.00"),
        ("18...", "18..."),
        ("So 20 - 2 = 18.", "18."),
        ("nothing", ""),
    ],
)
def test_flexible_keeps_the_oddities_of_lm_eval(text: str, found: str) -> None:
    assert numbers.flexible(text) == found


@pytest.mark.parametrize(
    "text", ["a total 18 dollars ...", "18. I am 100% sure", "$18.00", "18..."]
)
def test_what_flexible_reads_wrongly_scores_nothing(text: str) -> None:
    assert numbers.scores("18", text)["flexible"] == 0


@pytest.mark.parametrize("text", ["#### 18", "#### 18.", "So.\n#### 18\nQ", "#### 1,8"])
def test_strict_reads_what_follows_the_hashes(text: str) -> None:
    assert numbers.scores("18", text)["strict"] == 1


@pytest.mark.parametrize("text", ["####18", "#### $18", "The answer is 18.", "18"])
def test_strict_misses_any_other_form(text: str) -> None:
    assert numbers.scores("18", text)["strict"] == 0


def test_strict_takes_the_first_mark_and_flexible_the_last_number() -> None:
    text = "#### 18\n\nNext.\n#### 7"
    assert numbers.strict(text) == "18"
    assert numbers.flexible(text) == "7"


def test_the_sentence_needs_a_character_behind_its_number() -> None:
    assert numbers.strict("The answer is 18.", numbers.SENTENCE) == "18"
    assert numbers.strict("The answer is 18", numbers.SENTENCE) == "1"
    assert numbers.scores("1080", "The answer is 1,080.", numbers.SENTENCE)["strict"] == 1


def test_a_gold_answer_may_be_the_whole_worked_one() -> None:
    worked = "First 2*9 = <<2*9=18>>18.\n#### 18"
    assert numbers.scores(worked, worked) == {"strict": 1, "flexible": 1, "number": 1}
    assert numbers.scores("#### -1,018", "So it is -1018") == {
        "strict": 0,
        "flexible": 1,
        "number": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a total 18 dollars ...",
            "The answer is 18. I am 100% sure",
            "$18.00",
            "18...",
            "####18",
        ),
        *("#### $18", "#### 18 apples in 3 bags", "**18**", "the answer is **$18.0**!", "20-2=18"),
        *(
            "\\boxed{18}",
            "\\boxed{\\$18}. It took 5 steps",
            "Answer is: \\text{18}",
            "20 - 2 = +18",
        ),
        *(
            "The answer is 7. No, the answer is 18.",
            "7 is wrong. #### 18",
            "Answer is \\(18\\%\\).",
        ),
        "The answer is not known, but 18",
    ],
)
def test_number_reads_what_a_person_would(text: str) -> None:
    assert numbers.scores("18", text)["number"] == 1


@pytest.mark.parametrize("text", ["1,080", "1{,}080", "1,\\!080", "1080.000", "$1,080.00"])
def test_number_knows_thousands(text: str) -> None:
    assert numbers.scores("1080", text)["number"] == 1


def test_a_minus_behind_a_number_is_a_difference() -> None:
    assert [numbers.number(t) for t in ("x = -3", "5-3", "\u22123", "-$3", "(5)-3", "f(-3)")] == [
        *("-3", "3", "-3", "-3", "3", "-3")
    ]


def test_opencompass_reads_only_what_follows_a_comma() -> None:
    assert numbers.opencompass("It is 1,080") == "080"
    assert not numbers.close("080", "1080")
    assert numbers.opencompass("18\n\nQuestion: 5") == "18"
    assert numbers.close("18.0", "18") and not numbers.close("", "18")


def test_opencompass_for_base_models_prefers_the_sentence() -> None:
    assert numbers.opencompass_base("the answer is: 18\nThen 5") == "18"
    assert numbers.opencompass_base("It is 18\nThen 5") == "5"


@given(junk)
@many
def test_no_text_makes_a_reader_of_numbers_raise(text: str) -> None:
    for ending in (numbers.HASHES, numbers.SENTENCE):
        assert set(numbers.scores("18", text, ending).values()) <= {0.0, 1.0}
    for found in (numbers.opencompass(text), numbers.opencompass_base(text)):
        numbers.close(found, "18")


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "{}.0", "**{}**", "{:,}."]))
def test_number_reads_any_integer_however_it_is_written(n: int, form: str) -> None:
    for before in ("#### ", "it took 3 steps. The answer is ", "that makes "):
        assert numbers.scores(str(n), before + form.format(n))["number"] == 1


def test_a_number_of_many_digits_is_read() -> None:
    assert numbers.scores("9" * 5000, "#### " + "9" * 5000)["number"] == 1


@with_data
def test_every_gold_answer_of_gsm8k_passes_its_own_scores() -> None:
    lines = (DATA / "gsm8k_test.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert len(answers) == 1319
    for worked in answers:
        gold = numbers.cleaned(worked)
        assert set(numbers.scores(gold, worked).values()) == {1.0}
        sentence = f"The answer is {gold}."
        assert set(numbers.scores(gold, sentence, numbers.SENTENCE).values()) == {1.0}
        assert numbers.close(numbers.opencompass(sentence), gold)


# Formulas


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"} { \boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed{}", ""),
        (r"\boxed", ""),
        ("7", ""),
    ],
)
def test_a_box_ends_where_its_own_brace_does(text: str, found: str) -> None:
    assert latex.boxed(text) == found


def test_minervas_sentence_may_be_cut_behind_its_full_stop_only() -> None:
    whole = "Final Answer: The final answer is $2$. I hope it is correct."
    assert latex.minerva(whole) == "$2$"
    assert latex.minerva(whole.removesuffix("I hope it is correct.")) == "$2$"
    assert latex.minerva(whole.removesuffix(" I hope it is correct.")) == ""
    assert latex.minerva(whole.removesuffix(". I hope it is correct.")) == ""
    assert latex.minerva(whole.replace("is $2$", "is\n$2$")) == ""


def test_the_last_box_goes_before_the_sentence_and_nothing_before_a_guess() -> None:
    sentence = "Final Answer: The final answer is $2$. I hope it is correct."
    assert latex.answer(rf"\boxed{{3}} {sentence}") == "3"
    assert latex.answer(rf"\boxed{{}} {sentence}") == "$2$"
    assert latex.answer("the answer is 2") == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"the answer is $1$. \boxed{2}", "2"),
        ("We add. So the answer is $\\frac{1}{2}$. Then 3.", "\\frac{1}{2}"),
        ("The final answer is: 7. Done.", "7"),
        ("7 it is. Done.", "7 it is"),
    ],
)
def test_opencompass_falls_back_on_sentences(text: str, found: str) -> None:
    assert latex.opencompass(text) == found


SAME = [
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{3}{4}", r"\frac 34"),
    (r"\frac9{19}", r"\frac{9}{19}"),
    (r"1\frac{4}{5}", "1.8"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (".5", "0.50"),
    ("72", "$72.0$."),
    (r"\$18.90", "18.90"),
    ("10,\\!080", "10080"),
    ("58,500", r"\$58500"),
    (r"11,\! 111,\! 100", "11111100"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", r"90\text{ degrees}"),
    (r"5.4 \text{ cents}", "5.4"),
    (r"15\mbox{ cm}^2", "15"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(C)}", "C"),
    ("x=5", "5"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"11\sqrt2", r"11 \sqrt{2}"),
    ("52_8", "52_{8}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("50\\%", "50"),
]
OTHER = [
    ("0", "5x - 7y + 11z + 4 = 0"),
    ("3, 500", "3500"),
    ("(1,2)", "(2,1)"),
    ("-1", "1"),
    ("[1,2)", "(1,2)"),
    (r"\frac{1}{2}", r"\frac{2}{1}"),
    (r"\sqrt{2}", "2"),
    ("52_8", "52"),
    ("5", ""),
    ("", ""),
    ("1", r"\frac{1}{0}"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_ways_to_write_one_answer_are_the_same(a: str, b: str) -> None:
    assert latex.same(a, b) and latex.same(b, a)


@pytest.mark.parametrize(("a", "b"), OTHER)
def test_other_answers_are_not_the_same(a: str, b: str) -> None:
    assert not latex.same(a, b) and not latex.same(b, a)


@given(junk)
@many
def test_no_text_makes_a_reader_of_formulas_raise(text: str) -> None:
    for found in (latex.answer(text), latex.opencompass(text), text):
        latex.same(r"\frac{1}{2}", found)
    assert latex.same(text, text) == bool(text)


@with_data
def test_every_solution_of_math500_ends_in_its_own_answer() -> None:
    lines = (DATA / "math500.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 500
    wrong = [r["answer"] for r in rows if not latex.same(r["answer"], latex.answer(r["solution"]))]
    assert wrong == []
    sentence = "Final Answer: The final answer is ${}$. I hope it is correct."
    assert all(latex.same(r["answer"], latex.answer(sentence.format(r["answer"]))) for r in rows)


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="needs mdmbench[math]")
@pytest.mark.filterwarnings("default")
def test_math_verify_is_asked_where_two_answers_are_written_differently() -> None:
    assert not latex.same("1,-2", "-2,1")
    assert latex.same("1,-2", "-2,1", verify=True)
    assert not latex.same("1,-2", "-2,3", verify=True)
    assert not latex.same("1", "}{\\frac{" * 5, verify=True)


def test_verifying_without_math_verify_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latex.math_verify.cache_clear()
    monkeypatch.setattr(latex, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install mdmbench\[math\]"):
        latex.math_verify()


# Code

PROMPT = '''import math


def helper(n):
    return n + 1


def f(n):
    """Add two."""
'''
BODY = "    return helper(helper(n))\n"
WHOLE = "def f(n):\n    return helper(helper(n))\n"


def value(source: str) -> object:
    """What f(1) is, or the name of the error."""
    names: dict[str, Any] = {}
    try:
        exec(compile(source, "answer", "exec"), names)
        return names["f"](1)
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("answer", "branch"),
    [
        (BODY, "body"),
        (f"{BODY}```\nIt adds two. An example:\n```python\nprint(f(1))\n```", "body"),
        (f"{BODY}\n\n{WHOLE}", "body"),
        (WHOLE, "text"),
        (f"{WHOLE}```\nDone.", "text"),
        (f"Sure!\n```python\n{WHOLE}```\nDone.", "fence"),
        (f"```\n{WHOLE}```", "fence"),
        (f"```py\r\n{WHOLE}", "fence"),
        (f"First the helper:\n```python\nx = 1\n```\nthen\n```python\n{WHOLE}```", "fence"),
        (f"{BODY}```\nOr, in full:\n```python\n{WHOLE}```", "fence"),
    ],
)
def test_a_function_is_found_in_every_form_of_answer(answer: str, branch: str) -> None:
    program = code.function(PROMPT, "f", answer)
    assert (program.branch, value(program.source)) == (branch, 3)


def test_helpers_and_imports_of_the_prompt_stand_before_a_block() -> None:
    program = code.function(PROMPT, "f", f"```python\n{WHOLE}```")
    assert value(WHOLE) == "NameError"
    assert program.source.startswith("import math") and '"""Add two."""' not in program.source


@pytest.mark.parametrize("indent", ["", "   ", "     "])
def test_the_indent_of_a_body_is_neither_stripped_nor_repaired(indent: str) -> None:
    answer = f"{indent}m = n + 1\n    return m + 1\n"
    program = code.function(PROMPT, "f", answer)
    assert program.source == PROMPT + answer
    assert value(program.source) in ("SyntaxError", "IndentationError")
    assert value(code.function(PROMPT, "f", answer.replace(indent, "    ", 1)).source) == 3


def test_an_answer_cut_before_its_code_is_no_program() -> None:
    assert value(code.function(PROMPT, "f", "Here it is:\n\n```python").source) == "SyntaxError"


@pytest.mark.parametrize(
    ("answer", "branch"),
    [
        ("def f(n):\n    return n + 2\n", "text"),
        ("def f(n):\r\n\treturn n + 2\r\n", "text"),
        (
            "def f(n):\n    return n + 2\n```\nAn example:\n```python\ndef g(): return f(1)\n",
            "text",
        ),
        ("Sure:\n```python\ndef f(n):\n    return n + 2\n```\nDone", "fence"),
        ("Say f(1):\n```\nf(1)\n```\nof\n```python\ndef f(n):\n    return n + 2\n```", "fence"),
        ("f = lambda n: n + 2", "text"),
    ],
)
def test_a_module_is_found_in_every_form_of_answer(answer: str, branch: str) -> None:
    program = code.module(answer)
    assert (program.branch, value(program.source)) == (branch, 3)


def test_sanitizing_rescues_a_broken_tail() -> None:
    answer = f"{BODY}\n\nThis adds one twice.\n>>> f(1)"
    assert value(code.function(PROMPT, "f", answer).source) == "SyntaxError"
    assert value(code.sanitized(PROMPT, "f", answer).source) == 3


def test_sanitizing_takes_the_first_python_block() -> None:
    answer = f"Sure!\n```python\n{WHOLE}```\nor\n```python\ndef f(n): return 0\n```"
    assert value(code.sanitized(PROMPT, "f", answer).source) == 3


def test_sanitizing_keeps_what_is_needed_and_drops_functions_without_a_return() -> None:
    source = "\n".join(
        [
            "import math",
            "BASE = STEP = 1",
            "UNUSED = 2",
            "class Step:",
            "    size = STEP",
            "def helper(n): return n + Step.size",
            "def shout(n): print(n)",
            "def unused(): return UNUSED",
            "@staticmethod",
            "def f(n):",
            "    return helper(n) + BASE",
            "f(1)",
        ]
    )
    kept = code.needed(source, "f")
    assert value(kept) == 3
    for word in ("import math", "BASE", "class Step", "helper", "@staticmethod"):
        assert word in kept
    for word in ("UNUSED", "shout", "\nf(1)"):
        assert word not in kept
    assert (
        value(code.needed("def g(): print()\ndef f(n):\n    g()\n    return 3", "f")) == "NameError"
    )


def test_code_that_the_parser_only_warns_of_parses() -> None:
    assert code.parses("x = '\\d'")


def test_sanitizing_turns_tabs_into_four_spaces() -> None:
    assert "\t" not in code.sanitized(PROMPT, "f", "\treturn n + 2").source
    assert value(code.sanitized(PROMPT, "f", "\tm = n\n    return m + 2").source) == 3


def test_the_longest_run_counts_lines_that_are_not_blank_and_prefers_the_first() -> None:
    assert code.longest_run("a = 1\n\n\n?\nb = 1\nc = 2\n?") == "b = 1\nc = 2"
    assert code.longest_run("a = 1\n?\nb = 1") == "a = 1"
    assert code.longest_run("?\n?") == ""
    assert code.longest_run("x = 1\nif x:\n    y = (1,\n    2)\nelse:\n?") == (
        "x = 1\nif x:\n    y = (1,\n    2)"
    )


@given(st.lists(st.sampled_from(["a = 1", "b(", ")", "if a:", "    c = 2", "?", ""]), max_size=7))
@settings(max_examples=150, deadline=None)
def test_the_longest_run_is_the_one_that_trying_all_finds(lines: list[str]) -> None:
    runs = [lines[i:j] for i in range(len(lines)) for j in range(i + 1, len(lines) + 1)]
    longest = max(
        (sum(map(bool, run)) for run in runs if code.parses("\n".join(run))),
        default=0,
    )
    assert sum(map(bool, code.longest_run("\n".join(lines)).split("\n"))) == longest


def test_the_longest_run_of_long_junk_takes_a_bounded_number_of_parses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parses = []
    fault = code.fault
    monkeypatch.setattr(code, "fault", lambda source: parses.append(source) or fault(source))
    for junk in ("x = (\n", "if x:\n", "foo bar\n", '"""\n', "a = 1\nb c\n"):
        parses.clear()
        code.longest_run(junk * 1000)
        assert len(parses) <= code.PARSES
        assert all(run.count("\n") < code.LINES for run in parses)


@pytest.mark.parametrize("junk", ["(" * 5000, "-" * 50_000 + "1", "a" + "()" * 5000, "x\0y", "\\"])
def test_what_the_parser_itself_fails_on_is_no_code(junk: str) -> None:
    for program in (code.function(PROMPT, "f", junk), code.sanitized(PROMPT, "f", junk)):
        assert isinstance(program.source, str)
    assert code.module(junk).source == junk


@given(junk)
@many
def test_no_text_makes_a_reader_of_code_raise(text: str) -> None:
    for program in (code.function(PROMPT, "f", text), code.sanitized(PROMPT, "f", text)):
        assert program.branch in ("fence", "text", "body", "sanitized")
    assert code.module(text).branch in ("fence", "text")
