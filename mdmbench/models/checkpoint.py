"""From a folder with config.json and safetensors to a model: strict, and one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdmbench.errors import UserError
from mdmbench.models import quant
from mdmbench.models.dit import DiT
from mdmbench.models.encoder import Encoder, ModelSpec, NativeModel
from mdmbench.models.families import Family, family

AGAIN = "the download may be incomplete: fetch it again"
BELONG = "do config.json and the weights belong together?"
PROBE_LENGTH = 8


@dataclass(frozen=True)
class Options:
    """What -M says of a checkpoint. None: as its config.json and its architecture have it.

    mask_id  the mask token, where the config names none or another one
    shift    row i - 1 predicts the token at position i
    block    length of the blocks of block-causal attention, in a family that has them
    quant    weights of 8 or 4 bits in the layers: less memory, more time, and another model
    family   the layout, whatever class the config names
    """

    mask_id: int | None = None
    shift: bool | None = None
    block: int | None = None
    quant: Literal["int8", "nf4"] | None = None
    family: str | None = None


PLAIN = Options()


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
    for path in shards(folder):
        try:
            with safe_open(path, framework="pt", device="cpu") as shard:
                for key in shard.keys():  # noqa: SIM118  (a shard cannot be iterated)
                    yield key, shard.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {path}: {error}", AGAIN) from error


def read_kinds(path: Path) -> Iterator[tuple[str, str]]:
    """The name and the kind of every tensor of one file, from its header alone."""
    try:
        with safe_open(path, framework="pt", device="cpu") as shard:
            for key in shard.keys():  # noqa: SIM118
                stored = shard.get_slice(key)
                yield key, kind(stored.get_dtype().startswith(("F", "BF")), stored.get_shape())
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}", AGAIN) from error


def stored_dtype(folder: Path) -> str:
    """Of the first tensor of the first file, as torch calls it: configs need not name it."""
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    path = shards(folder)[0]
    try:
        with safe_open(path, framework="pt", device="cpu") as shard:
            found = shard.get_slice(next(iter(shard.keys()))).get_dtype()
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}", AGAIN) from error
    return names.get(found, "float32")


def shards(folder: Path) -> list[Path]:
    """The files with the weights, which need not exist."""
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


def kind(floating: bool, shape: Iterable[int]) -> str:
    """What a stored tensor must have in common with its place: floats of any width will do."""
    return f"{'float' if floating else 'integer'} {list(shape)}"


class Fit:
    """Which tensors of a checkpoint find their place in a network; show it them one by one.

    filled  the network's keys that each key of the file fills, its rows divided in this order
    """

    def __init__(
        self, places: Mapping[str, Tensor], name: Callable[[str], str], spare: Iterable[str] = ()
    ) -> None:
        """`places` is the network's state, `name` turns its keys into the file's; those of its
        keys that are in `spare` may be missing."""
        self.filled: dict[str, list[str]] = {}
        for place in places:
            self.filled.setdefault(name(place), []).append(place)
        self.wanted = {}
        for key, members in self.filled.items():
            first, rows = places[members[0]], sum(len(places[m]) for m in members)
            self.wanted[key] = kind(first.is_floating_point(), [rows, *first.shape[1:]])
        self.spare = set(map(name, spare))
        self.seen: set[str] = set()
        self.extra: list[str] = []
        self.twice: list[str] = []
        self.wrong: list[str] = []
        self.odd: list[str] = []

    def takes(self, key: str, found: str) -> bool:
        """Whether a tensor of this name and kind is the one that was waited for."""
        if key not in self.wanted:
            self.extra.append(key)
        elif key in self.seen:
            self.twice.append(key)
        elif found != self.wanted[key]:
            self.wrong.append(f"{key} is {found} instead of {self.wanted[key]}")
        else:
            self.seen.add(key)
            return True
        self.seen.add(key)
        return False

    def complaints(self) -> Iterator[UserError]:
        """What is wrong with the tensors seen, and with those that were not."""
        missing = [key for key in self.wanted if key not in self.seen | self.spare]
        for what, keys, hint in (
            ("not in the model", self.extra, BELONG),
            ("stored twice", self.twice, "are there shards of two downloads in the folder?"),
            ("of the wrong shape", self.wrong, BELONG),
            ("missing", missing, AGAIN),
            ("with values that are no numbers", self.odd, AGAIN),
        ):
            if keys:
                more = ", ..." if len(keys) > 3 else ""
                yield UserError(f"tensors {what} ({len(keys)}): {', '.join(keys[:3])}{more}", hint)


def assign(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    where: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    name: Callable[[str], str] = str,
    tied: Mapping[str, str] | None = None,
    packed: quant.Kind | None = None,
) -> None:
    """Give `module`, which may be on meta, its whole state; every tensor must be used exactly once.

    dtype   of the parameters; None, and every buffer, keeps that of the file
    name    from the module's key to the file's; keys with one name divide its rows in their order
    tied    from a module key that the file may leave out to the key it must equal
    packed  quantise the linear maps of the layers, each as it is read
    """
    places, tied = module.state_dict(), tied or {}
    cast = {key for key, _ in module.named_parameters()}
    fit = Fit(places, name, tied)
    small = quant.swap(module, packed) if packed else {}
    state: dict[str, Tensor] = {}
    for key, tensor in tensors:
        if not fit.takes(key, kind(tensor.is_floating_point(), tensor.shape)):
            continue
        if tensor.is_floating_point() and not _finite(tensor):
            fit.odd.append(key)
        members = fit.filled[key]
        parts = torch.split(tensor, [len(places[member]) for member in members])
        for place, part in zip(members, parts, strict=True):
            kept = dtype if place in cast and part.is_floating_point() else None
            # A copy: the tensor is a view of the mapped file, which may be overwritten later.
            own = part.to(device=device, dtype=kept, copy=True)
            if place in small:
                small[place].pack(own)
            else:
                state[place] = own
    _tie(state, tied, where)
    for wrong in fit.complaints():
        raise UserError(f"{where}: {wrong.message}", wrong.hint)
    module.load_state_dict(state, assign=True)


def _finite(tensor: Tensor) -> bool:
    """By the extremes, which are NaN if any value is: `isfinite` would make a copy."""
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


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


def describe(config: Mapping[str, Any], options: Options = PLAIN) -> tuple[str, Family, ModelSpec]:
    """The family, by name too, and the shape of a checkpoint, as its config and `options` say."""
    label, found = family(config, options.family)
    # Placeholders: what the caller gives need not be in the config.
    if options.mask_id is not None:
        config = {**config, "mask_token_id": 0}
    if options.block is not None:
        if not found.blocks:
            raise UserError(
                f"block is {options.block}, but in {label} every position sees every other",
                "leave -M block= out; the blocks of decoding are --block-length",
            )
        config = {**config, "block_size": 1, "bd_size": 1}
    if options.quant and found.net is DiT:
        raise UserError(f"quant is {options.quant}, but {label} is small", "leave -M quant= out")
    spec = found.spec(config)
    given: dict[str, Any] = {}
    if options.mask_id is not None:
        given["mask_id"] = _within("mask_id", options.mask_id, 0, spec.vocab_rows - 1)
    if options.block is not None:
        given["block"] = _within("block", options.block, 1, spec.max_length)
    if options.shift is not None:
        given["shift"] = options.shift
    return label, found, replace(spec, **given)


def wants_mask(config: Mapping[str, Any], options: Options) -> bool:
    """Whether nothing names the mask token yet: the tokenizer may, or the caller has to."""
    _, found = family(config, options.family)
    named = options.mask_id is not None or config.get("mask_token_id") is not None
    # MDLM's is the last row of its embedding.
    return not named and found.net is not DiT


def _within(option: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise UserError(f"{option} is {value}", f"it is a number from {low} to {high}")
    return value


class Blank(TorchFunctionMode):
    """Leaves new weights unset: they are on meta, where drawing them imports half of torch."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)


