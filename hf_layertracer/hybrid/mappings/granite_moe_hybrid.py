"""Llama, Mistral, Qwen2 and Granite as `GraniteMoeHybridForCausalLM`, which knows Mamba2 layers.

Without experts its layer is Llama's with multipliers, and its feed-forward block keeps gate and up projection in one
matrix. The query, key and value biases of Qwen2 need an output bias beside them, which is zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import GraniteMoeHybridConfig, PreTrainedConfig

from ...errors import LayerTracerError
from ..mixers.mamba2 import mamba2_from_attention
from ..recipe import MixerKind
from ..safetensors_io import NewTensor, StoredTensor
from .base import (
    Mapping,
    NewMixer,
    biases_of,
    canonical,
    common_fields,
    copied,
    kinds_by_layer,
    made,
    refuse_unknown,
    weights_of,
)


_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_SAME = weights_of(*_PROJECTIONS, "input_layernorm", "post_attention_layernorm") | biases_of(*_PROJECTIONS)
_GATE, _UP, _DOWN = (f"mlp.{name}_proj.weight" for name in ("gate", "up", "down"))


def _config(donor: PreTrainedConfig, replaced: dict[int, MixerKind]) -> GraniteMoeHybridConfig:
    heads = donor.num_attention_heads
    head_dim = getattr(donor, "head_dim", None) or donor.hidden_size // heads
    window = getattr(donor, "sliding_window", None)
    if window is not None and window < donor.max_position_embeddings:
        raise LayerTracerError(
            f"Its attention looks back {window} tokens, which GraniteMoeHybrid cannot say. Take a donor without a window."
        )
    if getattr(donor, "mlp_bias", False):
        raise LayerTracerError("Its feed-forward block has biases, which GraniteMoeHybrid has no place for.")
    if heads * head_dim % donor.hidden_size:
        raise LayerTracerError(
            f"Its heads are {heads * head_dim} wide together, no multiple of the hidden size {donor.hidden_size}: a Mamba2 "
            "mixer of GraniteMoeHybrid cannot have this size."
        )
    fields = common_fields(donor)
    multipliers = {
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
        "attention_multiplier": head_dim**-0.5,
    }
    if head_dim * heads != donor.hidden_size:
        fields["head_dim"] = head_dim
    return GraniteMoeHybridConfig(
        **fields,
        **{name: getattr(donor, name, value) for name, value in multipliers.items()},
        attention_bias=donor.model_type == "qwen2" or bool(getattr(donor, "attention_bias", False)),
        position_embedding_type="rope",
        num_local_experts=0,
        num_experts_per_tok=0,
        shared_intermediate_size=donor.intermediate_size,
        layer_types=kinds_by_layer(donor.num_hidden_layers, replaced),
        mamba_n_heads=heads,
        mamba_n_groups=heads,
        mamba_d_head=head_dim,
        mamba_d_state=head_dim,
        mamba_expand=heads * head_dim // donor.hidden_size,
        # The gate has to pass at first, whatever goes in: that needs a bias.
        mamba_proj_bias=True,
    )


def _layer(tensors: dict[str, StoredTensor], dtype: torch.dtype, config: PreTrainedConfig) -> Iterator[NewTensor]:
    refuse_unknown(tensors, _SAME | {_GATE, _UP, _DOWN})
    for name in sorted(_SAME & set(tensors)):
        yield copied(name, tensors[name], dtype)
    if config.attention_bias and "self_attn.o_proj.bias" not in tensors:
        size = config.hidden_size
        yield made("self_attn.o_proj.bias", (size,), dtype, (), lambda: torch.zeros(size, dtype=dtype))
    rows, columns = tensors[_GATE].shape
    both = (tensors[_GATE], tensors[_UP])
    yield made(
        "shared_mlp.input_linear.weight", (2 * rows, columns), dtype, both, lambda gate, up: torch.cat([gate, up])
    )
    yield copied("shared_mlp.output_linear.weight", tensors[_DOWN], dtype)


GRANITE_MOE_HYBRID = Mapping(
    donors=("llama", "mistral", "qwen2", "granite"),
    mixers={"mamba2": NewMixer("mamba", mamba2_from_attention)},
    config=_config,
    layer=_layer,
    outside=lambda stored, dtype: copied(canonical(stored.name), stored, dtype),
    sizes={"shared_intermediate_size": 8, "intermediate_size": 8},
)
