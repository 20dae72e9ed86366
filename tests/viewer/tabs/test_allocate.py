"""The controls of the page where an allocation is tried."""

from __future__ import annotations

import gradio as gr
import pytest

from hf_layertracer.planning.strategies import all_options
from hf_layertracer.viewer.allocation import OFFERED
from hf_layertracer.viewer.tabs.allocate import option_controls


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
