"""What each family of checkpoints promises beyond the golden logits: its layout, and no other."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from mdmbench.base import Batch
from mdmbench.errors import UserError
from mdmbench.models import checkpoint
from mdmbench.models.checkpoint import Options
from mdmbench.models.encoder import Encoder, NativeModel
from mdmbench.models.experts import Experts, Mixture
from mdmbench.models.families import llada_name

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


def load(folder: Path, **options: Any) -> NativeModel:
    return checkpoint.load(folder, device=CPU, dtype=torch.float32, options=Options(**options))


def changed(
    folder: Path, name: str, tensors: dict[str, Tensor] | None = None, **fields: Any
) -> Path:
    """A golden checkpoint with other fields in its config, and other tensors."""
    config = json.loads((GOLDEN / name / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    state = load_file(GOLDEN / name / "model.safetensors") if tensors is None else tensors
    save_file(state, folder / "model.safetensors")
    return folder


def full(model: NativeModel, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
    return model.start()(
        Batch(tokens, torch.arange(tokens.shape[1]).expand_as(tokens), lengths)
    ).float()


def logits(model: NativeModel, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.encoder.lm_head(model.encoder(tokens))


@pytest.mark.parametrize(
    ("architecture", "options", "shift", "block"),
    [
        ("Fast_dLLM_QwenForCausalLM", {}, True, 32),
        ("Fast_dLLM_QwenForCausalLM", {"block": 24}, True, 24),
        ("A2DQwen2LMHeadModel", {}, False, None),
        ("A2DQwen2LMHeadModel", {"block": 32}, False, 32),
        ("Qwen2ForCausalLM", {"family": "open-dcoder"}, True, None),
        ("Qwen2ForCausalLM", {"family": "open-dcoder", "shift": False}, False, None),
    ],
)
def test_families_in_qwen2s_layout_give_the_logits_of_the_reference(
    tmp_path: Path, architecture: str, options: dict[str, Any], shift: bool, block: int | None
) -> None:
    gold = load_file(GOLDEN / "dream" / "expected.safetensors")
    model = load(changed(tmp_path, "dream", architectures=[architecture]), **options)
    difference = logits(model, gold["input_ids"]) - gold["logits_full_f32"]
    assert difference.abs().max() <= 2e-5
    assert (model.encoder.spec.shift, model.block) == (shift, block)


def test_sdar_gives_the_block_causal_logits_of_the_reference(tmp_path: Path) -> None:
    gold = load_file(GOLDEN / "qwen3" / "expected.safetensors")
    config = json.loads((GOLDEN / "qwen3" / "config_sdar.json").read_text())
    model = load(changed(tmp_path, "qwen3", **config), mask_id=250)
    difference = logits(model, gold["input_ids"]) - gold["logits_masked_f32"]
    assert difference.abs().max() <= 2e-5
    assert model.block == 4
    grid = gold["mask_4d"][:1]
    assert torch.equal(model.encoder.seen(24, None), grid)


def test_sdar_without_a_block_asks_for_one(tmp_path: Path) -> None:
    config = {"architectures": ["SDARForCausalLM"], "block_size": None}
    folder = changed(tmp_path, "qwen3", **config)
    with pytest.raises(UserError, match=r"block_size is None\ngive -M block=N"):
        load(folder, mask_id=250)
    assert load(folder, mask_id=250, block=8).block == 8


def test_illada_is_llama_without_a_causal_mask(tmp_path: Path) -> None:
    """Its names on LLaDA's golden weights: in float32 the two differ in nothing else."""
    gold = load_file(GOLDEN / "llada" / "expected.safetensors")
    stored = load_file(GOLDEN / "llada" / "model.safetensors")
    folder = changed(tmp_path, "dream", **illada(stored, {}))
    difference = logits(load(folder, mask_id=5), gold["input_ids"]) - gold["logits_full_f32"]
    assert difference.abs().max() <= 2e-5


def illada(stored: dict[str, Tensor], more: dict[str, Any]) -> dict[str, Any]:
    """LLaDA's golden weights under iLLaDA's names, with a config to match."""
    net = load(GOLDEN / "llada").encoder
    tensors = {
        key if key.startswith("lm_head") else f"model.{key}": stored[llada_name(key)]
        for key in net.state_dict()
    }
    return {
        "tensors": tensors,
        "architectures": ["ILLaDAForCausalLM"],
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "layer_norm_eps": None,
        "mask_token_id": None,
        **more,
    }


def test_illadas_biases_and_layer_norms_are_where_its_config_says(tmp_path: Path) -> None:
    stored = load_file(GOLDEN / "llada" / "model.safetensors")
    config = {"attention_bias": True, "mlp_bias": True, "layer_norm_eps": 1e-5}
    made = illada(stored, config)
    made["tensors"] = biased(made["tensors"])
    model = load(changed(tmp_path, "dream", **made), mask_id=5)
    tokens = torch.arange(11)[None] * 7
    wide = {key: tensor.double() for key, tensor in made["tensors"].items()}
    torch.testing.assert_close(
        logits(model, tokens).double(), llama(wide, tokens), atol=2e-5, rtol=0
    )


