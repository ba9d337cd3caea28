"""Models by name: one that ships with the package, a folder, or an id on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch

from mdmbench import bundled, resolve
from mdmbench.errors import UserError, unknown
from mdmbench.models import checkpoint, hub, puzzle
from mdmbench.models.encoder import NativeModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

WHOLE = 1 << 28
"""Bytes up to which a file of weights is part of the digest as a whole."""


def folder(name: str, revision: str | None = None) -> Path:
    """Where the model of this name lies; one on the hub is fetched."""
    known = bundled.models()
    return known[name] if name in known else hub.locate(name, revision)


def is_puzzle(path: Path) -> bool:
    return checkpoint.read_config(path).get("architectures") == [puzzle.ARCHITECTURE]


def options(name: str, knobs: Mapping[str, Any]) -> tuple[checkpoint.Options, str | None]:
    """What -M says: how the checkpoint is to be read, and its revision on the hub."""
    rest = {knob: value for knob, value in knobs.items() if knob != "revision"}
    known = resolve.knob_names(checkpoint.Options)
    for knob in rest:
        if knob not in known:
            raise unknown(f"knob of model {name}", knob, [*known, "revision"])
    revision = knobs.get("revision")
    found: checkpoint.Options = resolve.build("model", name, checkpoint.Options, rest)
    return found, None if revision is None else str(revision)


def load(
    path: Path, *, device: torch.device, dtype: str, options: checkpoint.Options
) -> puzzle.PuzzleModel | NativeModel:
    """The model in a folder. Raises UserError where it cannot be loaded."""
    if not is_puzzle(path):
        return checkpoint.load(path, device=device, dtype=DTYPES[dtype], options=options)
    if options != checkpoint.Options():
        raise UserError(f"{path} is a puzzle model and has no -M options", "leave them out")
    return puzzle.load(path, device=device, dtype=DTYPES[dtype])


def compiled(
    model: puzzle.PuzzleModel | NativeModel,
) -> puzzle.PuzzleModel | NativeModel:
    """The model, its network compiled at the first call: that takes up to a minute, later calls
    less. Sums are rounded in another order."""
    net = model.net if isinstance(model, puzzle.PuzzleModel) else model.encoder
    name = "hidden" if isinstance(net, puzzle.PuzzleNet) else "forward"
    setattr(net, name, torch.compile(getattr(net, name), dynamic=True))
    return model


def digest(path: Path) -> str:
    """Of all that an answer depends on: config, tokenizer, weights. Of a large file of weights,
    the size, the first and the last megabyte: reading 16 GB takes longer than loading them."""
    found = sha256()
    for file in sorted([*path.glob("*.json"), *path.glob("*.safetensors"), *path.glob("*.txt")]):
        size = file.stat().st_size
        with file.open("rb") as data:
            if size <= WHOLE:
                found.update(file_digest(data, "sha256").digest())
                continue
            found.update(f"{size}".encode() + data.read(1 << 20))
            data.seek(-(1 << 20), 2)
            found.update(data.read())
    return found.hexdigest()[:12]


def device(name: str) -> torch.device:
    """`auto`: the GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} cannot be used", "it is auto, cpu, cuda or cuda:N")
    try:
        found = torch.device(name)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used: {reason}", "try auto or cpu") from None
    return found
