"""What the registry says of strategies is what settings and command line say."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from typing import get_type_hints

import pytest

from hf_layertracer import LayerTracerConfig, LayerTracerError, make_plan
from hf_layertracer.cli.app import build_command
from hf_layertracer.planning import STRATEGIES, PlanConfig, strategies
from hf_layertracer.planning.strategies import Choice, Strategy, all_options, option, strategy_named


OPTIONS = [(strategy.name, own) for strategy in STRATEGIES.values() for own in fields(strategy.options)]


def usual(own: Field) -> str:
    return "" if own.default is None else f" By default {own.default}."


def test_the_strategies_are_those_of_the_contract():
    assert set(STRATEGIES) >= {
        *("freeze-deep", "freeze-shallow", "full", "task-particle", "sensitivity", "budget", "explicit"),
        *("random", "block-influence", "weight-snr", "lisa", "grass", "adaptive", "schedule"),
    }


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_a_strategy_is_described_in_one_line(strategy):
    assert strategy.summary.endswith(".")
    assert "\n" not in strategy.summary
    assert len(strategy.summary) < 100


@pytest.mark.parametrize(("strategy", "own"), OPTIONS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("settings", [PlanConfig, LayerTracerConfig])
def test_an_option_is_a_setting_of_the_same_name_type_default_and_help(settings, strategy, own):
    (field,) = [field for field in fields(settings) if field.name == own.name]
    assert field.default is None  # nothing was said; what is said is checked
    assert field.metadata["help"] == own.metadata["help"] + usual(own)
    assert get_type_hints(settings)[own.name] == get_type_hints(STRATEGIES[strategy].options)[own.name] | None
    needed = {"explicit": {"train_layers": "0"}, "budget": {"max_trainable_parameters": 1}}.get(strategy, {})
    assert getattr(settings(strategy=strategy, **needed), own.name) == needed.get(own.name, own.default)


@pytest.mark.parametrize(("strategy", "own"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_an_option_is_one_of_the_command_of_the_same_name_default_and_help(strategy, own):
    command = build_command().commands["plan"]
    (parameter,) = [parameter for parameter in command.params if parameter.name == own.name]
    assert f"--{own.name.replace('_', '-')}" in parameter.opts
    assert parameter.default is None
    assert parameter.help == own.metadata["help"] + usual(own)


def test_two_strategies_cannot_mean_different_things_by_one_option(monkeypatch):
    @dataclass(frozen=True)
    class Other:
        freeze_ratio: float = option(0.25, "Another fraction.")

    monkeypatch.setitem(STRATEGIES, "other", Strategy("other", "Another.", lambda *_: Choice({0}, ""), Other))
    with pytest.raises(TypeError, match="differ in type, default or help of freeze_ratio"):
        all_options()


def test_a_strategy_may_be_added_while_the_library_runs(monkeypatch, tiny_llama):
    only = Strategy("only-first", "Train the first layer.", lambda inputs, _: Choice({0}, "So be it."))
    monkeypatch.setitem(strategies.STRATEGIES, only.name, only)
    assert make_plan(tiny_llama(), "only-first").trained_layers == [0]


@pytest.mark.parametrize("name", ["", "freeze_deep", "Freeze-Deep", "__class__"])
def test_an_unknown_strategy_is_refused_with_those_that_there_are(name):
    with pytest.raises(LayerTracerError, match=f"Unknown strategy {name!r}. There are: .*freeze-deep"):
        strategy_named(name)


@pytest.mark.parametrize(
    ("strategy", "options", "takes"),
    [
        ("freeze-deep", {"ratio": 0.5}, "it takes freeze_ratio"),
        ("full", {"freeze_ratio": 0.5}, "it takes no options"),
        ("random", {"train_layers": "0", "sede": 1}, "it takes freeze_ratio, plan_seed"),
        ("freeze-deep", {"inputs": None}, "it takes freeze_ratio"),
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
    for strategy in STRATEGIES.keys() - {"weight-snr", "new-mixers"}:
        given = options.get(strategy, {})
        plan = make_plan(report, strategy, **given)
        assert (plan.strategy, plan.options) == (strategy, given)
        assert plan.reason.endswith(".")
        assert plan.layers_path == "model.layers"
