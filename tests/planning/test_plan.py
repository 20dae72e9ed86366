"""What every plan has in common: completeness, refusals, and where it may be made from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from hf_layertracer import LayerPlan, LayerTracerError, LayerTracerReport, make_plan
from hf_layertracer.planning import STRATEGIES


layer_sets = st.integers(2, 8).flatmap(
    lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1))
)


# -- a plan is complete --------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(chosen=layer_sets, tied=st.booleans())
def test_trained_and_frozen_layers_are_all_layers_each_once(llama, chosen, tied):
    count, trained = chosen
    plan = make_plan(llama(count, tied, device="meta"), "explicit", train_layers=list(trained))
    assert plan.trained_layers == sorted(trained)
    assert plan.frozen_layers == sorted(set(range(count)) - trained)
    # Embeddings follow the first layer, norm and head the last; a tied matrix trains where both would.
    first, last = 0 in trained, count - 1 in trained
    assert plan.train_norm == last
    assert (plan.train_embeddings, plan.train_head) == ((first and last,) * 2 if tied else (first, last))


@pytest.mark.parametrize(
    ("trained", "frozen"),
    [
        ([0], [1, 2]),
        ([0, 1], [1, 2, 3]),
        ([0, 1, 2, 3], [0]),
        ([], [1, 2, 3]),
        ([0, 4], [1, 2, 3]),
        ([0, 0], [1, 2, 3]),
    ],
)
def test_a_plan_that_forgets_or_repeats_a_layer_cannot_exist(llama, trained, frozen):
    plan = make_plan(llama(4, device="meta")).model_dump()
    with pytest.raises(ValidationError, match="each once"):
        LayerPlan.model_validate({**plan, "trained_layers": trained, "frozen_layers": frozen})


def test_a_plan_survives_json(llama):
    plan = make_plan(llama(5, device="meta"), "explicit", train_layers=["q_proj", r"layers\.0\."], train_norm=True)
    assert LayerPlan.model_validate_json(plan.model_dump_json()) == plan


# -- overruling the strategy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embeddings", [None, True, False])
@pytest.mark.parametrize("norm", [None, True, False])
@pytest.mark.parametrize("head", [None, True, False])
def test_the_user_overrules_the_strategy_outside_the_layers(llama, embeddings, norm, head):
    model = llama(4, device="meta")
    plan = make_plan(model, train_embeddings=embeddings, train_norm=norm, train_head=head)
    assert plan.train_embeddings == (embeddings if embeddings is not None else True)
    assert plan.train_norm == bool(norm)
    assert plan.train_head == bool(head)
    overruled = {"train_embeddings": embeddings, "train_norm": norm, "train_head": head}
    assert plan.options == {name: value for name, value in overruled.items() if value is not None}
    for part, value in (("embedding", plan.train_embeddings), ("norm", plan.train_norm), ("head", plan.train_head)):
        assert f"{part} {'trains' if value else 'is frozen'}" in plan.reason


@pytest.mark.parametrize("wish", [{"train_embeddings": True}, {"train_head": True}])
@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow"])
def test_tied_embeddings_and_head_are_one_decision(llama, strategy, wish):
    model = llama(4, tied=True, device="meta")
    by_default = make_plan(model, strategy)
    assert (by_default.train_embeddings, by_default.train_head) == (False, False)
    wanted = make_plan(model, strategy, **wish)
    assert (wanted.train_embeddings, wanted.train_head) == (True, True)
    with pytest.raises(LayerTracerError, match="one tied matrix"):
        make_plan(model, strategy, train_embeddings=True, train_head=False)
    assert make_plan(model, strategy, train_embeddings=False, train_head=False) is not None


# -- nothing silent ------------------------------------------------------------------------------------------------------


def test_a_plan_that_trains_nothing_is_refused(llama):
    model = llama(4, device="meta")
    with pytest.raises(LayerTracerError, match="would train nothing"):
        make_plan(model, "explicit", train_layers=[])
    model.model.layers[:2].requires_grad_(False)
    model.model.embed_tokens.requires_grad_(False)
    with pytest.raises(LayerTracerError, match="would train nothing"):
        make_plan(model, "freeze-deep")


def test_a_plan_that_freezes_nothing_is_refused_unless_it_is_called_full(llama):
    model = llama(4, device="meta")
    with pytest.raises(LayerTracerError, match=r"would freeze nothing.*use the strategy 'full'"):
        make_plan(model, "explicit", train_layers=":")
    model.model.layers[2:].requires_grad_(False)
    model.model.norm.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    with pytest.raises(LayerTracerError, match="would freeze nothing"):
        make_plan(model, "freeze-deep")
    assert make_plan(model, "full").savings.trainable_parameters > 0


def test_full_decides_nothing_also_where_the_model_was_frozen_before(llama):
    plan = make_plan(llama(4, device="meta").requires_grad_(False), "full")
    assert plan.savings.trainable_parameters == 0


def test_only_the_head_may_train_if_that_is_what_is_asked_for(llama):
    plan = make_plan(llama(4, device="meta"), "explicit", train_layers=[], train_head=True)
    assert (plan.trained_layers, plan.train_head) == ([], True)
    assert plan.savings.trainable_parameters == 96 * 32


# -- where it may be made from -------------------------------------------------------------------------------------------


STRATEGY_OPTIONS = {
    "budget": {"max_trainable_parameters": 20_000},
    "explicit": {"train_layers": "::2"},
    "random": {"plan_seed": 5, "freeze_ratio": 0.25},
}


@pytest.mark.parametrize("tied", [False, True])
# The two that are left out need weights, or a hybrid.
@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"weight-snr", "new-mixers"}))
def test_meta_model_real_model_and_report_give_the_same_plan(llama, report_of, strategy, tied):
    real, meta = llama(6, tied), llama(6, tied, device="meta")
    report = report_of(real)
    options = STRATEGY_OPTIONS.get(strategy, {})
    from_report = make_plan(report, strategy, **options)
    assert make_plan(real, strategy, report=report, **options) == from_report
    assert make_plan(meta, strategy, report=report, **options) == from_report
    reloaded = LayerTracerReport.model_validate_json(report.model_dump_json())
    assert make_plan(reloaded, strategy, **options) == from_report


def test_a_saved_model_gives_the_same_plan_from_its_config_alone(llama, tmp_path):
    model = llama(4)
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert make_plan(empty) == make_plan(model)


def test_weight_snr_of_a_model_without_weights_is_refused(llama, report_of):
    with pytest.raises(LayerTracerError, match="meta device"):
        make_plan(llama(4, device="meta"), "weight-snr")
    with pytest.raises(LayerTracerError, match="pass the model itself"):
        make_plan(report_of(llama(4, device="meta")), "weight-snr")


def test_the_list_of_layers_can_be_named(llama):
    model = llama(4, device="meta")
    model.extra = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    assert make_plan(model, layers_path="extra").num_layers == 2
    with pytest.raises(LayerTracerError, match="no module 'nowhere'"):
        make_plan(model, layers_path="nowhere")


def test_making_a_plan_leaves_the_model_as_it_is(llama, that_train):
    model = llama(4)
    model.model.layers[1].requires_grad_(False)
    before, weights = that_train(model), {name: p.clone() for name, p in model.named_parameters()}
    for strategy in ("freeze-deep", "full", "weight-snr"):
        make_plan(model, strategy)
    assert that_train(model) == before
    assert all(p.equal(weights[name]) for name, p in model.named_parameters())
