"""LayerTracerTrainer and LayerTracerMixin: what trains, what does not, and that nothing else differs from Trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from support.tolerance import measured
from torch import nn
from transformers import (
    DataCollatorForLanguageModeling,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.modeling_outputs import CausalLMOutput
from trl import SFTConfig, SFTTrainer

from hf_layertracer import (
    LayerTracerConfig,
    LayerTracerError,
    LayerTracerMixin,
    LayerTracerReport,
    LayerTracerTrainer,
    Probe,
)


SHALLOW_HALF = ("model.embed_tokens", "model.layers.0.", "model.layers.1.")


class TensorDataset(torch.utils.data.Dataset):
    """Rows of tensors, as many a tutorial has them."""

    def __init__(self, rows: list[dict[str, list[int]]]):
        self.rows = [{name: torch.tensor(values) for name, values in row.items()} for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows: list[dict[str, Any]]):
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


class SizedStream(Stream):
    """A stream that knows how long it is, as `Trainer` likes it, but cannot be indexed."""

    def __len__(self) -> int:
        return len(self.rows)


class AugmentedDataset(TensorDataset):
    """Rows that cost random numbers."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = dict(self.rows[index])
        row["input_ids"] = torch.where(torch.rand(len(row["input_ids"])) < 0.2, 3, row["input_ids"])
        return row


# -- nothing but model, arguments and data ---------------------------------------------------------------------------


@pytest.mark.usefixtures("real_picture")
def test_model_arguments_and_dataset_are_enough(
    make_model, make_args, token_dataset, weights_of, assert_trained_only, tmp_path
):
    model = make_model()
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(save_strategy="steps", save_steps=2), train_dataset=token_dataset
    )
    trainer.train()

    assert_trained_only(model, before, SHALLOW_HALF)
    report = trainer.layertracer_report
    assert (report.plan.strategy, report.plan.trained_layers, report.plan.frozen_layers) == (
        "freeze-deep",
        [0, 1],
        [2, 3],
    )
    assert report.training.steps == 3
    assert report.training.tokens == 3 * 2 * 12
    assert report.training.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    run = tmp_path / "run"
    assert json.loads((run / "layertracer_report.json").read_text())["schema_version"] == report.schema_version
    assert LayerTracerReport.load(run) == report
    assert (run / "layertracer_report.png").read_bytes().startswith(b"\x89PNG")
    assert "LayerTracer" in (run / "README.md").read_text()
    for checkpoint in (run / "checkpoint-2", run / "checkpoint-3"):
        assert LayerTracerReport.load(checkpoint).plan == report.plan


def test_frozen_parameters_reach_no_optimizer_group_state_or_gradient(make_model, make_args, token_dataset, quick):
    class Watch(TrainerCallback):
        def __init__(self):
            self.gradients: set[int] = set()

        def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
            self.gradients |= {id(p) for p in model.parameters() if p.grad is not None}

    model, watch = make_model(), Watch()
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, callbacks=[watch], layertracer_config=quick()
    )
    trainer.train()

    trained = {id(p) for name, p in model.named_parameters() if name.startswith(SHALLOW_HALF)}
    assert {id(p) for p in model.parameters() if p.requires_grad} == trained
    assert {id(p) for group in trainer.optimizer.param_groups for p in group["params"]} == trained
    optimizer = trainer.optimizer.optimizer if hasattr(trainer.optimizer, "optimizer") else trainer.optimizer
    assert {id(p) for p in optimizer.state} == trained
    assert watch.gradients == trained


def test_the_report_stands_in_the_readme_after_a_model_card_is_made(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    trainer.train()
    section = Path(trainer.args.output_dir, "README.md").read_text().split("---\n", 2)[2]
    trainer.create_model_card(model_name="a-model")
    card = Path(trainer.args.output_dir, "README.md").read_text()
    assert "a-model" in card
    assert section.strip() in card


# -- datasets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "tensors", "stream", "sized stream"])
def test_probes_are_drawn_from_any_kind_of_token_dataset(
    kind, make_model, make_args, token_rows, quick, weights_of, assert_trained_only
):
    make = {"list": list, "tensors": TensorDataset, "stream": Stream, "sized stream": SizedStream}[kind]
    model = make_model()
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=make(token_rows), layertracer_config=quick(num_probes=5)
    )
    trainer.train()
    assert_trained_only(model, before, SHALLOW_HALF)
    assert trainer.layertracer_report.probes.count == 5


