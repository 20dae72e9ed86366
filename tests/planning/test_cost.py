"""What a plan saves, against counts made another way: over the parameters, and of the operations that really ran."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from hf_layertracer import apply_plan, make_plan
from hf_layertracer.planning.cost import trainable_by_layer, weights_bytes


ELEMENT = {torch.float32: 4, torch.bfloat16: 2, torch.float64: 8}


def counted(model) -> tuple[int, int, int]:
    """Parameters that train, bytes of their gradients, all parameters."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return (
        sum(parameter.numel() for parameter in trainable),
        sum(parameter.numel() * ELEMENT[parameter.dtype] for parameter in trainable),
        sum(parameter.numel() for parameter in model.parameters()),
    )


def assert_savings_are_those_counted(model, plan) -> None:
    savings = plan.savings
    trained, gradients, total = counted(model)
    assert (savings.trainable_parameters_full, savings.gradient_bytes_full) == (trained, gradients)
    assert (savings.optimizer_bytes_full, savings.total_parameters) == (8 * trained, total)
    applied = apply_plan(model, plan)
    trained, gradients, _ = counted(model)
    assert savings.trainable_parameters == applied.trainable_parameters == trained
    assert applied.frozen_parameters == savings.trainable_parameters_full - trained
    assert savings.gradient_bytes == gradients
    assert savings.optimizer_bytes == 8 * trained
    applied.undo()


# -- parameters and bytes ------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    trained=st.sets(st.integers(0, 4), min_size=1, max_size=4),
    outside=st.tuples(*[st.none() | st.booleans()] * 3),
    frozen_before=st.sets(st.sampled_from(["q_proj", "up_proj", "embed_tokens", "norm", "lm_head"])),
)
def test_untied_savings_are_what_is_counted_after_the_plan(llama, trained, outside, frozen_before):
    model = llama(5)
    for name, parameter in model.named_parameters():
        if any(part in name for part in frozen_before):
            parameter.requires_grad_(False)
    options = dict(zip(("train_embeddings", "train_norm", "train_head"), outside, strict=True))
    assert_savings_are_those_counted(model, make_plan(model, "explicit", train_layers=list(trained), **options))


@settings(max_examples=10, deadline=None)
@given(trained=st.sets(st.integers(0, 4), min_size=1, max_size=4), both=st.none() | st.booleans(), norm=st.booleans())
def test_tied_savings_count_the_shared_matrix_once(llama, trained, both, norm):
    model = llama(5, tied=True)
    plan = make_plan(model, "explicit", train_layers=list(trained), train_embeddings=both, train_norm=norm)
    assert_savings_are_those_counted(model, plan)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gradients_take_as_many_bytes_as_their_parameters(llama, dtype):
    model = llama(4).to(dtype)
    assert_savings_are_those_counted(model, make_plan(model))


@pytest.mark.parametrize("wide", ["norm", "embed_tokens", r"layers.3.mlp"])
def test_bytes_of_a_model_of_several_data_types_are_those_of_each_parameter(llama, facts_of, wide):
    model = llama(4).to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if wide in name:
            parameter.data = parameter.data.float()
    assert_savings_are_those_counted(model, make_plan(model))
    facts = facts_of(model)
    assert weights_bytes(facts) == sum(parameter.nbytes for parameter in model.parameters())
    earlier = facts.model_copy(update={"element_bytes": {}})
    assert weights_bytes(earlier) == 4 * facts.size


@pytest.mark.parametrize("pattern", [r"\.mlp\.", r"layers\.(1|2)\.self_attn|norm", r"q_proj|embed_tokens"])
def test_savings_of_single_parameters_are_those_counted(llama, pattern):
    model = llama(4)
    assert_savings_are_those_counted(model, make_plan(model, "explicit", train_layers=pattern))


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow"])
def test_savings_of_adapters_are_measured_against_training_all_adapters(llama, strategy):
    model = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj", "down_proj"], r=2))
    plan = make_plan(model, strategy)
    assert plan.savings.trainable_parameters * 2 == plan.savings.trainable_parameters_full
    assert_savings_are_those_counted(model, plan)


def test_savings_of_another_architecture_are_those_counted():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_head=2, n_layer=4, n_positions=32))
    for strategy in ("freeze-deep", "freeze-shallow"):
        assert_savings_are_those_counted(model, make_plan(model, strategy))


def test_savings_do_not_change_while_a_plan_is_in_force(llama):
    model = llama(4)
    plans = {strategy: make_plan(model, strategy) for strategy in ("freeze-deep", "freeze-shallow", "full")}
    for in_force in list(plans.values()):
        apply_plan(model, in_force)
        assert {strategy: make_plan(model, strategy) for strategy in plans} == plans


# -- FLOPs ---------------------------------------------------------------------------------------------------------------


def flops_per_token(model, length: int = 4) -> float:
    """What a real step multiplies; attention scores are no products with parameters and left out."""
    ids = torch.randint(0, 96, (1, length))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad()
    products = sum(
        count for operation, count in counter.get_flop_counts()["Global"].items() if "attention" not in str(operation)
    )
    return products / length


