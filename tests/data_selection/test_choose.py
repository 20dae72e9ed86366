from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from hf_layertracer.data_selection import SelectionConfig
from hf_layertracer.data_selection.choose import choose
from hf_layertracer.errors import LayerTracerError


PIECES = strategies.lists(
    strategies.tuples(strategies.floats(-5, 5), strategies.integers(1, 1000)), min_size=1, max_size=40
)


def reference(scores: list[float], sizes: list[int], fraction: float) -> set[int]:
    """The highest scores, one after the other, while more than half of the next one still fits."""
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    kept, used = {order[0]}, sizes[order[0]]
    for index in order[1:]:
        if used + sizes[index] / 2 >= fraction * sum(sizes):
            break
        kept.add(index)
        used += sizes[index]
    return kept


@settings(max_examples=100, deadline=None)
@given(pieces=PIECES, fraction=strategies.floats(0.01, 1))
def test_the_highest_excess_is_kept_up_to_the_fraction(pieces, fraction):
    scores, sizes = zip(*pieces, strict=True)
    kept = choose(np.array(scores), np.array(sizes), SelectionConfig(fraction=fraction))
    assert set(np.flatnonzero(kept)) == reference(scores, sizes, fraction)


@settings(max_examples=60, deadline=None)
@given(pieces=PIECES, band=strategies.sampled_from(["low", "medium", "high"]))
def test_a_whole_corpus_is_kept_whole(pieces, band):
    scores, sizes = map(np.array, zip(*pieces, strict=True))
    config = SelectionConfig(score="perplexity-band", band=band, fraction=1.0)
    assert choose(scores, sizes, config).all()


@pytest.mark.parametrize(
    ("band", "expected"), [("low", [0, 1, 2, 3]), ("medium", [3, 4, 5, 6]), ("high", [6, 7, 8, 9])]
)
def test_a_band_is_a_range_of_ranks(band, expected):
    scores = np.arange(10.0)[::-1]
    config = SelectionConfig(score="perplexity-band", band=band, fraction=0.4)
    kept = choose(scores, np.full(10, 7), config)
    assert sorted(scores[kept]) == expected


def test_the_middle_is_that_of_the_bytes():
    # Four fifths of the text lie in the first piece: it is the middle.
    config = SelectionConfig(score="perplexity-band", fraction=0.5)
    kept = choose(np.array([1.0, 2.0, 3.0]), np.array([80, 10, 10]), config)
    assert kept.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score": "best"}, "score must be one of excess-loss, perplexity-band"),
        ({"band": "middle"}, "band must be one of"),
        ({"fraction": 0}, "fraction must lie above 0"),
        ({"fraction": 1.5}, "at most at 1"),
        ({"max_characters": 0}, "max_characters must be a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(LayerTracerError, match=message):
        SelectionConfig(**values)
