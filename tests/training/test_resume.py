"""Going on after an interruption: the checkpoint's plan stays, and the weights are those of a run without one.

Within rounding: a resumed run has its tensors from files, at other addresses, and a killed one was another process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import kill_when, load_script
from support.tolerance import assert_close_weights, measured, nearly
from transformers import LlamaConfig, LlamaForSequenceClassification, Trainer

from hf_layertracer import (
    LayerTracerCallback,
    LayerTracerError,
    LayerTracerReport,
    LayerTracerTrainer,
    Probe,
)


PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12)]
SCRIPTS = Path(__file__).parent / "scripts"


def _fail(*_: Any, **__: Any) -> None:
    raise AssertionError("diagnosed again")


@pytest.fixture
def saving(make_args):
    """Arguments of a run of five steps with a checkpoint after the third."""
    return make_args(max_steps=5, save_strategy="steps", save_steps=3)


def _lose_the_end(args: Any) -> Path:
    """Leaves the run as it was after its third step."""
    shutil.rmtree(Path(args.output_dir) / "checkpoint-5")
    return Path(args.output_dir) / "checkpoint-3"


def test_a_resumed_run_keeps_the_plan_without_a_diagnosis_and_ends_with_the_same_weights(
    make_model, saving, token_dataset, quick, monkeypatch, warnings_of
):
    explicit = quick(strategy="explicit", train_layers="0,2", diagnose_steps=2)
    whole = LayerTracerTrainer(
        model=make_model(), args=saving, train_dataset=token_dataset, layertracer_config=explicit
    )
    whole.train()
    checkpoint = _lose_the_end(saving)
    saved = LayerTracerReport.load(checkpoint)
    assert warnings_of() == []

    monkeypatch.setattr("hf_layertracer.training.measuring.diagnose", _fail)
    resumed = LayerTracerTrainer(
        model=make_model(), args=saving, train_dataset=token_dataset, layertracer_config=quick()
    )
    resumed.train(resume_from_checkpoint=True)
    (warning,) = warnings_of()
    assert "explicit" in warning
    assert "freeze-deep" in warning
    report = resumed.layertracer_report
    assert report.plan == saved.plan
    assert (report.plan.strategy, report.plan.trained_layers) == ("explicit", [0, 2])
    assert report.first == saved.first
    assert [diagnosis.step for diagnosis in report.diagnoses] == [0, 2]
    assert report.training.steps == 2
    assert_close_weights(resumed.model, whole.model)
    assert {name for name, p in resumed.model.named_parameters() if p.requires_grad} == {
        name for name, p in whole.model.named_parameters() if p.requires_grad
    }
    assert LayerTracerReport.load(saving.output_dir) == report


def test_a_run_resumed_with_its_own_settings_warns_of_nothing_and_repeats_later_diagnoses(
    make_model, saving, token_dataset, quick, warnings_of
):
    config = quick(strategy="random", freeze_ratio=0.25, diagnosis_seed=4, train_norm=True, diagnose_steps=2)
    whole = LayerTracerTrainer(model=make_model(), args=saving, train_dataset=token_dataset, layertracer_config=config)
    whole.train()
    # Killed between the checkpoint and its report: the report of the run, which may be ahead, has to do.
    checkpoint = _lose_the_end(saving)
    (checkpoint / "layertracer_report.json").unlink()
    resumed = LayerTracerTrainer(
        model=make_model(), args=saving, train_dataset=token_dataset, layertracer_config=config
    )
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert warnings_of() == []
    assert_close_weights(resumed.model, whole.model)
    assert [diagnosis.step for diagnosis in whole.layertracer_report.diagnoses] == [0, 2, 4]
    assert [nearly(measured(d)) for d in whole.layertracer_report.diagnoses] == [
        measured(d) for d in resumed.layertracer_report.diagnoses
    ]


def test_other_options_of_the_same_strategy_are_warned_of(make_model, saving, token_dataset, quick, warnings_of):
    first = LayerTracerTrainer(
        model=make_model(), args=saving, train_dataset=token_dataset, layertracer_config=quick(freeze_ratio=0.25)
    )
    first.train()
    _lose_the_end(saving)
    resumed = LayerTracerTrainer(
        model=make_model(), args=saving, train_dataset=token_dataset, layertracer_config=quick(freeze_ratio=0.75)
    )
    resumed.train(resume_from_checkpoint=True)
    (warning,) = warnings_of()
    assert "0.25" in warning
    assert "0.75" in warning
    assert resumed.layertracer_report.plan.trained_layers == [0, 1, 2]


@pytest.mark.parametrize("way", ["class", "callback"])
def test_a_checkpoint_of_a_plain_trainer_is_refused_unless_everything_trains(
    way, make_model, saving, token_dataset, quick
):
    def traced(**config: Any) -> Trainer:
        settings = {"model": make_model(), "args": saving, "train_dataset": token_dataset}
        if way == "class":
            return LayerTracerTrainer(layertracer_config=quick(**config), **settings)
        return Trainer(callbacks=[LayerTracerCallback(quick(**config))], **settings)

    plain = Trainer(model=make_model(), args=saving, train_dataset=token_dataset)
    plain.train()
    _lose_the_end(saving)
    trainer = traced()
    for _ in range(2):  # refused once, it is not accepted at the next try
        with pytest.raises(LayerTracerError, match=r"checkpoint-3 holds no layertracer_report\.json.*strategy='full'"):
            trainer.train(resume_from_checkpoint=True)
    full = traced(strategy="full")
    full.train(resume_from_checkpoint=True)
    assert_close_weights(full.model, plain.model)


def test_a_model_that_cannot_be_measured_resumes_with_its_plan(make_args, token_dataset, quick, warnings_of):
    def model() -> LlamaForSequenceClassification:
        torch.manual_seed(3)
        return LlamaForSequenceClassification(
            LlamaConfig(
                vocab_size=80, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                num_labels=2, pad_token_id=0,
            )
        )  # fmt: skip

    dataset = token_dataset.remove_columns("labels").add_column("label", [0, 1] * 8)
    args = make_args(max_steps=5, save_strategy="steps", save_steps=3)
    whole = LayerTracerTrainer(model=model(), args=args, train_dataset=dataset, layertracer_config=quick())
    whole.train()
    _lose_the_end(args)
    resumed = LayerTracerTrainer(model=model(), args=args, train_dataset=dataset, layertracer_config=quick())
    resumed.train(resume_from_checkpoint=True)
    assert_close_weights(resumed.model, whole.model)
    assert resumed.layertracer_report.plan == whole.layertracer_report.plan
    assert not resumed.layertracer_report.is_measured
    assert warnings_of() == []


def test_a_lora_run_resumes_with_the_same_adapters(make_model, saving, token_dataset, quick):
    from peft import LoraConfig, get_peft_model

    def model():
        torch.manual_seed(2)
        return get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))

    def adapters(trainer: Trainer) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in trainer.model.named_parameters() if "lora_" in name}

    whole = LayerTracerTrainer(model=model(), args=saving, train_dataset=token_dataset, layertracer_config=quick())
    whole.train()
    _lose_the_end(saving)
    resumed = LayerTracerTrainer(model=model(), args=saving, train_dataset=token_dataset, layertracer_config=quick())
    resumed.train(resume_from_checkpoint=True)
    assert_close_weights(adapters(resumed), adapters(whole))


# -- the callback ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attached", [False, True], ids=["events alone", "attached"])
def test_the_callback_goes_on_under_the_plan_of_the_checkpoint_without_a_diagnosis(
    attached, make_model, saving, token_dataset, quick, monkeypatch
):
    def trainer(config) -> tuple[Trainer, LayerTracerCallback]:
        callback = LayerTracerCallback(config, PROBES)
        made = Trainer(make_model(), saving, train_dataset=token_dataset, callbacks=[callback])
        if attached:
            callback.attach(made)
        return made, callback

    whole, _ = trainer(quick(strategy="explicit", train_layers="0,2", diagnose_steps=2))
    whole.train()
    _lose_the_end(saving)
    monkeypatch.setattr("hf_layertracer.training.measuring.diagnose", _fail)
    resumed, callback = trainer(quick(diagnose_steps=2))
    resumed.train(resume_from_checkpoint=True)
    assert callback.report.plan.trained_layers == [0, 2]
    assert [diagnosis.step for diagnosis in callback.report.diagnoses] == [0, 2, 4]
    assert_close_weights(resumed.model, whole.model)


# -- a real kill -----------------------------------------------------------------------------------------------------


def test_a_killed_process_loses_neither_plan_nor_weights(tmp_path, warnings_of, quick):
    script = load_script(SCRIPTS / "train_slowly.py")
    run = tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(SCRIPTS / "train_slowly.py"), str(run)], env=environment)
    kill_when(process, (run / "checkpoint-4" / "trainer_state.json").is_file)
    left = LayerTracerReport.load(run)
    assert left.plan.trained_layers == [1, 3]
    assert left.training is None
    assert not (run / "checkpoint-12").exists()

    resumed = script.make_trainer(run, quick())
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 12
    assert len(warnings_of()) == 1  # of the settings that are ignored
    report = LayerTracerReport.load(run)
    assert report.plan == left.plan
    assert report.created == left.created
    assert 0 < report.training.steps <= 8

    whole = script.make_trainer(tmp_path / "whole")
    whole.train()
    assert_close_weights(resumed.model, whole.model)
