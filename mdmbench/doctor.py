"""What a model is, whether it would load here, and what its authors used; reads no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mdmbench import bundled, canvas, memory, models
from mdmbench.errors import UserError
from mdmbench.memory import gb
from mdmbench.models import authors, checkpoint, hub, quant
from mdmbench.models.authors import Published
from mdmbench.models.checkpoint import Options
from mdmbench.models.dit import DiT
from mdmbench.models.encoder import Encoder, ModelSpec

CANVAS = 1024


def lines(name: str, knobs: Mapping[str, Any], dtype: str | None, device: str) -> Iterator[str]:
    """The report on one model, a line at a time. Raises UserError where there is none to report on,
    or where its config or `knobs` (-M) are refused, as loading it would."""
    options, revision = models.options(name, knobs)
    known = bundled.models()
    folder = known[name] if name in known else hub.locate(name, revision, weights=False)
    yield _line("folder", folder)
    if models.is_puzzle(folder):
        yield _line("family", "a puzzle model of this package")
        return
    where = models.device(device)
    config, theirs = checkpoint.read_config(folder), authors.published(name)
    mask, options = _mask(folder, config, options, theirs)
    label, found, spec = checkpoint.describe(config, options)
    net, tied = checkpoint.build(found, spec)
    classes = ", ".join(config.get("architectures") or ["no class named"])
    yield _line("family", f"{label} ({classes})")
    yield from _shape(spec, net)
    yield _line("mask", mask)
    yield from _memory(spec, net, _dtype(folder, config, dtype), where)
    yield from _tensors(folder, checkpoint.Fit(net.state_dict(), found.name, tied))
    yield from _authors(spec, theirs)


def _line(what: str, said: object) -> str:
    return f"{what:12}{said}"


def _mask(
    folder: Path, config: Mapping[str, Any], options: Options, theirs: Published | None
) -> tuple[str, Options]:
    """The mask id and where it comes from, and options that settle it."""
    if not checkpoint.wants_mask(config, options):
        given = "config.json" if "mask_token_id" in config else "architecture"
        given = given if options.mask_id is None else "-M mask_id"
        return f"{checkpoint.describe(config, options)[2].mask_id}, from {given}", options
    said = "neither config.json nor the tokenizer names it"
    try:
        found = canvas.mask_id(canvas.tokenizer(folder))
    except UserError as error:
        found, said = None, f"config.json does not name it, and {error.message}"
    if found is None:
        known = f"; the authors' is {theirs.mask_id}" if theirs and theirs.mask_id else ""
        return f"unknown: {said}: give -M mask_id=N{known}", replace(options, mask_id=0)
    return f"{found}, from the tokenizer", replace(options, mask_id=found)


def _dtype(folder: Path, config: Mapping[str, Any], asked: str | None) -> torch.dtype:
    """What is asked for, else that of the weights, else, before they are here, the config's."""
    if asked is None:
        try:
            asked = checkpoint.stored_dtype(folder)
        except UserError:
            named = config.get("dtype") or config.get("torch_dtype")
            asked = named if named in models.DTYPES else "bfloat16"
    if asked not in models.DTYPES:
        raise UserError(f"dtype is {asked!r}", f"it is one of {', '.join(models.DTYPES)}")
    return models.DTYPES[asked]


def _shape(spec: ModelSpec, net: Encoder | DiT) -> Iterator[str]:
    yield _line(
        "shape",
        f"{spec.layers} layers, width {spec.width}, {spec.heads} heads of {spec.head_dim}"
        f" ({spec.kv_heads} for keys), feed-forward {spec.ff}, vocabulary {spec.vocab_rows}",
    )
    if spec.experts is not None:
        e = spec.experts
        yield _line("experts", f"{e.top_k} of {e.count}, {e.ff} wide, chosen by {e.router}")
    table = spec.vocab_rows * spec.width * (1 if spec.tie else 2)
    yield _line(
        "parameters", f"{_count(spec, net) / 1e9:.3f} B, {table / 1e9:.3f} B in embedding and head"
    )
    yield _line(
        "attention",
        f"block-causal, blocks of {spec.block} from position 0" if spec.block else "full",
    )
    yield _line("predicts", f"position i from row {'i - 1 (shifted)' if spec.shift else 'i'}")
    yield _line("ends", " ".join(map(str, spec.eos_ids)))
    yield _line("length", f"{spec.max_length} tokens at most")


def _count(spec: ModelSpec, net: Encoder | DiT) -> int:
    tied = spec.vocab_rows * spec.width if spec.tie else 0
    return sum(p.numel() for p in net.parameters()) - tied


def _memory(
    spec: ModelSpec, net: Encoder | DiT, dtype: torch.dtype, device: torch.device
) -> Iterator[str]:
    size, total = dtype.itemsize, _count(spec, net)
    layers = quant.linears(net).values()
    inner, rows = sum(m.weight.numel() for m in layers), sum(m.out_features for m in layers)
    plain = total * size
    int8 = (total - inner) * size + inner * quant.BYTES["int8"] + 4 * rows
    nf4 = (total - inner) * size + inner * quant.BYTES["nf4"]
    said = f"{gb(plain)} in {str(dtype).removeprefix('torch.')}"
    if isinstance(net, Encoder):
        said += f", {gb(int8)} with -M quant=int8, {gb(nf4)} with nf4"
    yield _line("weights", said)
    length = min(CANVAS, spec.max_length)
    table = memory.logits(length, spec.vocab_rows, size, device)
    stream = memory.stream(spec, length)
    yield _line(
        "step",
        f"about {gb(table + stream)} more for one canvas of {length} tokens, all masked:"
        f" {gb(table)} of it for the logits",
    )
    free, whole = memory.free(device)
    yield _line("machine", f"{device}: {gb(free)} free of {gb(whole)}")
    need = {"": plain, "int8": int8, "nf4": nf4}
    fits = [kind for kind, weights in need.items() if weights + table + stream <= free]
    if "" not in fits:
        best = f"try -M quant={fits[0]}" if fits else "neither would quantised weights"
        yield _line("", f"the weights and a step do not fit: {best}")


def _tensors(folder: Path, fit: checkpoint.Fit) -> Iterator[str]:
    try:
        files = checkpoint.shards(folder)
    except UserError as error:
        yield _line("tensors", f"not compared: {error.message}")
        return
    here = [path for path in files if path.is_file()]
    for path in here:
        for key, kind in checkpoint.read_kinds(path):
            fit.takes(key, kind)
    if here != files:
        fit.spare = set(fit.wanted)
        yield _line("files", f"{len(files) - len(here)} of {len(files)} with weights are not here")
    wrong = [f"{complaint.message}; {complaint.hint}" for complaint in fit.complaints()]
    yield from (_line("tensors", said) for said in wrong)
    if not wrong:
        yield _line("tensors", f"{len(fit.seen)} of {len(fit.wanted)}, each has its place")


def _authors(spec: ModelSpec, theirs: Published | None) -> Iterator[str]:
    if theirs is None:
        yield _line("authors", "no settings known for a model of this name")
        return
    if theirs.block is not None and theirs.block != spec.block:
        yield _line(
            "authors", f"attention in blocks of {theirs.block}: give -M block={theirs.block}"
        )
    for setting in theirs.settings:
        yield _line("authors", setting)
    if theirs.note:
        yield _line("authors", theirs.note)
