"""Random layers."""

from __future__ import annotations

from hf_layertracer import make_plan


def test_random_layers_depend_on_the_seed_alone(meta, report_of):
    model = meta(9)
    draws = [tuple(make_plan(model, "random", plan_seed=seed).trained_layers) for seed in range(20)]
    assert draws == [tuple(make_plan(report_of(model), "random", plan_seed=seed).trained_layers) for seed in range(20)]
    assert len(set(draws)) > 10
    assert {layer for draw in draws for layer in draw} == set(range(9))
    assert make_plan(model, "random") == make_plan(model, "random", plan_seed=0).model_copy(update={"options": {}})
