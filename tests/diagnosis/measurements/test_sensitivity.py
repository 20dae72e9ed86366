from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.measurements import Batch
from hf_layertracer.diagnosis.measurements.sensitivity import measure_draws
from hf_layertracer.diagnosis.perturbations import PERTURBATIONS, Draw
from hf_layertracer.diagnosis.perturbations.mask import Mask, dimension_mask
from hf_layertracer.diagnosis.perturbations.skip import Skip
from hf_layertracer.modeling import find_parts


PROMPTS = [(5, 80, 31, 7, 200, 9), (90, 91, 92, 93, 5, 6), (14, 3, 77, 60, 60, 2)]
REPEATS = 2
SETTINGS = [
    DiagnosisConfig(perturbation="mask", mask_ratio=0.3, diagnosis_seed=5),
    DiagnosisConfig(perturbation="noise", noise_scale=0.6, diagnosis_seed=5),
    DiagnosisConfig(perturbation="skip"),
]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def measure(model, config, replay, rows=100, probes=(0, 1, 2), repeats=REPEATS):
    """Values by layer, probe and repeat; all draws of all probes in an order that is not theirs."""
    stack = LayerStack(find_parts(model))
    clean = stack.run(torch.tensor([PROMPTS[probe] for probe in probes]))
    draws = [Draw(probe, repeat, 3) for repeat in range(repeats) for probe in reversed(probes)]
    batch = Batch(list(probes), torch.zeros(len(probes)), clean, rows, None if replay else "the test says so")
    perturbation = PERTURBATIONS[config.perturbation](config)
    values = measure_draws(stack, batch, perturbation, draws, lambda _: None)
    table = np.full((stack.num_layers, 3, repeats), np.nan)
    for column, draw in enumerate(draws):
        table[:, draw.probe, draw.repeat] = values[:, column]
    return table


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: config.perturbation)
def test_both_paths_agree_with_the_slow_reference(tiny_llama, reference, config, replay):
    model = tiny_llama()
    expected = np.array(reference.sensitivity(model, "model.layers", PROMPTS, config, REPEATS))
    assert measure(model, config, replay) == pytest.approx(expected, abs=2e-5)
    # Values near 0 or all alike would agree with anything.
    assert expected.max() > 0.05
    assert expected.std() > 0.01


@pytest.mark.parametrize("replay", [True, False])
def test_every_architecture_agrees_with_the_slow_reference(any_model, reference, replay):
    path = find_parts(any_model).layers_path
    expected = np.array(reference.sensitivity(any_model, path, PROMPTS[:2], SETTINGS[0], 1))
    found = measure(any_model, SETTINGS[0], replay, probes=(0, 1), repeats=1)
    assert found[:, :2] == pytest.approx(expected, abs=5e-5)
    assert expected.max() > 1e-3


@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: config.perturbation)
def test_a_draw_is_the_same_in_any_batch(tiny_llama, config):
    model = tiny_llama()
    together = measure(model, config, replay=True)
    for rows in (1, 2, 5):
        assert measure(model, config, replay=True, rows=rows) == pytest.approx(together, abs=1e-6)
    alone = measure(model, config, replay=True, probes=(1,))
    assert alone[:, 1] == pytest.approx(together[:, 1], abs=1e-6)


def test_no_two_draws_share_a_mask():
    draws = [Draw(probe, repeat, 4) for repeat in range(8) for probe in range(4)]
    assert [draw.number for draw in draws] == list(range(32))
    masks = Mask(DiagnosisConfig()).masks(draws, 64)
    assert len({tuple(mask.tolist()) for mask in masks}) == 32
    assert torch.equal(masks[11], dimension_mask(64, 0.3, 0, 11))


def test_a_mask_is_the_same_at_every_position_and_in_every_layer():
    perturb = Mask(DiagnosisConfig()).on([Draw(0, 0, 1), Draw(0, 1, 1)], 10)
    state = torch.ones(2, 3, 10)
    first, second = (perturb(layer, state, state) for layer in (0, 5))
    assert torch.equal(first, second)
    for row in range(2):
        gone = dimension_mask(10, 0.3, 0, row)
        assert torch.equal(first[row], torch.where(gone, 0.0, 1.0).expand(3, 10))
    # A layer with an axis more than usual (several residual streams) is masked along its last one.
    streams = perturb(0, torch.ones(2, 3, 4, 10), torch.ones(2, 3, 4, 10))
    assert torch.equal(streams[1, 2, 3], first[1, 2])


def test_a_skip_gives_the_layers_input_and_changes_no_tensor():
    perturb = Skip(DiagnosisConfig()).on([Draw(0, 0, 1)], 10)
    before, after = torch.zeros(1, 2, 10), torch.ones(1, 2, 10)
    assert torch.equal(perturb(0, before, after), before)


def test_skipping_a_layer_that_does_nothing_changes_nothing(tiny_llama):
    model = tiny_llama()
    layer = model.model.layers[2]
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    values = measure(model, DiagnosisConfig(perturbation="skip"), replay=True)
    assert values[2] == pytest.approx(0, abs=1e-7)
    assert (values[[0, 1, 3]] > 1e-3).all()


# -- memory ----------------------------------------------------------------------------------------------------------


def test_running_out_of_memory_halves_the_rows_and_changes_no_value(tiny_llama, monkeypatch):
    model = tiny_llama()
    expected = measure(model, SETTINGS[0], replay=True)
    own, sizes = LayerStack.replay, []

    def limited(stack, clean, first, answers, ids, compute_dtype):
        sizes.append(len(ids) * len(answers))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return own(stack, clean, first, answers, ids, compute_dtype)

    monkeypatch.setattr(LayerStack, "replay", limited)
    assert measure(model, SETTINGS[0], replay=True) == pytest.approx(expected, abs=1e-6)
    assert sizes[:5] == [24, 12, 6, 3, 1]
    assert max(sizes[4:]) == 1


def test_an_error_that_is_not_about_memory_is_raised_at_once(tiny_llama, monkeypatch):
    calls = []

    def broken(*_):
        calls.append(1)
        raise RuntimeError("something else")

    monkeypatch.setattr(LayerStack, "replay", broken)
    with pytest.raises(RuntimeError, match="something else"):
        measure(tiny_llama(), SETTINGS[0], replay=True)
    assert len(calls) == 1


def test_a_single_row_that_does_not_fit_is_an_error(tiny_llama, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(LayerStack, "replay", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        measure(tiny_llama(), SETTINGS[0], replay=True)
