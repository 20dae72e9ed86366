"""The most sensitive layers that fit."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_layertracer import LayerTracerError, make_plan


few = settings(max_examples=60, deadline=None)


scores = st.lists(st.floats(0, 1), min_size=2, max_size=9)


def layer_size(model, layer: int) -> int:
    return sum(parameter.numel() for parameter in model.model.layers[layer].parameters())


@few
@given(values=scores, allowed=st.integers(1, 100_000))
def test_a_budget_of_parameters_is_kept_and_spent_on_the_most_sensitive_layers(meta, report_of, values, allowed):
    model = meta(len(values))
    each = layer_size(model, 0)
    fit = min(allowed // each, len(values))
    if fit == 0:
        with pytest.raises(LayerTracerError, match="No layer fits"):
            make_plan(report_of(model, sensitivity=values), "budget", max_trainable_parameters=allowed)
        return
    plan = make_plan(report_of(model, sensitivity=values), "budget", max_trainable_parameters=allowed)
    assert len(plan.trained_layers) == fit
    assert plan.savings.trainable_parameters == fit * each <= allowed
    assert sorted(values[layer] for layer in plan.trained_layers) == sorted(values)[-fit:]
    assert (plan.train_embeddings, plan.train_norm, plan.train_head) == (False, False, False)


@pytest.mark.parametrize(
    ("tied", "dtype", "element"), [(False, "float32", 4), (True, "float32", 4), (False, "bfloat16", 2)]
)
@pytest.mark.parametrize("fit", [1, 2, 4])
def test_a_budget_of_memory_counts_weights_gradients_and_moments(llama, report_of, tied, dtype, element, fit):
    model = llama(4, tied).to(getattr(torch, dtype))
    total = sum(parameter.numel() for parameter in model.parameters())
    exact = total * element + fit * layer_size(model, 0) * (element + 8)
    report = report_of(model, sensitivity=[0.1, 0.3, 0.2, 0.4])
    assert make_plan(report, "budget", max_memory=exact).trained_layers == sorted([3, 1, 2, 0][:fit])
    if fit > 1:
        assert len(make_plan(report, "budget", max_memory=exact - 1).trained_layers) == fit - 1
    else:
        with pytest.raises(LayerTracerError, match="No layer fits"):
            make_plan(report, "budget", max_memory=exact - 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("part", ["embeddings", "norm", "head"])
def test_a_budget_pays_first_for_what_the_user_wants_to_train(llama, report_of, tied, part):
    model = llama(4, tied)
    module = {"embeddings": model.model.embed_tokens, "norm": model.model.norm, "head": model.lm_head}[part]
    exact = sum(parameter.numel() for parameter in module.parameters()) + 2 * layer_size(model, 0)
    report = report_of(model, sensitivity=[0.1, 0.3, 0.2, 0.4])
    plan = make_plan(report, "budget", max_trainable_parameters=exact, **{f"train_{part}": True})
    assert plan.trained_layers == [1, 3]
    assert plan.savings.trainable_parameters == exact
    less = make_plan(report, "budget", max_trainable_parameters=exact - 1, **{f"train_{part}": True})
    assert less.trained_layers == [3]


def test_a_layer_that_does_not_fit_makes_room_for_a_smaller_one(llama, facts_of, report_of):
    facts = facts_of(llama(3, device="meta"))
    for layer, size in zip(facts.layers, (100, 1000, 200), strict=True):
        layer.parameters = {"w": size}
    report = report_of(facts, sensitivity=[0.2, 0.9, 0.1])
    assert make_plan(report, "budget", max_trainable_parameters=350).trained_layers == [0, 2]


def test_a_block_that_stands_in_two_layers_is_paid_for_by_either(facts_of, report_of, llama):
    model = llama(3)
    model.model.layers[1] = model.model.layers[0]
    report = report_of(model, sensitivity=[0.1, 0.9, 0.5])
    size = layer_size(model, 0)
    with pytest.raises(LayerTracerError, match="No layer fits"):
        make_plan(report, "budget", max_trainable_parameters=size - 1)
    assert make_plan(report, "budget", max_trainable_parameters=size).savings.trainable_parameters == size
    assert make_plan(report, "budget", max_trainable_parameters=2 * size - 1).trained_layers == [0, 1]


def test_a_budget_pays_first_for_what_is_never_frozen(llama, facts_of, report_of):
    facts = facts_of(llama(3, device="meta"))
    for layer in facts.layers:
        layer.parameters = {"w": 100}
    facts.other = {"tower.weight": 500, "tower.frozen": 10**6}
    facts.frozen.append("tower.frozen")
    report = report_of(facts, sensitivity=[0.2, 0.9, 0.1])
    plan = make_plan(report, "budget", max_trainable_parameters=700)
    assert (plan.trained_layers, plan.savings.trainable_parameters) == ([0, 1], 700)
    assert make_plan(report, "budget", max_trainable_parameters=699).trained_layers == [1]
    assert "so does what lies outside the text decoder" in plan.reason
    assert "all else" not in plan.reason
    with pytest.raises(LayerTracerError, match=r"leaves room for 99 .* never frozen and takes 500\.$"):
        make_plan(report, "budget", max_trainable_parameters=599)
    with pytest.raises(LayerTracerError, match=r"leaves room for 0 parameters"):
        make_plan(report, "budget", max_trainable_parameters=400)


@pytest.mark.parametrize("options", [{}, {"max_trainable_parameters": 10**5, "max_memory": 10**9}])
def test_a_budget_needs_exactly_one_limit(meta, report_of, options):
    with pytest.raises(LayerTracerError, match="either max_trainable_parameters or max_memory"):
        make_plan(report_of(meta(4)), "budget", **options)


@pytest.mark.parametrize("limit", ["max_trainable_parameters", "max_memory"])
@pytest.mark.parametrize("allowed", [-1, 0, 1.5, True, math.nan])
def test_a_budget_is_a_whole_number(meta, report_of, limit, allowed):
    with pytest.raises(LayerTracerError, match=r"must be a whole number of at least 1|is no amount of memory"):
        make_plan(report_of(meta(4)), "budget", **{limit: allowed})
