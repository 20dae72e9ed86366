"""A report is bound to the model that it was measured on."""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model

from hf_layertracer import LayerTracerError, diagnose, make_plan
from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import model_facts
from hf_layertracer.planning.binding import check_binding


def facts_of(model):
    return model_facts(find_parts(model))


def test_a_model_is_bound_to_its_own_report_also_with_other_weights_and_adapters(tiny_llama):
    ours = facts_of(tiny_llama())
    assert check_binding(ours, facts_of(tiny_llama())) == []
    adapted = get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    assert check_binding(ours, facts_of(adapted)) == []
    assert check_binding(facts_of(adapted), ours) == []


def test_added_tokens_do_not_make_another_model(tiny_llama):
    grown = tiny_llama()
    ours = facts_of(tiny_llama())
    grown.resize_token_embeddings(grown.config.vocab_size + 8)
    assert check_binding(ours, facts_of(grown)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "it differs in layers"),
        ({"hidden_size": 48}, "it differs in hidden size"),
        ({"intermediate_size": 96}, "it differs in shapes of the weights"),
    ],
)
def test_another_shape_is_another_model(tiny_llama, changes, message):
    with pytest.raises(LayerTracerError, match=message):
        check_binding(facts_of(tiny_llama()), facts_of(tiny_llama(**changes)))


def test_another_architecture_and_other_counts_are_another_model(tiny_llama):
    ours = facts_of(tiny_llama())
    with pytest.raises(LayerTracerError, match=r"architecture \(MistralForCausalLM there, LlamaForCausalLM here\)"):
        check_binding(ours.model_copy(update={"architecture": "MistralForCausalLM"}), ours)
    old = facts_of(tiny_llama(intermediate_size=96)).model_copy(update={"shapes_sha256": None})
    with pytest.raises(LayerTracerError, match=r"layer 0 has .* parameters there"):
        check_binding(old, ours)


def test_another_commit_or_name_is_a_warning(tiny_llama):
    ours = facts_of(tiny_llama()).model_copy(update={"id": "org/a", "revision": "a" * 40})
    (warning,) = check_binding(ours.model_copy(update={"revision": "b" * 40}), ours)
    assert "measured on commit bbbbbbbbbbbb of org/a; this model is aaaaaaaaaaaa" in warning
    (warning,) = check_binding(ours.model_copy(update={"id": "org/b"}), ours)
    assert "measured on org/b; this model, org/a" in warning
    assert check_binding(ours.model_copy(update={"id": "a-folder"}), ours) == []


def test_make_plan_refuses_another_models_report_and_a_path_for_a_report(tiny_llama, token_probes):
    report = diagnose(tiny_llama(), token_probes)
    assert make_plan(tiny_llama(), "sensitivity", report=report).trained_layers
    with pytest.raises(LayerTracerError, match="report is of another model"):
        make_plan(tiny_llama(intermediate_size=96), report=report)
    with pytest.raises(LayerTracerError, match="layers_path is for models"):
        make_plan(report, layers_path="model.somewhere")
    assert make_plan(report, layers_path="model.layers") == make_plan(report)


def test_a_mask_that_masks_nothing_is_refused(tiny_llama, token_probes):
    with pytest.raises(LayerTracerError, match="would mask none of the model's"):
        diagnose(tiny_llama(), token_probes, config={"mask_ratio": 1e-9})
