"""Models by name: one that ships with the package, or a folder with config.json and weights."""

from hashlib import file_digest, sha256
from pathlib import Path

import torch

from mdmbench import bundled
from mdmbench.errors import UserError, unknown
from mdmbench.models import puzzle
from mdmbench.models.checkpoint import read_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def folder(name: str) -> Path:
    """Where the model of this name lies."""
    known = bundled.models()
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return Path(name)
    raise unknown("model", name, [*known, "FOLDER"])


def load(name: str, *, device: torch.device, dtype: str) -> puzzle.PuzzleModel:
    """The puzzle model of this name. Raises UserError where it cannot be loaded."""
    path = folder(name)
    architectures = read_config(path).get("architectures")
    if architectures != [puzzle.ARCHITECTURE]:
        raise UserError(
            f"model {name} is {architectures}, and no task here is for text models yet",
            f"choose a model with architectures [{puzzle.ARCHITECTURE!r}]: "
            + ", ".join(bundled.models()),
        )
    return puzzle.load(path, device=device, dtype=DTYPES[dtype])


def digest(name: str) -> str:
    """Of the model's config and weights: it changes when an answer can."""
    found = sha256()
    for path in sorted([*folder(name).glob("config.json"), *folder(name).glob("*.safetensors")]):
        with path.open("rb") as file:
            found.update(file_digest(file, "sha256").digest())
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
