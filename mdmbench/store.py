"""Runs on disk: one folder a run, appended to, never rewritten.

    spec.json      what was asked for, fully resolved; its digest names the folder
    env.json       versions and the machine, one entry a session that added records
    records.jsonl  one example a line, synced to disk before the next batch of lines

A line that a crash has cut off is dropped when the run is opened again, and its example redone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mdmbench.base import Seconds
from mdmbench.errors import UserError

DIGITS = 3
"""Of the numbers that are kept for every position."""


ADDED: Mapping[str, Any] = {"cache": "none", "cache_knobs": {}}
"""Settings that runs made before they existed lack, and what those had: with these values a run is
the same as ever."""


@dataclass(frozen=True)
class Record:
    """One example of a run; see `base.Decoded` for the units.

    answer  the answer region's symbols, joined; of a text task its text up to the end token
    notes   how the answer was read, and what became of its programs
    pieces  the text of each token of the answer region, for text tasks
    committed_at, confidence, entropy  of each position of the answer region, see `base.Decoded`;
            the last two to DIGITS digits, and empty in records of before they were kept
    length  answer positions filled by the model up to the answer's end
    filled  answer positions filled by the model, the tail behind the end included
    session which entry of env.json made it, from 0
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    id: str
    answer: str
    scores: dict[str, float]
    notes: dict[str, str]
    meta: dict[str, Any]
    nfe: int
    nfe_until: int | None
    length: int
    filled: int
    forward_tokens: int
    forced: int
    bound_spent: float
    committed_at: list[int]
    pieces: list[str]
    batch_size: int
    seconds: Seconds
    session: int = 0
    confidence: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)


@cache
def _parser() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def digest(spec: Mapping[str, Any]) -> str:
    """Of the resolved spec: runs with the same digest must give the same answers."""
    settings = spec.get("settings")
    if isinstance(settings, Mapping):
        old = {k: v for k, v in settings.items() if k not in ADDED or v != ADDED[k]}
        spec = {**spec, "settings": old}
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:12]


def _told(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with the settings that older ones lack."""
    settings = spec.get("settings")
    return {**spec, "settings": {**ADDED, **settings}} if isinstance(settings, dict) else spec


class Run:
    """A run folder. Reading needs nothing else; `create` opens one for appending."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where `path` holds no run, or a broken one."""
        self.path = path
        self.spec = self._read_spec()

    @classmethod
    def create(cls, out: Path, name: str, spec: Mapping[str, Any]) -> Run:
        """The run of these settings under `out`: the folder that is there, or a new one."""
        path = out / f"{name}-{digest(spec)}"
        with reporting(path):
            path.mkdir(parents=True, exist_ok=True)
            if not (path / "spec.json").exists():
                replaced(path / "spec.json", json.dumps(spec, indent=1) + "\n")
            (path / "records.jsonl").open("ab").close()
        run = cls(path)
        if run.spec != _told(json.loads(json.dumps(spec))):
            raise UserError(
                f"{path} holds a run of other settings", "move it away, or choose another --out"
            )
        return run

    def _read_spec(self) -> dict[str, Any]:
        try:
            spec = json.loads((self.path / "spec.json").read_text())
        except FileNotFoundError:
            raise UserError(f"{self.path} is not a run", "a run folder holds spec.json") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}/spec.json cannot be read: {error}") from None
        if not isinstance(spec, dict):
            raise UserError(f"{self.path}/spec.json is not a run's settings")
        return _told(spec)

    def records(self) -> Iterator[Record]:
        """Every whole record; a last line without its newline is a crash's and is skipped."""
        path = self.path / "records.jsonl"
        if not path.exists():
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield _parser().validate_json(line, strict=True)
                except ValidationError as error:
                    first = error.errors()[0]
                    where = ".".join(map(str, first["loc"]))
                    raise UserError(
                        f"{path}, line {number} is no record: {where} {first['msg']}"
                    ) from None

    def environments(self) -> list[dict[str, Any]]:
        """The entries of env.json: what `Record.session` counts."""
        path = self.path / "env.json"
        try:
            found = json.loads(path.read_text()) if path.exists() else []
        except ValueError as error:
            raise UserError(f"{path} cannot be read: {error}", "delete it") from None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise UserError(f"{path} is no list of environments", "delete it")
        return found

    @contextmanager
    def writing(self, environment: Mapping[str, Any]) -> Iterator[Append]:
        """Opens the run for appending: `append(records)` returns when they are on the disk.

        Raises UserError where the folder cannot be written or another process is writing to it.
        """
        path = self.path / "records.jsonl"
        with reporting(path):
            file = path.open("r+b")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another process is writing to {self.path}", "wait for it"
                ) from None
            session = self._session(environment)
            with reporting(path):
                file.truncate(_whole_lines(file))
                file.seek(0, os.SEEK_END)

            def append(records: Iterable[Record]) -> None:
                lines = "".join(
                    json.dumps(asdict(replace(r, session=session)), separators=(",", ":")) + "\n"
                    for r in records
                )
                with reporting(path):
                    file.write(lines.encode())
                    file.flush()
                    os.fsync(file.fileno())

            yield append
        finally:
            # What a full disk has left in the buffer was reported; closing would raise it again.
            with suppress(OSError):
                file.close()

    def _session(self, environment: Mapping[str, Any]) -> int:
        """Where `environment` stands in env.json; it is added if it is not there."""
        known = self.environments()
        if environment not in known:
            with reporting(self.path / "env.json"):
                text = json.dumps([*known, environment], indent=1) + "\n"
                replaced(self.path / "env.json", text)
        return known.index(dict(environment)) if environment in known else len(known)


Append = Callable[[Iterable[Record]], None]


def _whole_lines(file: BinaryIO) -> int:
    """The size of the file up to the end of its last whole line."""
    size = 0
    for line in file:
        size += len(line) if line.endswith(b"\n") else 0
    return size


def replaced(path: Path, text: str) -> None:
    """Writes a file whole: a crash leaves the old one or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def keep_baseline(path: Path, content: Mapping[str, Any], indent: int | None = None) -> None:
    """Writes what later measurements are held against. Raises UserError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replaced(path, json.dumps(content, indent=indent) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def baseline(path: Path, schema: int, names: Iterable[str], again: str) -> dict[str, Any]:
    """The content of a baseline file with these fields; `again` says how to write one anew.

    Raises UserError for a file that is none.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no baseline file {path}", again) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no baseline file: {error}", again) from None
    whole = isinstance(found, dict) and found.keys() >= set(names)
    if not whole or found.get("schema") != schema:
        raise UserError(f"{path} is no baseline file of schema {schema}", again)
    return cast(dict[str, Any], found)


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}", "choose another --out, or make room"
        ) from error


def nothing(run: Run) -> UserError:
    return UserError(f"{run.path} has no whole record", "the command that made it goes on with it")


def runs(paths: Iterable[Path]) -> list[Run]:
    """The runs in the given folders: each is a run, or holds some."""
    found: list[Run] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"no folder {path}", "give run folders, or the folder they are in")
        inside = [path] if (path / "spec.json").exists() else sorted(path.iterdir())
        found += [Run(p) for p in inside if (p / "spec.json").exists()]
    return found