def biased(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(3)
    bias = {
        key.replace(".weight", ".bias"): torch.randn(len(tensor), generator=made) / 5
        for key, tensor in tensors.items()
        if "embed" not in key and "lm_head" not in key
    }
    return {**tensors, **bias}


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)


def layer_norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return unit * state[f"{name}.weight"] + state.get(f"{name}.bias", 0)


def turned(x: Tensor, theta: float) -> Tensor:
    """`x` [L, H, E], its pairs turned as complex numbers."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    speed = theta ** -(torch.arange(half).double() / half)
    angle = torch.arange(len(x)).double()[:, None, None] * speed
    pairs = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((pairs.real, pairs.imag), -1)


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """All `[L, H, E]` -> `[L, H*E]`."""
    scores = torch.einsum("qhe,khe->hqk", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("hqk,khe->qhe", scores.softmax(-1), value).flatten(1)


def llama(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """The three golden layers of iLLaDA, written out in float64."""
    x = state["model.embed_tokens.weight"][tokens[0]]
    for i in range(3):
        at = f"model.layers.{i}"
        y = layer_norm(state, f"{at}.input_layernorm", x)
        q, k, v = (linear(state, f"{at}.self_attn.{p}_proj", y).view(-1, 4, 16) for p in "qkv")
        mixed = attended(turned(q, 5e5), turned(k, 5e5), v)
        x = x + linear(state, f"{at}.self_attn.o_proj", mixed)
        y = layer_norm(state, f"{at}.post_attention_layernorm", x)
        gate = F.silu(linear(state, f"{at}.mlp.gate_proj", y))
        x = x + linear(state, f"{at}.mlp.down_proj", gate * linear(state, f"{at}.mlp.up_proj", y))
    return linear(state, "lm_head", layer_norm(state, "model.norm", x))[None]


MDLM = {
    "architectures": ["MDLM"],
    "model_type": "mdlm",
    "hidden_dim": 32,
    "n_blocks": 2,
    "n_heads": 2,
    "cond_dim": 8,
    "vocab_size": 40,
    "model_length": 64,
    "dropout": 0.1,
    "time_conditioning": False,
}


def mdlm(folder: Path, **fields: Any) -> dict[str, Tensor]:
    """A diffusion transformer with random weights under the names of the published one."""
    d, c, v = 32, 8, 40
    shapes: dict[str, tuple[int, ...]] = {
        "vocab_embed.embedding": (v, d),
        "sigma_map.mlp.0": (c, 256),
        "sigma_map.mlp.2": (c, c),
        "output_layer.norm_final.weight": (d,),
        "output_layer.linear": (v, d),
        "output_layer.adaLN_modulation": (2 * d, c),
    }
    for i in range(2):
        block = {
            "norm1.weight": (d,),
            "attn_qkv.weight": (3 * d, d),
            "attn_out.weight": (d, d),
            "norm2.weight": (d,),
            "mlp.0": (4 * d, d),
            "mlp.2": (d, 4 * d),
            "adaLN_modulation": (6 * d, c),
        }
        shapes.update({f"blocks.{i}.{key}": shape for key, shape in block.items()})
    whole = ("weight", "embedding")
    for key in [key for key in shapes if not key.endswith(whole)]:
        shape = shapes.pop(key)
        shapes |= {f"{key}.weight": shape, f"{key}.bias": shape[:1]}
    made = torch.Generator().manual_seed(5)
    state = {f"backbone.{k}": torch.randn(s, generator=made) / 4 for k, s in shapes.items()}
    state["backbone.rotary_emb.inv_freq"] = 1e4 ** -(torch.arange(0, 16, 2) / 16)
    (folder / "config.json").write_text(json.dumps({**MDLM, **fields}))
    save_file(state, folder / "model.safetensors")
    return state


def diffusion_transformer(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """MDLM's network at noise level 0, written out in float64."""
    state = {key.removeprefix("backbone."): tensor.double() for key, tensor in state.items()}
    wave = torch.cat((torch.ones(128), torch.zeros(128))).double()
    time = F.silu(linear(state, "sigma_map.mlp.2", F.silu(linear(state, "sigma_map.mlp.0", wave))))
    x = state["vocab_embed.embedding"][tokens[0]]
    for i in range(2):
        at = f"blocks.{i}"
        a, b, c, d, e, f = linear(state, f"{at}.adaLN_modulation", time).chunk(6)
        y = layer_norm(state, f"{at}.norm1", x) * (1 + b) + a
        q, k, v = linear(state, f"{at}.attn_qkv", y).view(-1, 3, 2, 16).unbind(1)
        mixed = attended(turned(q, 1e4), turned(k, 1e4), v)
        x = x + c * linear(state, f"{at}.attn_out", mixed)
        y = layer_norm(state, f"{at}.norm2", x) * (1 + e) + d
        inner = F.gelu(linear(state, f"{at}.mlp.0", y), approximate="tanh")
        x = x + f * linear(state, f"{at}.mlp.2", inner)
    shift, scale = linear(state, "output_layer.adaLN_modulation", time).chunk(2)
    y = layer_norm(state, "output_layer.norm_final", x) * (1 + scale) + shift
    return linear(state, "output_layer.linear", y)[None]


