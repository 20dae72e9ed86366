"""What trains outside the layers: single parameters by name, tied matrices, and what the reason says of them."""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PhiConfig,
    PhiForCausalLM,
)

from hf_layertracer import LayerTracerError, apply_plan, export_plan, make_plan
from hf_layertracer.planning import PlanConfig, configured_plan
from hf_layertracer.planning.outside import BY_NAME, FROZEN, TRAINED, planned_outside


def gpt2():
    """Two embeddings, of which one is tied to the head."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_head=2, n_layer=2, n_positions=32))


def phi(tied: bool = False):
    """A norm and a head with a bias."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return PhiForCausalLM(PhiConfig(vocab_size=64, tie_word_embeddings=tied, **sizes))


# -- patterns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "pattern", "wishes", "outside"),
    [
        (gpt2, "wpe", {}, {"transformer.wpe.weight"}),
        (gpt2, r"wte|h\.1\.ln_1\.bias", {}, {"transformer.wte.weight"}),
        (gpt2, r"ln_f\.bias", {}, {"transformer.ln_f.bias"}),
        (gpt2, r"\.mlp\.", {"train_head": True}, {"transformer.wte.weight", "transformer.wpe.weight"}),
        (gpt2, "wpe|ln_2", {"train_embeddings": False}, set()),
        (phi, r"\.bias$", {}, {"model.final_layernorm.bias", "lm_head.bias"}),
        (phi, "fc1", {"train_norm": True}, {"model.final_layernorm.weight", "model.final_layernorm.bias"}),
        (lambda: phi(tied=True), r"lm_head\.bias", {}, {"lm_head.bias"}),
    ],
)
def test_patterns_choose_by_name_outside_the_layers_too(facts_of, that_train, make, pattern, wishes, outside):
    model = make()
    plan, facts = make_plan(model, "explicit", train_layers=pattern, **wishes), facts_of(model)
    applied = apply_plan(model, plan)
    trained = that_train(model)
    assert {name for name in trained if ".layers." not in name and ".h." not in name} == outside
    assert plan.savings.trainable_parameters == applied.trainable_parameters
    assert set(export_plan(plan, facts, "names").splitlines()) == trained
    applied.undo()
    assert that_train(model) == {name for name, _ in model.named_parameters()}


def test_a_part_of_which_a_pattern_chose_some_is_said_to_train_in_part():
    assert "which is also the head, trains in part" in make_plan(gpt2(), "explicit", train_layers="wpe").reason
    assert "the head trains in part" in make_plan(phi(), "explicit", train_layers=r"\.bias$").reason


def test_a_plan_says_without_its_model_where_names_decide():
    made = make_plan(gpt2(), "explicit", train_layers=r"\.mlp\.|wpe")
    assert planned_outside(made, tied=True) == {"embeddings": BY_NAME, "norm": FROZEN, "head": BY_NAME}
    asked = make_plan(gpt2(), "explicit", train_layers=r"\.mlp\.", train_head=True)
    assert planned_outside(asked, tied=True) == {"embeddings": TRAINED, "norm": FROZEN, "head": TRAINED}
    assert set(planned_outside(make_plan(phi(), "full"), tied=False).values()) == {TRAINED}


# -- a plan of another model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["freeze-deep", "freeze-shallow"])
def test_a_plan_that_parts_embedding_and_head_trains_neither_of_a_tied_model(llama, tmp_path, strategy):
    made, path = make_plan(llama(4), strategy), tmp_path / "plan.json"
    assert made.train_embeddings != made.train_head
    path.write_text(made.model_dump_json())
    tied = llama(4, tied=True)
    read = configured_plan(tied, PlanConfig(plan=str(path)))
    own = make_plan(llama(4, tied=True), strategy)
    assert (read.reason, read.savings, read.train_head) == (own.reason, own.savings, False)
    for plan in (made, read):
        applied = apply_plan(tied, plan)
        assert (applied.plan.reason, applied.plan.savings) == (own.reason, own.savings)
        assert applied.trainable_parameters == own.savings.trainable_parameters
        assert not tied.lm_head.weight.requires_grad
    assert made.train_embeddings != made.train_head, "what was given is left as it was"


def test_on_a_tied_model_a_plan_keeps_the_wish_that_it_was_made_with(llama):
    tied = llama(4, tied=True)
    applied = apply_plan(tied, make_plan(llama(4), "freeze-deep", train_embeddings=True))
    assert tied.lm_head.weight.requires_grad
    assert (applied.plan.train_head, "also the head, trains" in applied.plan.reason) == (True, True)
    parted = make_plan(llama(4), "freeze-deep", train_embeddings=True, train_head=False)
    with pytest.raises(LayerTracerError, match="one tied matrix"):
        apply_plan(tied, parted)
    assert applied.trainable_parameters == sum(p.numel() for p in tied.parameters() if p.requires_grad)


# -- reasons -------------------------------------------------------------------------------------------------------------


def test_what_was_frozen_before_is_not_said_to_train(llama):
    model = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj"], r=2))
    for strategy in ("freeze-deep", "full", "lisa"):
        reason = make_plan(model, strategy).reason
        assert "The embedding was frozen before" in reason
        assert "always train" not in reason
    adapted = get_peft_model(llama(4), LoraConfig(target_modules=["q_proj", "lm_head"], r=2))
    assert "the head trains in part" in make_plan(adapted, "full").reason


@pytest.mark.parametrize("strategy", ["lisa", "grass"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_strategy_does_not_say_what_a_wish_overrules(llama, strategy, tied):
    model = llama(4, tied, device="meta")
    assert make_plan(model, strategy).reason.startswith("Embedding and head always train; 2 ")
    overruled = make_plan(model, strategy, train_embeddings=False).reason
    assert overruled.startswith("2 " if tied else "The head always trains; 2 ")
    full = make_plan(model, "full", train_embeddings=False).reason
    assert "full training" not in full


# -- a head of another kind ----------------------------------------------------------------------------------------------


def test_no_gradient_flows_on_from_the_head_of_a_classifier(facts_of):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=96, num_labels=3, **sizes))
    assert facts_of(model).other == {"score.weight": 96}
    plan = make_plan(model, "freeze-shallow")
    # Half of the layers make no gradients: 1 and 3 units of work instead of 3 and 3.
    assert plan.savings.flops_per_token / plan.savings.flops_per_token_full == pytest.approx(2 / 3, rel=0.01)
    assert "head" not in plan.reason
