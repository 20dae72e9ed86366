from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import engine
from hf_layertracer.diagnosis.ablation import find_mixers, zeroed
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.modeling import find_parts
from hf_layertracer.probes import Probe
from tests.architectures.tiny import tiny_config, tiny_model


PROBES = [Probe((5, 80, 31, 7, 20, 9), 9), Probe((14, 3, 77, 60), 9)]
# The names that these architectures' authors gave to their mixers.
MIXERS = {
    "Llama": "self_attn",
    "GPT2": "attn",
    "Gemma2": "self_attn",
    "Mixtral": "self_attn",
    "Mamba": "mixer",
    "OPT": "self_attn",
}


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_are_found_by_what_they_do(make_model, name):
    stack = LayerStack(find_parts(make_model(name)))
    with torch.no_grad():
        found = find_mixers(stack, stack.run(torch.tensor([PROBES[0].prompt])))
    assert [[module] for module in found] == [[[getattr(layer, MIXERS[name])]] for layer in stack.layers]


def test_the_innermost_mixer_counts_so_that_residual_connections_outside_it_stay():
    config = tiny_config("bert")
    config.is_decoder = True
    stack = LayerStack(find_parts(tiny_model(config)))
    with torch.no_grad():
        found = find_mixers(stack, stack.run(torch.tensor([PROBES[0].prompt])))
    assert found == [[layer.attention.self] for layer in stack.layers]


def test_hybrid_layers_have_the_mixer_of_their_kind():
    stack = LayerStack(find_parts(tiny_model(tiny_config("granitemoehybrid"))))
    with torch.no_grad():
        found = find_mixers(stack, stack.run(torch.tensor([PROBES[0].prompt])))
    assert found == [[layer.mamba if layer.mamba is not None else layer.self_attn] for layer in stack.layers]


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("name", ["Llama", "Mamba", "GPT2"])
def test_mixer_sensitivity_is_that_of_a_layer_whose_mixer_gives_zero(make_model, reference, monkeypatch, name, slow):
    if slow:
        monkeypatch.setattr(engine, "check_replay", lambda *_: "the test says so")
    model = make_model(name)
    report = diagnose(model, PROBES, config=DiagnosisConfig(perturbation="mixer"))
    assert report.sensitivity.path == ("full-forward" if slow else "replay")
    exact = make_model(name).double()
    layers = list(exact.get_submodule(report.model.layers_path))
    values = np.zeros((len(layers), len(PROBES)))
    for number, probe in enumerate(PROBES):
        clean = reference.run(exact, layers, probe.prompt)[1]
        for index, layer in enumerate(layers):
            handle = getattr(layer, MIXERS[name]).register_forward_hook(
                lambda _, args, output: (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0
            )
            values[index, number] = reference.jensen_shannon(clean, reference.run(exact, layers, probe.prompt)[1])
            handle.remove()
    assert report.sensitivity.mean == pytest.approx(values.mean(1), abs=2e-5)
    assert min(report.sensitivity.mean) > 1e-4
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("name", "attention", "changes"),
    [
        ("Bloom", "self_attention", {}),  # its attention adds the residual stream itself
        ("Bloom", "self_attention", {"apply_residual_connection_post_layernorm": True}),  # and here its own input
        ("Falcon", "self_attention", {}),  # attention is added to the other part's answer, in place
    ],
)
def test_a_mixer_that_is_given_the_residual_stream_leaves_it_as_it_is(
    make_model, reference, monkeypatch, name, attention, changes, slow
):
    if slow:
        monkeypatch.setattr(engine, "check_replay", lambda *_: "the test says so")
    model = make_model(name, num_hidden_layers=3, **changes)
    stack = LayerStack(find_parts(model))
    with torch.no_grad():
        found = find_mixers(stack, stack.run(torch.tensor([PROBES[0].prompt])))
    assert found == [[getattr(layer, attention)] for layer in stack.layers]
    report = diagnose(model, PROBES, config=DiagnosisConfig(perturbation="mixer"))
    assert report.sensitivity.path == ("full-forward" if slow else "replay")
    values = np.zeros((3, len(PROBES)))
    for number, probe in enumerate(PROBES):
        clean = reference.run(model, list(stack.layers), probe.prompt)[1]
        for index, layer in enumerate(stack.layers):
            dense = getattr(layer, attention).dense
            own = {key: value.clone() for key, value in dense.state_dict().items()}
            dense.load_state_dict({key: torch.zeros_like(value) for key, value in own.items()})
            without = reference.run(model, list(stack.layers), probe.prompt)[1]
            values[index, number] = reference.jensen_shannon(clean, without)
            dense.load_state_dict(own)
    assert report.sensitivity.mean == pytest.approx(values.mean(1), abs=1e-4)
    assert min(report.sensitivity.mean) > 1e-3
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_residual_stream_is_told_from_the_answer_in_any_data_type(make_model, dtype):
    model = make_model("Bloom", num_hidden_layers=3).to(dtype)
    attention, hidden = model.transformer.h[1].self_attention, torch.randn(1, 5, 32, dtype=dtype)
    residual, alibi = 3 * torch.randn_like(hidden), torch.zeros(4, 1, 5, dtype=dtype)
    with torch.no_grad(), zeroed([attention]):
        answer = attention(hidden, residual, alibi=alibi, attention_mask=None)[0]
    assert torch.equal(answer, residual)
    assert answer is not residual


def test_prompts_of_one_token_show_what_their_mixers_do(tiny_llama, reference):
    model, probes = tiny_llama(), [Probe((5,), 9), Probe((14,), 9)]
    report = diagnose(model, probes, config=DiagnosisConfig(perturbation="mixer"))
    values = np.zeros((4, len(probes)))
    layers = list(model.model.layers)
    for number, probe in enumerate(probes):
        clean = reference.run(model, layers, probe.prompt)[1]
        for index, layer in enumerate(layers):
            own = layer.self_attn.o_proj.weight.data.clone()
            layer.self_attn.o_proj.weight.data.zero_()
            values[index, number] = reference.jensen_shannon(clean, reference.run(model, layers, probe.prompt)[1])
            layer.self_attn.o_proj.weight.data.copy_(own)
    assert report.sensitivity.mean == pytest.approx(values.mean(1), abs=1e-4)
    assert min(report.sensitivity.mean) > 1e-3


def test_a_layer_that_mixes_nothing_has_no_mixer_sensitivity(tiny_llama):
    model = tiny_llama()
    model.model.layers[2].self_attn.o_proj.weight.data.zero_()
    report = diagnose(model, PROBES, config=DiagnosisConfig(perturbation="mixer"))
    assert report.sensitivity.mean[2] == pytest.approx(0, abs=1e-9)
    assert report.sensitivity.mean[1] > 1e-4
