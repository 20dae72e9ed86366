from __future__ import annotations

import copy

import pytest
import torch

from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.measurements.lens import read_lens
from hf_layertracer.modeling import find_parts


IDS = torch.tensor([[5, 80, 31, 7, 200, 9], [90, 91, 92, 93, 5, 6]])
TARGETS = torch.tensor([17, 203])


def read(model, rows=100):
    stack = LayerStack(find_parts(model))
    with torch.no_grad():
        return read_lens(stack, stack.run(IDS), TARGETS, rows, likely=3)


def test_the_lens_at_the_last_layer_is_the_models_output(any_model):
    reading = read(any_model)
    with torch.no_grad():
        probabilities = any_model(input_ids=IDS).logits[:, -1].float().softmax(-1)
    assert reading.error < 1e-5
    assert reading.probability.shape == (2, 5)
    assert reading.probability[:, -1] == pytest.approx(probabilities.gather(1, TARGETS[:, None])[:, 0], abs=1e-5)
    # Not the very token: the likeliest two may be as likely as one another up to rounding.
    top = probabilities.gather(1, torch.tensor(reading.likely_tokens[:, -1, 0])[:, None])[:, 0]
    assert top.tolist() == pytest.approx(probabilities.amax(-1).tolist(), abs=1e-5)


# Each architecture's own way from the hidden state to the logits, written out from its paper or model code.
BY_HAND = {
    "Llama": lambda m, h: m.lm_head(m.model.norm(h)),
    "GPT2": lambda m, h: m.lm_head(m.transformer.ln_f(h)),
    "Gemma2": lambda m, h: 5.0 * torch.tanh(m.lm_head(m.model.norm(h)) / 5.0),
    "Cohere": lambda m, h: 0.25 * m.lm_head(m.model.norm(h)),
    "Granite": lambda m, h: m.lm_head(m.model.norm(h)) / 3.0,
    "OPT": lambda m, h: m.lm_head(m.model.decoder.final_layer_norm(h)),
    "Mamba": lambda m, h: m.lm_head(m.backbone.norm_f(h)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_lens_agrees_with_the_final_norm_and_head_applied_by_hand(make_model, reference, name):
    model = make_model(name)
    reading = read(model)
    exact = copy.deepcopy(model).double()
    for row, prompt in enumerate(IDS.tolist()):
        states, _ = reference.run(exact, find_parts(exact).layers, prompt)
        for layer, state in enumerate(states):
            with torch.no_grad():
                probabilities = BY_HAND[name](exact, state[0, -1].double()).softmax(-1)
            assert reading.probability[row, layer] == pytest.approx(float(probabilities[TARGETS[row]]), abs=2e-5)
            best = reading.likely_tokens[row, layer, 0]
            assert float(probabilities[best]) == pytest.approx(float(probabilities.max()), abs=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_the_lens_is_the_same_however_many_states_are_read_at_once(tiny_llama, rows):
    model = tiny_llama()
    assert read(model, rows).probability == pytest.approx(read(model).probability, abs=1e-6)
    # The likeliest token is 1.7 % or more ahead of the next at every depth.
    assert (read(model, rows).likely_tokens == read(model).likely_tokens).all()


def test_a_model_that_adds_to_its_last_state_has_a_visible_error(tiny_llama):
    # What comes in beside the layers is missing at the lens, as with the skip from the embedding here.
    model = tiny_llama()
    model.lm_head.weight.data *= 4
    embedded = []
    model.model.embed_tokens.register_forward_hook(lambda *args: embedded.append(args[-1]))
    model.model.norm.register_forward_pre_hook(lambda _, args: (args[0] + embedded[-1].mean(1, keepdim=True),))
    assert read(model).error > 0.01
