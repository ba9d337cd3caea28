"""What tells the checkpoint families apart: the fields of config.json and the tensor names.

A family is one function that reads its raw config.json strictly, and one that turns the name of
a parameter of the network into the checkpoint's. Several parameters may share a name: the stored
tensor then holds their rows one after the other, in the order of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mdmbench.errors import UserError, unknown
from mdmbench.models.dit import DiT
from mdmbench.models.encoder import Encoder, ModelSpec
from mdmbench.models.experts import Experts

Config = Mapping[str, Any]

OFF = (False, None)
EITHER = (False, True)


class Family(NamedTuple):
    """One layout of checkpoints.

    architectures  the classes that config.json may name for it
    blocks         its attention may be block-causal, with a block that the caller may set
    """

    architectures: tuple[str, ...]
    spec: Callable[[Config], ModelSpec]
    name: Callable[[str], str]
    blocks: bool = False
    net: type[Encoder] | type[DiT] = Encoder


def family(config: Config, asked: str | None = None) -> tuple[str, Family]:
    """The family that is `asked` for, else the one that `architectures[0]` names.

    Never `model_type`: LLaDA and LLaDA-MoE share one, and their layouts differ.
    """
    if asked is not None:
        if asked not in FAMILIES:
            raise unknown("model family", asked, FAMILIES)
        return asked, FAMILIES[asked]
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        raise _wrong("architectures", names, "it must name the model's class, or give -M family=")
    name = str(names[0])
    if name in REFUSED:
        raise _wrong("architectures", names, REFUSED[name])
    known = {cls: f for f, kind in FAMILIES.items() for cls in kind.architectures}
    if name not in known:
        raise unknown("architecture", name, known)
    return known[name], FAMILIES[known[name]]


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
    return _spec(
        config,
        fields,
        norm_eps=_positive(config, "rms_norm_eps"),
        tie=config["weight_tying"],
        rope_fp32=config["rope_full_precision"],
    )


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
    """Dream, Dream-Coder and DiffuCoder (Dream configuration): Qwen2, bidirectional."""
    _require(config, {"use_mrope": OFF})
    if config.get("block_size") is not None:
        raise _wrong(
            "block_size",
            config["block_size"],
            "DreamReasoner, which is block-causal and not shifted, is not supported",
        )
    # The configs repeat the 131072 or 32768 of the autoregressive parent, but the diffusion models
    # were trained at 2048, which is also what their README allows.
    length = min(2048, _count(config, "max_position_embeddings"))
    return _llama({**config, "max_position_embeddings": length}, qkv_bias=True, shift=True)


def qwen2_spec(config: Config) -> ModelSpec:
    """A2D on Qwen2 (dllm, a2d/models/qwen2): no shift; a block where the caller names one."""
    return _llama(config, qkv_bias=True, block=_block(config, "block_size"))


def open_dcoder_spec(config: Config) -> ModelSpec:
    """Open-dCoder, whose config is that of Qwen2 itself: full attention, shifted like Dream."""
    return _llama(config, qkv_bias=True, shift=True)


def fast_dllm_spec(config: Config) -> ModelSpec:
    """Fast-dLLM v2 on Qwen2.5: block-causal, and shifted, so that the last row of a block predicts
    the first token of the next."""
    return _llama(config, qkv_bias=True, shift=True, block=_block(config, "bd_size") or 32)


def qwen3_spec(config: Config) -> ModelSpec:
    """A2D on Qwen3 (dllm, a2d/models/qwen3): no shift; a block where the caller names one."""
    _require(config, {"attention_bias": OFF})
    return _llama(config, qk_norm=True, block=_block(config, "block_size"))


def sdar_spec(config: Config) -> ModelSpec:
    """SDAR: Qwen3, block-causal (SDAR configuration)."""
    spec = qwen3_spec(config)
    if spec.block is None:
        hint = "give -M block=N: 4, or the number that the name of the model ends in (-b8: 8)"
        raise _wrong("block_size", None, hint)
    return spec


def illada_spec(config: Config) -> ModelSpec:
    """iLLaDA: Llama, bidirectional; layer_norm_eps asks for LayerNorm (iLLaDA modeling)."""
    _require(config, {"attention_bias": EITHER, "mlp_bias": EITHER})
    layer_norm = config.get("layer_norm_eps") is not None
    return _llama(
        config,
        norm_eps=_positive(config, "layer_norm_eps" if layer_norm else "rms_norm_eps"),
        layer_norm=layer_norm,
        qkv_bias=config["attention_bias"],
        out_bias=config["attention_bias"],
        mlp_bias=config["mlp_bias"],
    )


def llada_moe_spec(config: Config) -> ModelSpec:
    """LLaDA-MoE; `norm_topk_prob` is not read by its modeling, which never normalises."""
    supported = {
        "attention_bias": OFF,
        "clip_qkv": (None,),
        "moe_router_enable_expert_bias": OFF,
        "moe_router_score_function": ("softmax",),
        "partial_rotary_factor": (1, None),
        "qk_layernorm": EITHER,
        "routed_scaling_factor": (1, None),
        "router_num_group": (None,),
        "router_topk_group": (None,),
        "shared_expert_intermediate_size": (None,),
    }
    _require(config, supported)
    layers, mixed = _count(config, "num_hidden_layers"), config.get("moe_layer_freq")
    if not isinstance(mixed, list) or len(mixed) != layers or not set(mixed) <= {0, 1}:
        raise _wrong("moe_layer_freq", mixed, f"it must be a list of {layers} zeros and ones")
    experts = Experts(
        count=_count(config, "num_experts"),
        top_k=_count(config, "num_experts_per_tok"),
        ff=_count(config, "expert_intermediate_size"),
        dense_layers=frozenset(i for i, layer in enumerate(mixed) if not layer),
        router="softmax",
    )
    if experts.top_k > experts.count:
        raise _wrong("num_experts_per_tok", experts.top_k, f"there are {experts.count} experts")
    fields = {**LLAMA, "ff": "dense_intermediate_size"}
    return _llama(config, fields=fields, qk_norm=config["qk_layernorm"], experts=experts)


def llada2_spec(config: Config) -> ModelSpec:
    """LLaDA2.0 and 2.1: block-causal (LLaDA2 configuration); `sliding_window` is not used."""
    supported = {
        "moe_router_enable_expert_bias": (True,),
        "norm_head": OFF,
        "norm_topk_prob": (True,),
        "num_shared_experts": (1,),
        "router_dtype": ("fp32", None),
        "score_function": ("sigmoid",),
        "use_bias": OFF,
        "use_qk_norm": (True,),
        "use_qkv_bias": OFF,
        "use_rmsnorm": (True, None),
    }
    _require(config, supported)
    experts = Experts(
        count=_count(config, "num_experts"),
        top_k=_count(config, "num_experts_per_tok"),
        ff=_count(config, "moe_intermediate_size"),
        dense_layers=frozenset(range(_count(config, "first_k_dense_replace", least=0))),
        router="sigmoid",
        shared_ff=_count(config, "moe_intermediate_size"),
        groups=_count(config, "n_group"),
        top_groups=_count(config, "topk_group"),
        scale=_positive(config, "routed_scaling_factor"),
    )
    size, rest = divmod(experts.count, experts.groups)
    if rest or size < 2 or experts.top_groups > experts.groups:
        raise _wrong("n_group", experts.groups, f"{experts.count} experts do not fall into them")
    # One chosen expert would not be normalised, and -inf marks those that cannot be.
    if not 2 <= experts.top_k <= experts.top_groups * size:
        hint = f"it must be from 2 to {experts.top_groups * size}"
        raise _wrong("num_experts_per_tok", experts.top_k, hint)
    end = "pad_token_id" if config.get("eos_token_id") is None else "eos_token_id"
    return _llama(
        {**config, "eos_token_id": config.get(end)},
        qk_norm=True,
        rotary=_rotary(config),
        block=_block(config, "block_size") or 32,
        experts=experts,
    )


def llada2_name(key: str) -> str:
    """Queries, keys and values are stored as one tensor."""
    names = {
        "embed_tokens": "word_embeddings",
        "self_attn": "attention",
        "q_proj": "query_key_value",
        "k_proj": "query_key_value",
        "v_proj": "query_key_value",
        "o_proj": "dense",
        "q_norm": "query_layernorm",
        "k_norm": "key_layernorm",
    }
    return llama_name(".".join(names.get(part, part) for part in key.split(".")))


def llama_name(key: str) -> str:
    """The names of Hugging Face's Llama, which are the network's own, and of all that follow it."""
    return key if key.startswith("lm_head.") else f"model.{key}"


def mdlm_spec(config: Config) -> ModelSpec:
    """MDLM: what its config lacks is fixed in its code. The mask is the last row, behind the
    tokenizer's vocabulary, which ends with the end of text (GPT-2)."""
    _require(config, {"time_conditioning": (False,)})
    fields = {
        "vocab_rows": "vocab_size",
        "width": "hidden_dim",
        "layers": "n_blocks",
        "heads": "n_heads",
        "kv_heads": "n_heads",
        "ff": "hidden_dim",
        "max_length": "model_length",
        "conditioning": "cond_dim",
    }
    rows = _count(config, "vocab_size", least=2)
    fixed = {"mask_token_id": rows - 1, "eos_token_id": rows - 2, "rope_theta": 1e4}
    given = {field: value for field, value in config.items() if value is not None}
    ff = 4 * _count(config, "hidden_dim")
    return _spec({**fixed, **given}, fields, norm_eps=1e-5, tie=False, ff=ff)