def test_a_collator_that_tokenizes_shows_the_probes(make_model, make_args, tokenizer, text_dataset, quick):
    def collate(rows: list[dict[str, str]]) -> Any:
        batch = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return batch

    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(remove_unused_columns=False),
        train_dataset=text_dataset.rename_column("text", "sentence"),
        data_collator=collate,
        layertracer_config=quick(),
    )
    trainer.train()
    assert trainer.layertracer_report.probes.tasks == {"text": 4}
    assert trainer.layertracer_report.plan.trained_layers == [0, 1]


def test_the_language_modeling_collator_works(make_model, make_args, tokenizer, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(),
        train_dataset=token_dataset.select_columns("input_ids"),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
        layertracer_config=quick(),
    )
    trainer.train()
    assert trainer.layertracer_report.probes.tasks == {"text": 4}


def test_evaluation_data_are_preferred_and_may_be_a_dictionary(
    make_model, make_args, token_dataset, token_rows, quick
):
    evaluation = [{name: values[:5] for name, values in row.items()} for row in token_rows]
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(eval_strategy="steps", eval_steps=2),
        train_dataset=token_dataset,
        eval_dataset={"short": Dataset.from_list(evaluation), "long": token_dataset},
        layertracer_config=quick(),
    )
    trainer.train()
    assert max(item.tokens for item in trainer.layertracer_report.probes.items) < 5


def test_losses_before_and_after_are_in_the_report(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(eval_strategy="steps", eval_steps=3, eval_on_start=True),
        train_dataset=token_dataset,
        eval_dataset=token_dataset,
        layertracer_config=quick(),
    )
    result = trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    training = trainer.layertracer_report.training
    assert (training.eval_loss_before, training.eval_loss_after) == (losses[0], losses[-1])
    assert training.eval_loss_after < training.eval_loss_before
    assert training.train_loss == result.training_loss


def test_evaluating_and_predicting_need_no_diagnosis(make_model, make_args, token_dataset, quick, monkeypatch):
    monkeypatch.setattr("hf_layertracer.training.measuring.diagnose", _fail)
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), eval_dataset=token_dataset, layertracer_config=quick()
    )
    plain = Trainer(model=make_model(), args=make_args(), eval_dataset=token_dataset)
    # The same operations on the same numbers in one process: equal to the bit, as nothing of ours takes part.
    assert trainer.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    ours, theirs = trainer.predict(token_dataset).predictions, plain.predict(token_dataset).predictions
    assert (ours == theirs).all()
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_without_a_dataset_that_can_be_read_the_probes_of_the_package_are_used(
    make_model, make_args, tokenizer, quick
):
    class Opaque(torch.utils.data.Dataset):
        """Rows that only its collator understands, and only in pairs."""

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> int:
            return index

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        first, second = rows
        ids = torch.tensor([[first + 3, 4, 5, 6], [second + 3, 7, 8, 9]])
        return {"input_ids": ids, "labels": ids}

    config = quick(repeats=1)
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(),
        train_dataset=Opaque(),
        data_collator=collate,
        processing_class=tokenizer,
        layertracer_config=config,
    )
    trainer.train()
    assert len(trainer.layertracer_report.probes.tasks) > 1


def test_given_probes_come_before_all_other_sources(make_model, make_args, token_dataset, quick):
    probes = [Probe((5, 6, 7), 8, task="mine"), Probe((9, 10), 11, task="mine")]
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, probes=probes, layertracer_config=quick()
    )
    trainer.train()
    assert trainer.layertracer_report.probes.tasks == {"mine": 2}


# -- the same as Trainer ---------------------------------------------------------------------------------------------
# To the bit: both runs do the same operations on the same numbers in one process and thread, and a tolerance would hide a
# random number too many.


@pytest.mark.parametrize("kind", ["shuffled", "augmented", "augmented stream"])
def test_full_training_gives_the_weights_of_trainer_bit_for_bit(
    kind, make_model, make_args, token_rows, token_dataset, quick, assert_same_weights
):
    augmented = AugmentedDataset(token_rows)

    class AugmentedStream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            return (augmented[index] for index in torch.randperm(16).tolist())

    dataset = {"shuffled": token_dataset, "augmented": augmented, "augmented stream": AugmentedStream()}[kind]
    plain = Trainer(model=make_model(), args=make_args("plain", max_steps=4), train_dataset=dataset)
    expected = plain.train()
    traced = LayerTracerTrainer(
        model=make_model(),
        args=make_args(max_steps=4),
        train_dataset=dataset,
        layertracer_config=quick(strategy="full"),
    )
    result = traced.train()
    assert_same_weights(traced.model, plain.model)
    assert (result.global_step, result.training_loss) == (expected.global_step, expected.training_loss)


