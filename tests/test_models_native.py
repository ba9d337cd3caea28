"""What the native checkpoints promise: the reference's numbers, or one sentence saying why not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mdmbench.base import Batch
from mdmbench.errors import UserError
from mdmbench.models import checkpoint, encoder
from mdmbench.models.checkpoint import Options
from mdmbench.models.encoder import ModelSpec, NativeModel

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("llada", "dream", "lladamoe", "llada2", "qwen3")
DENSE = NAMES[:2]
BLOCK = {"llada2": 8, "qwen3": 4}
CPU = torch.device("cpu")
HEAD = {"llada": "model.transformer.ff_out.weight", "dream": "lm_head.weight"}
EMBEDDING = {"llada": "model.transformer.wte.weight", "dream": "model.embed_tokens.weight"}
TIE = {"llada": "weight_tying", "dream": "tie_word_embeddings"}

Edit = Callable[[dict[str, Any]], object]


def load(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> NativeModel:
    return checkpoint.load(folder, device=CPU, dtype=dtype, options=Options(**options))


def golden(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> NativeModel:
    """The mask ids of half of the hub's configs stand in the tokenizer only."""
    return load(GOLDEN / name, dtype, mask_id=250, **options)


def expected(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / name / "expected.safetensors")


def edited(tmp_path: Path, name: str, *, config: Edit = len, tensors: Edit = len) -> Path:
    """A copy of a golden checkpoint with its config and its tensors changed in place."""
    fields = json.loads((GOLDEN / name / "config.json").read_text())
    state = load_file(GOLDEN / name / "model.safetensors")
    config(fields)
    tensors(state)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / "model.safetensors"
    )
    return tmp_path


def canvas(model: NativeModel, *shape: int, seed: int = 0) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randint(model.vocab_size, shape, generator=made)


def full(model: NativeModel, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
    """The logits of every position, `[B, L, V]`."""
    return model.start()(
        Batch(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), lengths)
    ).float()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "suffix", "bound"), [(torch.float32, "f32", 2e-5), (torch.bfloat16, "bf16", 0.03)]
)
@pytest.mark.parametrize("run", ["full", "masked"])
def test_golden_logits_are_those_of_the_reference(
    name: str, dtype: torch.dtype, suffix: str, bound: float, run: str
) -> None:
    gold = expected(name)
    masked = run == "masked"
    net = golden(name, dtype, block=BLOCK.get(name) if masked else None).encoder
    mask = gold["attention_mask_2d"].bool() if masked and name not in BLOCK else None
    with torch.inference_mode():
        hidden = net(gold["input_ids"], mask, gold.get("position_ids") if masked else None)
        logits = net.lm_head(hidden)
    assert logits.dtype == dtype
    real = torch.ones(2, 24, dtype=torch.bool) if mask is None else mask
    difference = (logits.float() - gold[f"logits_{run}_{suffix}"].float())[real].abs().max()
    assert difference <= bound


