"""Checkpoints by name: a folder, or an id on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from mdmbench import bundled
from mdmbench.errors import UserError, unknown

TEXT = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configs, tokenizers, chat templates. Never code: nothing of a repository is executed."""
WEIGHTS = ("*.safetensors",)


def locate(name: str, revision: str | None, *, weights: bool = True) -> Path:
    """The folder of a checkpoint: `name` itself, or the cached snapshot of a hub id.

    What the cache lacks is downloaded. Without `weights` only the small files are, but the folder
    may hold weights of an earlier download.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise UserError(f"{name} is a folder and has no revision {revision!r}", "leave it out")
        return Path(name)
    owner, _, rest = name.partition("/")
    if not owner or not rest or "/" in rest or owner in (".", ".."):
        raise unknown("model", name, [*bundled.models(), "FOLDER", "OWNER/NAME on the hub"])
    return _snapshot(name, revision, [*TEXT, *(WEIGHTS if weights else ())])


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    # Imported here: the library takes half a second, and a folder needs none of it.
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except errors.HFValidationError as error:
        raise UserError(f"{name!r} is no hub id: {error}", "it is OWNER/NAME") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{name} is gated: its owners want their terms accepted first",
            f"accept them on https://huggingface.co/{name}, then `hf auth login` or set HF_TOKEN",
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{name} has no revision {revision!r}", "leave it out for main") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{name} is neither a folder here nor a repository on the hub",
            "check the spelling; for a private one `hf auth login` or set HF_TOKEN",
        ) from None
    # No connection, a server's answer, a full disk: each has its own type in each HTTP library.
    except Exception as error:
        raise UserError(
            f"{name} cannot be fetched, and its files ({', '.join(patterns)}) are not all in"
            f" {cache}: {str(error).splitlines()[0]}",
            "download it where the hub can be reached (`hf download`) and give its folder, or copy"
            " that cache here; HF_HUB_OFFLINE=1 keeps to the cache, 0 does not",
        ) from error
