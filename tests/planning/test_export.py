"""Plans for other trainers, read back the way that these trainers read them."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_layertracer import LayerTracerError, apply_plan, export_plan, make_plan


def axolotl_selects(model, text: str) -> set[str]:
    """As axolotl's `freeze_layers_except` reads `unfrozen_parameters`: every period in a pattern becomes a literal one."""
    patterns = yaml.safe_load(text)["unfrozen_parameters"]
    assert not any(re.search(r"\[[0-9]*(:[0-9]*)?\]$", pattern) for pattern in patterns)  # it would be a range of rows
    compiled = [re.compile(re.sub(r"\.(?!\+)", r"\.", pattern)) for pattern in patterns]
    return {name for name, _ in model.named_parameters() if any(pattern.match(name) for pattern in compiled)}


def plainly_selected(model, text: str) -> set[str]:
    """As `re` itself reads the same patterns."""
    patterns = yaml.safe_load(text)["unfrozen_parameters"]
    return {name for name, _ in model.named_parameters() if any(re.match(pattern, name) for pattern in patterns)}


def llama_factory_selects(model, text: str) -> set[str]:
    """As LLaMA-Factory's freeze method reads its arguments: parts of names, wherever they stand."""
    arguments = yaml.safe_load(text)
    assert arguments["finetuning_type"] == "freeze"
    assert arguments["freeze_trainable_modules"] == "all"
    count, layers = arguments["freeze_trainable_layers"], model.config.num_hidden_layers
    ids = range(max(0, layers - count), layers) if count > 0 else range(min(-count, layers))
    extra = [part.strip() for part in arguments.get("freeze_extra_modules", "").split(",") if part]
    names = [name for name, _ in model.named_parameters()]
    known = {name.split(".")[-2] for name in names if re.search(r"\.\d+\.", name) is None}
    assert set(extra) <= known
    parts = [f".{index}." for index in ids] + extra
    return {name for name in names if any(part in name for part in parts)}


def gpt2(num_layers: int = 4) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_head=2, n_layer=num_layers, n_positions=32))


@pytest.fixture(scope="module")
def twelve(llama):
    """Twelve layers: 1 is a beginning of 10 and 11."""
    return llama(12, vocab_size=16, hidden_size=8, intermediate_size=8)


# -- axolotl and names ---------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    trained=st.sets(st.integers(0, 11), min_size=1, max_size=11), outside=st.tuples(*[st.none() | st.booleans()] * 3)
)
def test_exports_select_what_requires_a_gradient_under_the_plan(twelve, facts_of, that_train, trained, outside):
    options = dict(zip(("train_embeddings", "train_norm", "train_head"), outside, strict=True))
    plan = make_plan(twelve, "explicit", train_layers=list(trained), **options)
    facts = facts_of(twelve)
    applied = apply_plan(twelve, plan)
    wanted = that_train(twelve)
    applied.undo()
    axolotl = export_plan(plan, facts, "axolotl")
    assert axolotl_selects(twelve, axolotl) == plainly_selected(twelve, axolotl) == wanted
    assert set(export_plan(plan, facts, "names").splitlines()) == wanted


def tied_llama(llama):
    return llama(4, tied=True)


def with_shared_blocks(llama):
    model = llama(4)
    model.model.layers[3] = model.model.layers[0]
    return model


def partly_frozen(llama):
    model = llama(4)
    model.model.layers[1].mlp.requires_grad_(False)
    model.model.embed_tokens.requires_grad_(False)
    return model


def with_odd_names(llama):
    model = llama(4)
    for layer in model.model.layers:
        layer.add_module("a-b+c", nn.Linear(3, 3))
    return model


@pytest.mark.parametrize(
    "make", [tied_llama, with_shared_blocks, partly_frozen, with_odd_names, lambda _: gpt2()], ids=lambda f: f.__name__
)
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("freeze-deep", {}),
        ("freeze-shallow", {}),
        ("explicit", {"train_layers": "::2"}),
        ("explicit", {"train_layers": r"mlp|a-b"}),
        ("explicit", {"train_layers": [1], "train_head": True}),
        ("full", {}),
    ],
)
def test_exports_of_peculiar_models_select_the_same(llama, facts_of, that_train, make, strategy, options):
    model = make(llama)
    plan, facts = make_plan(model, strategy, **options), facts_of(model)
    apply_plan(model, plan)
    wanted = that_train(model)
    assert set(export_plan(plan, facts, "names").splitlines()) == wanted
    axolotl = export_plan(plan, facts, "axolotl")
    assert axolotl_selects(model, axolotl) == plainly_selected(model, axolotl) == wanted
    assert export_plan(plan, facts_of(model), "names") == export_plan(
        plan, facts, "names"
    )  # also while it is in force


