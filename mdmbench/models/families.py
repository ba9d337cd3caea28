"""What tells the checkpoint families apart: the fields of config.json and the tensor names.

A family is one function that reads its raw config.json strictly, and one that turns the name of
a parameter of the encoder into the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mdmbench.errors import UserError, unknown
from mdmbench.models.encoder import ModelSpec

Config = Mapping[str, Any]

OFF = (False, None)
EITHER = (False, True)


class Family(NamedTuple):
    spec: Callable[[Config], ModelSpec]
    name: Callable[[str], str]


def family(config: Config) -> Family:
    """The family that `architectures[0]` names.

    Never `model_type`: LLaDA and LLaDA-MoE share one, and their layouts differ.
    """
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        raise _wrong("architectures", names, "it must name the class of the model")
    if str(names[0]) not in FAMILIES:
        raise unknown("architecture", str(names[0]), FAMILIES)
    return FAMILIES[str(names[0])]


def llada_spec(config: Config) -> ModelSpec:
    """LLaDA-8B and LLaDA-1.5 (LLaDA configuration: `LLaDAConfig`)."""
    off = "alibi attention_layer_norm bias_for_layer_norm multi_query_attention"
    off += " include_bias include_qkv_bias input_emb_norm scale_logits"
    supported = {
        "block_type": ("llama",),
        "block_group_size": (1, None),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True, None),
        "activation_type": ("silu",),
        "rope": (True,),
        "rope_full_precision": EITHER,
        "weight_tying": EITHER,
        **dict.fromkeys(off.split(), OFF),
    }
    _require(config, supported)
    fields = {
        "vocab_rows": "vocab_size" if config.get("embedding_size") is None else "embedding_size",
        "width": "d_model",
        "layers": "n_layers",
        "heads": "n_heads",
        "kv_heads": "n_heads" if config.get("n_kv_heads") is None else "n_kv_heads",
        "ff": "mlp_hidden_size",
        "max_length": "max_sequence_length",
    }
    tie, rope_fp32 = config["weight_tying"], config["rope_full_precision"]
    return _dense(config, fields, tie=tie, rope_fp32=rope_fp32, qkv_bias=False, shift=False)


def llada_name(key: str) -> str:
    """`ff_out` is the head at the top and the way down inside a block (LLaDA modeling)."""
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ff_norm",
        "o_proj": "attn_out",
        "gate_proj": "ff_proj",
        "down_proj": "ff_out",
        "layers": "blocks",
        "embed_tokens": "wte",
        "norm": "ln_f",
        "lm_head": "ff_out",
    }
    parts = [names.get(part, part) for part in key.split(".") if part not in ("self_attn", "mlp")]
    return ".".join(["model", "transformer", *parts])


def dream_spec(config: Config) -> ModelSpec:
    """Dream, Dream-Coder and DiffuCoder: the layout of Qwen2 (Dream configuration)."""
    supported = {
        "hidden_act": ("silu",),
        "rope_scaling": (None,),
        "use_sliding_window": OFF,
        "use_mrope": OFF,
        "tie_word_embeddings": EITHER,
    }
    _require(config, supported)
    fields = {
        "vocab_rows": "vocab_size",
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "ff": "intermediate_size",
        "max_length": "max_position_embeddings",
    }
    # The configs repeat the 131072 or 32768 of the autoregressive parent, but the diffusion models
    # were trained at 2048, which is also what their README allows.
    config = {**config, fields["max_length"]: min(2048, _count(config, fields["max_length"]))}
    tie = config["tie_word_embeddings"]
    return _dense(config, fields, tie=tie, rope_fp32=False, qkv_bias=True, shift=True)


def dream_name(key: str) -> str:
    return key if key.startswith("lm_head.") else f"model.{key}"


FAMILIES = {
    "LLaDAModelLM": Family(llada_spec, llada_name),
    "DreamModel": Family(dream_spec, dream_name),
}


def _dense(
    config: Config,
    fields: Mapping[str, str],
    *,
    tie: bool,
    rope_fp32: bool,
    qkv_bias: bool,
    shift: bool,
) -> ModelSpec:
    """A spec whose sizes stand in the config under the names in `fields`."""
    sizes = {name: _count(config, field) for name, field in fields.items()}
    head_dim, rest = divmod(sizes["width"], sizes["heads"])
    if rest or head_dim % 2:
        raise _wrong(fields["heads"], sizes["heads"], f"{sizes['width']} must be even in each head")
    if sizes["heads"] % sizes["kv_heads"]:
        raise _wrong(fields["kv_heads"], sizes["kv_heads"], f"it must divide {sizes['heads']}")
    eos = config.get("eos_token_id")
    rows = sizes["vocab_rows"]
    return ModelSpec(
        **sizes,
        head_dim=head_dim,
        norm_eps=_positive(config, "rms_norm_eps"),
        rope_theta=_positive(config, "rope_theta"),
        rope_fp32=rope_fp32,
        qkv_bias=qkv_bias,
        tie=tie,
        mask_id=_token("mask_token_id", config.get("mask_token_id"), rows, ", give it as mask_id"),
        eos_ids=tuple(
            _token("eos_token_id", i, rows) for i in (eos if isinstance(eos, list) else [eos])
        ),
        shift=shift,
    )


def _wrong(field: str, value: object, hint: str) -> UserError:
    return UserError(f"config.json: {field} is {value!r}", hint)


def _require(config: Config, supported: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a field that asks for what the encoder does not have; an absent one is None."""
    for field, values in supported.items():
        if config.get(field) not in values:
            raise _wrong(field, config.get(field), f"supported: {' or '.join(map(repr, values))}")


def _count(config: Config, field: str) -> int:
    value = config.get(field)
    if type(value) is not int or value < 1:
        raise _wrong(field, value, "it must be a whole number above 0")
    return value


def _positive(config: Config, field: str) -> float:
    value = config.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise _wrong(field, value, "it must be a number above 0")
    return float(value)


def _token(field: str, value: object, rows: int, way_out: str = "") -> int:
    if type(value) is not int or not 0 <= value < rows:
        raise _wrong(field, value, f"it must be a token id from 0 to {rows - 1}{way_out}")
    return value
