"""Llama, Mistral, Qwen2 and Qwen3 in a class of ours, which is written beside the weights: any mixer in any layer.

Its layers are the donor's own, so all tensors keep their names and values.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedConfig

from ...errors import LayerTracerError
from ..mixers.gated_deltanet import gated_deltanet_from_attention
from ..mixers.mamba2 import mamba2_from_attention
from ..recipe import MixerKind
from ..remote import CODE, known_to_transformers
from ..safetensors_io import NewTensor, StoredTensor
from .base import Mapping, NewMixer, canonical, common_fields, copied


def _config(donor: PreTrainedConfig, replaced: dict[int, MixerKind]) -> PreTrainedConfig:
    if "sliding_attention" in (getattr(donor, "layer_types", None) or ()) or getattr(donor, "sliding_window", None):
        raise LayerTracerError("Its attention looks back through a window, which our class cannot say.")
    heads = donor.num_attention_heads
    head_dim = getattr(donor, "head_dim", None) or donor.hidden_size // heads
    expand = heads * head_dim / donor.hidden_size
    if int(expand * donor.hidden_size) != heads * head_dim:
        raise LayerTracerError(f"Mamba2 cannot have the size of its {heads} heads of {head_dim}.")
    return known_to_transformers()(
        **common_fields(donor),
        decoder_type=donor.model_type,
        mixer_types=[replaced.get(index, "attention") for index in range(donor.num_hidden_layers)],
        head_dim=head_dim,
        attention_bias=bool(getattr(donor, "attention_bias", False)),
        mlp_bias=bool(getattr(donor, "mlp_bias", False)),
        mamba_n_heads=heads,
        mamba_n_groups=heads,
        mamba_d_head=head_dim,
        mamba_d_state=head_dim,
        mamba_expand=expand,
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=head_dim,
        linear_value_head_dim=head_dim,
        auto_map={
            "AutoConfig": "configuration_layertracer_hybrid.LayerTracerHybridConfig",
            "AutoModelForCausalLM": "modeling_layertracer_hybrid.LayerTracerHybridForCausalLM",
        },
    )


def _layer(tensors: dict[str, StoredTensor], dtype: torch.dtype, config: PreTrainedConfig) -> Iterator[NewTensor]:
    for name in sorted(tensors):
        yield copied(name, tensors[name], dtype)


REMOTE = Mapping(
    donors=("llama", "mistral", "qwen2", "qwen3"),
    mixers={
        "mamba2": NewMixer("mamba", mamba2_from_attention),
        "gated_deltanet": NewMixer("linear_attn", gated_deltanet_from_attention),
    },
    config=_config,
    layer=_layer,
    outside=lambda stored, dtype: copied(canonical(stored.name), stored, dtype),
    sizes={"intermediate_size": 8},
    code=CODE,
)