@pytest.mark.parametrize(
    ("strategy", "arguments"),
    [
        ("freeze-deep", {"gradient_checkpointing": True}),
        ("freeze-deep", {"gradient_accumulation_steps": 2}),
        ("freeze-deep", {"max_grad_norm": 0.01}),
        ("freeze-deep", {"bf16": True}),
        ("freeze-deep", {"weight_decay": 0.5, "logging_strategy": "steps", "logging_steps": 1}),
        ("freeze-deep", {"auto_find_batch_size": True, "per_device_train_batch_size": 3}),
        # The inputs of the layers that train carry no gradient here.
        ("freeze-shallow", {}),
        ("freeze-shallow", {"gradient_checkpointing": True}),
        (
            "freeze-shallow",
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_traced_run_gives_the_weights_of_a_model_frozen_by_hand(
    strategy, arguments, make_model, make_args, token_dataset, quick, weights_of, assert_same_weights
):
    def too_large_above_two(module, args, kwargs):
        if module.training and len(kwargs["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory. Pretended.")

    models = [make_model(), make_model()]
    if "auto_find_batch_size" in arguments:
        for model in models:
            model.register_forward_pre_hook(too_large_above_two, with_kwargs=True)
    deep = ("model.layers.2.", "model.layers.3.", "model.norm", "lm_head")
    trained = SHALLOW_HALF if strategy == "freeze-deep" else deep
    for name, parameter in models[0].named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    plain = Trainer(model=models[0], args=make_args("plain", **arguments), train_dataset=token_dataset)
    before = weights_of(models[0])
    expected = plain.train()
    traced = LayerTracerTrainer(
        model=models[1],
        args=make_args(**arguments),
        train_dataset=token_dataset,
        layertracer_config=quick(strategy=strategy),
    )
    result = traced.train()
    assert_same_weights(traced.model, plain.model)
    assert result.training_loss == expected.training_loss
    changed = {name for name, p in traced.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if name.startswith(trained)}


class NoLayers(nn.Module):
    """A language model without a list of layers."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(80, 16), nn.Linear(16, 80)
        self.dropout = nn.Dropout(0.1)

    def forward(self, input_ids, labels=None, attention_mask=None):
        logits = self.head(self.dropout(self.embedding(input_ids)))
        return CausalLMOutput(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits)


class Regression(nn.Module):
    """No language model at all."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x, labels=None):
        return {"loss": (self.layer(x)[:, 0] - labels).pow(2).mean()}


@pytest.mark.parametrize("make", [NoLayers, Regression])
def test_a_model_without_layers_is_refused_with_the_ways_out(make, make_args, token_rows, quick):
    trainer = LayerTracerTrainer(model=make(), args=make_args(), train_dataset=token_rows, layertracer_config=quick())
    with pytest.raises(LayerTracerError, match=r"No list of decoder layers.*layers_path=.*strategy='full'") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [NoLayers, Regression])
def test_a_model_without_layers_trains_as_under_trainer_where_everything_is_to_train(
    make, make_args, token_rows, quick, assert_same_weights, warnings_of
):
    rows = token_rows
    if make is Regression:
        rows = [{"x": torch.arange(3.0) + index, "labels": float(index)} for index in range(16)]
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(make())
    plain = Trainer(model=models[0], args=make_args("plain"), train_dataset=rows)
    plain.train()
    traced = LayerTracerTrainer(
        model=models[1],
        args=make_args(save_strategy="steps", save_steps=2),
        train_dataset=rows,
        layertracer_config=quick(strategy="full", diagnose_steps=1, diagnose_after=True),
    )
    traced.train()
    assert_same_weights(traced.model, plain.model)
    (warning,) = warnings_of()
    assert "freezes and measures nothing" in warning
    assert traced.layertracer_report is None
    assert not list(Path(traced.args.output_dir).rglob("layertracer_report.*"))


# -- models and optimizers of all kinds ------------------------------------------------------------------------------


def test_of_a_lora_model_only_the_adapters_of_trained_layers_train(
    make_model, make_args, token_dataset, quick, weights_of
):
    model = get_peft_model(
        make_model(), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    )
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    trainer.train()
    after = dict(model.named_parameters())
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    wanted = {name for name in after if "lora_" in name and (".layers.0." in name or ".layers.1." in name)}
    assert wanted
    assert changed == wanted
    assert {name for name, p in after.items() if p.requires_grad} == wanted
    assert trainer.layertracer_report.training.trainable_parameters == sum(after[name].numel() for name in wanted)


def test_what_the_user_froze_stays_frozen(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[0].requires_grad_(False)
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    trainer.train()
    assert_trained_only(model, before, ["model.layers.1."])


def test_tied_embeddings_are_frozen_with_the_head(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model(tie_word_embeddings=True)
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    trainer.train()
    assert_trained_only(model, before, ["model.layers.0.", "model.layers.1."])
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("stepped_before", [False, True])
def test_frozen_parameters_drop_out_of_an_optimizer_that_the_user_made(
    stepped_before, make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    groups = [{"params": list(layer.parameters()), "lr": 1e-2 / (1 + i)} for i, layer in enumerate(model.model.layers)]
    optimizer = torch.optim.AdamW([*groups, {"params": [model.lm_head.weight]}], lr=1e-2)
    if stepped_before:
        model(input_ids=torch.tensor([[4, 5, 6]]), labels=torch.tensor([[4, 5, 6]])).loss.backward()
        optimizer.step()
        model.zero_grad()
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model,
        args=make_args(weight_decay=0.1),
        train_dataset=token_dataset,
        optimizers=(optimizer, None),
        layertracer_config=quick(),
    )
    trainer.train()
    assert_trained_only(model, before, ["model.layers.0.", "model.layers.1."])
    trained = {id(p) for layer in model.model.layers[:2] for p in layer.parameters()}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained
    assert {id(p) for p in optimizer.state} == trained
    assert [group["initial_lr"] for group in optimizer.param_groups if group["params"]] == [1e-2, 5e-3]


def test_a_model_init_is_diagnosed_and_frozen_at_every_run(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only, assert_same_weights
):
    def init():
        from transformers import LlamaForCausalLM

        return LlamaForCausalLM(make_model().config)

    args = make_args()
    trainer = LayerTracerTrainer(
        model_init=init, args=args, train_dataset=token_dataset, layertracer_config=quick(diagnose_after=True)
    )
    trainer.train()
    set_seed(args.seed)
    fresh = weights_of(init())
    assert_trained_only(trainer.model, fresh, SHALLOW_HALF)
    first, found = weights_of(trainer.model), [measured(d) for d in trainer.layertracer_report.diagnoses]
    trainer.train()
    assert_same_weights(trainer.model, first)
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == {
        name for name in fresh if name.startswith(SHALLOW_HALF)
    }
    assert [measured(d) for d in trainer.layertracer_report.diagnoses] == found


def test_each_model_of_a_model_init_gets_a_report_of_its_own(make_model, make_args, token_dataset, quick):
    sizes = iter([2, 4, 6])  # the first is made by the constructor
    trainer = LayerTracerTrainer(
        model_init=lambda: make_model(num_hidden_layers=next(sizes)),
        args=make_args(max_steps=1),
        train_dataset=token_dataset,
        layertracer_config=quick(),
    )
    plans = []
    for _ in range(2):
        trainer.train()
        plans.append(trainer.layertracer_report.plan)
    assert [plan.trained_layers for plan in plans] == [[0, 1], [0, 1, 2]]
    assert len(trainer.layertracer_report.sensitivity.mean) == 6


def test_a_second_call_of_train_keeps_the_plan_and_reports_on_itself(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only, monkeypatch
):
    model = make_model()
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick(diagnose_after=True)
    )
    trainer.train()
    plan, first, between = trainer.layertracer_report.plan, trainer.layertracer_report.latest, weights_of(model)
    trainer.train()
    assert trainer.layertracer_report.plan == plan
    assert_trained_only(model, before, SHALLOW_HALF)
    assert_trained_only(model, between, SHALLOW_HALF)
    report = trainer.layertracer_report
    assert (report.training.steps, report.training.tokens) == (3, 72)
    _, second = report.diagnoses
    assert second.step == 3
    assert second.scores.mean_log_probability != first.scores.mean_log_probability


def test_evaluating_before_training_is_as_harmless_as_under_trainer(
    make_model, make_args, token_dataset, quick, assert_same_weights
):
    def arguments(name: str) -> dict[str, Any]:
        return {
            "model": make_model(),
            "args": make_args(name),
            "train_dataset": token_dataset,
            "eval_dataset": token_dataset,
        }

    models = []
    for make in (
        lambda: Trainer(**arguments("plain")),
        lambda: LayerTracerTrainer(**arguments("run"), layertracer_config=quick(strategy="full")),
    ):
        trainer = make()
        trainer.evaluate()
        trainer.train()
        models.append(trainer.model)
    assert_same_weights(*models)
    assert trainer.layertracer_report.training.eval_loss_before is None


def test_the_loss_is_logged_where_a_diagnosis_is_due_too(make_model, make_args, token_dataset, quick):
    histories = []
    for config in (quick(strategy="full"), quick(strategy="full", diagnose_steps=1)):
        trainer = LayerTracerTrainer(
            model=make_model(),
            args=make_args(logging_strategy="steps", logging_steps=1),
            train_dataset=token_dataset,
            layertracer_config=config,
        )
        trainer.train()
        histories.append([(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry])
    assert [step for step, _ in histories[0]] == [1, 2, 3]
    assert histories[1] == histories[0]


# -- other trainers --------------------------------------------------------------------------------------------------


class MySFT(LayerTracerMixin, SFTTrainer):
    pass


class MySeq2Seq(LayerTracerMixin, Seq2SeqTrainer):
    pass


def test_the_mixin_traces_sft_on_text(
    make_model, make_args, tokenizer, text_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    args = make_args(
        kind=SFTConfig, max_length=32, dataset_text_field="text", logging_strategy="steps", logging_steps=1,
        save_strategy="steps", save_steps=2, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = MySFT(
        model=model,
        args=args,
        train_dataset=text_dataset,
        processing_class=tokenizer,
        layertracer_config=quick(diagnose_steps=2),
    )
    trainer.train()
    assert_trained_only(model, before, SHALLOW_HALF)
    report = trainer.layertracer_report
    assert report.probes.tasks == {"text": 4}
    assert report.training.tokens > 0
    assert [diagnosis.step for diagnosis in report.diagnoses] == [0, 2]
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [1, 2, 3]
    card = Path(args.output_dir, "README.md").read_text()
    assert "LayerTracer" in card
    assert "SFT" in card  # TRL writes its own card at every checkpoint


def test_the_mixin_traces_sft_with_lora(make_model, make_args, tokenizer, text_dataset, quick):
    trainer = MySFT(
        model=make_model(),
        args=make_args(kind=SFTConfig, max_length=32, packing=False),
        train_dataset=text_dataset,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        layertracer_config=quick(),
    )
    trainer.train()
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(trained) == 4
    assert all("lora_" in name and (".layers.0." in name or ".layers.1." in name) for name in trained)


def test_the_mixin_traces_a_seq2seq_trainer(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    trainer = MySeq2Seq(
        model=model,
        args=make_args(kind=Seq2SeqTrainingArguments),
        train_dataset=token_dataset,
        layertracer_config=quick(),
    )
    trainer.train()
    assert_trained_only(model, before, SHALLOW_HALF)


# -- mistakes --------------------------------------------------------------------------------------------------------


def test_an_unknown_strategy_is_refused_when_the_trainer_is_made(make_model, make_args):
    with pytest.raises(LayerTracerError, match=r"no-such.*freeze-deep, freeze-shallow, full"):
        LayerTracerTrainer(
            model=make_model(), args=make_args(), layertracer_config=LayerTracerConfig(strategy="no-such")
        )


def test_an_option_of_another_strategy_is_refused_when_the_trainer_is_made(make_model, make_args):
    with pytest.raises(LayerTracerError, match=r"'full' has no option freeze_ratio"):
        LayerTracerTrainer(
            model=make_model(),
            args=make_args(),
            layertracer_config=LayerTracerConfig(strategy="full", freeze_ratio=0.25),
        )


def test_after_a_failed_start_training_does_not_go_on_unplanned(
    make_model, make_args, token_dataset, quick, monkeypatch, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    with monkeypatch.context() as patch:
        patch.setattr("hf_layertracer.training.measuring.diagnose", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    trainer.train()
    assert_trained_only(model, before, SHALLOW_HALF)
    assert trainer.layertracer_report.plan.trained_layers == [0, 1]


def test_a_subclass_that_leaves_no_moment_to_freeze_is_refused(make_model, make_args, token_dataset, quick):
    class Own(LayerTracerTrainer):
        def get_train_dataloader(self) -> Any:
            return Trainer.get_train_dataloader(self)

        def create_optimizer(self, *_: Any, **__: Any) -> Any:
            return Trainer.create_optimizer(self)

    trainer = Own(model=make_model(), args=make_args(), train_dataset=token_dataset, layertracer_config=quick())
    with pytest.raises(LayerTracerError, match=r"No plan is in force.*super\(\)\.create_optimizer"):
        trainer.train()


def _fail(*_: Any, **__: Any) -> None:
    raise AssertionError("diagnosed")


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
