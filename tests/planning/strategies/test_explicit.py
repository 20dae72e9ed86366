"""Layers that the user names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_layertracer import LayerTracerError, make_plan


few = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize(
    ("layers", "trained"),
    [
        (0, [0]),
        (-1, [8]),
        ("3", [3]),
        ("-2", [7]),
        ("0:8", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("::2", [0, 2, 4, 6, 8]),
        ("-4:", [5, 6, 7, 8]),
        (":2", [0, 1]),
        ("5:1:-2", [3, 5]),
        ("6:99", [6, 7, 8]),
        ("0-7", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("2 - 4", [2, 3, 4]),
        ("4-4", [4]),
        ([0, 2], [0, 2]),
        ([2, 0, 2], [0, 2]),
        (["0-1", -1], [0, 1, 8]),
        (["1", "7:"], [1, 7, 8]),
        ((0, 1), [0, 1]),
        ({0, 1}, [0, 1]),
        (range(2, 5), [2, 3, 4]),
        (np.arange(3), [0, 1, 2]),
        ([np.int64(3)], [3]),
        ("0,2,4", [0, 2, 4]),
        ("0-2, 5, -1, 6:8", [0, 1, 2, 5, 6, 7, 8]),
    ],
)
def test_layers_are_named_by_index_slice_range_or_list(meta, layers, trained):
    plan = make_plan(meta(9), "explicit", train_layers=layers)
    assert (plan.trained_layers, plan.patterns) == (trained, [])
    assert plan.model_validate_json(plan.model_dump_json()) == plan  # whatever was given, a report can hold it


@few
@given(
    start=st.none() | st.integers(-12, 12), stop=st.none() | st.integers(-12, 12), step=st.none() | st.integers(-4, 4)
)
def test_a_slice_means_what_it_means_in_python(meta, start, stop, step):
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    meant = sorted(list(range(9))[slice(start, stop, step)]) if step != 0 else []
    if not meant:
        with pytest.raises(LayerTracerError, match=r"holds none|step of 0"):
            make_plan(meta(9), "explicit", train_layers=text)
    elif len(meant) == 9:
        with pytest.raises(LayerTracerError, match="freeze nothing"):
            make_plan(meta(9), "explicit", train_layers=text)
    else:
        assert make_plan(meta(9), "explicit", train_layers=text).trained_layers == meant


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        (9, "Layer 9 does not exist: the model has 9 layers, 0 to 8"),
        (-10, "Layer -10 does not exist"),
        ("9", "Layer 9 does not exist"),
        ([0, 99], "Layer 99 does not exist"),
        ("5-9", "Layer 9 does not exist"),
        ("5-99999999999999999", "Layer 9 does not exist"),
        ("99999999999999998-99999999999999999", "Layer 99999999999999998 does not exist"),
        ("7-3", "range '7-3' is empty"),
        ("4:4", "slice '4:4' holds none"),
        ("20:30", "slice '20:30' holds none"),
        ("::0", "step of 0"),
        ("[", "not a regular expression"),
        (["ok", "("], "not a regular expression"),
        ("no_such_parameter", "matches no parameter"),
        (["q_proj", "no_such_parameter"], "'no_such_parameter' matches no parameter"),
        ([0, "q_proj"], "either by index or by regular expression"),
        ([1.5], "not by 1.5"),
        (1.5, "not by 1.5"),
        (None, "needs train_layers"),
        ([True, False], "not by True"),
    ],
)
def test_layers_that_make_no_sense_are_refused_in_one_line(meta, layers, complaint):
    with pytest.raises(LayerTracerError, match=re.escape(complaint)) as caught:
        make_plan(meta(9), "explicit", train_layers=layers)
    assert "\n" not in str(caught.value)


def test_explicit_without_layers_is_refused(meta):
    with pytest.raises(LayerTracerError, match="needs train_layers"):
        make_plan(meta(4), "explicit")


@pytest.mark.parametrize(
    ("layers", "trained", "outside"),
    [
        (r"layers\.[02]\.", [0, 2], set()),
        (r"\.mlp\.", [0, 1, 2, 3], set()),
        (r"layers\.1\.self_attn\.(q|v)_proj", [1], set()),
        (r"layers\.3\.|model\.norm|lm_head", [3], {"norm", "head"}),
        (["embed_tokens", r"layers\.0\."], [0], {"embeddings"}),
        (r"layers\.[0-9]{1,2}\.mlp", [0, 1, 2, 3], set()),  # the comma belongs to the expression
        ("lm_head", [], {"head"}),
    ],
)
def test_regular_expressions_select_parameters_by_their_full_names(meta, layers, trained, outside):
    plan = make_plan(meta(4), "explicit", train_layers=layers)
    assert plan.trained_layers == trained
    assert {part for part in ("embeddings", "norm", "head") if getattr(plan, f"train_{part}")} == outside
    patterns = [layers] if isinstance(layers, str) else layers
    expected = sum(
        parameter.numel()
        for name, parameter in meta(4).named_parameters()
        if any(re.search(pattern, name) for pattern in patterns)
    )
    assert plan.savings.trainable_parameters == expected


def test_a_regular_expression_that_matches_everything_is_refused(meta):
    with pytest.raises(LayerTracerError, match="freeze nothing"):
        make_plan(meta(4), "explicit", train_layers=".")
