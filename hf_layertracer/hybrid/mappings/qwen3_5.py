"""Qwen3 as `Qwen3_5ForCausalLM`, which knows gated delta net layers.

Its norms multiply by one plus the weight, and its attention has an output gate: with a weight of zero the sigmoid gives
one half, which a doubled output projection makes up for. The second is exact; the first is up to float32's
rounding, but not for norm weights below one half in a smaller data type, which are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedConfig, Qwen3_5TextConfig

from ...errors import LayerTracerError
from ..mixers.gated_deltanet import gated_deltanet_from_attention
from ..recipe import MixerKind
from ..safetensors_io import NewTensor, StoredTensor
from .base import Mapping, NewMixer, canonical, common_fields, copied, kinds_by_layer, made, refuse_unknown


_NORMS = {
    f"{name}.weight"
    for name in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
}
_SAME = {
    f"{name}.weight"
    for name in ("self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
}
# As close as one plus a difference comes to a weight in float32.
_HELD = 2.0**-23
_QUERY, _OUTPUT = "self_attn.q_proj.weight", "self_attn.o_proj.weight"


def _config(donor: PreTrainedConfig, replaced: dict[int, MixerKind]) -> Qwen3_5TextConfig:
    if any(kind != "full_attention" for kind in donor.layer_types):
        raise LayerTracerError("Some of its layers look back through a window, which Qwen3.5 cannot say.")
    if donor.attention_bias:
        raise LayerTracerError("Its attention has biases, which the gate of Qwen3.5 would act on.")
    fields = common_fields(donor)
    fields["rope_parameters"] = {**donor.rope_parameters, "partial_rotary_factor": 1.0}
    return Qwen3_5TextConfig(
        **fields,
        head_dim=donor.head_dim,
        partial_rotary_factor=1.0,
        layer_types=kinds_by_layer(donor.num_hidden_layers, replaced),
        linear_key_head_dim=donor.head_dim,
        linear_value_head_dim=donor.head_dim,
        linear_num_key_heads=donor.num_attention_heads,
        linear_num_value_heads=donor.num_attention_heads,
    )


def _layer(tensors: dict[str, StoredTensor], dtype: torch.dtype, config: PreTrainedConfig) -> Iterator[NewTensor]:
    refuse_unknown(tensors, _NORMS | _SAME | {_QUERY, _OUTPUT})
    for name in sorted(set(tensors) & (_NORMS | _SAME)):
        yield _norm(name, tensors[name], dtype) if name in _NORMS else copied(name, tensors[name], dtype)
    rows, columns = tensors[_QUERY].shape
    head_dim = config.head_dim

    def gated(query: Tensor) -> Tensor:
        """Behind each head's query rows, as many rows of zeros for its gate."""
        by_head = query.view(-1, head_dim, columns)
        return torch.cat([by_head, torch.zeros_like(by_head)], 1).reshape(2 * rows, columns)

    yield made(_QUERY, (2 * rows, columns), dtype, (tensors[_QUERY],), gated)
    yield made(_OUTPUT, tensors[_OUTPUT].shape, dtype, (tensors[_OUTPUT],), lambda output: output * 2)


def _outside(stored: StoredTensor, dtype: torch.dtype) -> NewTensor:
    name = canonical(stored.name)
    return _norm(name, stored, dtype) if name == "model.norm.weight" else copied(name, stored, dtype)


def _norm(name: str, stored: StoredTensor, dtype: torch.dtype) -> NewTensor:
    def centred(weight: Tensor) -> Tensor:
        less = (weight.float() - 1).to(dtype)
        if not torch.allclose(less.float() + 1, weight.float(), rtol=0, atol=_HELD):
            raise LayerTracerError(
                f"{stored.name} has weights below one half, whose difference from one {str(dtype).removeprefix('torch.')} "
                "cannot hold: the model would not be the same in Qwen3.5. Try `dtype: float32`."
            )
        return less

    return made(name, stored.shape, dtype, (stored,), centred)


QWEN3_5 = Mapping(
    donors=("qwen3",),
    mixers={"gated_deltanet": NewMixer("linear_attn", gated_deltanet_from_attention)},
    config=_config,
    layer=_layer,
    outside=_outside,
    sizes={"intermediate_size": 8},
)
