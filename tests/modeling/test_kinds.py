from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.kinds import layer_kinds
from tests.architectures.tiny import tiny_config, tiny_model


KINDS = {
    "llama": ["full_attention"],
    "mistral": ["sliding_attention"],
    "gemma2": ["sliding_attention", "full_attention"],
    "mixtral": ["full_attention+moe"],
    "afmoe": ["sliding_attention", "sliding_attention+moe", "full_attention+moe"],
    "mamba2": ["mamba"],
    "bamba": ["mamba", "full_attention"],
    "falcon_h1": ["hybrid"],
    "jamba": ["mamba", "full_attention+moe"],
    "zamba2": ["mamba", "hybrid"],
    "nemotron_h": ["mamba", "moe", "full_attention", "mlp"],
    "qwen3_next": ["linear_attention+moe", "full_attention+moe"],
    "kimi_linear": ["linear_attention", "linear_attention+moe", "full_attention+moe"],
    "olmo_hybrid": ["linear_attention", "full_attention"],
    "recurrent_gemma": ["recurrent", "sliding_attention"],
    "lfm2_moe": ["conv", "full_attention+moe", "conv+moe"],
    "llama4_text": ["chunked_attention+moe", "full_attention+moe"],
    "gpt_neo": ["global", "local"],
    "mllama": ["full_attention", "cross_attention"],
    "rwkv": ["rwkv"],
    "xlstm": ["xlstm"],
}


@pytest.mark.parametrize("model_type", KINDS)
def test_kinds_are_named_in_the_fields_terms(model_type):
    kinds = find_parts(tiny_model(tiny_config(model_type))).kinds()
    assert list(dict.fromkeys(kinds)) == KINDS[model_type]


def test_a_layer_that_nothing_is_known_of_is_named_by_its_class():
    assert layer_kinds(None, [nn.Linear(2, 2), nn.Identity()]) == ["Linear", "Identity"]


def test_a_list_of_another_length_does_not_name_kinds():
    config = SimpleNamespace(layer_types=["full_attention"] * 3)
    assert layer_kinds(config, [nn.Linear(2, 2)] * 2) == ["Linear"] * 2
