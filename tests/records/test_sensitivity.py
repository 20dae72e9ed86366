"""What follows from Layer Sensitivity."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_reports import make_report

from hf_layertracer.diagnosis.estimation import estimate_means
from hf_layertracer.diagnosis.summary import summarise_sensitivity


FACTS = {"draws": 8, "repeats": 1, "path": "replay"}
VALUES = np.random.default_rng(0).random((6, 1, 8)) ** 2 + np.random.default_rng(1).random((1, 1, 8)) / 2


def summarised(values=VALUES):
    layers, repeats, probes = values.shape
    numbers = np.arange(repeats * probes)
    estimate = estimate_means(values.clip(0, 1).reshape(layers, -1), numbers % probes, numbers)
    return summarise_sensitivity(estimate, ["a"] * probes, 0, **FACTS)


@settings(max_examples=40, deadline=None)
@given(trained=st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_a_difference_has_the_standard_error_of_this_very_split(trained):
    frozen = set(range(6)) - trained
    found = summarised().difference(trained, frozen)
    # From the probes themselves: their own differences between the two groups of layers, one by one.
    per_probe = VALUES.clip(0, 1).mean(1)
    gaps = [
        statistics.fmean(per_probe[layer, probe] for layer in trained)
        - statistics.fmean(per_probe[layer, probe] for layer in frozen)
        for probe in range(8)
    ]
    assert found.value == pytest.approx(statistics.fmean(gaps), abs=1e-6)
    assert found.stderr == pytest.approx(statistics.stdev(gaps) / 8**0.5, rel=1e-4)


def test_the_difference_of_the_halves_is_shallow_minus_deep():
    sensitivity = summarised()
    found = sensitivity.difference(range(3), range(3, 6))
    assert found.value == pytest.approx(sensitivity.shallow_minus_deep, abs=1e-9)
    assert found.stderr == pytest.approx(sensitivity.shallow_minus_deep_stderr, rel=1e-4)


def test_the_middle_layer_of_an_odd_depth_does_not_count():
    values = np.random.default_rng(0).random((5, 1, 8))
    moved = values.copy()
    moved[2] = 0.99
    assert summarised(moved).shallow_minus_deep == summarised(values).shallow_minus_deep
    assert summarised(moved).shallow_minus_deep_stderr == summarised(values).shallow_minus_deep_stderr


def test_of_a_single_draw_no_difference_has_an_error():
    sensitivity = summarised(np.array([[[0.3]], [[0.2]]]))
    assert sensitivity.covariance is None
    found = sensitivity.difference([0], [1])
    assert (found.value, found.stderr) == (pytest.approx(0.1), None)


def test_the_diagonal_of_the_covariances_is_the_square_of_the_standard_errors():
    sensitivity = summarised()
    assert [row[-1] for row in sensitivity.covariance] == pytest.approx([e**2 for e in sensitivity.stderr], rel=1e-5)


def test_of_equal_layers_the_shallowest_is_the_vulnerable_one():
    sensitivity = make_report(sensitivity__mean=[0.1, 0.4, 0.4, 0.2, 0.1, 0.1]).sensitivity
    assert sensitivity.vulnerable_layer == 1
    assert sensitivity.highest == 0.4


def test_rivals_are_the_contenders_without_the_vulnerable_layer():
    assert make_report(sensitivity__contenders=[0, 2, 3]).sensitivity.rivals == [2, 3]
    assert make_report(sensitivity__contenders=[0]).sensitivity.rivals == []


def test_the_file_names_the_vulnerable_layer_but_nobody_has_to_keep_it_right():
    report = make_report()
    content = report.model_dump(mode="json")
    written = content["diagnoses"][0]["sensitivities"]["mask"]
    assert written["vulnerable_layer"] == 0
    written["vulnerable_layer"] = 5
    assert type(report).from_dict(content).sensitivity.vulnerable_layer == 0
