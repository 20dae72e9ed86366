"""A plan in a file: what `layertracer plan --out` and successive halving write, training and planning take."""

from __future__ import annotations

import re

import pytest
from support.malformed import NOT_JSON, OTHER_JSON, refusal

from hf_layertracer import LayerTracerConfig, LayerTracerError, make_plan
from hf_layertracer.planning import PlanConfig, configured_plan, read_plan


def test_a_plan_file_decides_what_a_strategy_would(tiny_llama, tmp_path):
    model, path = tiny_llama(), tmp_path / "plan.json"
    made = make_plan(model, "explicit", train_layers="1,3")
    path.write_text(made.model_dump_json())
    assert read_plan(path) == made
    assert configured_plan(model, PlanConfig(plan=str(path))) == made
    assert configured_plan(model, PlanConfig(strategy="full")).frozen_layers == []


def test_a_plan_of_another_model_is_refused(tiny_llama, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(make_plan(tiny_llama(), "freeze-deep").model_dump_json())
    with pytest.raises(LayerTracerError, match=r"for 4 layers, the model has 6"):
        configured_plan(tiny_llama(num_hidden_layers=6), PlanConfig(plan=str(path)))


@pytest.mark.parametrize("content", [*NOT_JSON.values(), *OTHER_JSON.values(), b'{"strategy": "full"}'])
def test_a_file_that_holds_no_plan_is_one_line(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    assert re.search(r"plan\.json|the plan", refusal(read_plan, tmp_path / "plan.json"))


def test_a_plan_that_is_not_there_is_one_line(tmp_path):
    assert "plan.json" in refusal(read_plan, tmp_path / "plan.json")


@pytest.mark.parametrize("settings", [{"strategy": "full"}, {"freeze_ratio": 0.25}, {"train_head": True}])
def test_a_plan_file_beside_a_strategy_is_refused(settings):
    with pytest.raises(LayerTracerError, match="leave the strategy and its options out"):
        LayerTracerConfig(plan="plan.json", **settings)
