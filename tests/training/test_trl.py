"""The mixin in front of TRL's trainers, with TRL's own defaults."""

from __future__ import annotations

from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from hf_layertracer import LayerTracerMixin


class MyDPO(LayerTracerMixin, DPOTrainer):
    pass


class MyGRPO(LayerTracerMixin, GRPOTrainer):
    pass


class MySFT(LayerTracerMixin, SFTTrainer):
    pass


LORA = {"r": 2, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}


def test_dpo_with_adapters_trains_what_the_plan_says(make_model, make_args, tokenizer, quick, weights_of):
    """The reference comes from the adapted model, in between a forward pass and its backward pass; TRL checkpoints by
    default."""
    dataset = Dataset.from_dict(
        {
            "prompt": [f"The {thing} is" for thing in ("cat", "dog", "car", "house")] * 2,
            "chosen": [" old."] * 8,
            "rejected": [" wrong!"] * 8,
        }
    )
    trainer = MyDPO(
        model=make_model(),
        args=make_args(kind=DPOConfig, max_length=32),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=LoraConfig(**LORA),
        layertracer_config=quick(),
    )
    before = weights_of(trainer.model)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    changed = {name for name in after if not after[name].equal(before[name])}
    trained = {name for name, parameter in after.items() if parameter.requires_grad}
    assert {int(name.split("layers.")[1][0]) for name in trained} == {0, 1}
    assert changed == trained
    assert trainer.layertracer_report.plan.trained_layers == [0, 1]
    assert trainer.layertracer_report.training.trainable_parameters == sum(after[name].numel() for name in trained)


def test_what_trl_gathers_for_its_next_line_stays_there(make_model, make_args, tokenizer, text_dataset, quick):
    histories = []
    for config in (quick(strategy="full"), quick(strategy="full", diagnose_steps=1)):
        trainer = MySFT(
            model=make_model(),
            args=make_args(kind=SFTConfig, max_length=32, logging_strategy="steps", logging_steps=2, max_steps=4),
            train_dataset=text_dataset,
            processing_class=tokenizer,
            layertracer_config=config,
        )
        trainer.train()
        timed = ("runtime", "per_second")
        histories.append(
            [{k: v for k, v in entry.items() if not k.endswith(timed)} for entry in trainer.state.log_history]
        )
    assert {"entropy", "num_tokens", "mean_token_accuracy"} <= set(histories[0][0])
    assert [sorted(entry) for entry in histories[0]] == [sorted(entry) for entry in histories[1]]
    assert histories[1] == histories[0]


def test_grpo_with_adapters_trains_what_the_plan_says(make_model, make_args, tokenizer, quick, weights_of):
    trainer = MyGRPO(
        model=make_model(),
        args=make_args(
            kind=GRPOConfig, beta=0.1, num_generations=2, max_completion_length=4, per_device_train_batch_size=2
        ),
        train_dataset=Dataset.from_dict({"prompt": ["The cat is", "The dog is", "A car", "My house"]}),
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [
            float(len(set(text))) + index for index, text in enumerate(completions)
        ],
        peft_config=LoraConfig(**LORA),
        layertracer_config=quick(),
    )
    before = weights_of(trainer.model)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    trained = {name for name, parameter in after.items() if parameter.requires_grad}
    assert {int(name.split("layers.")[1][0]) for name in trained} == {0, 1}
    assert {name for name in after if not after[name].equal(before[name])} == trained
