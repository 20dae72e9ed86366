"""The strategies that freeze a fraction of the layers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import made_reports

from hf_layertracer import LayerTracerError, make_plan


few = settings(max_examples=60, deadline=None)


def frozen_by_hand(num_layers: int, ratio: float) -> int:
    """The whole number of layers next to the ratio, a half rounded up: written out as a search."""
    return min(range(num_layers + 1), key=lambda count: (abs(count - num_layers * ratio), -count))


@pytest.mark.parametrize(
    ("num_layers", "options", "trained"),
    [
        (4, {}, [0, 1]),
        (4, {"freeze_ratio": 0.25}, [0, 1, 2]),
        (4, {"freeze_ratio": 0.75}, [0]),
        (5, {}, [0, 1]),  # of an odd number, the layer in the middle is frozen
        (7, {}, [0, 1, 2]),
        (3, {"freeze_ratio": 1 / 3}, [0, 1]),
        (2, {}, [0]),
    ],
)
def test_freeze_deep_trains_the_shallow_layers(meta, num_layers, options, trained):
    plan = make_plan(meta(num_layers), "freeze-deep", **options)
    assert plan.trained_layers == trained
    assert (plan.train_embeddings, plan.train_norm, plan.train_head) == (True, False, False)


def test_freeze_deep_at_a_half_is_what_happens_without_arguments(meta):
    plan = make_plan(meta(4))
    assert (plan.strategy, plan.trained_layers, plan.frozen_layers) == ("freeze-deep", [0, 1], [2, 3])


@pytest.mark.parametrize(
    ("num_layers", "options", "trained"), [(4, {}, [2, 3]), (5, {"freeze_ratio": 0.4}, [2, 3, 4])]
)
def test_freeze_shallow_trains_the_deep_layers(meta, num_layers, options, trained):
    plan = make_plan(meta(num_layers), "freeze-shallow", **options)
    assert plan.trained_layers == trained
    assert (plan.train_embeddings, plan.train_norm, plan.train_head) == (False, True, True)


@few
@given(num_layers=st.integers(2, 9), ratio=st.floats(0.01, 0.99))
@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow", "random", "sensitivity", "block-influence"])
def test_a_ratio_freezes_the_nearest_number_of_layers_or_is_refused(meta, report_of, strategy, num_layers, ratio):
    report = report_of(meta(num_layers))
    count = frozen_by_hand(num_layers, ratio)
    if count in (0, num_layers):
        with pytest.raises(LayerTracerError, match=r"would (freeze|train) no layer"):
            make_plan(report, strategy, freeze_ratio=ratio)
        return
    plan = make_plan(report, strategy, freeze_ratio=ratio)
    assert len(plan.frozen_layers) == count
    assert sorted(plan.trained_layers + plan.frozen_layers) == list(range(num_layers))
    if strategy == "freeze-deep":
        assert plan.frozen_layers == list(range(num_layers - count, num_layers))
    if strategy == "freeze-shallow":
        assert plan.frozen_layers == list(range(count))


@pytest.mark.parametrize("ratio", [0, 1, 0.0, 1.0, -0.5, 1.5, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow", "random", "sensitivity", "block-influence"])
def test_a_ratio_out_of_range_is_refused(meta, report_of, strategy, ratio):
    with pytest.raises(LayerTracerError, match="between 0 and 1") as caught:
        make_plan(report_of(meta(4)), strategy, freeze_ratio=ratio)
    assert "\n" not in str(caught.value)


def test_a_model_of_one_layer_cannot_be_halved(meta):
    with pytest.raises(LayerTracerError, match="would train no layer of the 1"):
        make_plan(meta(1))


@pytest.mark.parametrize(
    ("scores", "stderr", "verdict"),
    [
        ([0.8, 0.7, 0.2, 0.1], 0.01, "more sensitive"),
        ([0.1, 0.2, 0.7, 0.8], 0.01, "less sensitive"),
        ([0.5, 0.52, 0.5, 0.49], 0.2, "no difference beyond the error"),
    ],
)
def test_the_reason_says_whether_the_measurement_supports_the_rule(meta, report_of, scores, stderr, verdict):
    assert verdict in make_plan(report_of(meta(4), sensitivity=scores, stderr=stderr)).reason


def test_the_reason_quotes_the_error_of_the_very_split(meta, report_of):
    errors = [0.01, 0.02, 0.04, 0.08, 0.16]
    report = report_of(meta(5), sensitivity=[0.8, 0.6, 0.5, 0.3, 0.2])
    report.sensitivity.covariance = made_reports.independent(errors)
    report.sensitivity.shallow_minus_deep_stderr = 0.9  # of two halves, which is another split
    for ratio, count in ((0.2, 4), (0.4, 3), (0.6, 2)):
        trained, frozen = errors[:count], errors[count:]
        by_hand = math.sqrt(
            sum(error**2 for error in trained) / len(trained) ** 2
            + sum(error**2 for error in frozen) / len(frozen) ** 2
        )
        assert f"± {by_hand:.3f}" in make_plan(report, freeze_ratio=ratio).reason


def test_the_reason_says_where_the_error_is_not_known(meta, report_of):
    report = report_of(meta(4))
    report.sensitivity.covariance = None
    assert "does not hold the error of this difference" in make_plan(report).reason
