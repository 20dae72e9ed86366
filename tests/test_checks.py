"""What settings refuse, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_layertracer import LayerTracerError
from hf_layertracer.checks import one_of, positive, whole_number, within


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", True, np.float64(2)])
def test_a_whole_number_is_no_other_kind_of_number(value):
    with pytest.raises(LayerTracerError, match=r"steps must be a whole number of at least 1, not .*"):
        whole_number("steps", value)


@pytest.mark.parametrize("value", [None, 1, 7, np.int64(3)])
def test_a_whole_number_may_be_left_out_or_come_from_numpy(value):
    whole_number("steps", value)
    with pytest.raises(LayerTracerError, match="of at least 8"):
        whole_number("steps", 7, least=8)


def test_nan_lies_within_nothing():
    with pytest.raises(LayerTracerError, match="ratio must lie above 0 and at most at 1, not at nan"):
        within("ratio", math.nan, 0, 1)
    with pytest.raises(LayerTracerError, match="scale must be above 0, not nan"):
        positive("scale", math.nan)
    within("ratio", 1, 0, 1)
    positive("scale", 1e-9)


def test_a_choice_is_one_of_those_that_are_listed():
    one_of("kind", "b", {"a": 1, "b": 2})
    with pytest.raises(LayerTracerError, match="kind must be one of a, b, not 'c'"):
        one_of("kind", "c", {"a": 1, "b": 2})
