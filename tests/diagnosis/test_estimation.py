from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from hf_layertracer.diagnosis.estimation import (
    MASSIVE_DIMENSIONS,
    dimensions_to_correct,
    estimate_means,
    hits,
    mask_predictors,
    massive_shares,
)
from hf_layertracer.diagnosis.layer_stack import LayerStack
from hf_layertracer.diagnosis.perturbations.mask import dimension_mask, masks_per_permutation
from hf_layertracer.modeling import find_parts


WIDTH, RATIO, PROBES = 40, 0.3, 12
DESIGN = masks_per_permutation(WIDTH, RATIO)


def simulated(seed, repeats, noise=0.05):
    """Values that depend on two dimensions of a mask, and on the probe: by layer and draw, and what is known of draws."""
    rng = np.random.default_rng(seed)
    numbers = np.arange(repeats * PROBES)
    masks = np.stack([dimension_mask(WIDTH, RATIO, seed, number).numpy() for number in numbers])
    probes, both = numbers % PROBES, masks[:, 3] & masks[:, 7]
    of_probe = np.linspace(-0.1, 0.1, PROBES)[probes]
    effects = np.stack([0.4 * masks[:, 3] + 0.2 * masks[:, 7] - 0.3 * both, 0.1 * masks[:, 7] + 0.0 * both])
    values = 0.3 + of_probe + effects + noise * rng.normal(size=effects.shape)
    shares = np.full((2, WIDTH), 1e-3)
    shares[:, [3, 7]] = [0.5, 0.4]
    return values, probes, numbers // DESIGN, masks, shares


COUNT = round(RATIO * WIDTH)
HIT, BOTH = COUNT / WIDTH, COUNT * (COUNT - 1) / (WIDTH * (WIDTH - 1))
TRUTH = np.array([0.3 + 0.4 * HIT + 0.2 * HIT - 0.3 * BOTH, 0.3 + 0.1 * HIT])


def plain(values, probes, designs, predictors):
    """Least squares with a column for each probe, the means as weighted sums of draws, all in plain loops."""
    count, names = len(values), sorted(set(probes))
    rows = [
        [float(probe == name) for name in names] + list(known) for probe, known in zip(probes, predictors, strict=True)
    ]
    design = np.array(rows)
    inverse = np.linalg.pinv(design.T @ design)
    # The mean over the probes of their own constants.
    wanted = np.array([sum(probe == name for probe in probes) / count for name in names] + [0.0] * len(predictors[0]))
    weights = [float(wanted @ inverse @ design[draw]) for draw in range(count)]
    fitted = design @ (inverse @ design.T @ values)
    residual = [values[draw] - fitted[draw] for draw in range(count)]
    hat = design @ inverse @ design.T
    squares = expected = 0.0
    for name in sorted(set(designs)):
        members = [draw for draw in range(count) if designs[draw] == name]
        squares += sum(weights[draw] * residual[draw] for draw in members) ** 2
        for one, other in itertools.product(members, members):
            expected += weights[one] * weights[other] * (float(one == other) - hat[one, other])
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return mean, (squares * sum(weight**2 for weight in weights) / expected) ** 0.5


@pytest.mark.parametrize("repeats", [4, 7])
def test_means_and_errors_agree_with_plain_loops(repeats):
    values, probes, designs, masks, shares = simulated(0, repeats)
    predictors = mask_predictors(masks, shares, 2)
    found = estimate_means(values, probes, designs, predictors)
    for layer in range(2):
        mean, error = plain(values[layer], probes, designs, predictors[layer])
        assert found.mean[layer] == pytest.approx(mean, abs=1e-12)
        assert found.stderr[layer] == pytest.approx(error, rel=1e-9)
    assert found.mean == pytest.approx(found.values.mean(1), abs=1e-12)
    assert np.diag(found.covariance) == pytest.approx(found.stderr**2)


def test_without_predictors_the_mean_is_plain_and_a_predictor_that_never_varies_changes_nothing():
    values, probes, designs, *_ = simulated(0, 4)
    found = estimate_means(values, probes, designs)
    assert found.mean == pytest.approx(values.mean(1))
    constant = estimate_means(values, probes, designs, np.full((2, values.shape[1], 1), 0.2))
    assert constant.mean == pytest.approx(found.mean)
    assert constant.stderr == pytest.approx(found.stderr)


def test_how_often_masks_hit_is_what_they_do_on_average():
    masks = np.stack([dimension_mask(WIDTH, RATIO, 1, number).numpy() for number in range(8000)])
    for dimensions in ([5], [5, 9], [5, 9, 30]):
        assert abs(hits(masks, dimensions).mean()) < 0.02


def test_the_correction_takes_much_of_the_luck_out_of_a_mean_and_no_truth():
    corrected, uncorrected = [], []
    for seed in range(200):
        values, probes, designs, masks, shares = simulated(seed, 3)
        corrected.append(estimate_means(values, probes, designs, mask_predictors(masks, shares, 2)).mean)
        uncorrected.append(estimate_means(values, probes, designs).mean)
    for means in (corrected, uncorrected):
        error = np.std(means, axis=0) / len(means) ** 0.5
        assert (np.abs(np.mean(means, axis=0) - TRUTH) < 4.5 * error).all()
    assert (np.std(corrected, axis=0) < 0.75 * np.std(uncorrected, axis=0))[0]


@pytest.mark.parametrize("correct", [True, False])
def test_errors_cover_the_truth_as_often_as_they_say(correct):
    beyond = []
    for seed in range(250):
        values, probes, designs, masks, shares = simulated(seed, 8)
        predictors = mask_predictors(masks, shares, 2) if correct else None
        found = estimate_means(values, probes, designs, predictors)
        beyond += list((found.mean - TRUTH) / found.stderr)
    # 0.68 and 0.95, with four standard errors of a proportion of 250 runs.
    assert 0.58 < np.mean(np.abs(beyond) < 1) < 0.77
    assert 0.90 < np.mean(np.abs(beyond) < 2) < 0.99


def test_of_probes_with_one_draw_each_the_difference_between_probes_counts_as_error():
    values, probes, designs, *_ = simulated(0, 1, noise=0.0)
    found = estimate_means(values, probes, designs)
    assert found.stderr[1] >= 0.9 * np.std(np.linspace(-0.1, 0.1, PROBES), ddof=1) / PROBES**0.5
    single = estimate_means(values[:, :1], probes[:1], designs[:1])
    assert single.stderr.tolist() == [0.0, 0.0]


def test_fewer_draws_are_corrected_for_fewer_dimensions_and_few_for_none():
    found = [dimensions_to_correct(draws, 12) for draws in (13, 18, 24, 36, 60, 84, 300)]
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == MASSIVE_DIMENSIONS
    assert dimensions_to_correct(6, 3) == dimensions_to_correct(1, 1) == 0


def test_massive_dimensions_stand_out_in_the_layers_that_have_them(tiny_llama):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[13] *= 40
        clean = LayerStack(find_parts(model)).run(torch.tensor([[5, 80, 31, 7], [90, 91, 92, 93]]))
        shares = massive_shares(clean)
    assert shares.shape == (4, 32)
    for layer, state in enumerate(clean.states[1:]):
        for dimension in range(0, 32, 5):
            parts = [
                float(state[row, position, dimension]) ** 2 / sum(float(v) ** 2 for v in state[row, position])
                for row in range(2)
                for position in range(4)
            ]
            assert shares[layer, dimension] == pytest.approx(sum(parts), rel=1e-5)
    assert shares.argmax(1).tolist()[1:] == [13, 13, 13]
