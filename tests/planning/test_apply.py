"""A plan in force: exactly what it says trains, nothing that was frozen wakes up, and everything can be undone."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from torch import nn

from hf_layertracer import LayerTracerError, apply_plan, make_plan


def planned(model, plan) -> set[str]:
    """Names of what a plan without patterns trains of an untied Llama, by their spelling."""
    prefixes = [f"model.layers.{layer}." for layer in plan.trained_layers]
    prefixes += ["model.embed_tokens."] * plan.train_embeddings + ["model.norm."] * plan.train_norm
    prefixes += ["lm_head."] * plan.train_head
    return {name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes))}


# -- what trains ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(trained=st.sets(st.integers(0, 4), min_size=1, max_size=4), outside=st.tuples(*[st.none() | st.booleans()] * 3))
def test_exactly_what_is_planned_requires_a_gradient(llama, that_train, trained, outside):
    model = llama(5)
    everything = that_train(model)
    options = dict(zip(("train_embeddings", "train_norm", "train_head"), outside, strict=True))
    plan = make_plan(model, "explicit", train_layers=list(trained), **options)
    applied = apply_plan(model, plan)
    assert that_train(model) == planned(model, plan)
    assert applied.plan is plan
    applied.undo()
    assert that_train(model) == everything


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow", "full"])
@pytest.mark.parametrize("together", [True, False])
def test_a_tied_matrix_trains_where_the_plan_says_so(llama, that_train, strategy, together):
    model = llama(4, tied=True)
    plan = make_plan(model, strategy, train_embeddings=together)
    apply_plan(model, plan)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.requires_grad == together
    assert {name for name in that_train(model) if "layers" in name} == {
        name for name in planned(model, plan) if "layers" in name
    }


def test_a_plan_of_patterns_trains_the_parameters_that_match(llama, that_train):
    model = llama(4)
    apply_plan(model, make_plan(model, "explicit", train_layers=[r"layers\.[12]\.self_attn\.(q|k)_proj", "lm_head"]))
    assert that_train(model) == {
        *(f"model.layers.{layer}.self_attn.{name}_proj.weight" for layer in (1, 2) for name in "qk"),
        "lm_head.weight",
    }


@settings(max_examples=25, deadline=None)
@given(data=st.data(), strategy=st.sampled_from(["freeze-deep", "freeze-shallow", "random"]))
def test_nothing_that_was_frozen_before_starts_to_train(llama, that_train, data, strategy):
    model = llama(4)
    names = [name for name, _ in model.named_parameters()]
    frozen = data.draw(st.sets(st.sampled_from(names), max_size=10))
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    before = that_train(model)
    plan = make_plan(llama(4, device="meta"), strategy)
    applied = apply_plan(model, plan)
    assert that_train(model) == planned(model, plan) - frozen
    applied.undo()
    assert that_train(model) == before


# -- undoing and replacing -----------------------------------------------------------------------------------------------


def test_a_second_plan_undoes_the_first(llama, that_train):
    model = llama(4)
    model.model.layers[1].requires_grad_(False)
    before = that_train(model)
    for strategy in ("freeze-deep", "freeze-shallow", "full", "freeze-deep", "freeze-deep"):
        plan = make_plan(model, strategy)
        applied = apply_plan(model, plan)
        assert that_train(model) == planned(model, plan) & before
        assert applied.trainable_parameters == plan.savings.trainable_parameters
    applied.undo()
    assert that_train(model) == before


def test_undoing_a_plan_that_was_replaced_changes_nothing(llama, that_train):
    model = llama(4)
    first = apply_plan(model, make_plan(model, "freeze-deep"))
    second = apply_plan(model, make_plan(model, "freeze-shallow"))
    under_second = that_train(model)
    first.undo()
    assert that_train(model) == under_second
    second.undo()
    assert len(that_train(model)) == len(list(model.parameters()))
    model.requires_grad_(False)
    second.undo()
    assert that_train(model) == set()


def test_what_was_frozen_after_a_plan_stays_frozen_under_the_next(llama, that_train):
    model = llama(4)
    apply_plan(model, make_plan(model, "freeze-deep"))
    model.model.layers[0].requires_grad_(False)
    apply_plan(model, make_plan(llama(4), "explicit", train_layers=[0, 1], train_embeddings=False))
    assert {name.split(".")[2] for name in that_train(model)} == {"1"}


@pytest.mark.parametrize("second", ["freeze-deep", "freeze-shallow"])
def test_adapters_that_were_added_after_a_plan_do_not_wake_the_weights_below_them(llama, that_train, second):
    model = llama(4)
    apply_plan(model, make_plan(model))
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2))
    apply_plan(adapted, make_plan(adapted, second))
    assert len(that_train(adapted)) == 4
    assert all("lora_" in name for name in that_train(adapted))


def test_a_copy_of_a_model_is_planned_for_itself(llama, that_train):
    model = llama(4)
    apply_plan(model, make_plan(model))
    twin = copy.deepcopy(model)
    before = that_train(model)
    apply_plan(twin, make_plan(llama(4), "freeze-deep", freeze_ratio=0.75))
    assert that_train(model) == before
    assert {name for name in that_train(twin) if "layers" in name} == {
        name for name in before if name.startswith("model.layers.0.")
    }


def pickled(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_copy_of_a_model_knows_the_plan_that_is_in_force(llama, that_train, again, adapted):
    def make():
        return get_peft_model(llama(4), LoraConfig(target_modules=["q_proj"], r=2)) if adapted else llama(4)

    model, fresh = make(), make()
    apply_plan(model, make_plan(model, "freeze-deep"))
    under_plan = that_train(model)
    twin = again(model)
    assert that_train(twin) == under_plan
    apply_plan(fresh, make_plan(fresh, "freeze-shallow"))
    # Without the memory, only layers that the first plan had left could train under the second.
    applied = apply_plan(twin, make_plan(twin, "freeze-shallow"))
    assert that_train(twin) == that_train(fresh)
    applied.undo()
    assert that_train(twin) == that_train(make())
    assert that_train(model) == under_plan


def test_a_plan_in_force_does_not_keep_its_model_alive(llama):
    model = llama(2)
    applied = apply_plan(model, make_plan(model))
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    applied.undo()


# -- refusals ------------------------------------------------------------------------------------------------------------


def nothing_planned(plan):
    return plan.model_copy(
        update={
            "trained_layers": [],
            "frozen_layers": list(range(plan.num_layers)),
            "train_embeddings": False,
            "train_norm": False,
            "train_head": False,
        }
    )


def for_frozen_layers(plan):
    return plan.model_copy(update={"trained_layers": [1], "frozen_layers": [0, 2, 3], "train_embeddings": True})


def of_unmatched_patterns(plan):
    return plan.model_copy(update={"patterns": ["nothing_like_this"]})


@pytest.mark.parametrize("in_force", [None, "freeze-deep", "freeze-shallow"])
@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (nothing_planned, "no parameter in them can train"),
        (for_frozen_layers, r"only layers \[0, 2, 3\] had trainable parameters"),
        (of_unmatched_patterns, "no parameter in them can train"),
    ],
)
def test_a_refused_plan_leaves_the_model_as_it_was_found(llama, that_train, in_force, broken, complaint):
    model = llama(4)
    model.model.layers[1].requires_grad_(False)
    before = that_train(model)
    applied = apply_plan(model, make_plan(model, in_force)) if in_force else None
    found = that_train(model)
    with pytest.raises(LayerTracerError, match=complaint) as caught:
        apply_plan(model, broken(make_plan(llama(4))))
    assert "\n" not in str(caught.value)
    assert that_train(model) == found
    if applied is not None:  # and it is still the plan in force
        applied.undo()
    assert that_train(model) == before


def test_a_plan_for_another_depth_is_refused(llama, that_train):
    model = llama(4)
    with pytest.raises(LayerTracerError, match="for 5 layers, the model has 4"):
        apply_plan(model, make_plan(llama(5, device="meta")))
    assert len(that_train(model)) == len(list(model.parameters()))


def test_a_plan_for_another_architecture_is_refused(llama):
    plan = make_plan(llama(4, device="meta")).model_copy(update={"layers_path": "transformer.h"})
    with pytest.raises(LayerTracerError, match=r"no module 'transformer\.h'"):
        apply_plan(llama(4), plan)


def test_a_model_that_is_frozen_altogether_is_refused_with_the_remedy(llama):
    model = llama(4).requires_grad_(False)
    with pytest.raises(LayerTracerError, match=r"model\.requires_grad_\(True\)"):
        apply_plan(model, make_plan(llama(4)))


def test_a_model_that_is_frozen_altogether_is_refused_in_full_too(llama):
    model = llama(4).requires_grad_(False)
    with pytest.raises(LayerTracerError, match=r"model\.requires_grad_\(True\)"):
        apply_plan(model, make_plan(model, "full"))


def test_a_head_alone_trains_in_full(llama, that_train):
    model = llama(4).requires_grad_(False)
    model.lm_head.requires_grad_(True)
    applied = apply_plan(model, make_plan(model, "full"))
    assert that_train(model) == {"lm_head.weight"}
    assert applied.trainable_parameters == model.lm_head.weight.numel()


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_virtual_tokens_around_a_model_train_in_full(llama, config):
    model = get_peft_model(llama(4), config(task_type="CAUSAL_LM", num_virtual_tokens=3))
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    applied = apply_plan(model, make_plan(model, "full"))
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == before
    assert applied.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad) > 0
    with pytest.raises(LayerTracerError, match="would train nothing"):
        make_plan(model, "freeze-deep")


def test_a_plan_that_freezes_what_is_frozen_already_is_refused(llama, that_train):
    model = llama(4)
    model.model.layers[2:].requires_grad_(False)
    model.model.norm.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    found = that_train(model)
    with pytest.raises(LayerTracerError, match="it froze no parameter"):
        apply_plan(model, make_plan(llama(4)))
    assert that_train(model) == found


# -- adapters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "layers"), [("freeze-deep", {0, 1}), ("freeze-shallow", {2, 3})])
@pytest.mark.parametrize("tied", [False, True])
def test_of_a_model_with_adapters_those_of_the_trained_layers_train(llama, that_train, strategy, layers, tied):
    model = get_peft_model(llama(4, tied), LoraConfig(target_modules=["q_proj", "down_proj"], r=2))
    before = that_train(model)
    plan = make_plan(model, strategy)
    applied = apply_plan(model, plan)
    assert that_train(model) == {name for name in before if int(name.split("layers.")[1].split(".")[0]) in layers}
    assert applied.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    applied.undo()
    assert that_train(model) == before


def test_a_plan_made_for_the_bare_model_serves_the_adapted_one(llama, that_train):
    plan = make_plan(llama(4, device="meta"))
    model = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj"], r=2))
    apply_plan(model, plan)
    assert {name.split("layers.")[1][0] for name in that_train(model)} == {"0", "1"}


def test_adapters_on_deep_layers_alone_cannot_be_trained_by_freezing_deep(llama, that_train):
    model = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj"], r=2, layers_to_transform=[2, 3]))
    found = that_train(model)
    with pytest.raises(LayerTracerError, match="would train nothing"):
        make_plan(model, "freeze-deep")
    with pytest.raises(LayerTracerError, match=r"only layers \[2, 3\] had trainable parameters"):
        apply_plan(model, make_plan(llama(4)))
    assert that_train(model) == found


def test_trained_layers_without_adapters_are_warned_of(llama, that_train, caplog):
    model = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj"], r=2, layers_to_transform=[1, 3]))
    apply_plan(model, make_plan(model, "freeze-deep"))
    assert {name.split("layers.")[1][0] for name in that_train(model)} == {"1"}
    assert "trains layers [0], but they hold no parameter that can train" in caplog.text


@pytest.mark.parametrize(
    ("strategy", "saved"), [("freeze-deep", "embed_tokens"), ("freeze-shallow", "lm_head"), ("freeze-shallow", None)]
)
def test_modules_that_peft_saves_whole_follow_the_plan(llama, that_train, strategy, saved):
    config = LoraConfig(target_modules=["q_proj"], r=2, modules_to_save=["embed_tokens", "lm_head"])
    model = get_peft_model(llama(4), config)
    options = {} if saved else {"train_head": False}
    apply_plan(model, make_plan(model, strategy, **options))
    outside = {name.split("base_model.model.")[1] for name in that_train(model) if ".layers." not in name}
    expected = {"embed_tokens": "model.embed_tokens", "lm_head": "lm_head", None: None}[saved]
    assert outside == ({f"{expected}.modules_to_save.default.weight"} if expected else set())


def adapted(llama, **config):
    return get_peft_model(llama(4), LoraConfig(target_modules=["q_proj", "down_proj"], r=2, **config))


def by_disabling_them_for_a_while(model):
    with model.disable_adapter():
        pass


def by_switching_to_another_and_back(model):
    model.set_adapter("other")
    model.set_adapter("default")


def by_switching_them_on_and_off(model):
    model.base_model.disable_adapter_layers()
    model.base_model.enable_adapter_layers()


def by_saying_so(model):
    model.set_requires_grad("default")


SWITCHES = [
    by_disabling_them_for_a_while,
    by_switching_to_another_and_back,
    by_switching_them_on_and_off,
    by_saying_so,
]


@pytest.mark.parametrize("again", [None, copy.deepcopy, pickled])
@pytest.mark.parametrize("switch", SWITCHES)
def test_switching_adapters_leaves_the_plan_in_force(llama, that_train, switch, again):
    model = adapted(llama, modules_to_save=["lm_head"])
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"], r=2, modules_to_save=["lm_head"]))
    apply_plan(model, make_plan(model, "freeze-deep"))
    model = again(model) if again else model
    under_plan = that_train(model)
    assert {int(name.split("layers.")[1][0]) for name in under_plan} == {0, 1}
    switch(model)
    assert that_train(model) == under_plan


def test_another_adapter_follows_the_plan_too(llama, that_train):
    model = adapted(llama)
    apply_plan(model, make_plan(model, "freeze-shallow"))
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"], r=2))
    model.set_adapter("other")
    assert {int(name.split("layers.")[1][0]) for name in that_train(model)} == {2, 3}
    assert all(".other." in name for name in that_train(model))


@pytest.mark.parametrize("switch", SWITCHES)
def test_undoing_a_plan_gives_peft_its_switches_back(llama, that_train, switch):
    model = adapted(llama)
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"], r=2))
    before = that_train(model)
    applied = apply_plan(model, make_plan(model, "freeze-deep"))
    switch(model)
    applied.undo()
    assert that_train(model) == before
    switch(model)
    assert that_train(model) == before


def test_undoing_knows_its_plan_after_everything_was_thawed(llama, that_train):
    model = adapted(llama)
    before = that_train(model)
    applied = apply_plan(model, make_plan(model, "freeze-deep"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    again = apply_plan(model, make_plan(model, "freeze-shallow"))
    assert {int(name.split("layers.")[1][0]) for name in that_train(model)} == {2, 3}
    applied.undo()  # in force no more
    assert {int(name.split("layers.")[1][0]) for name in that_train(model)} == {2, 3}
    again.undo()
    assert that_train(model) == before


def test_a_loss_through_checkpoints_survives_a_reference_taken_from_the_adapted_model(llama, that_train):
    """As DPO does it: the reference's pass lies between the policy's pass and its backward pass."""
    model = adapted(llama, init_lora_weights=False)
    model.enable_input_require_grads()
    model.activation_checkpointing_enable({"use_reentrant": False})
    apply_plan(model, make_plan(model, "freeze-deep"))
    under_plan = that_train(model)
    ids = torch.arange(32).reshape(2, 16)
    model.train()
    loss = model(input_ids=ids, labels=ids).loss
    with torch.no_grad(), model.disable_adapter():
        model(input_ids=ids)
    loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == under_plan == that_train(model)


# -- shared layers -------------------------------------------------------------------------------------------------------


def test_a_block_that_stands_in_a_trained_and_a_frozen_layer_trains_and_is_warned_of(llama, that_train, caplog):
    model = llama(4)
    model.model.layers[3] = model.model.layers[0]
    plan = make_plan(model, "freeze-deep")
    applied = apply_plan(model, plan)
    assert "Layers [3] are frozen by the plan but share parameters with layers that train" in caplog.text
    assert {name for name in that_train(model) if "layers.2" in name} == set()
    assert all(parameter.requires_grad for parameter in model.model.layers[3].parameters())
    assert applied.trainable_parameters == plan.savings.trainable_parameters


def test_a_block_that_stands_in_frozen_layers_alone_is_frozen(llama, that_train):
    model = llama(4)
    model.model.layers[3] = model.model.layers[2]
    plan = make_plan(model, "freeze-deep")
    apply_plan(model, plan)
    assert {name.split(".")[2] for name in that_train(model) if "layers" in name} == {"0", "1"}


def test_a_model_of_one_block_in_all_layers_cannot_freeze_some_of_them(llama, that_train):
    model = llama(4)
    for layer in range(1, 4):
        model.model.layers[layer] = model.model.layers[0]
    model.model.norm.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    with pytest.raises(LayerTracerError, match="would freeze nothing"):
        make_plan(model, "freeze-deep")
    with pytest.raises(LayerTracerError, match="share all of theirs with trained layers"):
        apply_plan(model, make_plan(llama(4)))


# -- wrappers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def wrap_data_parallel(model):
    return nn.DataParallel(model)


def wrap_compile(model):
    return torch.compile(model)


def wrap_distributed(model):
    return nn.parallel.DistributedDataParallel(model)


def wrap_adapters(model):
    return get_peft_model(model.requires_grad_(True), LoraConfig(target_modules=["q_proj"], r=2))


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrap", [wrap_data_parallel, wrap_compile, wrap_distributed])
@pytest.mark.parametrize("inner", [None, wrap_adapters])
def test_wrappers_are_looked_through(llama, that_train, wrap, inner):
    model = inner(llama(4)) if inner else llama(4)
    before = that_train(model)
    plan = make_plan(model)
    assert make_plan(wrap(model)) == plan
    apply_plan(wrap(model), plan)
    under_plan = that_train(model)
    assert under_plan == {name for name in before if any(f"layers.{layer}." in name for layer in (0, 1))} | (
        set() if inner else {"model.embed_tokens.weight"}
    )
    # The plan is known by the model, not by its wrapper.
    applied = apply_plan(model, make_plan(model, "freeze-shallow"))
    assert that_train(model) & under_plan == set()
    applied.undo()
    assert that_train(model) == before


# -- a training step -----------------------------------------------------------------------------------------------------


def step(model) -> set[str]:
    """One step of AdamW with weight decay; names of the parameters of which a bit changed."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    ids = torch.arange(32).reshape(2, 16)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        without = [
            name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        assert without == []
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        optimizer.step()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