PLANS = [
    ("full", {}),
    ("freeze-deep", {}),
    ("freeze-deep", {"freeze_ratio": 0.25}),
    ("freeze-deep", {"train_embeddings": False}),
    ("freeze-shallow", {}),
    ("freeze-shallow", {"freeze_ratio": 0.75}),
    ("freeze-shallow", {"train_head": True}),
    ("explicit", {"train_layers": [6]}),
    ("explicit", {"train_layers": [6], "train_embeddings": True}),
    ("explicit", {"train_layers": [0]}),
    ("explicit", {"train_layers": "::2"}),
    ("explicit", {"train_layers": [], "train_norm": True}),
    ("explicit", {"train_layers": [], "train_head": True}),
]


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model_and_flops(request, llama):
    """A model, and what it costs to train in full."""
    model = llama(8, request.param)
    return model, flops_per_token(model)


@pytest.mark.parametrize(("strategy", "options"), PLANS)
def test_flops_are_those_of_a_real_step(model_and_flops, strategy, options):
    model, full = model_and_flops
    plan = make_plan(model, strategy, **options)
    apply_plan(model, plan)
    measured = flops_per_token(model)
    # The norms' few weights are counted as if they were matrices: less than one part in a hundred.
    assert plan.savings.flops_per_token == pytest.approx(measured, rel=0.01)
    assert plan.savings.flops_per_token_full == pytest.approx(full, rel=0.01)
    assert plan.savings.flops_per_token / plan.savings.flops_per_token_full == pytest.approx(
        measured / full, rel=0.005
    )


@pytest.mark.parametrize("strategy", ["full", "freeze-deep", "freeze-shallow"])
def test_a_block_that_stands_in_several_layers_is_multiplied_with_in_each(llama, strategy):
    model = llama(8)
    for index in (5, 7):
        model.model.layers[index].mlp = model.model.layers[1].mlp
    full = flops_per_token(model)
    plan = make_plan(model, strategy)
    apply_plan(model, plan)
    # As below, the lowest trained layer is counted with all its input gradients.
    assert plan.savings.flops_per_token == pytest.approx(flops_per_token(model), rel=0.05)
    assert plan.savings.flops_per_token_full == pytest.approx(full, rel=0.05)


@pytest.mark.parametrize("strategy", ["full", "freeze-deep", "freeze-shallow"])
def test_of_tied_embeddings_only_the_matrix_of_tokens_is_multiplied_with(strategy):
    model = GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=32, n_head=4, vocab_size=96, n_positions=2048))
    plan = make_plan(model, strategy)
    apply_plan(model, plan)
    assert plan.savings.flops_per_token == pytest.approx(flops_per_token(model), rel=0.05)


@pytest.mark.parametrize("pattern", [r"\.mlp\.", r"self_attn", r"layers\.[4-7]\..*(q|v)_proj"])
def test_flops_of_single_parameters_are_close_to_those_of_a_real_step(llama, pattern):
    model = llama(8)
    plan = make_plan(model, "explicit", train_layers=pattern)
    apply_plan(model, plan)
    # Which matrices of the lowest trained layer need an input gradient is not looked at.
    assert plan.savings.flops_per_token == pytest.approx(flops_per_token(model), rel=0.05)


def test_flops_of_adapters_are_close_to_those_of_a_real_step(llama):
    model = get_peft_model(llama(8), LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    plan = make_plan(model, "freeze-shallow")
    apply_plan(model, plan)
    assert plan.savings.flops_per_token == pytest.approx(flops_per_token(model), rel=0.05)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_freezing_deep_saves_a_third_and_freezing_shallow_two_thirds_of_the_frozen_blocks(llama, share):
    """The ceiling: with a fraction f frozen, 3 - f forward units for deep and 3 - 2 f for shallow, against 3."""
    model = llama(8, vocab_size=8, device="meta")
    deep = make_plan(model, "freeze-deep", freeze_ratio=share).savings
    shallow = make_plan(model, "freeze-shallow", freeze_ratio=share).savings
    assert deep.flops_per_token / deep.flops_per_token_full == pytest.approx((3 - share) / 3, rel=0.01)
    assert shallow.flops_per_token / shallow.flops_per_token_full == pytest.approx((3 - 2 * share) / 3, rel=0.01)


@pytest.mark.parametrize("tied", [False, True])
def test_what_could_train_in_each_layer_is_what_the_model_holds(llama, facts_of, tied):
    model = llama(3, tied)
    model.model.layers[1].self_attn.q_proj.requires_grad_(False)
    model.model.layers[2].mlp = model.model.layers[0].mlp
    expected = [{id(p): p.numel() for p in layer.parameters() if p.requires_grad} for layer in model.model.layers]
    facts = facts_of(model)
    for sizes, counted in zip(trainable_by_layer(facts), expected, strict=True):
        assert sorted(sizes.values()) == sorted(counted.values())
    assert facts.size == sum(p.numel() for p in model.parameters())