def mdlm_name(key: str) -> str:
    names = {
        "embed_tokens.weight": "vocab_embed.embedding",
        "frequencies": "rotary_emb.inv_freq",
        "time_in": "sigma_map.mlp.0",
        "time_out": "sigma_map.mlp.2",
        "norm": "output_layer.norm_final",
        "modulation": "output_layer.adaLN_modulation",
        "lm_head": "output_layer.linear",
    }
    inside = {
        "attention_norm": "norm1",
        "qkv": "attn_qkv",
        "out": "attn_out",
        "mlp_norm": "norm2",
        "up": "mlp.0",
        "down": "mlp.2",
        "modulation": "adaLN_modulation",
    }
    if key.startswith("layers."):
        _, index, part, tail = key.split(".")
        return f"backbone.blocks.{index}.{inside[part]}.{tail}"
    part, _, tail = key.partition(".")
    return f"backbone.{names[key] if key in names else f'{names[part]}.{tail}'}"


FAMILIES = {
    "llada": Family(("LLaDAModelLM",), llada_spec, llada_name),
    "llada-moe": Family(("LLaDAMoEModelLM", "LLaDAMoEModel"), llada_moe_spec, llama_name),
    "llada2": Family(("LLaDA2MoeModelLM",), llada2_spec, llada2_name, blocks=True),
    "illada": Family(("ILLaDAForCausalLM",), illada_spec, llama_name),
    "dream": Family(("DreamModel",), dream_spec, llama_name),
    "sdar": Family(("SDARForCausalLM",), sdar_spec, llama_name, blocks=True),
    "a2d-qwen3": Family(("A2DQwen3LMHeadModel",), qwen3_spec, llama_name, blocks=True),
    "a2d-qwen2": Family(("A2DQwen2LMHeadModel",), qwen2_spec, llama_name, blocks=True),
    "fast-dllm-v2": Family(("Fast_dLLM_QwenForCausalLM",), fast_dllm_spec, llama_name, blocks=True),
    "open-dcoder": Family((), open_dcoder_spec, llama_name),
    "mdlm": Family(("MDLM",), mdlm_spec, mdlm_name, net=DiT),
}

