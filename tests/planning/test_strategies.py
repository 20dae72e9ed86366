"""Which layers each strategy trains."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_layertracer import LayerTracerError, make_plan
from hf_layertracer.planning import STRATEGIES


few = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def meta(llama):
    """Models are only counted here, so weights are not needed; one of each depth is enough."""
    made = {}

    def of(num_layers: int, tied: bool = False):
        key = (num_layers, tied)
        if key not in made:
            made[key] = llama(num_layers, tied, device="meta")
        return made[key]

    return of


def frozen_by_hand(num_layers: int, ratio: float) -> int:
    """The whole number of layers next to the ratio, a half rounded up: written out as a search."""
    return min(range(num_layers + 1), key=lambda count: (abs(count - num_layers * ratio), -count))


# -- freeze-deep and its opposite ------------------------------------------------------------------------------------


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


# -- full --------------------------------------------------------------------------------------------------------------


def test_full_trains_everything(meta):
    plan = make_plan(meta(3), "full")
    assert (plan.trained_layers, plan.frozen_layers) == ([0, 1, 2], [])
    assert plan.train_embeddings
    assert plan.train_norm
    assert plan.train_head


# -- from measurements -------------------------------------------------------------------------------------------------


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
    with pytest.raises(LayerTracerError, match="report is of 5 layers, the model has 4"):
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


# -- budget ------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("options", [{}, {"max_trainable_parameters": 10**5, "max_memory": 10**9}])
def test_a_budget_needs_exactly_one_limit(meta, report_of, options):
    with pytest.raises(LayerTracerError, match="either max_trainable_parameters or max_memory"):
        make_plan(report_of(meta(4)), "budget", **options)


@pytest.mark.parametrize("limit", ["max_trainable_parameters", "max_memory"])
@pytest.mark.parametrize("allowed", [-1, 0, 1.5, True, math.nan])
def test_a_budget_is_a_whole_number(meta, report_of, limit, allowed):
    with pytest.raises(LayerTracerError, match=f"{limit} must be a whole number of at least 1"):
        make_plan(report_of(meta(4)), "budget", **{limit: allowed})


# -- explicit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "trained"),
    [
        (0, [0]),
        (-1, [8]),
        ("3", [3]),
        ("-2", [7]),
        ("0:8", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("::2", [0, 2, 4, 6, 8]),
        ("-4:", [5, 6, 7, 8]),
        (":2", [0, 1]),
        ("5:1:-2", [3, 5]),
        ("6:99", [6, 7, 8]),
        ("0-7", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("2 - 4", [2, 3, 4]),
        ("4-4", [4]),
        ([0, 2], [0, 2]),
        ([2, 0, 2], [0, 2]),
        (["0-1", -1], [0, 1, 8]),
        (["1", "7:"], [1, 7, 8]),
        ((0, 1), [0, 1]),
        ({0, 1}, [0, 1]),
        (range(2, 5), [2, 3, 4]),
        (np.arange(3), [0, 1, 2]),
        ([np.int64(3)], [3]),
        ("0,2,4", [0, 2, 4]),
        ("0-2, 5, -1, 6:8", [0, 1, 2, 5, 6, 7, 8]),
    ],
)
def test_layers_are_named_by_index_slice_range_or_list(meta, layers, trained):
    plan = make_plan(meta(9), "explicit", train_layers=layers)
    assert (plan.trained_layers, plan.patterns) == (trained, [])
    assert plan.model_validate_json(plan.model_dump_json()) == plan  # whatever was given, a report can hold it


@few
@given(
    start=st.none() | st.integers(-12, 12), stop=st.none() | st.integers(-12, 12), step=st.none() | st.integers(-4, 4)
)
def test_a_slice_means_what_it_means_in_python(meta, start, stop, step):
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    meant = sorted(list(range(9))[slice(start, stop, step)]) if step != 0 else []
    if not meant:
        with pytest.raises(LayerTracerError, match=r"holds none|step of 0"):
            make_plan(meta(9), "explicit", train_layers=text)
    elif len(meant) == 9:
        with pytest.raises(LayerTracerError, match="freeze nothing"):
            make_plan(meta(9), "explicit", train_layers=text)
    else:
        assert make_plan(meta(9), "explicit", train_layers=text).trained_layers == meant


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        (9, "Layer 9 does not exist: the model has 9 layers, 0 to 8"),
        (-10, "Layer -10 does not exist"),
        ("9", "Layer 9 does not exist"),
        ([0, 99], "Layer 99 does not exist"),
        ("5-9", "Layer 9 does not exist"),
        ("5-99999999999999999", "Layer 9 does not exist"),
        ("99999999999999998-99999999999999999", "Layer 99999999999999998 does not exist"),
        ("7-3", "range '7-3' is empty"),
        ("4:4", "slice '4:4' holds none"),
        ("20:30", "slice '20:30' holds none"),
        ("::0", "step of 0"),
        ("[", "not a regular expression"),
        (["ok", "("], "not a regular expression"),
        ("no_such_parameter", "matches no parameter"),
        (["q_proj", "no_such_parameter"], "'no_such_parameter' matches no parameter"),
        ([0, "q_proj"], "either by index or by regular expression"),
        ([1.5], "not by 1.5"),
        (1.5, "not by 1.5"),
        (None, "needs train_layers"),
        ([True, False], "not by True"),
    ],
)
def test_layers_that_make_no_sense_are_refused_in_one_line(meta, layers, complaint):
    with pytest.raises(LayerTracerError, match=re.escape(complaint)) as caught:
        make_plan(meta(9), "explicit", train_layers=layers)
    assert "\n" not in str(caught.value)


def test_explicit_without_layers_is_refused(meta):
    with pytest.raises(LayerTracerError, match="needs train_layers"):
        make_plan(meta(4), "explicit")


@pytest.mark.parametrize(
    ("layers", "trained", "outside"),
    [
        (r"layers\.[02]\.", [0, 2], set()),
        (r"\.mlp\.", [0, 1, 2, 3], set()),
        (r"layers\.1\.self_attn\.(q|v)_proj", [1], set()),
        (r"layers\.3\.|model\.norm|lm_head", [3], {"norm", "head"}),
        (["embed_tokens", r"layers\.0\."], [0], {"embeddings"}),
        (r"layers\.[0-9]{1,2}\.mlp", [0, 1, 2, 3], set()),  # the comma belongs to the expression
        ("lm_head", [], {"head"}),
    ],
)
def test_regular_expressions_select_parameters_by_their_full_names(meta, layers, trained, outside):
    plan = make_plan(meta(4), "explicit", train_layers=layers)
    assert plan.trained_layers == trained
    assert {part for part in ("embeddings", "norm", "head") if getattr(plan, f"train_{part}")} == outside
    patterns = [layers] if isinstance(layers, str) else layers
    expected = sum(
        parameter.numel()
        for name, parameter in meta(4).named_parameters()
        if any(re.search(pattern, name) for pattern in patterns)
    )
    assert plan.savings.trainable_parameters == expected


def test_a_regular_expression_that_matches_everything_is_refused(meta):
    with pytest.raises(LayerTracerError, match="freeze nothing"):
        make_plan(meta(4), "explicit", train_layers=".")


# -- random ------------------------------------------------------------------------------------------------------------


def test_random_layers_depend_on_the_seed_alone(meta, report_of):
    model = meta(9)
    draws = [tuple(make_plan(model, "random", plan_seed=seed).trained_layers) for seed in range(20)]
    assert draws == [tuple(make_plan(report_of(model), "random", plan_seed=seed).trained_layers) for seed in range(20)]
    assert len(set(draws)) > 10
    assert {layer for draw in draws for layer in draw} == set(range(9))
    assert make_plan(model, "random") == make_plan(model, "random", plan_seed=0).model_copy(update={"options": {}})


# -- names and options ---------------------------------------------------------------------------------------------------


def test_an_unknown_strategy_is_refused_with_a_list_of_the_known(meta):
    with pytest.raises(LayerTracerError, match="Unknown strategy 'freeze_deep'") as caught:
        make_plan(meta(4), "freeze_deep")
    assert all(name in str(caught.value) for name in STRATEGIES)


@pytest.mark.parametrize(
    ("strategy", "options", "takes"),
    [
        ("freeze-deep", {"ratio": 0.5}, "it takes freeze_ratio"),
        ("full", {"freeze_ratio": 0.5}, "it takes no options"),
        ("random", {"train_layers": "0", "sede": 1}, "it takes freeze_ratio, plan_seed"),
        ("freeze-deep", {"situation": None}, "it takes freeze_ratio"),
    ],
)
def test_an_unknown_option_is_refused_with_a_list_of_the_known(meta, strategy, options, takes):
    with pytest.raises(LayerTracerError, match=takes) as caught:
        make_plan(meta(4), strategy, **options)
    assert ", ".join(sorted(options)) in str(caught.value)


def test_every_strategy_names_itself_and_its_options_in_the_plan(meta, report_of):
    report = report_of(meta(6), task_particle=2.0)
    options = {
        "budget": {"max_trainable_parameters": 30_000},
        "explicit": {"train_layers": "0-2"},
        "random": {"plan_seed": 3},
    }
    for strategy in STRATEGIES.keys() - {"weight-snr"}:
        given = options.get(strategy, {})
        plan = make_plan(report, strategy, **given)
        assert (plan.strategy, plan.options) == (strategy, given)
        assert plan.reason.endswith(".")
        assert plan.layers_path == "model.layers"