def test_what_lies_outside_the_decoder_is_exported_as_it_is_left(llama, facts_of):
    facts = facts_of(llama(4))
    facts.other = {"tower.weight": 9, "tower.bias": 3}
    facts.frozen.append("tower.bias")
    plan = make_plan(llama(4))
    names = export_plan(plan, facts, "names").splitlines()
    assert "tower.weight" in names
    assert "tower.bias" not in names


def test_whole_layers_are_one_pattern(llama, facts_of):
    model = llama(12, device="meta")
    text = export_plan(make_plan(model), facts_of(model), "axolotl")
    assert len(yaml.safe_load(text)["unfrozen_parameters"]) == 2


# -- LLaMA-Factory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "options", "signed"),
    [
        ("freeze-deep", {"freeze_ratio": 0.25}, -9),
        ("freeze-deep", {"train_embeddings": False}, -6),
        ("freeze-deep", {"train_head": True}, -6),
        ("freeze-shallow", {"train_norm": False, "freeze_ratio": 0.25}, 9),
        ("freeze-shallow", {"train_norm": False, "train_head": False}, 6),
        ("explicit", {"train_layers": ":1"}, -1),
        ("explicit", {"train_layers": "-1", "train_norm": False}, 1),
        ("full", {}, 12),
    ],
)
def test_llama_factory_counts_from_the_end_and_negative_from_the_beginning(
    twelve, facts_of, that_train, strategy, options, signed
):
    plan = make_plan(twelve, strategy, **options)
    text = export_plan(plan, facts_of(twelve), "llama-factory")
    assert yaml.safe_load(text)["freeze_trainable_layers"] == signed
    applied = apply_plan(twelve, plan)
    assert llama_factory_selects(twelve, text) == that_train(twelve)
    applied.undo()


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow"])
def test_llama_factory_finds_the_modules_of_another_architecture(facts_of, that_train, strategy):
    model = gpt2()
    plan = make_plan(model, strategy)
    text = export_plan(plan, facts_of(model), "llama-factory")
    apply_plan(model, plan)
    assert llama_factory_selects(model, text) == that_train(model)


@pytest.mark.parametrize("layers", ["::2", [0, 2], [3, 4], "q_proj", r"layers\.[0-5]\."])
def test_llama_factory_cannot_express_other_plans(twelve, facts_of, layers):
    plan = make_plan(twelve, "explicit", train_layers=layers)
    with pytest.raises(LayerTracerError, match="first n or the last n layers") as caught:
        export_plan(plan, facts_of(twelve), "llama-factory")
    assert "\n" not in str(caught.value)


def test_llama_factory_cannot_train_the_head_alone(twelve, facts_of):
    plan = make_plan(twelve, "explicit", train_layers=[], train_head=True)
    with pytest.raises(LayerTracerError, match="first n or the last n layers"):
        export_plan(plan, facts_of(twelve), "llama-factory")


def test_llama_factory_cannot_name_a_parameter_outside_of_a_module(llama, facts_of):
    facts = facts_of(llama(4))
    facts.embeddings = {"embeddings": 9}
    plan = make_plan(llama(4))
    plan.train_embeddings = True
    with pytest.raises(LayerTracerError, match="embeddings lies in none"):
        export_plan(plan, facts, "llama-factory")


def test_llama_factory_cannot_train_the_final_norm_without_those_of_the_frozen_layers(twelve, facts_of):
    """It looks for "norm" anywhere in a name, and finds input_layernorm in every layer."""
    with pytest.raises(LayerTracerError, match=r"would train model\.layers\.0\.input_layernorm\.weight too"):
        export_plan(make_plan(twelve, "freeze-shallow"), facts_of(twelve), "llama-factory")


# -- forms ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["", "Axolotl", "yaml"])
def test_an_unknown_form_is_refused_with_a_list_of_the_known(twelve, facts_of, form):
    with pytest.raises(LayerTracerError, match="axolotl, llama-factory, names"):
        export_plan(make_plan(twelve), facts_of(twelve), form)


def test_names_stand_one_a_line_from_the_embedding_up(llama, facts_of):
    model = llama(2)
    lines = export_plan(make_plan(model, "full"), facts_of(model), "names").splitlines()
    assert lines == [name for name, _ in model.named_parameters()]