REFUSED = {
    "Qwen2ForCausalLM": "that is an autoregressive Qwen2; if it is Open-dCoder, which calls itself"
    " the same, give -M family=open-dcoder",
    "SDARMoeForCausalLM": "SDAR's mixtures of experts are not supported, its dense models are",
}

LLAMA = {
    "vocab_rows": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ff": "intermediate_size",
    "max_length": "max_position_embeddings",
}


def _llama(config: Config, fields: Mapping[str, str] = LLAMA, **more: Any) -> ModelSpec:
    """A spec from the fields that Llama, Qwen2 and Qwen3 have in common."""
    supported = {
        "hidden_act": ("silu",),
        "use_sliding_window": OFF,
        "tie_word_embeddings": EITHER,
    }
    _require(config, supported)
    kinds = config.get("layer_types") or []
    if any(kind != "full_attention" for kind in kinds):
        raise _wrong("layer_types", kinds, "every layer must have full_attention")
    if config.get("num_key_value_heads") is None:
        fields = {**fields, "kv_heads": "num_attention_heads"}
    if "norm_eps" not in more:
        more["norm_eps"] = _positive(config, "rms_norm_eps")
    return _spec(config, fields, tie=config["tie_word_embeddings"], **more)


def _spec(config: Config, fields: Mapping[str, str], **more: Any) -> ModelSpec:
    """A spec whose sizes stand in the config under the names in `fields`; `more` goes before."""
    sizes = {name: _count(config, field) for name, field in fields.items()}
    rows, head_dim = sizes["vocab_rows"], _head_dim(config, sizes["width"], fields["heads"])
    if sizes["heads"] % sizes["kv_heads"]:
        raise _wrong(fields["kv_heads"], sizes["kv_heads"], f"it must divide {sizes['heads']}")
    eos = config.get("eos_token_id")
    found = {
        **sizes,
        "head_dim": head_dim,
        "rope_theta": _rope_theta(config),
        "mask_id": _token(
            "mask_token_id", config.get("mask_token_id"), rows, ", give it by -M mask_id="
        ),
        "eos_ids": tuple(
            _token("eos_token_id", i, rows) for i in (eos if isinstance(eos, list) else [eos])
        ),
    }
    return ModelSpec(**{**found, **more})