PLANS = [
    ("freeze-deep", {}),
    ("freeze-deep", {"train_embeddings": False}),
    ("freeze-shallow", {}),
    ("explicit", {"train_layers": [2]}),
    ("explicit", {"train_layers": r"layers\.[13]\.mlp"}),
    ("full", {}),
]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("strategy", "options"), PLANS)
def test_a_step_changes_what_trains_and_leaves_the_rest_bit_identical(llama, that_train, strategy, options, tied):
    model = llama(4, tied)
    apply_plan(model, make_plan(model, strategy, **options))
    assert step(model) == that_train(model)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("first", ["plan", "checkpointing"])
@pytest.mark.parametrize(("strategy", "options"), PLANS)
def test_gradient_checkpointing_loses_no_gradient(llama, that_train, strategy, options, first, use_reentrant):
    """Reentrant checkpoints give no gradients to layers whose input requires none: with a frozen embedding, to none."""
    model, plain = llama(4), llama(4)
    plan = make_plan(model, strategy, **options)
    if first == "plan":
        apply_plan(model, plan)
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    if first == "checkpointing":
        apply_plan(model, plan)
    assert step(model) == that_train(model)
    apply_plan(plain, plan)
    step(plain)
    for (name, ours), (_, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=f"{name} differs without checkpointing")


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_loses_no_gradient_of_an_adapter(llama, that_train, use_reentrant):
    model = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    apply_plan(model, make_plan(model, "freeze-shallow"))
    assert step(model) == that_train(model)
