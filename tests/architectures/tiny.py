"""Tiny random models of every model type: one routine shrinks whatever a configuration holds by default."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


MODEL_TYPES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
LAYERS, VOCABULARY, POSITIONS, WIDTH = 4, 128, 64, 32

# What a number of a configuration means, by its name: the first pattern that is found in it decides. The numbers fit
# each other: four heads of 8 make a width of 32, and eight heads of 8 the doubled width inside a state-space layer.
_DEPTH = r"^((num|n)_)?((hidden|decoder|encoder)_)?(layers?|blocks|depth)$|^num_layers_per_stack$"
_KV_HEADS = r"kv_heads|key_value_heads|kv_n_heads|key_heads"
_SIZES: dict[str, int] = {
    _DEPTH: LAYERS,
    r"pad_token_id|padding_idx|pad_index": 0,
    r"(bos|cls|sep|start|unk|mask)_(token_)?(id|index)$": 1,
    r"(eos|eod|forced_eos)_token_id$": 2,
    r"_token_(id|index)$": 3,
    r"vocab": VOCABULARY,
    r"position_embeddings$|n_positions|n_ctx|(target|source)_positions|seq_len|context_length|rel_extent": POSITIONS,
    r"sliding_window(_size)?$|local_attention|(attention|keep)_window|window_(len|size)|chunk_(size|length)$": 4,
    r"(period|window_pattern|every_n_layers|layer_group_size|layers_per_attn_res_block|layer_interval)$": 2,
    r"(offset|first_k_dense_replace|num_dense_layers|layer_start_index)$": 1,
    r"kv_shared_layers$": 2,
    r"layer_end_index$": LAYERS - 1,
    r"rotary_dim": 4,
    r"(mamba_|linear_)(d_head|head_?dim|n_heads|num_heads)|n_mamba_heads": 8,
    r"head_?dim|d_head|head_size|dim_head|kv_channels": 8,
    _KV_HEADS: 2,
    r"heads(_per_layer)?$|n_head$|query_groups$|^n_groups$": 4,
    r"expert_group$|n_group$": 2,
    r"experts_per_tok|top_?k|moe_k$|topk_group": 2,
    r"shared_expert(s)?$": 1,
    r"(num|routed|local)_experts|zero_expert_num": 8,
    r"intermediate|ffn|feed_forward|mlp_dim|d_inner|dff|dim_ff|d_ff|d_ssm|shared_intermediate": 2 * WIDTH,
    r"hidden_size|d_model|n_embd|embedding_(size|dim)|emb_dim|embed_dim|proj_dim|lru_width|attention_hidden": WIDTH,
    r"adapter_(in|out)_dim|adapter_input": WIDTH,
    r"rank$|state_size|d_state|n_head": 8,
}


def tiny_config(model_type: str, times: int = 1) -> PreTrainedConfig:
    """A configuration of a model type with a width of 32 and at least four layers, one of each kind there is.

    They can be repeated several times, for what only shows in a deeper model.
    """
    return _shrunk(CONFIG_MAPPING[model_type], times)


def tiny_model(config: PreTrainedConfig, seed: int = 0, fill: bool = True) -> PreTrainedModel:
    """A seeded model whose layers differ from each other and matter: the usual initialisation would hide errors."""
    torch.manual_seed(seed)
    if hasattr(config, "decoder"):  # a composite, of which the class takes only the decoder's configuration
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config.decoder).eval()
    else:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.config.use_cache = False  # as one trains
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters() if fill else ():
        noise = torch.randn(parameter.shape, generator=generator)
        spread = float(parameter.detach().std(correction=0)) if parameter.numel() > 1 else 0.0
        with torch.no_grad():
            if parameter.ndim < 2 or spread == 0:
                parameter += 0.1 * noise  # a norm of exactly 1 or a bias of exactly 0 hides one that is left out
            elif spread < 0.25:
                parameter *= 0.25 / spread
    return model


# What the routine cannot know, by the class of the configuration, with the reason.
OVERRIDES: dict[str, dict[str, Any]] = {
    # The default has no attention layer at all.
    "BambaConfig": {"attn_layer_indices": [1, 3]},
    "GraniteMoeHybridConfig": {"layer_types": ["mamba", "attention"] * 2},
    # The attention's RoPE base and its clipping have no usable default.
    "DbrxAttentionConfig": {"rope_theta": 10000.0, "clip_qkv": 8.0},
    "BloomConfig": {"n_layer": 4},  # two by default
    # Numbers of experts, heads or widths that default to None, which the model cannot be built or run with.
    "DeepseekV2Config": {"num_experts_per_tok": 2},
    "Dots1Config": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "HunYuanDenseV1Config": {"head_dim": 8},
    "HunYuanMoEV1Config": {"head_dim": 8},
    "MinistralConfig": {"head_dim": 8},
    "NemotronConfig": {"num_key_value_heads": 2},
    "Lfm2MoeConfig": {"layer_types": ["conv", "full_attention"] * 2},
    "Qwen4ExpTextConfig": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    # Numbers that mean another thing than their names elsewhere.
    "Mamba2Config": {"num_heads": 8},  # heads of the doubled width
    "GPTNeoConfig": {"attention_types": [[["global", "local"], 2]]},  # the depth in its own list
    "xLSTMConfig": {"hidden_size": 64},  # widths are rounded up to multiples of 64
    "CohereCompassTextConfig": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    # Positions come from two tables whose sizes multiply to the length, and hashes are drawn anew in each pass.
    "ReformerConfig": {"axial_pos_embds": False, "hash_seed": 0, "attn_layers": ["local", "lsh"] * 2},
    # The longest of its four lists of layers, as in the released model.
    "BltGlobalTransformerConfig": {"num_hidden_layers": 5},
    "XmodConfig": {"default_language": "en_XX"},  # adapters are chosen by a language
    "ZambaConfig": {"layers_block_type": ["linear_attention", "hybrid"] * 2},  # shared blocks tie to layers below 10
    # The drafter of a larger model: it has no keys and values of its own.
    "Gemma4AssistantConfig": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 4,
        }
    },
    # Widths of single layers have their own names.
    "Gemma4TextConfig": {"global_head_dim": 16},
    "Gemma4UnifiedTextConfig": {"global_head_dim": 16},
    "Dots3NoteTextConfig": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 8,
        "swa_kv_lora_rank": 8,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
        "num_key_value_heads": 4,
    },
}


def _shrunk(cls: type[PreTrainedConfig], times: int, **fixed: Any) -> PreTrainedConfig:
    fixed = {**OVERRIDES.get(cls.__name__, {}), **fixed}
    for name, value in fixed.items():
        if isinstance(value, dict) and "model_type" in value:
            options = dict(value)
            fixed[name] = _shrunk(CONFIG_MAPPING[options.pop("model_type")], times, **options)
    default = cls(**{name: value for name, value in fixed.items() if isinstance(value, PreTrainedConfig)})
    # Straight from the instance: a configuration with exceptions for single layers refuses to name the common value.
    actual = {field.name: vars(default).get(field.name) for field in dataclasses.fields(cls)}
    declared = {field.name: _default_of(field) for field in dataclasses.fields(cls)}
    chosen, per_layer = _chosen_layers(actual)
    values: dict[str, Any] = {}
    for name, value in actual.items():
        if name in fixed:
            continue
        if isinstance(value, PreTrainedConfig):
            values[name] = _shrunk(type(value), times)
        elif name in per_layer:
            values[name] = [_size(name, value[index]) for index in chosen]
        elif _lists_layers(name, value):
            values[name] = [place for place, index in enumerate(chosen) if index in value]
        elif re.search(_DEPTH, name) and isinstance(value, int):
            values[name] = len(chosen)
        elif name == "is_decoder":
            values[name] = True
        else:
            values[name] = _size(name, declared[name])
        # Where every head has its own keys and values by default, the small model's have so too.
        if re.search(_KV_HEADS, name) and value == getattr(default, "num_attention_heads", None):
            values[name] = None if declared[name] is None else 4
    values = {
        name: _repeated(name, value, len(chosen), times)
        for name, value in values.items()
        if value != declared[name] or isinstance(value, list) or times > 1
    }
    return cls(**values, **{name: _repeated(name, value, len(chosen), times) for name, value in fixed.items()})


def _repeated(name: str, value: Any, depth: int, times: int) -> Any:
    """A number or list of a configuration for all its layers several times over."""
    if times == 1:
        return value
    if name == "attention_types":  # GPT-Neo's own way of counting
        return [[kinds, count * times] for kinds, count in value]
    shares = name.endswith("kv_shared_layers") and value == depth
    if shares or (isinstance(value, int) and re.search(_DEPTH, name)):
        return value * times
    if _lists_layers(name, value):
        return [index + round * depth for round in range(times) for index in value]
    if isinstance(value, list | tuple) and len(value) == depth:
        return [*value] * times
    return value


def _default_of(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _size(name: str, value: Any) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    for pattern, size in _SIZES.items():
        if re.search(pattern, name):
            return size if "token" in name or "index" in name else min(value, size)
    return value


def _chosen_layers(fields: dict[str, Any]) -> tuple[list[int], list[str]]:
    """Indices of layers of a default configuration so that each kind is there, and the fields with a list per layer."""
    depth = max((n for name, n in fields.items() if re.search(_DEPTH, name) and isinstance(n, int)), default=0)
    if not depth:  # the list of kinds is the depth
        depth = max((len(v) for name, v in fields.items() if "layers" in name and isinstance(v, list)), default=0)
    members = [value for name, value in fields.items() if _lists_layers(name, value)]
    per_layer = [
        name
        for name, value in fields.items()
        if isinstance(value, list | tuple) and len(value) == depth > 1 and not _lists_layers(name, value)
    ]
    kinds: dict[Any, int] = {}
    for index in range(depth):
        kind = (*(repr(fields[name][index]) for name in per_layer), *(index in value for value in members))
        kinds.setdefault(kind, index)
    chosen = set(kinds.values())
    others = [index for index in range(depth) if index not in chosen]
    chosen.update(others[: max(0, LAYERS - len(chosen))])
    return sorted(chosen) or list(range(LAYERS)), per_layer


def _lists_layers(name: str, value: Any) -> bool:
    """Whether a field holds indices of layers."""
    return (
        isinstance(value, list | tuple)
        and re.search(r"layers$|layer_ids|idxs|indices|indexes", name) is not None
        and all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value)
        and len(set(value)) == len(value)
    )
