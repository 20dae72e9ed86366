"""The signal-to-noise ratio of weights, against Spectrum's formula written out in numpy and against planted signals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from hf_layertracer import make_plan
from hf_layertracer.planning.weight_snr import layer_snr, matrix_snr


def low_rank(rows: int, columns: int, rank: int = 2, noise: float = 1e-4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    factors = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
    return factors + noise * torch.randn(rows, columns, generator=generator)


def values_and_threshold(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """`sigma = IQR / 1.349; threshold = sigma * sqrt((1 + sqrt(beta)) ** 2)`."""
    values = np.sort(np.linalg.svd(matrix.astype(np.float64), compute_uv=False))
    beta = min(matrix.shape) / max(matrix.shape)
    sigma = (np.percentile(values, 75) - np.percentile(values, 25)) / 1.349
    return values, sigma * np.sqrt((1 + np.sqrt(beta)) ** 2)


def spectrum(matrix: np.ndarray) -> float:
    """`sum of the signal / sum of the noise / max`."""
    values, threshold = values_and_threshold(matrix)
    above = values > threshold
    return values[above].sum() / values[~above].sum() / values[-1]


def nearest_to_threshold(matrix: np.ndarray) -> float:
    """How far the nearest singular value is from the threshold, as a share of it."""
    values, threshold = values_and_threshold(matrix)
    return np.abs(values / threshold - 1).min()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(4, 24),
    columns=st.integers(4, 24),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.01, 1, 50]),
)
def test_the_ratio_is_spectrums(rows, columns, seed, scale):
    matrix = scale * np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    ratio = matrix_snr(torch.from_numpy(matrix))
    # A singular value on the threshold is signal in one precision and noise in the other.
    assume(nearest_to_threshold(matrix) > 1e-4)
    if math.isinf(ratio):
        return
    assert ratio == pytest.approx(spectrum(matrix), rel=1e-3)


def test_a_known_spectrum_gives_the_ratio_computed_by_hand():
    # Quartiles 2 and 4, sigma 2 / 1.349, threshold twice that, 2.97: the signal is 3 + 4 + 10, the noise 1 + 2.
    matrix = torch.diag(torch.tensor([10.0, 1.0, 4.0, 2.0, 3.0]))
    assert matrix_snr(matrix) == pytest.approx(17 / 3 / 10)
    assert matrix_snr(matrix.T) == pytest.approx(matrix_snr(matrix))
    assert matrix_snr(matrix.bfloat16()) == pytest.approx(17 / 3 / 10)
    assert matrix_snr(matrix.requires_grad_()) == pytest.approx(17 / 3 / 10)


def test_a_matrix_without_noise_is_all_signal_and_one_of_zeros_has_none():
    assert matrix_snr(torch.eye(6)) == math.inf
    assert matrix_snr(torch.zeros(6, 4)) == 0


@pytest.mark.parametrize("planted", range(5))
def test_a_layer_of_low_rank_stands_out(llama, facts_of, planted):
    model = llama(5)
    with torch.no_grad():
        for parameter in model.model.layers[planted].parameters():
            if parameter.ndim == 2:
                parameter.copy_(low_rank(*parameter.shape))
    ranks = layer_snr(model, facts_of(model))
    assert np.argmax(ranks) == planted
    assert ranks[planted] == 1
    plan = make_plan(model, "weight-snr", freeze_ratio=0.8)
    assert plan.trained_layers == [planted]
    assert "2406.06623" in plan.reason


def test_ranks_are_means_over_the_matrices_of_a_kind(llama, facts_of):
    """Of two layers, each matrix ranks 0 in one and 1 in the other."""
    model = llama(2)
    with torch.no_grad():
        for name in ("mlp.up_proj", "mlp.gate_proj", "self_attn.q_proj"):
            weight = model.model.layers[1].get_submodule(name).weight
            weight.copy_(low_rank(*weight.shape))
        for name in ("mlp.down_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
            weight = model.model.layers[0].get_submodule(name).weight
            weight.copy_(low_rank(*weight.shape))
    assert layer_snr(model, facts_of(model)) == pytest.approx([4 / 7, 3 / 7])


def test_layers_with_equal_weights_rank_equal(llama, facts_of):
    model = llama(4)
    for layer in range(1, 4):
        model.model.layers[layer].load_state_dict(model.model.layers[0].state_dict())
    assert layer_snr(model, facts_of(model)) == pytest.approx([0.5] * 4)
    assert make_plan(model, "weight-snr").trained_layers == [0, 1]


def test_adapters_that_are_still_zero_say_nothing_of_their_layers(llama, facts_of):
    model = llama(4)
    for layer in range(1, 4):
        model.model.layers[layer].load_state_dict(model.model.layers[0].state_dict())
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=4))
    ranks = layer_snr(adapted, facts_of(adapted))
    # lora_A is random, one matrix of nine; lora_B is zero in every layer.
    assert max(ranks) - min(ranks) <= 1 / 9 + 1e-9


def test_one_layer_and_vectors_alone_do_not_divide_by_zero(llama, facts_of):
    model = llama(1)
    assert layer_snr(model, facts_of(model)) == [0]


def test_the_weights_decide_and_not_the_order_of_layers(llama, facts_of):
    model = llama(5)
    scores = layer_snr(model, facts_of(model))
    model.model.layers = torch.nn.ModuleList(reversed(model.model.layers))
    assert layer_snr(model, facts_of(model)) == pytest.approx(scores[::-1])