def test_mdlm_is_its_formula_at_noise_level_zero(tmp_path: Path) -> None:
    state = mdlm(tmp_path)
    model = load(tmp_path)
    tokens = torch.arange(13)[None] * 3
    wanted = diffusion_transformer(state, tokens)
    torch.testing.assert_close(logits(model, tokens).double(), wanted, atol=2e-5, rtol=0)
    assert (model.mask_id, model.eos_ids, model.max_length) == (39, (38,), 64)
    assert torch.isneginf(full(model, tokens)[..., 39]).all()


def test_mdlms_frequencies_keep_their_precision_in_bfloat16(tmp_path: Path) -> None:
    state = mdlm(tmp_path)
    model = checkpoint.load(tmp_path, device=CPU, dtype=torch.bfloat16)
    assert torch.equal(model.encoder.frequencies, state["backbone.rotary_emb.inv_freq"])
    assert model.encoder.cos.dtype == torch.bfloat16


def test_mdlm_with_a_time_is_refused(tmp_path: Path) -> None:
    mdlm(tmp_path, time_conditioning=True)
    with pytest.raises(UserError, match="time_conditioning is True"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        ("Qwen2ForCausalLM", "autoregressive Qwen2; if it is Open-dCoder.*-M family=open-dcoder"),
        ("SDARMoeForCausalLM", "mixtures of experts are not supported"),
    ],
)
def test_a_class_that_cannot_be_meant_is_refused_with_the_reason(
    tmp_path: Path, architecture: str, text: str
) -> None:
    with pytest.raises(UserError, match=text):
        load(changed(tmp_path, "dream", architectures=[architecture]))


