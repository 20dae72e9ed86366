from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.diagnosis.task_particle import task_particle_of


def plain(curve, rise, min_probability):
    """DESIGN.md section 2, word by word."""
    highest = max(curve)
    if highest < min_probability:
        return None
    for layer in range(len(curve) - 1):
        if curve[layer + 1] - curve[layer] >= rise * highest:
            return layer
    return None


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20),
    st.floats(0.01, 1),
    st.one_of(st.just(0.01), st.floats(1e-3, 1)),
)
def test_the_task_particle_agrees_with_a_plain_loop(curve, rise, min_probability):
    assert task_particle_of(np.array(curve), rise, min_probability) == plain(curve, rise, min_probability)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0.0, 0.5, 0.5, 0.5], 0),  # numbered from 0: the first layer's rise is from the embedding
        ([0.0, 0.0, 0.0, 0.5], 2),
        ([0.0, 0.02, 0.04, 0.5], 2),  # rises below a tenth of the maximum do not count
        ([0.0, 0.1, 0.0, 1.0], 0),  # a rise of exactly a tenth does
        ([0.0, 0.6, 0.0, 0.7], 0),  # the first one, also where it is lost again
        ([0.9, 0.5, 0.2, 0.1], None),  # highest at the embedding, and never rising
        ([0.0, 0.0, 0.009], None),  # never likely
        ([0.0, 0.0, 0.01], 1),  # just likely enough
    ],
)
def test_known_curves_have_their_task_particle(curve, expected):
    found = task_particle_of(np.array(curve), 0.1, 0.01)
    assert found == expected
    assert found is None or type(found) is int


def test_a_curve_that_is_not_a_number_is_unresolved():
    assert task_particle_of(np.array([0.0, np.nan]), 0.1, 0.01) is None
