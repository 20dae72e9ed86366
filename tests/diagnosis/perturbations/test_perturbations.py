from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_layertracer.diagnosis.perturbations.mask import dimension_mask, masks_per_permutation
from hf_layertracer.diagnosis.perturbations.noise import noise_like


WIDTHS, RATIOS, SEEDS, DRAWS = st.integers(1, 80), st.floats(0.01, 1.0), st.integers(0, 2**31), st.integers(0, 500)


def expected_count(width, ratio):
    return min(max(round(ratio * width), 1), width)


@given(WIDTHS, RATIOS, SEEDS, DRAWS)
def test_a_mask_has_exactly_the_wanted_number_of_dimensions(width, ratio, seed, draw):
    mask = dimension_mask(width, ratio, seed, draw)
    assert mask.shape == (width,)
    assert mask.dtype == torch.bool
    assert mask.device.type == "cpu"
    assert int(mask.sum()) == expected_count(width, ratio)


@given(WIDTHS, RATIOS, SEEDS, DRAWS)
def test_a_mask_depends_on_its_arguments_alone(width, ratio, seed, draw):
    mask = dimension_mask(width, ratio, seed, draw)
    torch.manual_seed(draw)
    np.random.seed(draw)
    dimension_mask(width, ratio, seed, draw + 1)
    assert torch.equal(dimension_mask(width, ratio, seed, draw), mask)


@given(st.integers(1, 12), st.integers(1, 8), SEEDS, st.integers(0, 20))
def test_a_full_cycle_of_draws_hits_every_dimension_once(count, draws, seed, cycle):
    width = count * draws
    masks = [dimension_mask(width, count / width, seed, cycle * draws + i) for i in range(draws)]
    assert torch.stack(masks).sum(0).tolist() == [1] * width


@settings(max_examples=40)
@given(st.integers(8, 60), st.floats(0.05, 0.5), SEEDS)
def test_over_many_draws_every_dimension_is_hit_about_equally_often(width, ratio, seed):
    draws, count = 100, expected_count(width, ratio)
    hits = torch.stack([dimension_mask(width, ratio, seed, draw) for draw in range(draws)]).sum(0).double()
    assert float(hits.mean()) == pytest.approx(draws * count / width)
    # Of a permutation, a few dimensions are left over, and miss a hit; nothing else varies.
    share = count * masks_per_permutation(width, ratio) / width
    assert float(hits.std()) < 1 + 2 * (draws / masks_per_permutation(width, ratio) * share * (1 - share)) ** 0.5


def test_every_single_draw_is_a_uniformly_random_subset():
    for draw in (0, 2, 17):
        hits = torch.stack([dimension_mask(10, 0.3, seed, draw) for seed in range(3000)]).double()
        # Five standard deviations of a proportion of 0.3 over 3000 seeds.
        assert (hits.mean(0) - 0.3).abs().max() < 5 * (0.3 * 0.7 / 3000) ** 0.5
        pairs = (hits[:, :, None] * hits[:, None]).mean(0)[~torch.eye(10, dtype=torch.bool)]
        assert (pairs - 3 * 2 / (10 * 9)).abs().max() < 5 * (0.0667 * 0.9333 / 3000) ** 0.5


def test_draws_and_seeds_give_different_masks():
    masks = {tuple(dimension_mask(64, 0.3, seed, draw).tolist()) for seed in range(10) for draw in range(60)}
    assert len(masks) == 600


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_has_the_wanted_share_of_each_positions_deviation(dtype):
    torch.manual_seed(0)
    state = (torch.randn(2, 3, 20_000) * torch.tensor([0.1, 1.0, 30.0])[:, None] + 7).to(dtype)
    noise = noise_like(state, 0.5, [(0, 0), (0, 1)])
    assert (noise.shape, noise.dtype) == (state.shape, state.dtype)
    ratio = noise.double().std(-1) / state.double().std(-1)
    assert torch.allclose(ratio, torch.full_like(ratio, 0.5), rtol=0.03)
    assert (noise.double().mean(-1).abs() < 0.03 * state.double().std(-1)).all()


def test_noise_of_a_row_depends_on_its_seeds_alone_and_not_on_its_batch():
    torch.manual_seed(0)
    state = torch.randn(4, 5, 16)
    seeds = [(3, 0, 1, 0), (3, 0, 1, 1), (3, 1, 1, 0), (3, 0, 2, 0)]
    together = noise_like(state, 1.0, seeds)
    random_state = torch.get_rng_state()
    for row in (2, 0, 3, 1):
        # The deviation of a row may be summed in another order in a batch.
        assert torch.allclose(noise_like(state[row : row + 1], 1.0, [seeds[row]])[0], together[row], rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), random_state)
    # In units of the state's deviation no two rows share their noise: seed, repeat, layer and probe all count.
    unit = together / state.std(-1, keepdim=True, correction=0)
    for first in range(4):
        for second in range(first):
            assert abs(float(torch.corrcoef(torch.stack([unit[first].flatten(), unit[second].flatten()]))[0, 1])) < 0.5


def test_noise_grows_with_its_scale_and_with_the_state():
    torch.manual_seed(0)
    state = torch.randn(1, 2, 8)
    noise = noise_like(state, 0.5, [(1, 2)])
    assert torch.allclose(noise_like(state, 1.0, [(1, 2)]), 2 * noise)
    assert torch.allclose(noise_like(3 * state + 5, 0.5, [(1, 2)]), 3 * noise, rtol=1e-4)
    assert not noise_like(torch.full((1, 2, 8), 4.0), 0.5, [(1, 2)]).any()
