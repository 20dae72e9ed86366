from __future__ import annotations

import pytest
import torch
from transformers import RwkvConfig, RwkvForCausalLM

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import engine
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.position_wise import find_position_wise
from hf_layertracer.modeling import find_parts


IDS = torch.tensor([(5, 80, 31, 7, 200, 9, 14)])


def found_in(model, ids=IDS):
    stack = LayerStack(find_parts(model))
    with torch.no_grad():
        return stack, find_position_wise(stack, stack.run(ids))


@pytest.mark.parametrize("name", ["Llama", "GPT2", "Gemma2"])
def test_the_feed_forward_part_of_the_last_layer_runs_on_one_position_and_attention_on_all(make_model, name):
    model = make_model(name)
    stack, found = found_in(model)
    assert found == [stack.layers[-1].mlp]
    assert found_in(model, IDS[:, :1])[1] == []


@pytest.mark.parametrize("scale", [0.05, 1e-5])
@pytest.mark.parametrize("name", ["Llama", "GPT2", "Mamba"])
def test_a_mixer_runs_on_all_positions_also_where_no_token_is_likely(make_model, name, scale):
    model = make_model(name)
    norm = LayerStack(find_parts(model)).final_norm
    for parameter in norm.parameters():
        parameter.data *= scale
    stack, found = found_in(model)
    assert found == ([] if name == "Mamba" else [stack.layers[-1].mlp])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_the_rounding_of_short_data_types_does_not_cost_the_shortcut(make_model, name, dtype):
    stack, found = found_in(make_model(name).to(dtype))
    assert found == [stack.layers[-1].mlp]
    assert not any(part._forward_hooks for part in stack.layers[-1].modules())


def test_a_feed_forward_part_that_looks_back_needs_all_positions():
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 48}
    model = RwkvForCausalLM(RwkvConfig(**sizes, num_hidden_layers=3)).eval()
    for block in model.rwkv.blocks:
        block.feed_forward.time_mix_key.data.fill_(0.5)
        torch.nn.init.normal_(block.feed_forward.value.weight)
    assert found_in(model)[1] == []


def test_what_is_measured_stays_the_same_and_takes_less(tiny_llama, token_probes, monkeypatch):
    model, settings = tiny_llama(), DiagnosisConfig(perturbation="mask,skip", repeats=2)
    tokens = []
    model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, args: tokens.append(args[0][..., 0].numel()))
    report = diagnose(model, token_probes, config=settings)
    narrow = sum(tokens)
    monkeypatch.setattr(engine, "find_position_wise", lambda *_: [])
    tokens.clear()
    whole = diagnose(model, token_probes, config=settings)
    assert narrow < sum(tokens)
    for name in ("mask", "skip"):
        measured, expected = (each.first.sensitivities[name] for each in (report, whole))
        assert measured.path == "replay"
        assert measured.mean == pytest.approx(expected.mean, abs=1e-6)


def test_a_part_that_was_taken_for_one_and_is_not_costs_the_shortcut_and_not_the_replay(
    tiny_llama, token_probes, monkeypatch
):
    model, settings = tiny_llama(), DiagnosisConfig(perturbation="skip")
    expected = diagnose(model, token_probes, config=settings)
    monkeypatch.setattr(engine, "find_position_wise", lambda stack, _: [stack.layers[-1].input_layernorm])
    report = diagnose(model, token_probes, config=settings)
    assert report.sensitivity.path == "replay"
    assert report.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=1e-6)
