from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.diagnosis.statistics import (
    bootstrap_median_interval,
    rank_correlation,
    rank_stability,
    standard_error,
)


def spearman(a, b):
    """Pearson's correlation of mean ranks, in plain loops."""

    def ranks(values):
        found = []
        for value in values:
            places = [place for place, other in enumerate(sorted(values), 1) if other == value]
            found.append(sum(places) / len(places))
        return found

    x, y = ranks(a), ranks(b)
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    covariance = sum((u - mean_x) * (v - mean_y) for u, v in zip(x, y, strict=True))
    spread = (sum((u - mean_x) ** 2 for u in x) * sum((v - mean_y) ** 2 for v in y)) ** 0.5
    return covariance / spread if spread else 0.0


# -- standard error --------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=2, max_size=8))
def test_the_standard_error_agrees_with_the_textbook(rows):
    values = np.array(rows)
    for axis, series in ((0, list(zip(*rows, strict=True))), (1, rows)):
        expected = [statistics.stdev(one) / len(one) ** 0.5 for one in series]
        assert standard_error(values, axis) == pytest.approx(expected, abs=1e-9)


def test_a_single_value_has_a_standard_error_of_0():
    assert standard_error(np.array([[3.0, 4.0]]), 0).tolist() == [0.0, 0.0]
    assert float(standard_error(np.array([3.0]), 0)) == 0.0


def test_the_standard_error_covers_the_truth_as_often_as_it_says():
    values = np.random.default_rng(0).normal(1.0, 2.0, (2000, 25))
    covered = np.abs(values.mean(1) - 1.0) < 2.064 * standard_error(values, 1)  # Student's t, 24 degrees of freedom
    assert abs(covered.mean() - 0.95) < 0.02


# -- bootstrap -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 30), min_size=2, max_size=30), st.integers(0, 100))
def test_the_interval_is_ordered_seeded_and_inside_the_sample(sample, seed):
    values = np.array(sample, dtype=float)
    low, high = bootstrap_median_interval(values, seed, resamples=200)
    assert min(sample) <= low <= high <= max(sample)
    assert bootstrap_median_interval(values, seed, resamples=200) == (low, high)


def test_the_interval_of_a_constant_sample_is_that_constant():
    assert bootstrap_median_interval(np.full(5, 7.0), 0) == (7.0, 7.0)


def test_one_value_has_no_interval():
    assert bootstrap_median_interval(np.array([7.0]), 0) is None
    assert bootstrap_median_interval(np.zeros(0), 0) is None


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_median_interval(rng.exponential(1.0, 41), trial, resamples=400)
        covered += low <= np.log(2) <= high
    assert 0.89 <= covered / 200 <= 0.99


# -- ranks -----------------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(2, 15))
def test_the_rank_correlation_agrees_with_its_definition(data, size):
    # Few different values, so that ties are common.
    a, b = (data.draw(st.lists(st.integers(0, 6), min_size=size, max_size=size)) for _ in range(2))
    assert rank_correlation(np.array(a), np.array(b)) == pytest.approx(spearman(a, b), abs=1e-9)


def test_the_rank_correlation_sees_order_and_nothing_else():
    values = np.array([0.1, 0.5, 0.2, 3.0])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, np.zeros(4)) == 0.0


def test_stability_is_1_where_all_probes_agree_and_near_0_where_they_are_noise():
    layers = np.arange(8.0)[:, None, None]
    rng = np.random.default_rng(0)
    agreeing = layers + 0.01 * rng.random((8, 3, 10))
    assert rank_stability(agreeing, seed=0) == pytest.approx(1.0)
    noise = np.mean([rank_stability(rng.random((8, 2, 10)), seed=0) for _ in range(40)])
    assert abs(noise) < 0.15
    assert rank_stability(agreeing[:, :, :3], seed=0) is None


def test_stability_is_seeded():
    values = np.random.default_rng(0).random((6, 2, 9))
    assert rank_stability(values, seed=1) == rank_stability(values, seed=1) != rank_stability(values, seed=2)
