"""The final answer of a mathematical text, and whether two answers are the same."""

import logging
import re
from fractions import Fraction
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mdmbench.errors import UserError

LIMIT = 300
"""Characters: a longer answer is compared as text only."""

SECONDS = 5
"""For each of math-verify's two stages."""

_BRACE = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|([{}])", re.DOTALL)
_MINERVA = re.compile(r"Final Answer: The final answer is(.*?). I hope it is correct.")


def boxed(text: str) -> str:
    """The content of the last `\\boxed{}` whose brace is closed, "" without one.

    `\\boxed 5` counts where no braces follow; escaped braces are text.
    """
    opened: list[int | None] = []
    found = None
    for match in _BRACE.finditer(text):
        if match[1] or match[2] == "{":
            opened.append(match.end() if match[1] else None)
        elif match[2] and opened:
            start = opened.pop()
            found = found if start is None else text[start : match.start()]
    if found is None:
        bare = re.findall(r"\\boxed\s+([^\s${}]+)", text)
        return bare[-1] if bare else ""
    return found.strip()


def minerva(text: str) -> str:
    """The answer of Minerva's closing sentence, "" without it (lm-eval, minerva_math/utils.py).

    The sentence's end is added first, without a space: `... is $2$. ` holds an answer, while
    `... is $2$.` holds none.
    """
    found = _MINERVA.search(text + "I hope it is correct.")
    return found[1].strip() if found else ""


def answer(text: str) -> str:
    """The last box, else Minerva's sentence, else ""."""
    return boxed(text) or minerva(text)


def opencompass(text: str) -> str:
    """The last box, else the first sentence that names an answer, else the first sentence.

    After OpenCompass (datasets/math.py): a sentence ends at a full stop, and of a sentence the
    first formula counts, else what stands behind `answer is`.
    """
    found = boxed(text)
    if found:
        return found
    sentences = text.split(".")
    named = (s for s in sentences if re.search(r"final answer|answer is", s, re.IGNORECASE))
    sentence = next(named, sentences[0])
    formula = re.search(r"\$(.*?)\$", sentence, re.DOTALL)
    if formula:
        return formula[1].strip()
    return re.split(r"answer is:?", sentence, flags=re.IGNORECASE)[-1].strip()


def same(a: str, b: str, *, verify: bool = False) -> bool:
    """Whether two answers are written alike, or are the same number; nothing equals "".

    verify  asks math-verify where they differ. It needs the main thread of its process, for its
            alarm after SECONDS.
    """
    if not a or not b:
        return False
    short, other = normalised(a), normalised(b)
    if short == other or (value(short) is not None and value(short) == value(other)):
        return True
    return verify and verified(a, b)


_WORDS = r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit)\{([^{}]*)\}"
_RULES = [
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\s+", " "),
        # Behind another backslash these are the second half of a line break.
        (r"(?<!\\)\\! ?|\\(?:left|right|displaystyle)(?![a-zA-Z])", ""),
        (r"(?<!\\)\\[,;: ]|\\(?:quad|qquad)(?![a-zA-Z])|~", " "),
        (r"(?<!\\)\\[$%()\[\]]|[$%]|\.? *\Z", ""),
        (r"\\degrees?(?![a-zA-Z])|\u00b0", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\A *[a-zA-Z] *(?:=|\\in(?![a-zA-Z]))", ""),
        # Where a space follows the comma it parts two numbers.
        (r"\A *([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?)\Z", lambda found: found[1].replace(",", "")),
        (r" +", ""),
        (r"\^\{?\\circ\}?", ""),
        # Behind a value words are a unit, alone they are the answer.
        (rf"(?<=[\w}})]){_WORDS}(?:\^\{{?\d\}}?)?\Z", ""),
        (_WORDS, r"\1"),
        (r"\\frac([0-9])([0-9])", r"\\frac{\1}{\2}"),
        (r"\\frac([0-9])\{", r"\\frac{\1}{"),
        (r"(\\frac\{[^{}]*\})([0-9])", r"\1{\2}"),
        (r"\\sqrt([0-9a-zA-Z])", r"\\sqrt{\1}"),
        (r"([_^])\{(\w)\}", r"\1\2"),
        (r"\A\(([a-zA-Z])\)\Z", r"\1"),
        (r"(?<![0-9])\.(?=[0-9])", "0."),
    )
]


def normalised(text: str) -> str:
    """An answer without what changes no meaning: spaces, dollars, units, sizes of brackets,
    thousands commas, the name of the unknown; fractions and roots with their braces."""
    for pattern, to in _RULES:
        text = pattern.sub(to, text)
    return text


_VALUE = re.compile(r"(-?)([0-9]*)(?:\\frac\{(-?[0-9]+)\}\{([0-9]+)\}|/([0-9]+)|(\.[0-9]+))?")


def value(text: str) -> Fraction | None:
    """The number that a normalised answer writes: 72.0, -1/2, \\frac{3}{4}, 1\\frac{4}{5}."""
    found = _VALUE.fullmatch(text) if len(text) <= LIMIT else None
    if found is None:
        return None
    sign, whole, above, below, divisor, decimals = found.groups()
    if above is None and not whole:
        return None
    try:
        if above is not None:
            size = Fraction(int(whole or 0)) + Fraction(int(above), int(below))
        elif divisor is not None:
            size = Fraction(int(whole), int(divisor))
        else:
            size = Fraction(whole + (decimals or ""))
    except ZeroDivisionError:
        return None
    return -size if sign else size


@cache
def math_verify() -> Any:
    """The module. Raises UserError where it is not installed."""
    if find_spec("math_verify") is None:
        raise UserError("verify=true needs math-verify", "install mdmbench[math]")
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every time-out
    return import_module("math_verify")


def verified(gold: str, found: str) -> bool:
    """Whether math-verify calls two answers equal; not where it fails or takes long."""
    if len(gold) > LIMIT or len(found) > LIMIT:
        return False
    module = math_verify()
    # It makes nothing of an escaped dollar.
    texts = [re.sub(r"\\?\$", "", text) for text in (gold, found)]
    parsed = [module.parse(f"${text}$", parsing_timeout=SECONDS) for text in texts]
    return bool(module.verify(*parsed, timeout_seconds=SECONDS))
