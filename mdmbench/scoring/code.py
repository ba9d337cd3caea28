"""Python code in answers: which part of a text is the program. Never raises, whatever the text."""

import ast
import re
import warnings
from collections.abc import Iterator

from mdmbench.base import Program

LINES, PARSES = 200, 400
"""`longest_run` looks at so many lines and tries so many of their runs; then it takes the best."""


def function(prompt: str, name: str, answer: str) -> Program:
    """The function `name` that a prompt begins and an answer writes or completes.

    The first that holds of these readings:

    fence  a fenced block that defines the function, behind what the prompt has before it
    text   the text up to a fence, where it defines the function, likewise
    body   the prompt and the text up to a fence, its indent left as it is

    A definition that does not parse is none.
    """
    head, blocks = split(answer)
    for text, branch in [*((block, "fence") for block in blocks), (head, "text")]:
        if defines(text, name) and parses(text):
            return Program(f"{preamble(prompt, name)}\n{text}", branch)
    return Program(prompt + head, "body")


def module(answer: str) -> Program:
    """Code that stands for itself: the text up to a fence, else the first fenced definition.

    Branches text and fence, as in `function`.
    """
    head, blocks = split(answer)
    for text, branch in [(head, "text"), *((block, "fence") for block in blocks)]:
        if defines(text) and parses(text):
            return Program(text, branch)
    return Program(head, "text")


def split(answer: str) -> tuple[str, list[str]]:
    """The text before the first fence, and what follows each, without the fence's language.

    Fences are not paired: an answer may begin inside a block. Prose between two blocks comes out
    as a block that does not parse.
    """
    head, *rest = answer.split("```")
    return head, [re.sub(r"\A[\w+.-]*[ \t]*\r?\n", "", block) for block in rest]


def defines(text: str, name: str = "") -> bool:
    """Whether a line begins the definition of the function `name`, of anything where it is ""."""
    what = rf"def\s+{re.escape(name)}\b" if name else r"(?:def|class)\s"
    return re.search(rf"^[ \t]*(?:async\s+)?{what}", text, re.MULTILINE) is not None


def preamble(prompt: str, name: str) -> str:
    """What a prompt has before its last definition of `name`: imports and other functions."""
    *_, start = [0, *(m.start() for m in re.finditer(rf"^def {name}\b", prompt, re.MULTILINE))]
    return prompt[:start]


def fault(source: str) -> int:
    """The line, from 1, where the parser stops; 0 where the source parses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):
        return 1
    return 0


def parses(source: str) -> bool:
    return not fault(source)


def sanitized(prompt: str, name: str, answer: str) -> Program:
    """What Dream and Fast-dLLM run for HumanEval: the longest part that parses, tidied up.

    The prompt and the answer's first ```python block (the whole answer without one) are cut to
    their longest run of lines that parses. Of it stay the imports and those functions with a
    return, classes and assignments that `name` needs. Tabs become four spaces.
    After sanitize.py of DreamLM/Dream (eval/), which in turn is EvalPlus's.
    """
    _, fence, behind = answer.partition("```python\n")
    text = f"{prompt}\n{behind.partition('```')[0] if fence else answer}".replace("\t", "    ")
    return Program(needed(longest_run(text), name), "sanitized")


def longest_run(text: str) -> str:
    """The run of lines that parses and has the most lines that are not blank; the first of them.

    A run that fails is cut where the parser stopped, so a start costs few parses, not one a line.
    """
    lines = re.sub(r"\r\n?", "\n", text).split("\n")[:LINES]
    best, most, tries = "", 0, PARSES
    for start in range(len(lines)):
        end = len(lines)
        while tries and sum(map(bool, map(str.strip, lines[start:end]))) > most:
            tries -= 1
            run = "\n".join(lines[start:end])
            stopped = fault(run)
            if not stopped:
                best, most = run, sum(map(bool, map(str.strip, lines[start:end])))
            end = min(end - 1, start + stopped - 1)
    return best


def needed(source: str, name: str) -> str:
    """The imports of a source that parses, and the definitions that `name` needs, in order."""
    lines = source.split("\n")
    kept: list[tuple[ast.stmt, set[str] | None]] = []
    uses: dict[str, set[str]] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            kept.append((statement, None))
        elif defined := set(_defined(statement)):
            kept.append((statement, defined))
            used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            for each in defined:
                uses.setdefault(each, set()).update(used)
    reached, left = {name}, [name]
    while left:
        new = uses.get(left.pop(), set()) - reached
        reached |= new
        left += new
    return "\n".join(
        _source(lines, statement) for statement, names in kept if names is None or names & reached
    )


def _defined(statement: ast.stmt) -> Iterator[str]:
    """The names of a class, a function that returns something, or an assignment."""
    match statement:
        case ast.ClassDef(name=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            if any(isinstance(node, ast.Return) for node in ast.walk(statement)):
                yield name
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _source(lines: list[str], statement: ast.stmt) -> str:
    """The lines of a statement with its decorators."""
    decorators = getattr(statement, "decorator_list", [])
    first = min(node.lineno for node in [statement, *decorators])
    return "\n".join(lines[first - 1 : statement.end_lineno])
