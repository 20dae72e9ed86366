"""Allocations that a page tries, and the text that puts them to use elsewhere."""

from __future__ import annotations

import ast
import shlex

import pytest
import yaml
from transformers import HfArgumentParser

from hf_layertracer import LayerTracerConfig, LayerTracerReport, make_plan
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.viewer.allocation import OFFERED, SNIPPETS, snippet, toggled, try_allocation, usual_budget


CONTROLS = {
    "freeze_ratio": 0.5,
    "max_trainable_parameters": 0.004,
    "max_memory": None,
    "plan_seed": 3.0,
    "train_layers": "4,0-1",
}


def the_same(plan, other) -> bool:
    keys = {"trained_layers", "frozen_layers", "train_embeddings", "train_norm", "train_head", "savings"}
    return plan.model_dump(include=keys) == other.model_dump(include=keys)


def plan_of(config: LayerTracerConfig, report) -> object:
    return make_plan(report, config.strategy, **config.plan_options())


@pytest.mark.parametrize("strategy", OFFERED)
def test_the_savings_are_those_of_the_library(make_report, strategy):
    report = make_report()
    plan = try_allocation(report, strategy, **CONTROLS)
    options = {
        **{key: {"freeze_ratio": 0.5, "plan_seed": 3} for key in ("random", "lisa", "grass")},
        "budget": {"max_trainable_parameters": 4000},
        "explicit": {"train_layers": "0,1,4"},
        "full": {},
        "task-particle": {},
    }.get(strategy, {"freeze_ratio": 0.5})
    assert the_same(plan, make_plan(report, strategy, **options))


@pytest.mark.parametrize("strategy", OFFERED)
def test_each_snippet_makes_the_same_plan(make_report, strategy, tmp_path, monkeypatch, capsys):
    report = make_report()
    plan = try_allocation(report, strategy, **CONTROLS)
    (call,) = [
        node
        for node in ast.walk(ast.parse(snippet(plan, report, "Python")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LayerTracerConfig"
    ]
    config = LayerTracerConfig(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
    assert the_same(plan_of(config, report), plan)

    (tmp_path / "config.yaml").write_text(snippet(plan, report, "YAML"))
    (config,) = HfArgumentParser(LayerTracerConfig).parse_yaml_file(str(tmp_path / "config.yaml"))
    assert the_same(plan_of(config, report), plan)

    from hf_layertracer.cli.app import main

    report.save_json(tmp_path)
    words = shlex.split(snippet(plan, report, "CLI"))
    words[2] = str(tmp_path)
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "plan.json")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    made = type(plan).model_validate_json((tmp_path / "plan.json").read_text())
    assert the_same(made, plan)


def test_exports_for_other_trainers_are_the_library_s(make_report):
    report = make_report()
    plan = try_allocation(report, "freeze-deep")
    assert "unfrozen_parameters" in yaml.safe_load(snippet(plan, report, "axolotl"))
    with pytest.raises(LayerTracerError, match="LLaMA-Factory"):
        snippet(try_allocation(report, "explicit", train_layers="0,4"), report, "LLaMA-Factory")


@pytest.mark.parametrize(
    ("strategy", "arguments", "message"),
    [
        ("weight-snr", {}, "not offered here"),
        ("__class__", {}, "not offered here"),
        ("freeze-deep", {"freeze_ratio": 0.0}, "between 0 and 1"),
        ("freeze-deep", {"freeze_ratio": 7}, "between 0 and 1"),
        ("budget", {"max_trainable_parameters": None}, "needs either"),
        ("budget", {"max_trainable_parameters": 1, "max_memory": 1}, "needs either"),
        ("budget", {"max_trainable_parameters": -3}, "whole number"),
        ("budget", {"max_trainable_parameters": float("inf")}, "whole number"),
        ("explicit", {"train_layers": ""}, "at least one layer"),
        ("explicit", {"train_layers": "99"}, "Layer 99 does not exist"),
        ("explicit", {"train_layers": "0-5"}, "strategy 'full'"),
        ("explicit", {"train_layers": "(a+)+$"}, "numbers and ranges"),
        ("random", {"plan_seed": -1}, "plan_seed"),
    ],
)
def test_what_makes_no_plan_is_one_line(make_report, strategy, arguments, message):
    with pytest.raises(LayerTracerError, match=message) as caught:
        try_allocation(make_report(), strategy, **arguments)
    assert "\n" not in str(caught.value)


def test_the_usual_budget_is_one_that_can_be_kept(make_report):
    for layers in (2, 6, 30):
        report = make_report(layers)
        plan = try_allocation(report, "budget", max_trainable_parameters=usual_budget(report))
        assert 0 < plan.savings.trainable_parameters < plan.savings.trainable_parameters_full


def test_a_click_on_a_layer_takes_it_in_or_out():
    assert toggled("0-2", 4) == "0-2,4"
    assert toggled("0-2", 1) == "0,2"
    assert toggled("1", 1) == ""


def test_a_command_names_a_model_only_where_it_is_an_id_and_the_plan_needs_no_report(make_report):
    report = make_report()
    cli = snippet(try_allocation(report, "freeze-deep", freeze_ratio=0.5), report, "CLI")
    assert cli == "layertracer plan someone/tiny-llama --strategy freeze-deep --freeze-ratio 0.5\n"
    cli = snippet(try_allocation(report, "sensitivity"), report, "CLI")
    assert cli.startswith("layertracer plan REPORT --strategy sensitivity")


@pytest.mark.parametrize(
    "text", ["; rm -rf ~", "$(reboot)", "`id`", "a\nrm -rf ~", "'", '"); import os #', "../../x", "-h"]
)
@pytest.mark.parametrize("form", SNIPPETS)
def test_nothing_of_a_report_runs_when_a_snippet_is_pasted(full_of, text, form):
    report = full_of(text)
    for strategy in ("freeze-deep", "explicit", "sensitivity"):
        plan = try_allocation(report, strategy, train_layers="0")
        try:
            made = snippet(plan, report, form)
        except LayerTracerError:
            continue
        if form == "Python":
            calls = {
                getattr(n.func, "id", getattr(n.func, "attr", ""))
                for n in ast.walk(ast.parse(made))
                if isinstance(n, ast.Call)
            }
            assert calls == {"LayerTracerTrainer", "LayerTracerConfig", "train"}
        elif form == "CLI":
            words = shlex.split(made)
            assert words[:3] == ["layertracer", "plan", "REPORT"]
            assert made.count("\n") == 1
            assert not set(made) & set(";$`|&<>(){}")
        else:
            assert isinstance(yaml.safe_load(made), dict)


def test_a_report_of_a_broken_model_gives_an_error_and_no_plan(make_report):
    report = make_report(
        model__layers=[{"kind": "x", "parameters": {}}] * 6, model__embeddings={}, model__norm={}, model__head={}
    )
    with pytest.raises(LayerTracerError, match="train nothing"):
        try_allocation(LayerTracerReport.model_validate(report.model_dump()), "freeze-deep")