@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_the_golden_logits_at_the_rows_that_predict(name: str) -> None:
    gold = expected(name)
    model = golden(name)
    rows = torch.tensor([[0, 16, 3], [23, 1, 1]])
    logits = model.start()(Batch(gold["input_ids"], rows)).float()
    source = (rows - 1).clamp(min=0) if name == "dream" else rows
    wanted = gold["logits_full_f32"][torch.arange(2)[:, None], source]
    wanted[..., 250] = -torch.inf
    assert logits.shape == (2, 3, 256)
    torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_rows_of_the_head_equal_the_full_head(name: str) -> None:
    model = golden(name)
    tokens = canvas(model, 3, 19)
    rows = torch.tensor([[0, 5, 18], [7, 7, 2], [17, 0, 1]])
    whole = full(model, tokens)
    few = model.start()(Batch(tokens, rows))
    torch.testing.assert_close(few, whole[torch.arange(3)[:, None], rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_float32_and_never_propose_the_mask(dtype: torch.dtype) -> None:
    model = load(GOLDEN / "llada", dtype)
    tokens = canvas(model, 2, 9)
    logits = full(model, tokens)
    assert logits.dtype == torch.float32
    assert torch.isneginf(logits[..., model.mask_id]).all()
    assert torch.isfinite(logits).sum() == logits.numel() - 2 * 9


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_row_gets_the_logits_it_gets_alone(name: str) -> None:
    model = golden(name, block=BLOCK.get(name))
    tokens, lengths = canvas(model, 3, 20), torch.tensor([20, 7, 13])
    for row, length in enumerate(lengths.tolist()):
        tokens[row, length:] = -1
    together = full(model, tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = full(model, tokens[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=0)


def test_no_padding_leaves_the_kernel_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(GOLDEN / "dream")
    attend = encoder.F.scaled_dot_product_attention
    masks = []

    def spy(*args: Tensor, **more: Any) -> Tensor:
        masks.append(more["attn_mask"])
        return attend(*args, **more)

    monkeypatch.setattr(encoder.F, "scaled_dot_product_attention", spy)
    tokens = canvas(model, 2, 6)
    full(model, tokens)
    assert masks == [None] * 3
    full(model, tokens, torch.tensor([6, 4]))
    assert all(mask.dtype == torch.bool for mask in masks[3:])


def test_a_causal_model_is_refused_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = encoder.F.scaled_dot_product_attention

    def causal(*args: Tensor, **more: Any) -> Tensor:
        return attend(*args, **{**more, "is_causal": True})

    monkeypatch.setattr(encoder.F, "scaled_dot_product_attention", causal)
    with pytest.raises(RuntimeError, match="attention is causal"):
        load(GOLDEN / "llada")


def test_a_canvas_beyond_the_models_length_is_refused() -> None:
    model = load(GOLDEN / "llada")
    with pytest.raises(UserError, match="257 tokens, the model takes 256"):
        full(model, canvas(model, 1, 257))


@pytest.mark.parametrize("name", NAMES)
def test_the_config_becomes_the_models_facts(name: str) -> None:
    model = golden(name)
    facts = (model.mask_id, model.eos_ids, model.max_length, model.vocab_size, model.device)
    assert facts == (250, (240,), 256, 256, CPU)
    assert model.block == (32 if name == "llada2" else None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_stays_on_meta_and_every_weight_has_the_dtype(
    name: str, dtype: torch.dtype
) -> None:
    net = golden(name, dtype).encoder
    held = [*net.parameters(), *net.buffers()]
    assert len(held) == len(net.state_dict()) + 2
    assert not any(tensor.is_meta for tensor in held)
    assert {tensor.dtype for tensor in net.parameters()} == {dtype}
    assert not any(tensor.requires_grad for tensor in held)
    assert net.cos.dtype == (torch.float32 if name == "llada" else dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_key_map_uses_every_key_of_the_checkpoint_once(name: str) -> None:
    config = checkpoint.read_config(GOLDEN / name)
    _, family, spec = checkpoint.describe(config, Options(mask_id=250))
    net, _ = checkpoint.build(family, spec)
    stored = dict(checkpoint.read_tensors(GOLDEN / name))
    assert {family.name(key) for key in net.state_dict()} == set(stored)
    assert sum(p.numel() for p in net.parameters()) == sum(t.numel() for t in stored.values())


def test_a_loaded_model_survives_its_file_being_overwritten(tmp_path: Path) -> None:
    model = load(edited(tmp_path, "llada"))
    before = model.encoder.norm.weight.clone()
    with (tmp_path / "model.safetensors").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(size // 2)
        file.write(bytes(size - size // 2))
    assert torch.equal(model.encoder.norm.weight, before)


def sharded(folder: Path, *doubled: str) -> Path:
    """Split the weights over two files; the keys in `doubled` go into both."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {key: f"part-{i % 2}.safetensors" for i, key in enumerate(state)}
    for file in set(placed.values()):
        kept = {key: state[key] for key in state if placed[key] == file or key in doubled}
        save_file(kept, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder


def test_shards_load_like_one_file(tmp_path: Path) -> None:
    sharded(edited(tmp_path, "dream"))
    ours, whole = load(tmp_path).encoder.state_dict(), load(GOLDEN / "dream").encoder.state_dict()
    assert all(torch.equal(ours[key], whole[key]) for key in whole)


def test_a_key_in_two_shards_is_refused(tmp_path: Path) -> None:
    sharded(edited(tmp_path, "dream"), "lm_head.weight")
    with pytest.raises(UserError, match=r"stored twice \(1\): lm_head\.weight"):
        load(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    sharded(edited(tmp_path, "dream"))
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"part-1\.safetensors"):
        load(tmp_path)


def without_norms(state: dict[str, Any]) -> None:
    for key in [key for key in state if "layernorm" in key]:
        del state[key]


def put(key: str, tensor: Tensor) -> Edit:
    return lambda state: state.update({key: tensor})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (without_norms, r"missing \(6\): (model\.layers\.\d\.\w+\.weight, ){3}\.\.\.\n.*again"),
        (put("model.inv_freq", torch.ones(2)), r"not in the model \(1\): model\.inv_freq\n"),
        (
            put("model.norm.weight", torch.ones(65)),
            r"wrong shape \(1\): model\.norm\.weight is float \[65\] instead of float \[64\]\n",
        ),
        (put("model.norm.weight", torch.ones(64, dtype=torch.int8)), r"is integer \[64\] instead"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(tmp_path: Path, change: Edit, text: str) -> None:
    with pytest.raises(UserError, match=text):
        load(edited(tmp_path, "dream", tensors=change))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_tensor_with_a_value_that_is_no_number_is_named(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    weight = torch.ones(64, dtype=dtype)
    weight[5] = value
    with pytest.raises(UserError, match=r"no numbers \(1\): model\.norm\.weight\n"):
        load(edited(tmp_path, "dream", tensors=put("model.norm.weight", weight)))


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("model.safetensors", None, r"no model\.safetensors and no model\.safetensors\.index"),
        ("config.json", None, r"no file .*config\.json\n"),
        ("config.json", b"{", r"cannot read .*config\.json: "),
        ("config.json", b"\xff", r"cannot read .*config\.json: "),
        ("config.json", b"[]", r"config\.json holds a list"),
    ],
)
def test_a_broken_folder_is_one_sentence(
    tmp_path: Path, file: str, content: bytes | None, text: str
) -> None:
    edited(tmp_path, "llada")
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=text):
        load(tmp_path)


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = edited(tmp_path, "llada") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"cannot read .*model\.safetensors: .*\n.*again"):
        load(tmp_path)


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    sharded(edited(tmp_path, "dream"))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(UserError, match=r"index\.json: weight_map is \{\}"):
        load(tmp_path)


REFUSED = {
    "llada": """{"alibi": true, "block_type": "sequential", "block_group_size": 2,
        "layer_norm_type": "default", "layer_norm_with_affine": false, "activation_type": "gelu",
        "bias_for_layer_norm": true, "rope": false, "rope_full_precision": null, "n_kv_heads": 3,
        "attention_layer_norm": true, "multi_query_attention": true, "include_bias": true,
        "include_qkv_bias": true, "input_emb_norm": true, "scale_logits": true, "n_layers": 0,
        "weight_tying": null, "d_model": "64", "n_heads": 5, "rms_norm_eps": null,
        "rope_theta": true, "mask_token_id": 256, "eos_token_id": null, "architectures": null}""",
    "dream": """{"hidden_act": "gelu", "rope_scaling": {"type": "yarn"}, "use_mrope": true,
        "use_sliding_window": true, "tie_word_embeddings": null, "mask_token_id": null,
        "block_size": 32, "layer_types": ["full_attention", "sliding_attention"]}""",
    "lladamoe": """{"attention_bias": true, "clip_qkv": 8, "moe_router_enable_expert_bias": true,
        "moe_router_score_function": "sigmoid", "partial_rotary_factor": 0.5, "qk_layernorm": null,
        "routed_scaling_factor": 2, "router_num_group": 2, "router_topk_group": 1,
        "shared_expert_intermediate_size": 24, "moe_layer_freq": [1, 1], "num_experts_per_tok": 9,
        "num_experts": 0, "rope_scaling": {"type": "linear"}}""",
    "llada2": """{"moe_router_enable_expert_bias": false, "norm_head": true,
        "norm_topk_prob": false, "num_shared_experts": 2, "router_dtype": "bf16",
        "score_function": "softmax", "use_bias": true, "use_qk_norm": false, "use_qkv_bias": true,
        "use_rmsnorm": false, "n_group": 3, "num_experts_per_tok": 1, "rotary_dim": 16,
        "first_k_dense_replace": -1, "head_dim": 0, "block_size": 0}""",
    "qwen3": """{"attention_bias": true, "block_size": "4", "num_key_value_heads": 3,
        "rope_parameters": {"rope_type": "yarn"}, "max_position_embeddings": 1.5}""",
}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(name, *item) for name in NAMES for item in json.loads(REFUSED[name]).items()],
)
def test_a_config_beyond_the_encoder_is_refused_by_field_and_value(
    tmp_path: Path, name: str, field: str, value: object
) -> None:
    folder = edited(tmp_path, name, config=lambda fields: fields.update({field: value}))
    with pytest.raises(UserError) as caught:
        load(folder)
    assert caught.value.message == f"config.json: {field} is {value!r}"
    assert caught.value.hint


def test_the_architecture_decides_and_not_the_model_type(tmp_path: Path) -> None:
    moe = edited(tmp_path, "llada", config=lambda c: c.update(architectures=["LLaDAMoEModelLM"]))
    with pytest.raises(UserError, match=r"attention_bias|moe_router_score_function"):
        load(moe)
    typo = edited(tmp_path, "llada", config=lambda c: c.update(architectures=["LLaDAModel"]))
    with pytest.raises(UserError, match=r"'LLaDAModel'\ndid you mean 'LLaDAModelLM'\?"):
        load(typo)


def test_a_mask_id_from_the_caller_goes_before_the_config(tmp_path: Path) -> None:
    folder = edited(tmp_path, "dream", config=lambda fields: fields.pop("mask_token_id"))
    with pytest.raises(UserError, match=r"mask_token_id is None\n.*give it by -M mask_id="):
        load(folder)
    assert load(folder, mask_id=7).mask_id == 7
    assert load(GOLDEN / "dream", mask_id=0).mask_id == 0


def test_a_spec_reads_lengths_rows_heads_and_ends_where_they_are() -> None:
    def spec(name: str, **changed: object) -> ModelSpec:
        return checkpoint.describe({**checkpoint.read_config(GOLDEN / name), **changed})[2]

    assert spec("dream", max_position_embeddings=131072).max_length == 2048
    assert spec("llada", vocab_size=251).vocab_rows == 256
    assert spec("llada", vocab_size=251, embedding_size=None).vocab_rows == 251
    assert spec("llada", n_kv_heads=None).kv_heads == 4
    assert spec("llada", eos_token_id=[1, 2]).eos_ids == (1, 2)


@pytest.mark.parametrize("name", DENSE)
def test_an_absent_head_is_the_embedding_only_if_the_config_ties_them(
    tmp_path: Path, name: str
) -> None:
    drop: Edit = lambda state: state.pop(HEAD[name])  # noqa: E731
    with pytest.raises(UserError, match=rf"missing \(1\): {HEAD[name]}"):
        load(edited(tmp_path, name, tensors=drop))
    net = load(
        edited(tmp_path, name, config=lambda c: c.update({TIE[name]: True}), tensors=drop)
    ).encoder
    assert net.lm_head.weight.data_ptr() == net.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("name", DENSE)
def test_a_stored_head_of_a_tied_model_must_equal_the_embedding(tmp_path: Path, name: str) -> None:
    tie: Edit = lambda fields: fields.update({TIE[name]: True})  # noqa: E731
    with pytest.raises(UserError, match=r"ties lm_head\.weight to embed_tokens\.weight"):
        load(edited(tmp_path, name, config=tie))
    same: Edit = lambda state: state.update({HEAD[name]: state[EMBEDDING[name]].clone()})  # noqa: E731
    net = load(edited(tmp_path, name, config=tie, tensors=same)).encoder
    assert net.lm_head.weight.data_ptr() == net.embed_tokens.weight.data_ptr()