def test_dreamreasoner_is_not_taken_for_dream(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"block_size is 32\nDreamReasoner.* is not supported"):
        load(changed(tmp_path, "dream", block_size=32))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("llada", {"mask_id": 256}, r"^mask_id is 256\nit is a number from 0 to 255"),
        ("llada", {"mask_id": -1}, r"^mask_id is -1\n"),
        ("llada", {"block": 4}, r"^block is 4, but in llada every position sees every other\n"),
        ("qwen3", {"mask_id": 1, "block": 0}, r"^block is 0\nit is a number from 1 to 256"),
        ("qwen3", {"mask_id": 1, "block": 257}, r"^block is 257\n"),
        ("llada", {"family": "lada"}, r"^unknown model family 'lada'\ndid you mean 'llada'\?"),
        ("llada", {"family": "dream"}, r"^config\.json: max_position_embeddings is None\n"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_its_name(
    name: str, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        load(GOLDEN / name, **options)


def test_the_shift_of_the_caller_goes_before_the_familys() -> None:
    tokens = torch.arange(9)[None]
    plain = full(load(GOLDEN / "llada"), tokens)
    shifted = full(load(GOLDEN / "llada", shift=True), tokens)
    torch.testing.assert_close(shifted[:, 1:], plain[:, :-1], atol=1e-5, rtol=0)


def test_rope_theta_is_found_where_transformers_5_writes_it(tmp_path: Path) -> None:
    fields = {"rope_theta": None, "rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}
    config = {**checkpoint.read_config(GOLDEN / "qwen3"), **fields}
    del config["rope_theta"]
    assert checkpoint.describe(config, Options(mask_id=0))[2].rope_theta == 7.0


def test_only_a_config_without_a_mask_asks_for_one() -> None:
    dream = checkpoint.read_config(GOLDEN / "dream")
    qwen = checkpoint.read_config(GOLDEN / "qwen3")
    assert not checkpoint.wants_mask(dream, Options())
    assert checkpoint.wants_mask(qwen, Options())
    assert not checkpoint.wants_mask(qwen, Options(mask_id=3))
    assert not checkpoint.wants_mask(MDLM, Options())


@pytest.mark.parametrize("name", ["llada2", "qwen3"])
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_neither_a_pad_nor_a_later_block_moves_a_row(name: str, data: st.DataObject) -> None:
    block = data.draw(st.sampled_from((3, 4)))
    model = BLOCKED.setdefault((name, block), load(GOLDEN / name, mask_id=250, block=block))
    lengths = data.draw(st.lists(st.integers(1, 17), min_size=2, max_size=3))
    made = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    tokens = torch.randint(256, (len(lengths), max(lengths)), generator=made)
    together = full(model, tokens, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        seen = data.draw(st.integers(1, length))
        whole = -(-seen // block) * block
        alone = full(model, tokens[row : row + 1, : min(whole, length)])
        # As for the golden logits: experts that get batches of other sizes round otherwise.
        torch.testing.assert_close(together[row, :seen], alone[0, :seen], atol=2e-5, rtol=0)


BLOCKED: dict[tuple[str, int], NativeModel] = {}


def test_a_block_causal_model_that_sees_everything_is_refused_at_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Encoder, "seen", lambda *_: None)
    with pytest.raises(RuntimeError, match="not block-causal"):
        load(GOLDEN / "qwen3", mask_id=250, block=4)


def test_a_block_causal_model_that_is_causal_is_refused_at_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def causal(_: Encoder, length: int, mask: Tensor | None) -> Tensor:
        return torch.ones(length, length, dtype=torch.bool).tril()

    monkeypatch.setattr(Encoder, "seen", causal)
    with pytest.raises(RuntimeError, match="attention is causal"):
        load(GOLDEN / "qwen3", mask_id=250, block=4)


def test_the_bias_of_an_expert_moves_the_choice_and_not_the_weights(tmp_path: Path) -> None:
    tokens = torch.arange(12)[None] * 5
    state = load_file(GOLDEN / "llada2" / "model.safetensors")
    biases = [key for key in state if key.endswith("expert_bias")]
    raised = {**state, **{key: state[key] + 3 for key in biases}}
    other = {**state, **{key: state[key] + torch.arange(8.0) for key in biases}}
    before = full(load(GOLDEN / "llada2", mask_id=250), tokens)
    same = full(load(changed(tmp_path, "llada2", raised), mask_id=250), tokens)
    torch.testing.assert_close(same, before, atol=1e-5, rtol=0)
    moved = full(load(changed(tmp_path, "llada2", other), mask_id=250), tokens)
    assert not torch.allclose(moved, before, atol=0.1)


@pytest.mark.parametrize("router", ["softmax", "sigmoid"])
def test_a_mixture_is_the_weighted_sum_of_the_experts_of_each_token(router: Any) -> None:
    experts = Experts(
        count=6,
        top_k=3,
        ff=5,
        dense_layers=frozenset(),
        router=router,
        shared_ff=5 if router == "sigmoid" else 0,
        groups=3,
        top_groups=2,
        scale=2.5,
    )
    torch.manual_seed(0)
    mixture = Mixture(4, experts)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 7, 4)
    with torch.no_grad():
        told, y = mixture(x), x.flatten(0, 1)
        logit = y @ mixture.gate.weight.T
        score = logit.softmax(-1) if router == "softmax" else logit.sigmoid()
        for token, answer in zip(range(14), told.flatten(0, 1), strict=True):
            chosen = score[token].topk(3).indices.tolist()
            weights = score[token, chosen]
            if router == "sigmoid":
                biased = score[token] + mixture.gate.expert_bias
                groups = [biased[g : g + 2].sum().item() for g in (0, 2, 4)]
                best = sorted(range(3), key=lambda g: -groups[g])[:2]
                allowed = [i for i in range(6) if i // 2 in best]
                chosen = sorted(allowed, key=lambda i: -biased[i])[:3]
                weights = score[token, chosen] / score[token, chosen].sum() * 2.5
            parts = [w * mixture.experts[i](y[token]) for i, w in zip(chosen, weights, strict=True)]
            wanted = sum(parts) + (mixture.shared_experts(y[token]) if experts.shared_ff else 0)
            torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=1e-5)


def test_the_rows_of_a_fused_tensor_go_to_queries_keys_and_values_in_order() -> None:
    state = load_file(GOLDEN / "llada2" / "model.safetensors")
    fused = state["model.layers.1.attention.query_key_value.weight"]
    attention = load(GOLDEN / "llada2", mask_id=250).encoder.layers[1].self_attn
    parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    assert [len(part) for part in parts] == [64, 32, 32]
    assert torch.equal(torch.cat(parts), fused)


def test_a_fused_tensor_of_the_wrong_size_is_named_once(tmp_path: Path) -> None:
    key = "model.layers.1.attention.query_key_value.weight"
    state = load_file(GOLDEN / "llada2" / "model.safetensors")
    with pytest.raises(UserError, match=rf"wrong shape \(1\): {key} is float \[127, 64\] instead"):
        load(changed(tmp_path, "llada2", {**state, key: state[key][1:].clone()}), mask_id=250)
