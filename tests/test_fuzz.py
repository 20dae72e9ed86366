"""Whatever a user or a broken file hands in: a result, or a `LayerTracerError` of one line; never anything else."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_layertracer import (
    HybridRecipe,
    LayerTracerConfig,
    LayerTracerError,
    LayerTracerReport,
    TrialsConfig,
    diagnose,
    load_probes,
    make_plan,
)
from hf_layertracer.planning import STRATEGIES


SOME = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
COLUMNS = ["prompt", "target", "task", "question", "A", "B", "answer", "choices", "answerKey", "query", "gold"]
COLUMNS += ["input_ids", "labels", "attention_mask", "text"]
ROWS = st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6)
ARC = st.fixed_dictionaries({"label": VALUES, "text": VALUES})
QUESTIONS = st.fixed_dictionaries({"question": SCALARS, "choices": VALUES | ARC, "answerKey": SCALARS})
CONTINUATIONS = st.fixed_dictionaries({"query": SCALARS, "choices": VALUES, "gold": SCALARS})
TOKENS = st.fixed_dictionaries({"input_ids": VALUES}, optional={"labels": VALUES, "attention_mask": VALUES})


@contextmanager
def only_clear_errors():
    """Lets the one error pass that a user can cause, if it says something."""
    try:
        yield
    except LayerTracerError as error:
        if not str(error).strip():
            raise AssertionError("an error without a word") from error


@SOME
@given(st.lists(ROWS | QUESTIONS | CONTINUATIONS | TOKENS, max_size=3))
def test_any_rows_are_probes_or_one_error(tiny_tokenizer, rows):
    with only_clear_errors():
        assert load_probes(rows, tokenizer=tiny_tokenizer)


@SOME
@given(st.sampled_from([".jsonl", ".json", ".csv"]), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_probes_or_one_error(tmp_path, suffix, content):
    path = tmp_path / f"probes{suffix}"
    path.write_bytes(content)
    with only_clear_errors():
        assert load_probes(path)


@SOME
@given(st.dictionaries(st.sampled_from([own.name for own in fields(LayerTracerConfig)]), VALUES, max_size=3))
def test_any_settings_are_taken_or_refused_at_once(given_settings):
    with only_clear_errors():
        LayerTracerConfig.of(given_settings)


@pytest.fixture(scope="module")
def report():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from hf_layertracer import Probe

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2
    )
    return diagnose(LlamaForCausalLM(config), [Probe((1, 2, 3), 4), Probe((5, 6), 7)], config={"repeats": 1})


OPTIONS = sorted({name for strategy in STRATEGIES.values() for name in strategy.option_names} | {"max_memory"})


@SOME
@given(st.sampled_from(sorted(STRATEGIES)), st.dictionaries(st.sampled_from(OPTIONS), VALUES, max_size=2))
def test_any_options_of_a_plan_make_one_or_an_error(report, strategy, options):
    with only_clear_errors():
        plan = make_plan(report, strategy, **options)
        assert sorted(plan.trained_layers + plan.frozen_layers) == [0, 1, 2, 3]


@SOME
@given(st.data())
def test_a_report_with_anything_changed_is_read_or_refused(report, data):
    content = json.loads(report.to_json())
    place, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(VALUES)
    with only_clear_errors():
        LayerTracerReport.from_dict(content)


@pytest.mark.parametrize("pattern", ["(.*.*.*.*.*.*.*.*.*.*)*X", "(a|a|.)*(.*)*$^", "(((.+)+)+)+!"])
def test_a_regular_expression_that_never_ends_does(report, pattern):
    with pytest.raises(LayerTracerError):
        make_plan(report, "explicit", train_layers=pattern)


# -- recipes of hybrids, and files that people write -----------------------------------------------------------------

NAMES = st.sampled_from(
    ["base", "layers", "mixers", "embeddings", "norm", "head", "tokenizer", "dtype", "seed", "slices"]
)
RANGES = st.fixed_dictionaries({"from": SCALARS, "layer_range": VALUES})
MIXERS = st.fixed_dictionaries({"layers": VALUES, "kind": SCALARS}, optional={"init": SCALARS})
SLICES = st.fixed_dictionaries({"sources": VALUES | st.lists(st.fixed_dictionaries({"model": VALUES}), max_size=2)})
PARTS = VALUES | st.lists(RANGES | MIXERS | SLICES, max_size=2) | st.just("passthrough")
RECIPES = st.dictionaries(NAMES | st.just("merge_method") | st.text(max_size=4) | st.integers(), PARTS, max_size=4)


@SOME
@given(RECIPES, st.booleans())
def test_any_recipe_is_one_or_an_error(content, complete):
    with only_clear_errors():
        HybridRecipe.from_dict({"base": "org/model", **content} if complete else content)


@SOME
@given(
    st.sampled_from([".yaml", ".json"]),
    st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass")),
)
def test_any_file_is_a_recipe_a_trial_or_an_error(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    for read in (HybridRecipe.from_file, TrialsConfig.from_file):
        with only_clear_errors():
            read(path)


@pytest.mark.parametrize(
    "content", ["[" * 1000, "base: 2001-99-99", "base: " + "9" * 6000, "? [a]\n: b", "{" * 1000, "a: &a [*a]"]
)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_files_that_break_parsers_are_one_error(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    path.write_text(content)
    for read in (HybridRecipe.from_file, TrialsConfig.from_file):
        with pytest.raises(LayerTracerError):
            read(path)
