"""What Trainer promises holds: its log, its order of callbacks, its clock, its checkpoints, its streams, its optimizers."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import HPSearchBackend

from hf_layertracer import (
    LayerTracerCallback,
    LayerTracerError,
    LayerTracerMixin,
    LayerTracerReport,
    LayerTracerTrainer,
    Probe,
)
from hf_layertracer.training.checkpoints import newest_complete_checkpoint


PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12)]


# -- nothing that a report does ends a run ---------------------------------------------------------------------------


class Broken(LayerTracerTrainer):
    """Its loss is whatever it is told to be."""

    value = math.nan

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        found = super().compute_loss(*args, **kwargs)
        return (found[0] * self.value, *found[1:]) if isinstance(found, tuple) else found * self.value


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e35])
def test_a_loss_that_is_no_number_is_left_out_with_a_note(value, make_model, make_args, token_dataset, quick):
    trainer = Broken(
        model=make_model(),
        args=make_args(
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            eval_strategy="steps",
            eval_steps=1,
        ),
        train_dataset=token_dataset,
        eval_dataset=token_dataset,
        layertracer_config=quick(diagnose_steps=1, diagnose_after=True),
    )
    trainer.value = value
    assert trainer.train().global_step == 3
    report = LayerTracerReport.load(trainer.args.output_dir)
    assert report == trainer.layertracer_report
    assert (report.training.train_loss, report.training.eval_loss_after) == (None, None)
    assert sum("training loss was" in note for note in report.notes) == 1
    assert report.training.steps == 3
    json.loads(Path(trainer.args.output_dir, "layertracer_report.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("way", ["trainer", "callback"])
def test_whatever_fails_in_the_report_is_logged_and_the_run_goes_on(
    way, make_model, make_args, token_dataset, quick, monkeypatch, caplog
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("of our own making")

    settings = {
        "model": make_model(), "args": make_args(save_strategy="steps", save_steps=2), "train_dataset": token_dataset
    }  # fmt: skip
    config = quick(diagnose_steps=1, diagnose_after=True)
    if way == "trainer":
        trainer = LayerTracerTrainer(**settings, layertracer_config=config)
    else:
        trainer = Trainer(**settings, callbacks=[LayerTracerCallback(config, PROBES)])
    for place in ("events.Tracer.save", "outcome.TrainingOutcome", "tracer.diagnose", "events.Tracer.metrics"):
        monkeypatch.setattr(f"hf_layertracer.training.{place}", fail)
    assert trainer.train().global_step == 3
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) > 4
    assert all("Training goes on" in line and "of our own making" in line for line in said)


# -- logs, callbacks, time -------------------------------------------------------------------------------------------


def test_the_log_is_that_of_trainer(make_model, make_args, token_dataset, quick):
    histories = []
    for trainer_class, ours in (
        (Trainer, {}),
        (LayerTracerTrainer, {"layertracer_config": quick(strategy="full", diagnose_steps=1, diagnose_after=True)}),
    ):
        trainer = trainer_class(
            model=make_model(),
            args=make_args(trainer_class.__name__, logging_strategy="steps", logging_steps=1),
            train_dataset=token_dataset,
            **ours,
        )
        trainer.train()
        histories.append([sorted(entry) for entry in trainer.state.log_history])
        assert "train_loss" in trainer.state.log_history[-1]
        assert "loss" in trainer.state.log_history[0]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("way", ["trainer", "callback"])
def test_tracing_is_not_counted_as_training(way, make_model, make_args, token_dataset, quick, monkeypatch):
    from hf_layertracer.training import tracer as module

    real, pause = module.diagnose, 0.7

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(pause)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "diagnose", slowly)
    settings = {"model": make_model(), "args": make_args(), "train_dataset": token_dataset}
    config = quick(diagnose_steps=1)
    if way == "trainer":
        trainer = LayerTracerTrainer(**settings, layertracer_config=config)
    else:
        trainer = Trainer(**settings, callbacks=[LayerTracerCallback(config, PROBES)])
    began = time.perf_counter()
    metrics = trainer.train().metrics
    whole = time.perf_counter() - began
    assert 0 < metrics["train_runtime"] <= whole - 3 * pause
    assert metrics["train_steps_per_second"] == pytest.approx(3 / metrics["train_runtime"], rel=0.05, abs=0.01)
    assert trainer.state.log_history[-1]["train_runtime"] == metrics["train_runtime"]


def test_going_on_does_not_show_the_first_diagnosis_to_the_trackers_again(make_model, make_args, token_dataset, quick):
    class Tracker(TrainerCallback):
        def __init__(self):
            self.steps: list[int] = []

        def on_log(self, args, state, control, logs, **_):
            self.steps += [state.global_step] * ("layertracer/sensitivity" in logs)

    args = make_args(max_steps=5, save_strategy="steps", save_steps=3)
    seen = []
    for resume in (False, True):
        tracker = Tracker()
        trainer = LayerTracerTrainer(
            model=make_model(), args=args, train_dataset=token_dataset, callbacks=[tracker],
            layertracer_config=quick(diagnose_steps=4),
        )  # fmt: skip
        if resume:
            shutil.rmtree(Path(args.output_dir) / "checkpoint-5")
        trainer.train(resume_from_checkpoint=resume)
        seen.append(tracker.steps)
    assert seen == [[0, 4], [4]]


# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["no state", "half a state", "half of the weights", "no weights"])
def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(
    damage, make_model, make_args, token_dataset, quick, assert_same_weights, warnings_of
):
    args = make_args(max_steps=5, save_strategy="steps", save_steps=2)
    whole = LayerTracerTrainer(model=make_model(), args=args, train_dataset=token_dataset, layertracer_config=quick())
    whole.train()
    shutil.rmtree(Path(args.output_dir) / "checkpoint-5")
    newest = Path(args.output_dir) / "checkpoint-4"
    if damage == "no state":
        (newest / "trainer_state.json").unlink()
    elif damage == "half a state":
        (newest / "trainer_state.json").write_text((newest / "trainer_state.json").read_text()[:40])
    elif damage == "no weights":
        (newest / "model.safetensors").unlink()
        (newest / "optimizer.pt").unlink()
        (newest / "scheduler.pt").unlink()
        (newest / "training_args.bin").unlink()
    else:
        weights = newest / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    resumed = LayerTracerTrainer(
        model=make_model(), args=args, train_dataset=token_dataset, layertracer_config=quick()
    )
    resumed.train(resume_from_checkpoint=True)
    (warning,) = warnings_of()
    assert "from checkpoint-2" in warning
    assert "checkpoint-4" in warning
    assert_same_weights(resumed.model, whole.model)


def test_an_empty_training_set_fails_before_a_diagnosis(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args("empty"), train_dataset=token_dataset.select([]), layertracer_config=quick()
    )
    with pytest.raises(LayerTracerError, match="The training dataset is empty"):
        trainer.train()
    assert trainer.layertracer_report is None


def test_without_a_complete_checkpoint_trainer_itself_says_so(make_model, make_args, token_dataset, quick, tmp_path):
    (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    assert newest_complete_checkpoint(tmp_path / "run") is None
    assert newest_complete_checkpoint(tmp_path / "nowhere") is None
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args("empty"), train_dataset=token_dataset, layertracer_config=quick()
    )
    with pytest.raises(ValueError, match="No valid checkpoint"):
        trainer.train(resume_from_checkpoint=True)


# -- streams ---------------------------------------------------------------------------------------------------------


class Source(torch.utils.data.IterableDataset):
    """A stream over something that can be read once: `iter` returns the same iterator, or another one of it."""

    def __init__(self, rows: list[dict[str, Any]], same: bool):
        self.same, self._rows = same, iter(rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._rows if self.same else (row for row in self._rows)


@pytest.mark.parametrize("same", [True, False])
def test_a_stream_that_can_be_read_once_keeps_its_first_rows(
    same, make_model, make_args, token_rows, quick, assert_same_weights
):
    plain = Trainer(model=make_model(), args=make_args("plain", max_steps=6), train_dataset=Source(token_rows, same))
    plain.train()
    traced = LayerTracerTrainer(
        model=make_model(),
        args=make_args(max_steps=6),
        train_dataset=Source(token_rows, same),
        layertracer_config=quick(strategy="full", num_probes=5),
    )
    traced.train()
    assert traced.layertracer_report.probes.count == 5
    assert_same_weights(traced.model, plain.model)


# -- optimizers ------------------------------------------------------------------------------------------------------


def test_an_optimizer_that_asks_nobody_what_trains_keeps_no_frozen_parameter(
    make_model, make_args, token_dataset, quick
):
    """As those of GaLore and APOLLO: all weights whose name fits."""

    class GreedyBase(Trainer):
        def create_optimizer(self, *_: Any, **__: Any) -> Any:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
            return self.optimizer

    class Traced(LayerTracerMixin, GreedyBase):
        pass

    trainer = Traced(model=make_model(), args=make_args(), train_dataset=token_dataset, layertracer_config=quick())
    trainer.train()
    trained = {id(p) for p in trainer.model.parameters() if p.requires_grad}
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained
    assert {id(p) for p in optimizer.state} == trained


# -- full training of what little trains -----------------------------------------------------------------------------


def head_alone(model):
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    return model


def adapted(config):
    def make(model):
        torch.manual_seed(5)
        return get_peft_model(model, config)

    return make


@pytest.mark.parametrize(
    "prepare",
    [
        head_alone,
        adapted(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
        adapted(PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)),
        adapted(LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")),
    ],
    ids=["head", "prompt", "prefix", "lora"],
)
def test_full_is_trainer_bit_for_bit_however_little_trains(
    prepare, make_model, make_args, token_dataset, quick, assert_same_weights
):
    models = []
    for trainer_class, ours in ((Trainer, {}), (LayerTracerTrainer, {"layertracer_config": quick(strategy="full")})):
        trainer = trainer_class(
            model=prepare(make_model()), args=make_args(trainer_class.__name__), train_dataset=token_dataset, **ours
        )
        trainer.train()
        models.append(trainer.model)
    assert_same_weights(*models)
    trainable = sum(p.numel() for p in models[1].parameters() if p.requires_grad)
    assert trainer.layertracer_report.training.trainable_parameters == trainable > 0


# -- hyperparameter search -------------------------------------------------------------------------------------------


class Trial(dict):
    """As `hyperparameter_search` hands it over with Optuna, which need not be installed for this."""

    def __init__(self, number: int, **params: float):
        super().__init__(params)
        self.number, self.params = number, params


@pytest.mark.parametrize("way", ["trainer", "callback"])
def test_each_trial_of_a_search_keeps_a_report_of_its_own(
    way, make_model, make_args, token_dataset, quick, monkeypatch
):
    # No library for searches is installed: one that takes dictionaries for trials.
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: True)
    settings = {
        "model_init": lambda: make_model(),
        "args": make_args(save_strategy="steps", save_steps=2),
        "train_dataset": token_dataset,
    }
    callback = LayerTracerCallback(quick())
    if way == "trainer":
        trainer = LayerTracerTrainer(**settings, layertracer_config=quick())
    else:
        trainer = Trainer(**settings, callbacks=[callback])
    trainer.hp_search_backend, trainer.hp_space = HPSearchBackend.OPTUNA, lambda trial: trial.params
    run = Path(trainer.args.output_dir)
    for number, rate in enumerate((1e-2, 1e-3)):
        trainer.train(trial=Trial(number, learning_rate=rate))
        report = trainer.layertracer_report if way == "trainer" else callback.report
        assert LayerTracerReport.load(run / f"run-{number}") == report
        assert LayerTracerReport.load(run / f"run-{number}" / "checkpoint-2").plan == report.plan
    first, second = (LayerTracerReport.load(run / f"run-{number}").training for number in (0, 1))
    assert first.train_loss != second.train_loss


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_card_has_metadata_from_the_beginning(make_model, make_args, token_dataset, quick, caplog):
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    trainer.train()
    assert ModelCard.load(Path(trainer.args.output_dir) / "README.md").data.tags == ["layertracer"]
    trainer.create_model_card()
    assert not [record for record in caplog.records if "metadata block was not found" in record.getMessage()]
    assert "layertracer" in ModelCard.load(Path(trainer.args.output_dir) / "README.md").data.tags
