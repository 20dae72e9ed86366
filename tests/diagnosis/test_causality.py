"""Models that look like causal language models and are none."""

from __future__ import annotations

import pytest
import torch
import transformers

from hf_layertracer import LayerTracerError, Probe, diagnose
from hf_layertracer.errors import UntraceableModelError


SIZES = {
    "vocab_size": 80,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12)]


def bert(kind: str, **changes):
    # An initialisation wide enough that what comes later matters more than bfloat16 rounds.
    return getattr(transformers, kind)(transformers.BertConfig(**SIZES, initializer_range=0.3, **changes))


def bart():
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "init_std": 0.3}
    config = transformers.BartConfig(vocab_size=80, **widths, **sizes)
    return transformers.BartForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: bert("BertForMaskedLM"), "a later token changes what it says"),
        (lambda: bert("BertLMHeadModel"), "a later token changes what it says"),  # one of the causal mapping
        (bart, "a later token changes what it says"),
        (lambda: bert("BertForTokenClassification", num_labels=3), "gives 3 values"),
        (
            lambda: transformers.LlamaForTokenClassification(transformers.LlamaConfig(**SIZES, num_labels=3)),
            "gives 3 values",
        ),
        (lambda: bert("BertForSequenceClassification"), "no logits for each position"),
        (lambda: bert("BertModel"), "no logits for each position"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_causal_language_model_is_refused_before_it_is_measured(make, complaint, dtype):
    torch.manual_seed(0)
    model = make().to(dtype)
    with pytest.raises(UntraceableModelError, match=complaint) as caught:
        diagnose(model, PROBES)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_the_same_class_is_measured():
    torch.manual_seed(0)
    report = diagnose(bert("BertLMHeadModel", is_decoder=True), PROBES)
    assert len(report.sensitivity.mean) == 2


def test_a_model_that_is_nan_is_refused_with_one_line():
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(LayerTracerError, match="NaN before anything is perturbed"):
        diagnose(model, PROBES)