def build(found: Family, spec: ModelSpec) -> tuple[Encoder | DiT, dict[str, str]]:
    """The network on meta, without memory, and which of its keys is tied to which."""
    with torch.device("meta"), Blank():
        net = found.net(spec)
    return net, {"lm_head.weight": "embed_tokens.weight"} if spec.tie else {}


def load(
    folder: Path, *, device: torch.device, dtype: torch.dtype, options: Options = PLAIN
) -> NativeModel:
    """The checkpoint in `folder`, read tensor by tensor: it takes its own size and one shard."""
    _, found, spec = describe(read_config(folder), options)
    net, tied = build(found, spec)
    assign(
        net,
        read_tensors(folder),
        folder,
        device=device,
        dtype=dtype,
        name=found.name,
        tied=tied,
        packed=options.quant,
    )
    net.build_rope(device, dtype)
    model = NativeModel(net.eval().requires_grad_(False))
    probe(model)
    return model


@torch.inference_mode()
def probe(model: NativeModel) -> None:
    """Fail unless a position sees its whole block, and no block behind it.

    A model with the wrong attention gives plausible logits and bad samples; nothing else would
    notice. Whether its rows are shifted cannot be seen from outside.
    """
    net = model.encoder
    length = min(PROBE_LENGTH if model.block is None else model.block + 1, model.max_length)
    end = min(model.block or length, length)
    # Neighbouring ids can be unused rows of the embedding, and those may be equal.
    half = model.vocab_size // 2
    tokens = torch.arange(length, device=model.device)[None] * max(1, half // length)

    def other(at: int) -> Tensor:
        changed = tokens.clone()
        changed[0, at] = (changed[0, at] + half) % model.vocab_size
        return changed

    if end > 1 and torch.equal(net(tokens)[:, : end - 1], net(other(end - 1))[:, : end - 1]):
        raise RuntimeError("the model does not see behind a position: attention is causal")
    # One layer, so that no router stands between: with other tokens the experts get batches of
    # other sizes, and those may round otherwise.
    if end < length and isinstance(net, Encoder):
        first, second = net(tokens, depth=1), net(other(end), depth=1)
        if not torch.equal(first[:, :end], second[:, :end]):
            raise RuntimeError("the model sees behind a block: attention is not block-causal")
