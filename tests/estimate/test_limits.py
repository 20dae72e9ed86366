"""A limit on memory is compared with what a step takes, activations included."""

from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import made_reports
from transformers import AutoModelForCausalLM, LlamaConfig, TrainingArguments

from hf_layertracer import LayerTracerError, estimate_training, make_plan
from hf_layertracer.estimate import traced_memory
from hf_layertracer.estimate.estimate import RunEstimator
from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import model_facts
from hf_layertracer.planning.cost import weights_bytes


LENGTH = 64


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=256,
            hidden_size=64,
            intermediate_size=128,
            num_attention_heads=4,
            num_key_value_heads=4,
            num_hidden_layers=6,
            max_position_embeddings=256,
        )
    )


@pytest.fixture(scope="module")
def args(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("run"))
    return TrainingArguments(folder, per_device_train_batch_size=4, use_cpu=True, report_to="none")


@pytest.fixture(scope="module")
def memory(model, args):
    return traced_memory(model, args, sequence_length=LENGTH)


@pytest.fixture
def traces(monkeypatch):
    """The plans that were traced."""
    seen = []
    estimate = RunEstimator.estimate
    monkeypatch.setattr(
        RunEstimator, "estimate", lambda self, plan, args=None: seen.append(plan) or estimate(self, plan, args)
    )
    return seen


def test_what_a_plan_takes_is_what_the_estimate_says_with_a_tenth_on_top(model, args, memory):
    plan = make_plan(model, "freeze-deep")
    estimate = estimate_training(model, plan, args, sequence_length=LENGTH)
    assert memory.takes(plan) == pytest.approx(1.1 * estimate.total_bytes, abs=1)
    assert f"4 x {LENGTH} tokens, adamw_torch_fused" in memory.what
    counted = plan.savings.gradient_bytes + plan.savings.optimizer_bytes + estimate.weights_bytes
    assert memory.takes(plan) > 1.1 * counted, "activations count"


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow", "full"])
def test_a_plan_that_fits_is_made_and_one_byte_less_is_refused_with_what_would_fit(model, memory, args, strategy):
    exact = memory.takes(make_plan(model, strategy))
    assert make_plan(model, strategy, max_memory=exact, memory=memory).strategy == strategy
    with pytest.raises(LayerTracerError, match="fullest moment of a step") as refused:
        make_plan(model, strategy, max_memory=exact - 1, memory=memory)
    said = str(refused.value)
    name, ratio = re.search(r"(freeze-\w+) with freeze_ratio=([\d.]+)", said).groups()
    assert make_plan(model, name, freeze_ratio=float(ratio), max_memory=exact - 1, memory=memory)
    proposed = re.search(r"fit with activation_checkpointing=True", said)
    if proposed:
        args = TrainingArguments(**{**args.to_dict(), "activation_checkpointing": True})
        smaller = traced_memory(model, args, sequence_length=LENGTH)
        assert make_plan(model, strategy, max_memory=exact - 1, memory=smaller)
    assert proposed or strategy != "full"


def test_plans_that_differ_in_an_option_alone_are_traced_apart(model, memory, traces):
    """With patterns, an option decides whether a part outside the layers trains in full or where its names match."""
    matching = make_plan(model, "explicit", train_layers=r"layers\.0\.mlp").model_copy(update={"train_head": True})
    in_full = matching.model_copy(update={"options": {**matching.options, "train_head": True}})
    taken = [memory.takes(plan) for plan in (matching, in_full, matching, in_full)]
    assert taken[0] < taken[1]
    assert taken[2:] == taken[:2]
    assert traces == [matching, in_full]


def test_a_budget_trains_the_most_sensitive_layers_that_a_traced_step_has_room_for(model, args, traces):
    scores = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7]
    report = made_reports.report_of(model_facts(find_parts(model)), sensitivity=scores)
    memory = traced_memory(model, args, sequence_length=LENGTH)
    three = make_plan(model, "explicit", train_layers=[1, 3, 5], train_embeddings=False, train_norm=False,
                      train_head=False)  # fmt: skip
    exact = memory.takes(three)
    traces.clear()
    plan = make_plan(report, "budget", max_memory=exact, memory=memory)
    assert plan.trained_layers == [1, 3, 5]
    assert len(traces) <= 6, "searched by halves"
    # A byte less has no room for the third; deeper layers that would take as much are not asked about.
    less = make_plan(report, "budget", max_memory=exact - 1, memory=memory)
    assert less.trained_layers == [1, 3]
    assert memory.takes(less) < exact
    assert "traced" in plan.reason


def test_a_budget_that_is_too_small_for_the_lowest_layer_may_do_for_a_deep_one(model, args, memory):
    report = made_reports.report_of(model_facts(find_parts(model)), sensitivity=[0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    outside = {"train_embeddings": False, "train_norm": False, "train_head": False}
    lowest, highest = (memory.takes(make_plan(model, "explicit", train_layers=[layer], **outside)) for layer in (0, 5))
    assert highest < lowest
    plan = make_plan(report, "budget", max_memory=lowest - 1, memory=memory)
    assert 0 not in plan.trained_layers
    assert plan.trained_layers
    with pytest.raises(LayerTracerError, match="No layer fits"):
        make_plan(report, "budget", max_memory=highest - 1, memory=memory)


def test_the_weights_that_no_plan_can_do_without_are_those_traced(args):
    """Under float32 adapters, a base in bfloat16 takes half of what it would in float32."""
    config = LlamaConfig(vocab_size=4096, hidden_size=64, intermediate_size=128, num_attention_heads=4,
                         num_key_value_heads=4, num_hidden_layers=2)  # fmt: skip
    base = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], r=2))
    memory = traced_memory(model, args, sequence_length=1)
    need, facts = memory.takes(make_plan(model, "freeze-deep")), model_facts(find_parts(model))
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert memory.weights == weights_bytes(facts) + buffers < need
    with pytest.raises(LayerTracerError) as refused:
        make_plan(model, "freeze-deep", max_memory=need - 1, memory=memory)
    assert "weights alone" not in str(refused.value)
    with pytest.raises(LayerTracerError, match="The weights alone take"):
        make_plan(model, "freeze-deep", max_memory=memory.weights, memory=memory)


def test_what_cannot_be_traced_is_said_when_it_is_asked_for(args):
    with pytest.raises(LayerTracerError, match="no such folder"):
        traced_memory("./nothing-here", args)
