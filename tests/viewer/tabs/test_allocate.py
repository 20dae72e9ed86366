"""The controls of the page where an allocation is tried."""

from __future__ import annotations

import gradio as gr
import pytest

from hf_layertracer import make_plan
from hf_layertracer.planning.strategies import all_options
from hf_layertracer.text import compact_ranges
from hf_layertracer.viewer.allocation import OFFERED, usual_budget
from hf_layertracer.viewer.tabs.allocate import _allocate, option_controls


def test_every_option_of_what_is_offered_has_a_control_but_for_the_layers_that_are_clicked():
    names = {name for strategy in OFFERED.values() for name in strategy.option_names}
    assert set(option_controls("full")) == names - {"train_layers"}


@pytest.mark.parametrize("strategy", OFFERED)
def test_the_options_of_the_chosen_strategy_are_shown(strategy):
    shown = {name for name, control in option_controls(strategy).items() if control.visible}
    assert shown == set(OFFERED[strategy].option_names) - {"train_layers"}


def test_a_control_has_the_words_and_the_default_of_its_option():
    for name, control in option_controls("random").items():
        _, field = all_options()[name]
        assert control.label.startswith(field.metadata["help"].rstrip("."))
        assert control.value == field.default


def test_a_fraction_is_a_slider_and_a_budget_is_asked_in_large_units():
    controls = option_controls("budget")
    assert isinstance(controls["freeze_ratio"], gr.Slider)
    assert controls["max_trainable_parameters"].label == "How many parameters may train (in million)"
    assert controls["max_memory"].label.endswith("(in GiB)")


class OneReport:
    """A store with one report."""

    def __init__(self, report):
        self._report = report

    def report(self, name, opened):
        return self._report


def tried(report, strategy, form="Python", layers="", **values):
    """What the page shows: savings, the layers that train, the snippet, and which controls are seen."""
    names = list(option_controls(strategy))
    shown = _allocate(OneReport(report), names, "x", None, strategy, form, layers, *map(values.get, names))
    facts, plan, memory, trained, code, chosen, *controls = shown
    assert plan["visible"] == memory["visible"]
    controls = dict(zip(names, controls, strict=True))
    return facts, trained, code, chosen, {name: control for name, control in controls.items() if control["visible"]}


def test_a_choice_shows_its_summary_its_options_and_the_plan(make_report):
    facts, trained, code, chosen, seen = tried(make_report(), "random", freeze_ratio=0.5, plan_seed=3)
    assert chosen["info"] == OFFERED["random"].summary
    assert set(seen) == {"freeze_ratio", "plan_seed"}
    plan = make_plan(make_report(), "random", plan_seed=3)
    assert trained == compact_ranges(plan.trained_layers).replace(" ", "")
    assert "strategy='random', freeze_ratio=0.5, plan_seed=3" in code.value
    assert "Against full training" in facts


def test_layers_by_name_are_a_choice_of_ones_own(make_report):
    _, trained, code, _, seen = tried(make_report(), "explicit", form="CLI", layers=" 4, 0", freeze_ratio=0.5)
    assert (trained, seen) == ("0,4", {})
    assert "--strategy explicit --train-layers 0,4" in code.value


def test_a_budget_begins_with_one_that_can_be_kept(make_report):
    facts, trained, _, _, seen = tried(make_report(), "budget")
    assert "Against full training" in facts
    assert trained
    assert seen["max_trainable_parameters"]["value"] == usual_budget(make_report())
    assert "value" not in tried(make_report(), "budget", max_trainable_parameters=0.01)[-1]["max_trainable_parameters"]


def test_a_choice_that_makes_no_plan_keeps_what_was_named_and_says_why(make_report):
    facts, trained, code, _, seen = tried(make_report(), "budget", layers="1", max_trainable_parameters=1e-6)
    assert "No layer fits" in facts
    assert (trained, code) == ("1", "")
    assert set(seen) == {"max_trainable_parameters", "max_memory", "measure"}