def _head_dim(config: Config, width: int, heads: str) -> int:
    if config.get("head_dim") is not None:
        size, rest = _count(config, "head_dim"), 0
    else:
        size, rest = divmod(width, _count(config, heads))
    if rest or size % 2:
        raise _wrong(heads, config[heads], f"{width} must be even in each head")
    return size


def _rotary(config: Config) -> int:
    """Columns of a head that are rotated, by LLaDA2's two fields, which must agree."""
    head_dim = _head_dim(config, _count(config, "hidden_size"), "num_attention_heads")
    columns = int(head_dim * _positive(config, "partial_rotary_factor"))
    fits = columns % 2 == 0 and 0 < columns <= head_dim
    if not fits or config.get("rotary_dim") not in (None, columns):
        hint = f"partial_rotary_factor makes {columns} of {head_dim} columns"
        raise _wrong("rotary_dim", config.get("rotary_dim"), hint)
    return columns


def _rope_theta(config: Config) -> float:
    """Of plain rotary positions; transformers 5 writes it into `rope_parameters`."""
    for field in ("rope_scaling", "rope_parameters"):
        rope = {} if config.get(field) is None else config[field]
        plain = {"rope_theta", "rope_type", "type", "factor"}
        if (
            not isinstance(rope, dict)
            or not set(rope) <= plain
            or rope.get("rope_type", rope.get("type", "default")) != "default"
            or rope.get("factor", 1) != 1
        ):
            raise _wrong(field, rope, "only plain rotary positions are supported")
    return _positive({**(config.get("rope_parameters") or {}), **config}, "rope_theta")


def _block(config: Config, field: str) -> int | None:
    return None if config.get(field) is None else _count(config, field)


def _wrong(field: str, value: object, hint: str) -> UserError:
    return UserError(f"config.json: {field} is {value!r}", hint)


def _require(config: Config, supported: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a field that asks for what the network does not have; an absent one is None."""
    for field, values in supported.items():
        if config.get(field) not in values:
            raise _wrong(field, config.get(field), f"supported: {' or '.join(map(repr, values))}")


def _count(config: Config, field: str, least: int = 1) -> int:
    value = config.get(field)
    if type(value) is not int or value < least:
        raise _wrong(field, value, f"it must be a whole number from {least} up")
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
