"""How depth is counted."""

from __future__ import annotations

import pytest

from hf_layertracer.records import Measured, halves, relative_depth


@pytest.mark.parametrize(
    ("num_layers", "shallow", "deep"),
    [(1, [], []), (2, [0], [1]), (3, [0], [2]), (6, [0, 1, 2], [3, 4, 5]), (7, [0, 1, 2], [4, 5, 6])],
)
def test_the_middle_layer_of_an_odd_depth_is_in_neither_half(num_layers, shallow, deep):
    assert [list(half) for half in halves(num_layers)] == [shallow, deep]


def test_relative_depth_runs_from_the_embedding_to_the_last_layer():
    assert [relative_depth(layer, 4) for layer in (-1, 0, 1.5, 3)] == [0.0, 0.25, 0.625, 1.0]
    assert relative_depth(0, 1) == 1.0


@pytest.mark.parametrize(
    ("value", "stderr", "beyond"), [(0.3, 0.1, True), (-0.3, 0.1, True), (0.1, 0.1, False), (0.3, None, None)]
)
def test_a_value_is_beyond_error_from_two_standard_errors_on(value, stderr, beyond):
    assert Measured(value, stderr).beyond_error is beyond
