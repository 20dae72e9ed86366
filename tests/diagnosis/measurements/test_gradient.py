from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.measurements.gradient import (
    MASSIVE_DIMENSIONS,
    TOP_TOKENS,
    massive_dimensions,
    predict_batch,
    regression_estimate,
)
from hf_layertracer.diagnosis.perturbations import PERTURBATIONS, Draw
from hf_layertracer.diagnosis.perturbations.mask import Mask
from hf_layertracer.modeling import find_parts


IDS = torch.tensor([[5, 80, 31, 7, 200, 9], [90, 91, 92, 93, 5, 6]])


@pytest.mark.parametrize("perturbation", ["mask", "skip", "noise"])
def test_predictions_are_those_of_difference_quotients(tiny_llama, reference, perturbation):
    """Without autograd: slopes of the likeliest tokens' logits by moving the state, one probe at a time."""
    model = tiny_llama().double()
    stack = LayerStack(find_parts(model))
    config = DiagnosisConfig(perturbation=perturbation, noise_scale=0.2, mask_ratio=0.1)
    kind = PERTURBATIONS[perturbation](config)
    perturbs = [kind.on([Draw(probe, repeat, 2) for probe in (0, 1)], 32) for repeat in range(2)]
    with torch.no_grad():
        predicted = predict_batch(stack, stack.run(IDS), perturbs)
        assert predicted.shape == (4, 2, 2)
        for probe in (0, 1):
            clean = stack.run(IDS[probe : probe + 1])
            logits = clean.logits[0]
            top = sorted(range(len(logits)), key=lambda token: -float(logits[token]))[:TOP_TOKENS]
            others = torch.logsumexp(torch.tensor([float(v) for t, v in enumerate(logits) if t not in top]), 0)
            for layer in range(4):
                before, after = clean.states[layer], clean.states[layer + 1]
                for repeat in range(2):
                    perturb = kind.on([Draw(probe, repeat, 2)], 32)
                    changed = perturb(layer, before, after)
                    change = torch.empty_like(changed)
                    for position in range(6):
                        new, old = changed[0, position], after[0, position]
                        change[0, position] = new * float(old.norm() / new.norm()) - old
                    step = 1e-3
                    ends = [
                        stack.replay(clean, layer, [after + s * step * change], clean.input_ids)[0, 0] for s in (1, -1)
                    ]
                    slopes = [float(ends[0][token] - ends[1][token]) / (2 * step) for token in top]
                    old_outcomes = [float(logits[token]) for token in top]
                    new_outcomes = [value + slope for value, slope in zip(old_outcomes, slopes, strict=True)]
                    expected = reference.jensen_shannon([*old_outcomes, others], [*new_outcomes, others])
                    assert predicted[layer, repeat, probe] == pytest.approx(expected, rel=0.02, abs=2e-3)


def test_predicting_leaves_no_gradient_on_any_parameter(tiny_llama):
    model = tiny_llama()
    model.model.embed_tokens.weight.requires_grad_(False)
    stack = LayerStack(find_parts(model))
    perturb = Mask(DiagnosisConfig()).on([Draw(0, 0, 1), Draw(1, 0, 1)], 32)
    with torch.no_grad():
        predict_batch(stack, stack.run(IDS), [perturb])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1


def test_a_fully_frozen_model_can_be_predicted(tiny_llama):
    model = tiny_llama().requires_grad_(False)
    perturb = Mask(DiagnosisConfig()).on([Draw(0, 0, 1), Draw(1, 0, 1)], 32)
    with torch.no_grad():
        stack = LayerStack(find_parts(model))
        predicted = predict_batch(stack, stack.run(IDS), [perturb])
    assert (predicted > 0).any()
    assert np.isfinite(predicted).all()


def test_massive_dimensions_stand_out_in_the_layers_that_have_them(tiny_llama):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[13] *= 40
        clean = LayerStack(find_parts(model)).run(IDS)
        shares = massive_dimensions(clean)
    assert shares.shape == (4, 32)
    for layer, state in enumerate(clean.states[1:]):
        for dimension in range(32):
            parts = [
                float(state[row, position, dimension]) ** 2 / sum(float(v) ** 2 for v in state[row, position])
                for row in range(2)
                for position in range(6)
            ]
            assert float(shares[layer, dimension]) == pytest.approx(sum(parts), rel=1e-5)
    assert shares.argmax(1).tolist()[1:] == [13, 13, 13]
    assert float(shares.sum()) == pytest.approx(4 * 12)


# -- regression ------------------------------------------------------------------------------------------------------


def simulated(seed, draws=400, sampled=60, noise=0.05):
    rng = np.random.default_rng(seed)
    predictors = rng.normal(size=(2, draws, 2))
    truth = 0.4 + 0.1 * predictors[..., 0] - 0.06 * predictors[..., 1] + noise * rng.normal(size=(2, draws))
    sample = np.sort(rng.choice(draws, sampled, replace=False))
    return predictors, truth, sample


def test_a_sample_of_everything_gives_exactly_what_was_measured():
    # Otherwise an estimate from all draws would claim a smaller error than the measurement with the same draws.
    predictors, truth, _ = simulated(0, draws=50, sampled=1)
    everything = np.arange(50)
    assert regression_estimate(predictors, truth, everything) == pytest.approx(truth, abs=1e-12)


def test_a_perfect_predictor_recovers_the_mean_of_all_draws():
    predictors, _, sample = simulated(0)
    truth = predictors[..., 0] * 0.1 + 0.4
    estimate = regression_estimate(predictors[..., :1], truth[:, sample], sample).mean(1)
    # The ridge leaves exactly ridge / (n + ridge) of the sample's own deviation.
    left = MASSIVE_DIMENSIONS / (len(sample) + MASSIVE_DIMENSIONS)
    expected = truth.mean(1) + left * (truth[:, sample].mean(1) - truth.mean(1))
    assert estimate == pytest.approx(expected, abs=1e-9)


def test_useless_and_constant_predictors_do_no_harm():
    _, truth, sample = simulated(0)
    constant = np.full((2, 400, 3), 0.7)
    assert regression_estimate(constant, truth[:, sample], sample) == pytest.approx(truth[:, sample])
    one = np.arange(1)
    assert regression_estimate(np.ones((2, 1, 1)), np.full((2, 1), 0.3), one) == pytest.approx(0.3)


def test_the_estimate_is_nearer_the_truth_than_the_plain_sample_and_its_error_is_honest():
    adjusted_errors, plain_errors, z = [], [], []
    for seed in range(300):
        predictors, truth, sample = simulated(seed)
        adjusted = regression_estimate(predictors, truth[:, sample], sample)
        # The truth is the mean of infinitely many draws: what an exact diagnosis estimates, too.
        adjusted_errors += list(adjusted.mean(1) - 0.4)
        plain_errors += list(truth[:, sample].mean(1) - 0.4)
        z += list((adjusted.mean(1) - 0.4) / (adjusted.std(1, ddof=1) / len(sample) ** 0.5))
    assert np.std(adjusted_errors) < 0.65 * np.std(plain_errors)
    assert abs(np.mean(adjusted_errors)) < 4 * np.std(adjusted_errors) / 600**0.5
    # Standard errors that leave out what the regression explains would make this 1.25.
    assert np.std(z) == pytest.approx(1.0, abs=0.12)
