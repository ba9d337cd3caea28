"""From words to objects: names, knobs, files, recipes, symbols, and all ways to get them wrong."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from mdmbench import bundled, resolve
from mdmbench.base import NEVER, Canvas, Decoded, Example, Seconds
from mdmbench.canvas import Symbols, counts, first_end, restored
from mdmbench.errors import UserError, unknown
from mdmbench.samplers import SAMPLERS
from mdmbench.samplers.budget import EB
from mdmbench.samplers.presets import PRESETS
from mdmbench.samplers.ranked import TopK
from mdmbench.samplers.threshold import Threshold
from mdmbench.spec import RunSpec, distinct, plan, recipe

USER_FILE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from mdmbench.base import Choice
from mdmbench.errors import UserError
from mdmbench.step import Step

@dataclass(frozen=True)
class Half:
    share: float = 0.5
    side: Literal["left", "right"] = "left"

    def __post_init__(self) -> None:
        if self.share > 1:
            raise UserError(f"share is {self.share}", "at most 1")

    def __call__(self, step: Step) -> Choice:
        return Choice(step.top(step.confidence, 1))

@dataclass(frozen=True)
class Needy:
    k: int

class Bare:
    pass

def everything(step: Step) -> Choice:
    return Choice(step.eligible)

number = 3
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE)
    return path


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UserError) as error:
        call(*arguments, **named)
    return str(error.value)


# A user's own file


def test_a_dataclass_in_a_file_takes_its_knobs(user: Path) -> None:
    rule: Any = resolve.sampler(f"{user}:Half", {"share": "0.25", "side": "right"})
    assert (rule.share, rule.side) == (0.25, "right")
    assert resolve.knob_names(resolve.sampler_class(f"{user}:Half")) == ["share", "side"]


def test_a_function_in_a_file_is_a_sampler_without_knobs(user: Path) -> None:
    rule = resolve.sampler(f"{user}:everything", {})
    assert rule.__name__ == "everything"  # type: ignore[attr-defined]
    text = refusal(resolve.sampler, f"{user}:everything", {"k": 1})
    assert text == f"unknown knob of sampler {user}:everything 'k'\nknown: none"


def test_a_task_comes_from_a_file_too(user: Path) -> None:
    task: Any = resolve.task(f"{bundled.TASKS / 'sudoku' / 'task.py'}:Sudoku", {"side": "4"})
    assert (task.name, task.side) == ("sudoku", 4)
    text = refusal(resolve.task, f"{user}:Halv", {})
    assert text.startswith(f"unknown task in {user} 'Halv'\ndid you mean 'Half'?")


def test_files_of_the_same_name_do_not_mix(user: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mine.py"
    other.write_text("def everything(step): ...\n")
    half = resolve.sampler_class(f"{user}:Half")
    resolve.sampler_class(f"{other}:everything")
    assert resolve.build("sampler", "Half", half, {"side": "right"}).side == "right"


def test_what_a_file_lacks_is_named_with_the_nearest(user: Path) -> None:
    for name in ("half", "number", ""):
        text = refusal(resolve.sampler, f"{user}:{name}", {})
        guess = "did you mean 'Half'? " if name == "half" else ""
        assert text.startswith(f"unknown sampler in {user} {name!r}\n{guess}known: Bare, Choice,")


def test_a_missing_or_foreign_file_is_an_error(tmp_path: Path) -> None:
    missing = f"{tmp_path / 'no.py'}:Half"
    text = f"no file {str(tmp_path / 'no.py')!r} for sampler {missing!r}\nwrite FILE.py:NAME"
    assert refusal(resolve.sampler, missing, {}) == text
    assert refusal(resolve.sampler, ":Half", {}).startswith("no file '.' for sampler ':Half'")
    (tmp_path / "notes.txt").write_text("x = 1")
    text = f"{tmp_path / 'notes.txt'} is not a Python file\nwrite FILE.py:NAME"
    assert refusal(resolve.sampler, f"{tmp_path / 'notes.txt'}:Half", {}) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_file_is_an_error_that_says_why(source: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    assert refusal(resolve.sampler, f"{path}:Half", {}).startswith(
        f"importing {path} failed: {text}"
    )


def test_a_class_without_fields_and_a_knob_without_value_are_errors(user: Path) -> None:
    text = f"sampler {user}:Bare is a class\nmake it a frozen dataclass"
    assert refusal(resolve.sampler, f"{user}:Bare", {}) == text
    text = f"sampler {user}:Needy needs its knob k\nit has no default"
    assert refusal(resolve.sampler, f"{user}:Needy", {}) == text
    assert resolve.sampler(f"{user}:Needy", {"k": "2"}).k == 2  # type: ignore[attr-defined]


def test_an_error_of_a_knob_names_the_sampler(user: Path) -> None:
    text = f"sampler {user}:Half: share is 2.0\nat most 1"
    assert refusal(resolve.sampler, f"{user}:Half", {"share": "2"}) == text
    text = "sampler eb: gamma is -1.0\nit must be at least 0"
    assert refusal(resolve.sampler, "eb", {"gamma": "-1"}) == text


def test_importing_leaves_the_path_alone(user: Path) -> None:
    before = list(sys.path)
    resolve.sampler(f"{user}:everything", {})
    assert sys.path == before


# Names


def test_every_built_in_name_comes_to_life() -> None:
    for name, made_by in SAMPLERS.items():
        assert resolve.sampler(name, {}) == made_by()
    for name, preset in PRESETS.items():
        assert resolve.sampler(name, preset.knobs) == SAMPLERS[preset.sampler](**preset.knobs)
    for name in bundled.tasks():
        assert resolve.task(name, {}).name == name


def test_an_unknown_name_proposes_the_nearest() -> None:
    text = refusal(resolve.sampler, "treshold", {})
    assert text.startswith(
        "unknown sampler 'treshold'\ndid you mean 'threshold'? known: FILE.py:NAME,"
    )
    text = refusal(resolve.task, "soduku", {})
    assert text.startswith(
        "unknown task 'soduku'\ndid you mean 'sudoku'? known: FILE.py:NAME, arithmetic"
    )
    text = refusal(resolve.sampler, "eb", {"gama": 1})
    assert text == "unknown knob of sampler eb 'gama'\ndid you mean 'gamma'? known: gamma, proxy"
    text = refusal(resolve.task, "sudoku", {"sides": 4})
    known = "known: bucket, data, givens, side"
    assert text == f"unknown knob of task sudoku 'sides'\ndid you mean 'side'? {known}"


def test_a_name_like_no_other_gets_the_list_alone() -> None:
    assert str(unknown("thing", "xyzzy", ["b", "a"])) == "unknown thing 'xyzzy'\nknown: a, b"
    assert str(unknown("thing", "xyzzy", [])) == "unknown thing 'xyzzy'\nknown: none"


# Knobs


@pytest.mark.parametrize(
    ("value", "kind", "want"),
    [
        ("3", int, 3),
        (3, int, 3),
        (3.0, int, 3),
        ("-3", int, -3),
        ("none", int | None, None),
        (None, int | None, None),
        ("4", int | None, 4),
        ("0.5", float, 0.5),
        (1, float, 1.0),
        ("1e-3", float, 0.001),
        ("inf", float, math.inf),
        ("none", float | None, None),
        ("true", bool, True),
        ("False", bool, False),
        (True, bool, True),
        (False, bool, False),
        ("raster", Literal["raster", "edges"], "raster"),
        ("28-40", str, "28-40"),
        (30, str, "30"),
        ("none", str, "none"),
        ("true", str, "true"),
    ],
)
def test_a_knob_is_read_as_its_type(value: Any, kind: Any, want: Any) -> None:
    got = resolve.convert("knob", value, kind)
    assert (got, type(got)) == (want, type(want))


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        ("three", int, "int"),
        ("3.5", int, "int"),
        (3.5, int, "int"),
        (math.inf, int, "int"),
        (None, int, "int"),
        (None, float, "float"),
        (None, str, "str"),
        ("none", float, "float"),
        ("x", int | None, "int"),
        ("much", float, "float"),
        ({}, float, "float"),
        ([0.1], float, "float"),
        ([1], int, "int"),
        ("yes", bool, "bool"),
        ("1", bool, "bool"),
        (1, bool, "bool"),
    ],
)
def test_a_value_of_another_type_is_refused(value: Any, kind: Any, wanted: str) -> None:
    assert refusal(resolve.convert, "knob", value, kind) == f"knob is {value!r}\nit takes {wanted}"


def test_a_literal_proposes_the_nearest() -> None:
    text = refusal(resolve.convert, "form", "rastr", Literal["raster", "edges"])
    assert text == "unknown form 'rastr'\ndid you mean 'raster'? known: edges, raster"
    text = refusal(resolve.sampler, "eb", {"proxy": "Entropy"})
    assert text.startswith("sampler eb: unknown proxy 'Entropy'\ndid you mean 'entropy'?")


def test_knobs_reach_the_rule_as_numbers() -> None:
    assert resolve.sampler("eb", {"gamma": "0.5", "proxy": "margin"}) == EB(0.5, "margin")
    assert resolve.sampler("topk", {"k": "none", "alg_temp": "1"}) == TopK(None, alg_temp=1.0)
    assert resolve.sampler("threshold", {"capped": "TRUE"}) == Threshold(capped=True)


# Plans


def gammas(specs: list[RunSpec]) -> list[Any]:
    return [spec.knobs["gamma"] for spec in specs]


def test_a_plan_is_the_product_of_its_lists() -> None:
    specs = plan(
        {"sampler": "eb", "gamma": [0, 0.1], "knobs": {"proxy": ["entropy"]}, "seed": [1, 2]}
    )
    assert [(s.knobs, s.seed) for s in specs] == [
        ({"gamma": g, "proxy": "entropy"}, seed) for g in (0, 0.1) for seed in (1, 2)
    ]
    assert plan({}) == [RunSpec()]


def test_runs_are_laid_over_the_settings_around_them() -> None:
    runs = [{"sampler": "topk", "k": [1, 2]}, {"sampler": "eb", "gamma": 0.5, "seed": 9}]
    specs = plan({"task": "maze", "seed": 3, "runs": runs})
    assert [(s.sampler, s.knobs, s.seed) for s in specs] == [
        ("topk", {"k": 1}, 3),
        ("topk", {"k": 2}, 3),
        ("eb", {"gamma": 0.5}, 9),
    ]
    assert {s.task for s in specs} == {"maze"}


def test_a_setting_left_empty_is_its_default_and_an_empty_list_is_an_error() -> None:
    assert plan({"gamma": None, "seed": None, "knobs": None, "runs": None}) == [RunSpec()]
    for empty in ({"gamma": []}, {"seed": []}, {"knobs": {"a": []}}):
        assert " is an empty list\ngive it a value" in refusal(plan, empty)


def test_the_same_run_is_planned_once_and_in_the_first_place() -> None:
    specs = plan({"gamma": [0.1, 0.2, 0.1], "runs": [{"sampler": "eb"}, {"seed": 0}]})
    assert gammas(specs) == [0.1, 0.2]
    assert gammas(distinct([specs[1], specs[0], specs[1]])) == [0.2, 0.1]


def test_an_unknown_setting_proposes_the_nearest() -> None:
    text = refusal(plan, {"gama": 0.1})
    assert text.startswith("unknown setting 'gama'\ndid you mean 'gamma'? known: block_length,")
    assert refusal(plan, {"runs": [{"blok_length": 4}]}).startswith(
        "unknown setting 'blok_length'\ndid you mean 'block_length'?"
    )
    assert refusal(plan, {True: 1}).startswith("unknown setting 'True'\nknown: block_length,")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"steps": 0}, "steps is 0\nInput should be greater than or equal to 1"),
        ({"block_length": -4}, "block_length is -4\nInput should be greater than or equal to 1"),
        ({"temperature": -0.1}, "temperature is -0.1\nInput should be greater than or equal to 0"),
        ({"temperature": math.nan}, "temperature is nan\nInput should be"),
        ({"temperature": math.inf}, "temperature is inf\nInput should be a finite number"),
        ({"top_p": 0}, "top_p is 0\nInput should be greater than 0"),
        ({"top_p": 1.5}, "top_p is 1.5\nInput should be less than or equal to 1"),
        ({"top_k": 0}, "top_k is 0\nInput should be greater than or equal to 1"),
        ({"stop": "never"}, "stop is 'never'\nInput should be 'full' or 'until'"),
        ({"dtype": "int8"}, "dtype is 'int8'\nInput should be 'float32', 'bfloat16' or 'float16'"),
        ({"seed": "x"}, "seed is 'x'\nInput should be a valid integer"),
        ({"seed": [0, "x"]}, "seed is 'x'\nInput should be a valid integer"),
        ({"task_knobs": 5}, "task_knobs is 5\nInput should be a valid dictionary"),
        ({"knobs": 5}, "knobs is 5\nit takes names and values: {gamma: 0.1}"),
        ({"knobs": ["gamma"]}, "knobs is ['gamma']\nit takes names and values: {gamma: 0.1}"),
    ],
)
def test_a_value_out_of_its_range_is_refused(settings: dict[str, Any], text: str) -> None:
    assert refusal(plan, settings).startswith(text)


# Recipes


def test_a_recipe_is_a_plan_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "task: maze\ngamma: [0, 0.1]\nruns:\n  - sampler: eb\n  - {sampler: topk, k: 2}\n"
    )
    assert len(plan(recipe(path).settings)) == 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [1", "cannot read FILE: while parsing a flow sequence"),
        ("a: 2026-13-45", "cannot read FILE: month must be in 1..12"),
        ("", "FILE holds no settings\nwrite one `name: value` a line"),
        ("- eb", "FILE holds no settings\nwrite one `name: value` a line"),
        ("eb", "FILE holds no settings\nwrite one `name: value` a line"),
        ("runs: eb", "FILE: runs is no list of settings\nwrite `runs:` and `- sampler: eb`"),
        ("runs: [eb]", "FILE: runs is no list of settings\nwrite `runs:` and `- sampler: eb`"),
        ("runs:", "FILE: runs is no list of settings\nwrite `runs:` and `- sampler: eb`"),
    ],
)
def test_a_broken_recipe_is_an_error(text: str, error: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert refusal(recipe, path).replace(str(path), "FILE").startswith(error)


def test_a_recipe_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    assert "No such file" in refusal(recipe, path)
    path.write_bytes(b"\xff\xfe\x00\xd8")
    assert refusal(recipe, path).startswith(f"cannot read {path}: ")
    assert refusal(recipe, tmp_path).startswith(f"cannot read {tmp_path}: ")


def test_every_bundled_recipe_is_a_plan_of_samplers_that_exist() -> None:
    paths = sorted(bundled.CONFIGS.rglob("*.yaml"))
    assert paths
    for path in paths:
        settings = recipe(path).settings
        for spec in plan(settings):
            resolve.sampler(spec.sampler, spec.knobs)
            assert resolve.task_class(spec.task)


# Symbols


def test_an_answer_is_stored_so_that_a_person_can_read_it() -> None:
    for symbols, text in ((("5", "3", "."), "53."), (("(0,1)", ";", "E"), "(0,1) ; E")):
        assert Symbols(symbols).stored(symbols) == text
        task: Any = SimpleNamespace(symbols=symbols)
        assert restored(task, text) == list(symbols)


def test_symbols_become_tokens_and_tokens_symbols() -> None:
    symbols = Symbols(("a", "b", "cc"))
    canvas = symbols.canvas(Example("x", ("cc", None, "a", None), ("b", "b"), start=1))
    assert canvas == Canvas("x", (2, 3, 0, 3), 1)
    assert symbols.answer([0, 2, 1]) == ["a", "cc", "b"]


def test_a_model_without_the_tasks_symbols_is_refused() -> None:
    sudoku = resolve.task("sudoku", {})
    Symbols(tuple("123456789")).check(sudoku, "m")
    hint = "\nchoose the model that belongs to this task, or leave --model out"
    text = "model m cannot hold task sudoku: it has no token for '9'"
    assert refusal(Symbols(tuple("12345678")).check, sudoku, "m") == text + hint
    text = "model m cannot hold task sudoku: it has no token for '5' and 4 more"
    assert refusal(Symbols(tuple("1234")).check, sudoku, "m") == text + hint


def test_the_end_is_behind_the_first_end_token() -> None:
    stop = first_end((7, 9))
    assert stop is not None
    assert stop([1, 9, 2, 7]) == 2
    assert stop([7]) == 1
    assert stop([1, 2]) is None
    assert stop([]) is None
    assert first_end(()) is None


def test_counts_are_of_what_the_model_filled() -> None:
    canvas = Canvas("x", (5, 0, 0, 6, 0, 0), 1)

    def decoded(end: int | None, at: tuple[int, ...]) -> Decoded:
        none = (0.0,) * 6
        tokens, seconds = (5, 1, 2, 6, 3, 4), Seconds()
        return Decoded("x", tokens, at, none, none, 2, None, end, 12, 0, 0.0, seconds, 1)

    full = (NEVER, 0, 0, NEVER, 1, 1)
    assert counts(canvas, decoded(None, full), 0) == (4, 4)
    assert counts(canvas, decoded(3, full), 0) == (2, 4)
    assert counts(canvas, decoded(5, full), 0) == (3, 4)
    assert counts(canvas, decoded(3, (NEVER, 0, 0, NEVER, NEVER, 1)), 0) == (2, 3)
