"""A limit on memory holds for every strategy, and what is refused comes with what would fit."""

from __future__ import annotations

import re

import pytest

from hf_layertracer import LayerTracerConfig, LayerTracerError, make_plan
from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import model_facts
from hf_layertracer.planning.cost import training_bytes, weights_bytes


def needed(model, plan):
    return training_bytes(model_facts(find_parts(model)), plan.savings)


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow", "full", "random"])
def test_a_plan_that_fits_is_made_and_one_byte_less_is_refused(tiny_llama, strategy):
    model = tiny_llama()
    exact = needed(model, make_plan(model, strategy))
    assert make_plan(model, strategy, max_memory=exact).trained_layers == make_plan(model, strategy).trained_layers
    with pytest.raises(LayerTracerError, match=r"takes .* GiB of weights, gradients and Adam's moments, more than"):
        make_plan(model, strategy, max_memory=exact - 1)


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("wishes", [{}, {"train_head": True}, {"train_embeddings": True}, {"train_norm": False}])
def test_the_ratio_that_is_said_to_fit_does_fit(tiny_llama, strategy, tied, wishes):
    model = tiny_llama(tie_word_embeddings=tied)
    limit = needed(model, make_plan(model, strategy, **wishes)) - 1
    with pytest.raises(LayerTracerError) as error:
        make_plan(model, strategy, max_memory=limit, **wishes)
    name, ratio = re.search(r"(freeze-\w+) with freeze_ratio=([\d.]+)", str(error.value)).groups()
    assert name == strategy
    outside = (
        {"train_embeddings": False, "train_head": False} if "embeddings and head frozen" in str(error.value) else {}
    )
    assert make_plan(model, name, freeze_ratio=float(ratio), max_memory=limit, **wishes | outside).trained_layers


def test_weights_that_do_not_fit_are_said_to_be_the_problem(tiny_llama):
    model = tiny_llama()
    weights = weights_bytes(model_facts(find_parts(model)))
    with pytest.raises(LayerTracerError, match=r"The weights alone take .*: no plan fits"):
        make_plan(model, max_memory=weights)
    with pytest.raises(LayerTracerError, match="Not even one layer fits"):
        make_plan(model, max_memory=weights + 10)


def test_settings_take_a_limit_with_every_strategy_and_refuse_what_is_none(tiny_llama):
    assert LayerTracerConfig(max_memory="24GB").plan_options() == {"max_memory": "24GB"}
    assert make_plan(tiny_llama(), max_memory="24GB").options == {"max_memory": "24GB"}
    for wrong in ("much", "0", -1, 0):
        with pytest.raises(LayerTracerError, match="is no amount of memory"):
            LayerTracerConfig(max_memory=wrong)
