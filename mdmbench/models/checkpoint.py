"""From a folder with config.json and safetensors to a model: strict, and one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mdmbench.errors import UserError
from mdmbench.models.encoder import Encoder, NativeModel
from mdmbench.models.families import family

AGAIN = "the download may be incomplete: fetch it again"
PROBE_LENGTH = 8


def read_config(folder: Path) -> dict[str, Any]:
    """The raw config.json. Library config objects move and rename fields between versions."""
    return _read_json(folder / "config.json", "give the folder that holds the model's config.json")


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"no file {path}", hint)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}", AGAIN) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not an object", AGAIN)
    return found


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of `model.safetensors`, or of all shards of its index, on the CPU."""
    for path in _shards(folder):
        try:
            with safe_open(path, framework="pt", device="cpu") as shard:
                for key in shard.keys():  # noqa: SIM118  (a shard cannot be iterated)
                    yield key, shard.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {path}: {error}", AGAIN) from error


def _shards(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise UserError(
            f"no model.safetensors and no model.safetensors.index.json in {folder}",
            "other weight formats are not read: convert the checkpoint to safetensors",
        )
    files = _read_json(index, AGAIN).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise UserError(f"{index}: weight_map is {files!r}", AGAIN)
    return [folder / str(name) for name in sorted(set(map(str, files.values())))]


def assign(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    where: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    names: Mapping[str, str] | None = None,
    tied: Mapping[str, str] | None = None,
) -> None:
    """Give `module`, which may be on meta, its whole state; every tensor must be used exactly once.

    dtype  of the floating-point tensors; None keeps that of the file
    names  from the file's key to the module's; None where they are the same
    tied   from a module key that the file may leave out to the key it must equal
    """
    expected = module.state_dict()
    names = {key: key for key in expected} if names is None else names
    state: dict[str, Tensor] = {}
    extra, twice, wrong, odd = [], [], [], []
    for key, tensor in tensors:
        if key not in names:
            extra.append(key)
        elif names[key] in state:
            twice.append(key)
        else:
            place = expected[names[key]]
            if _kind(place) != _kind(tensor):
                wrong.append(f"{key} is {_kind(tensor)} instead of {_kind(place)}")
            # A copy: the tensor is a view of the mapped file, which may be overwritten later.
            kept = dtype if tensor.is_floating_point() else None
            if tensor.is_floating_point() and not tensor.isfinite().all():
                odd.append(key)
            state[names[key]] = tensor.to(device=device, dtype=kept, copy=True)
    _tie(state, tied or {}, where)
    missing = [key for key, place in names.items() if place not in state]
    _refuse(where, "not in the model", extra, "do config.json and the weights belong together?")
    _refuse(where, "stored twice", twice, "are there shards of two downloads in the folder?")
    _refuse(where, "of the wrong shape", wrong, "do config.json and the weights belong together?")
    _refuse(where, "missing", missing, AGAIN)
    _refuse(where, "with values that are no numbers", odd, AGAIN)
    module.load_state_dict(state, assign=True)


def _kind(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else tensor.dtype} {list(tensor.shape)}"


def _tie(state: dict[str, Tensor], tied: Mapping[str, str], where: Path) -> None:
    """Share the tensors of `tied`; one that is stored and differs would be silently dropped."""
    for key, source in tied.items():
        if source not in state:
            continue
        if key in state and not torch.equal(state[key], state[source]):
            raise UserError(
                f"{where}: config.json ties {key} to {source}, but the stored tensors differ",
                "set the tie flag in config.json to false if both are meant",
            )
        state[key] = state[source]


def _refuse(where: Path, what: str, found: list[str], hint: str) -> None:
    if found:
        more = ", ..." if len(found) > 3 else ""
        raise UserError(
            f"{where}: tensors {what} ({len(found)}): {', '.join(found[:3])}{more}", hint
        )


def load(
    folder: Path, *, device: torch.device, dtype: torch.dtype, mask_id: int | None = None
) -> NativeModel:
    """The checkpoint in `folder`; `mask_id` goes before the one in its config.json."""
    config = read_config(folder)
    if mask_id is not None:
        config["mask_token_id"] = mask_id
    kind = family(config)
    spec = kind.spec(config)
    with torch.device("meta"):
        encoder = Encoder(spec)
    names = {kind.name(key): key for key in encoder.state_dict()}
    tied = {"lm_head.weight": "embed_tokens.weight"} if spec.tie else {}
    tensors = read_tensors(folder)
    assign(encoder, tensors, folder, device=device, dtype=dtype, names=names, tied=tied)
    encoder.build_rope(device, dtype)
    model = NativeModel(encoder.eval().requires_grad_(False))
    probe(model)
    return model


def probe(model: NativeModel) -> None:
    """Fail unless the last token moves the logits of the first position.

    A causal model gives plausible logits and bad samples; nothing else would notice.
    """
    # Neighbouring ids can be unused rows of the embedding, and those may be equal.
    apart = max(1, model.vocab_size // PROBE_LENGTH)
    tokens = torch.arange(PROBE_LENGTH, device=model.device) * apart % model.vocab_size
    other = tokens.clone()
    other[-1] = tokens[1]
    first = torch.zeros(2, 1, dtype=torch.long, device=model.device)
    before, after = model.start()(torch.stack((tokens, other)), first, None)
    if torch.equal(before, after):
        raise RuntimeError("the model does not see behind a position: attention is causal")
