"""What the doctor promises: everything that loading would find, without the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mdmbench import doctor, memory
from mdmbench.errors import UserError
from mdmbench.models import authors, checkpoint
from mdmbench.models.checkpoint import Options

GOLDEN = Path(__file__).parent / "golden"


def report(folder: Path | str, **knobs: Any) -> dict[str, str]:
    """The lines by their first word; those with the same one are joined."""
    said: dict[str, str] = {}
    for line in doctor.lines(str(folder), knobs, None, "cpu"):
        word = line[:12].strip()
        said[word] = f"{said[word]}; {line[12:]}" if word in said else line[12:]
    return said


def copied(folder: Path, name: str, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = json.loads((GOLDEN / name / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


def test_a_checkpoint_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    said = report(GOLDEN / "llada2", mask_id="250", block="8")
    assert said["family"] == "llada2 (LLaDA2MoeModelLM)"
    assert said["shape"].startswith("3 layers, width 64, 4 heads of 16 (2 for keys)")
    assert said["experts"] == "2 of 8, 24 wide, chosen by sigmoid"
    assert said["attention"] == "block-causal, blocks of 8 from position 0"
    assert said["predicts"] == "position i from row i"
    assert said["mask"] == "250, from -M mask_id"
    assert said["length"] == "256 tokens at most"
    assert said["tensors"] == "82 of 82, each has its place"
    dream = report(GOLDEN / "dream")
    assert (dream["attention"], dream["mask"]) == ("full", "250, from config.json")
    assert dream["predicts"] == "position i from row i - 1 (shifted)"


def test_the_sizes_are_those_of_the_published_model(tmp_path: Path) -> None:
    """8.016 B parameters, 16.0 GB in bfloat16, 9.1 and 5.7 GB quantised."""
    sizes = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32}
    sizes |= {"mlp_hidden_size": 12288, "embedding_size": 126464, "max_sequence_length": 4096}
    said = report(copied(tmp_path / "LLaDA-8B-Instruct", "llada", **sizes, torch_dtype="bfloat16"))
    assert said["parameters"] == "8.016 B, 1.036 B in embedding and head"
    assert said["weights"].startswith("16.0 GB in bfloat16, 9.1 GB with -M quant=int8, 5.7 GB")
    assert "humaneval: length 512, steps 512, one block, temperature 0" in said["authors"]
    assert said["tensors"].startswith("not compared: no model.safetensors")


def test_the_weights_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(folder: Path) -> object:
        raise AssertionError("weights were read")

    monkeypatch.setattr(checkpoint, "read_tensors", read)
    assert report(GOLDEN / "llada")["tensors"] == "30 of 30, each has its place"


def test_a_tensor_without_a_place_is_named(tmp_path: Path) -> None:
    state = load_file(GOLDEN / "dream" / "model.safetensors")
    state["model.inv_freq"] = state.pop("model.norm.weight")
    state["lm_head.weight"] = state["lm_head.weight"][1:].clone()
    save_file(state, copied(tmp_path, "dream") / "model.safetensors")
    said = report(tmp_path)["tensors"]
    assert "not in the model (1): model.inv_freq" in said
    assert "missing (1): model.norm.weight" in said
    assert "lm_head.weight is float [255, 64] instead of float [256, 64]" in said


def test_of_a_download_under_way_only_what_is_there_is_compared(tmp_path: Path) -> None:
    state = load_file(GOLDEN / "dream" / "model.safetensors")
    placed = {key: f"part-{i % 2}.safetensors" for i, key in enumerate(state)}
    copied(tmp_path, "dream")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    here = {key: state[key] for key in state if placed[key] == "part-0.safetensors"}
    save_file(here, tmp_path / "part-0.safetensors")
    said = report(tmp_path)
    assert said["files"] == "1 of 2 with weights are not here"
    assert said["tensors"] == f"{len(here)} of {len(state)}, each has its place"


def test_an_unknown_mask_is_asked_for_with_the_authors(tmp_path: Path) -> None:
    folder = copied(tmp_path / "LLaDA2.0-mini", "llada2")
    said = report(folder)["mask"]
    assert said.startswith("unknown: config.json does not name it, and no tokenizer")
    assert said.endswith("give -M mask_id=N; the authors' is 156895")


def test_a_block_that_the_config_lacks_is_asked_for(tmp_path: Path) -> None:
    folder = copied(tmp_path / "Qwen3-0.6B-diffusion-bd3lm-v0.1", "qwen3")
    assert "give -M block=32" in report(folder, mask_id="250")["authors"]
    assert "give -M block" not in report(folder, mask_id="250", block="32")["authors"]


def test_a_model_that_does_not_fit_is_offered_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: (11_000_000, 20_000_000))
    folder = copied(tmp_path, "llada", dtype="float32", mlp_hidden_size=2000)
    assert report(folder)[""] == "the weights and a step do not fit: try -M quant=int8"


def test_a_puzzle_model_and_a_wrong_name_are_told_apart() -> None:
    assert report("sudoku")["family"] == "a puzzle model of this package"
    with pytest.raises(UserError, match="unknown model 'no-such-model'"):
        report("no-such-model")
    with pytest.raises(UserError, match="dtype is 'int3'"):
        list(doctor.lines(str(GOLDEN / "llada"), {}, "int3", "cpu"))


@pytest.mark.parametrize("name", ["GSAI-ML/LLaDA-1.5", "/models/llada-1.5/", "LLaDA-1.5"])
def test_authors_are_found_by_id_and_by_folder(name: str) -> None:
    found = authors.published(name)
    assert found is not None
    assert found.settings[0].block == 16
    assert authors.published("someone/LLaDA-1.5-mine") is None


def test_no_name_stands_twice_among_the_authors() -> None:
    names = [name.casefold() for p in authors.PUBLISHED for name in p.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["llada", "dream", "lladamoe", "llada2", "qwen3"])
def test_the_stored_dtype_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    assert checkpoint.stored_dtype(GOLDEN / name) == "float32"
    save_file({"a": torch.zeros(1, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    assert checkpoint.stored_dtype(tmp_path) == "bfloat16"


def test_a_header_is_of_the_same_kind_as_its_tensor() -> None:
    path = GOLDEN / "llada2" / "model.safetensors"
    kinds = dict(checkpoint.read_kinds(path))
    for key, tensor in checkpoint.read_tensors(path.parent):
        assert kinds[key] == checkpoint.kind(tensor.is_floating_point(), tensor.shape)
    _, family, spec = checkpoint.describe(checkpoint.read_config(path.parent), Options(mask_id=0))
    net, tied = checkpoint.build(family, spec)
    fit = checkpoint.Fit(net.state_dict(), family.name, tied)
    assert all(fit.takes(key, found) for key, found in kinds.items())
