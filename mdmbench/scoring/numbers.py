"""The number an answer ends in, as several harnesses read it.

`strict` and `flexible` are the two filters of lm-evaluation-harness (tasks/gsm8k), `opencompass`
is OpenCompass's rule (datasets/gsm8k.py); their oddities are kept, scores must compare. `number`
is our own reading. Every function takes any text, and returns "" where it finds no number.
"""

import re
from decimal import Decimal

HASHES = r"#### (-?[0-9.,]+)"
"""How a worked answer of the data set ends; its number is the group."""

SENTENCE = r"The answer is (-?[0-9.,]+)."
"""How an answer of a chain-of-thought prompt ends. The last dot stands for any character."""

_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_MARK = re.compile(r"####|\banswer is\b|\\boxed\b", re.IGNORECASE)
_THOUSANDS = r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])"
# A minus behind a word or a bracket is a difference: 20-2 ends in 2.
_NUMBER = re.compile(rf"(?:(?<![\w)\]])-)?(?:(?:{_THOUSANDS}|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")
_OPENCOMPASS = re.compile(r"-?\d+\.\d+|-?\d+")
_OPENCOMPASS_BASE = re.compile(r"The Answer is[:\s]*(-?\d+(?:\.\d+)?)", re.IGNORECASE)


def scores(gold: str, answer: str, ending: str = HASHES) -> dict[str, float]:
    """The scores strict, flexible and number of an answer, each 0 or 1.

    gold    the number, or a worked answer that ends in `#### ` and the number
    ending  what the strict filter looks for: HASHES or SENTENCE
    """
    right = cleaned(gold)
    return {
        "strict": float(cleaned(strict(answer, ending)) == right),
        "flexible": float(cleaned(flexible(answer)) == right),
        "number": float(same(number(answer), right)),
    }


def cleaned(text: str) -> str:
    """Without commas, dollars, all up to `#### `, and one full stop at the end."""
    return re.sub(r"(?s).*#### ", "", text.replace(",", "").replace("$", "")).removesuffix(".")


def strict(text: str, ending: str = HASHES) -> str:
    """The number of the first `ending`."""
    found = re.search(ending, text)
    return found[1] if found else ""


def flexible(text: str) -> str:
    """The last run of two or more digits, dots, commas and dollars, or of digits."""
    return next((match[0] for match in reversed([*_FLEXIBLE.finditer(text)])), "")


def number(text: str) -> str:
    """The first number behind the last `####`, `answer is` or `\\boxed`, else the last of all.

    Thousands commas, dollars, percent signs, bold marks and LaTeX spaces are no part of it.
    """
    text = re.sub(r"\{,\}|,\\!\s*", ",", text.replace("\u2212", "-"))
    text = re.sub(r"\\?\$|\\[,!;:]", "", text)
    text = re.sub(r"\\?%|\*", " ", text)
    *_, tail = _MARK.split(text)
    marked = _NUMBER.search(tail) if len(tail) < len(text) else None
    found = marked[0] if marked else next(reversed(_NUMBER.findall(text)), "")
    return found.replace(",", "")


def same(a: str, b: str) -> bool:
    """Whether both are numbers, and equal ones: 18.00 is 18."""
    return is_number(a) and is_number(b) and Decimal(a) == Decimal(b)


def is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def opencompass(text: str) -> str:
    """The last number before any `Question:`. A comma ends a number: 1,080 reads 080."""
    found = _OPENCOMPASS.findall(text.partition("Question:")[0])
    return found[-1] if found else ""


def opencompass_base(text: str) -> str:
    """The number of the first `The answer is`, in any case, else `opencompass`."""
    found = _OPENCOMPASS_BASE.search(text)
    return found[1] if found else opencompass(text)


def close(found: str, gold: str) -> bool:
    """OpenCompass's comparison: within 1e-6."""
    return bool(found) and abs(float(found) - float(gold)) < 1e-6
