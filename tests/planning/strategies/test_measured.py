"""The strategies that go by measurements."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_layertracer import LayerTracerError, make_plan
from hf_layertracer.records import ContextSensitivity


few = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize(
    ("particle", "trained"), [(3.0, [0, 1, 2]), (2.5, [0, 1]), (1.0, [0]), (5.0, [0, 1, 2, 3, 4])]
)
def test_task_particle_freezes_from_the_measured_layer_on(meta, report_of, particle, trained):
    plan = make_plan(report_of(meta(6), task_particle=particle), "task-particle")
    assert plan.trained_layers == trained
    assert f"{particle:g}" in plan.reason


def test_task_particle_is_refused_where_every_probe_is_unresolved(meta, report_of):
    with pytest.raises(LayerTracerError, match="unresolved for every probe"):
        make_plan(report_of(meta(4), task_particle=None), "task-particle")


@pytest.mark.parametrize("particle", [0.0, 0.5])
def test_task_particle_at_the_first_layer_is_refused(meta, report_of, particle):
    with pytest.raises(LayerTracerError, match="no layer to train"):
        make_plan(report_of(meta(4), task_particle=particle), "task-particle")


@pytest.mark.parametrize("strategy", ["task-particle", "sensitivity", "budget", "block-influence"])
def test_a_strategy_that_needs_measurements_says_so(meta, strategy):
    options = {"max_trainable_parameters": 10**6} if strategy == "budget" else {}
    with pytest.raises(LayerTracerError, match="needs measurements"):
        make_plan(meta(4), strategy, **options)


def test_a_model_with_measurements_beside_it_does_as_well_as_a_report(meta, report_of):
    model = meta(5)
    report = report_of(model, sensitivity=[0.1, 0.5, 0.2, 0.4, 0.3])
    assert make_plan(model, "sensitivity", report=report) == make_plan(report, "sensitivity")


def test_measurements_of_another_depth_are_refused(meta, report_of):
    with pytest.raises(LayerTracerError, match=r"layers \(5 there, 4 here\)"):
        make_plan(meta(4), "sensitivity", report=report_of(meta(5)))


scores = st.lists(st.floats(0, 1), min_size=2, max_size=9)


@few
@given(values=scores)
@pytest.mark.parametrize(
    ("strategy", "measurement"), [("sensitivity", "sensitivity"), ("block-influence", "block_influence")]
)
def test_no_frozen_layer_scores_higher_than_a_trained_one(meta, report_of, strategy, measurement, values):
    plan = make_plan(report_of(meta(len(values)), **{measurement: values}), strategy)
    lowest_trained = min(values[layer] for layer in plan.trained_layers)
    assert lowest_trained >= max(values[layer] for layer in plan.frozen_layers)


def test_of_layers_with_equal_scores_the_shallower_train(meta, report_of):
    report = report_of(meta(6), sensitivity=[0.5] * 6, block_influence=[0.5] * 6)
    assert make_plan(report, "sensitivity").trained_layers == [0, 1, 2]
    assert make_plan(report, "block-influence").trained_layers == [0, 1, 2]


def with_measures(report):
    """The report with a skip and a context sensitivity whose order of layers is another than that of the mask's."""
    first = report.diagnoses[0]
    first.sensitivities["skip"] = first.sensitivity.model_copy(update={"mean": [0.1, 0.2, 0.3, 0.4]})
    first.context = ContextSensitivity(
        mean=[0.0, 0.4, 0.4, 0.5, 0.5], stderr=[0.0] * 5, delta=[0.4, 0.0, 0.1, 0.0], delta_stderr=[0.0] * 4, draws=4
    )
    return report


@pytest.mark.parametrize(
    ("measure", "trained"), [(None, [2, 3]), ("skip", [2, 3]), ("mask", [0, 1]), ("context", [0, 2])]
)
def test_the_measurement_that_counts_is_chosen_by_name_and_is_skip_by_default(meta, report_of, measure, trained):
    report = with_measures(report_of(meta(4), sensitivity=[0.4, 0.3, 0.2, 0.1]))
    options = {"measure": measure} if measure else {}
    plan = make_plan(report, "sensitivity", **options)
    assert plan.trained_layers == trained
    assert f"({measure or 'skip'})" in plan.reason
    size = sum(report.model.layers[0].parameters.values())
    budget = make_plan(report, "budget", max_trainable_parameters=2 * size, **options)
    assert budget.trained_layers == trained


def test_a_measurement_that_is_not_in_the_report_is_refused_and_without_skip_the_first_counts(meta, report_of):
    report = report_of(meta(4), sensitivity=[0.4, 0.3, 0.2, 0.1])
    assert make_plan(report, "sensitivity").trained_layers == [0, 1]
    with pytest.raises(LayerTracerError, match=r"measure='mixer' is not in the report, which has mask: diagnose with"):
        make_plan(report, "sensitivity", measure="mixer")
