from __future__ import annotations

import statistics

import numpy as np
import pytest

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.estimation import estimate_means
from hf_layertracer.diagnosis.summary import by_task, summarise_lens, summarise_sensitivity, summarise_task_particle


FACTS = {"draws": 1, "repeats": 1, "path": "replay"}
# Task particles 1, 2, 4, none, 2.
CURVES = np.array(
    [
        [0.0, 0.0, 0.5, 0.5, 0.5, 0.5],
        [0.0, 0.0, 0.0, 0.5, 0.5, 0.5],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.5],
        [0.0, 0.0, 0.001, 0.002, 0.0, 0.0],
        [0.0, 0.01, 0.02, 0.9, 0.9, 0.9],
    ]
)
TASKS = ["b", "a", "a", "a", "b"]


def summarised(values, tasks):
    """The summary of values by layer, repeat and probe, all of them independent."""
    layers, repeats, probes = values.shape
    probe = np.tile(np.arange(probes), repeats)
    estimate = estimate_means(values.reshape(layers, -1), probe, np.arange(repeats * probes))
    return summarise_sensitivity(estimate, tasks, 0, **FACTS)


def test_task_particles_are_summarised_by_median_and_quartiles_of_the_resolved_probes():
    result = summarise_task_particle(CURVES, TASKS, DiagnosisConfig())
    resolved = [1, 2, 4, 2]
    first, median, third = statistics.quantiles(resolved, n=4, method="inclusive")
    assert result.per_probe == [1, 2, 4, None, 2]
    assert result.layer == median == statistics.median(resolved)
    assert result.quartiles == (first, third)
    assert result.interval[0] <= result.layer <= result.interval[1]
    assert result.unresolved == 1
    assert list(result.by_task) == ["b", "a"]
    assert (result.by_task["a"].layer, result.by_task["a"].unresolved) == (3.0, 1)
    assert (result.by_task["b"].layer, result.by_task["b"].unresolved) == (1.5, 0)


def test_the_mean_curve_has_a_task_particle_of_its_own():
    result = summarise_task_particle(CURVES, TASKS, DiagnosisConfig())
    mean = CURVES.mean(0)
    assert result.mean_curve_layer == next(i for i in range(5) if mean[i + 1] - mean[i] >= 0.1 * mean.max())


@pytest.mark.parametrize("curves", [np.zeros((5, 6)), np.empty((0, 0))])
def test_where_nothing_is_resolved_there_is_no_task_particle(curves):
    result = summarise_task_particle(curves, TASKS, DiagnosisConfig())
    assert result.layer is result.quartiles is result.interval is result.mean_curve_layer is None
    assert result.unresolved == 5
    assert result.per_probe == [None] * 5
    assert [summary.unresolved for summary in result.by_task.values()] == [2, 3]


def test_the_lens_has_means_and_standard_errors_over_probes():
    lens = summarise_lens(CURVES, TASKS, None, 0.0)
    assert lens.mean_probability == pytest.approx([statistics.fmean(column) for column in CURVES.T])
    assert lens.stderr == pytest.approx([statistics.stdev(column) / 5**0.5 for column in CURVES.T], rel=1e-5)
    assert lens.by_task["a"] == pytest.approx(CURVES[1:4].mean(0))
    assert lens.per_probe[4] == pytest.approx(CURVES[4])


def test_the_sensitivity_of_a_layer_is_the_mean_over_probes_and_repeats():
    values = np.random.default_rng(0).random((4, 3, 5))
    result = summarised(values, TASKS)
    means = [[statistics.fmean(values[layer, :, probe]) for probe in range(5)] for layer in range(4)]
    assert result.mean == pytest.approx([statistics.fmean(layer) for layer in means], rel=1e-5)
    errors = [
        sum(statistics.variance(values[layer, :, probe]) / 3 for probe in range(5)) ** 0.5 / 5 for layer in range(4)
    ]
    assert result.stderr == pytest.approx(errors, rel=1e-5)
    assert result.vulnerable_layer == max(range(4), key=lambda layer: result.mean[layer])
    halves = (values[0] + values[1] - values[2] - values[3]) / 2
    assert result.shallow_minus_deep == pytest.approx(halves.mean(), rel=1e-5)
    error = sum(statistics.variance(halves[:, probe]) / 3 for probe in range(5)) ** 0.5 / 5
    assert result.shallow_minus_deep_stderr == pytest.approx(error, rel=1e-5)
    assert result.by_task["b"] == pytest.approx(values[:, :, [0, 4]].mean((1, 2)), rel=1e-5)


def test_of_a_single_probe_the_repeats_are_the_units_of_the_standard_error():
    values = np.random.default_rng(0).random((3, 6, 1))
    result = summarised(values, ["a"])
    assert result.mean == pytest.approx([statistics.fmean(layer) for layer in values[:, :, 0]], rel=1e-5)
    assert result.stderr == pytest.approx([statistics.stdev(layer) / 6**0.5 for layer in values[:, :, 0]], rel=1e-5)
    assert result.rank_stability is None


def test_a_single_draw_and_a_single_layer_can_be_summarised():
    result = summarised(np.full((1, 1, 1), 0.3), ["a"])
    assert (result.mean, result.stderr, result.contenders, result.shallow_minus_deep) == ([0.3], [0.0], [0], 0.0)


def test_contenders_are_judged_by_differences_probe_by_probe():
    # Probes differ a lot, but layer 0 is above layer 1 for each of them by the same amount, and below layer 2 for some.
    probe = np.linspace(0.1, 0.7, 9)
    flip = np.array([0.05, -0.05] * 4 + [0.05])
    values = np.stack([probe + 0.1, probe, probe + 0.1 - flip])[:, None]
    result = summarised(values, ["a"] * 9)
    assert result.vulnerable_layer == 0
    assert result.contenders == [0, 2]


def test_estimates_outside_the_possible_are_brought_back():
    result = summarised(np.array([[[-0.02, -0.01]], [[1.2, 1.1]]]), ["a", "b"])
    assert result.mean == [0.0, 1.0]
    assert result.by_task == {"a": [0.0, 1.0], "b": [0.0, 1.0]}


def test_tasks_keep_the_order_of_their_first_probe():
    assert {task: members.tolist() for task, members in by_task(TASKS).items()} == {"b": [0, 4], "a": [1, 2, 3]}
    assert list(by_task(TASKS)) == ["b", "a"]
