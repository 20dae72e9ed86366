"""What a traced run measures, logs and saves along the way, and the settings that it is given."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.made_reports import make_report
from support.tolerance import nearly
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import HfArgumentParser, TrainingArguments

from hf_layertracer import LayerTracerConfig, LayerTracerError, LayerTracerReport, LayerTracerTrainer, diagnose, files
from hf_layertracer.planning import STRATEGIES
from hf_layertracer.training.metrics import plan_line


# -- diagnosing again ------------------------------------------------------------------------------------------------


def test_diagnosing_again_is_recorded_and_does_not_change_the_training(
    make_model, make_args, token_dataset, quick, assert_same_weights
):
    trainers = []
    for name, changes in {"once": {}, "again": {"diagnose_steps": 2, "diagnose_after": True}}.items():
        trainer = LayerTracerTrainer(
            model=make_model(),
            args=make_args(name, max_steps=5),
            train_dataset=token_dataset,
            layertracer_config=quick(**changes),
        )
        trainer.train()
        trainers.append(trainer)
    once, again = trainers
    assert_same_weights(again.model, once.model)
    assert not once.layertracer_report.is_repeated
    found = again.layertracer_report.diagnoses
    assert [diagnosis.step for diagnosis in found] == [0, 2, 4, 5]
    assert LayerTracerReport.load(again.args.output_dir).diagnoses == found
    assert len({diagnosis.scores.mean_log_probability for diagnosis in found}) == 4
    # A later diagnosis holds all that the first one holds.
    for diagnosis in found:
        diagnosis.check(4, again.layertracer_report.probes.count, whole=True)
        assert diagnosis.sensitivity.covariance is not None
        assert diagnosis.durations


def test_the_last_diagnosis_is_that_of_the_final_model(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(),
        train_dataset=token_dataset,
        layertracer_config=quick(diagnose_after=True),
    )
    trainer.train()
    probes, config = trainer._layertracer.tracer._probes, quick().diagnosis()
    now = diagnose(trainer.model, probes, config=config)
    last = trainer.layertracer_report.latest
    # The trainer has wrapped the model that is measured by hand here.
    assert last.sensitivity.mean == nearly(now.sensitivity.mean)
    assert last.scores.mean_log_probability == nearly(now.latest.scores.mean_log_probability)
    assert trainer.layertracer_report.probes.sha256 == now.probes.sha256
    assert trainer.model.training


def test_a_diagnosis_due_at_the_last_step_is_not_made_twice(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(max_steps=2),
        train_dataset=token_dataset,
        layertracer_config=quick(diagnose_steps=2, diagnose_after=True),
    )
    trainer.train()
    assert [diagnosis.step for diagnosis in trainer.layertracer_report.diagnoses] == [0, 2]
    assert LayerTracerReport.load(trainer.args.output_dir).training.steps == 2


def test_in_mixed_precision_later_diagnoses_compare_with_the_first(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(bf16=True, learning_rate=0.0),  # so that nothing changes between the two
        train_dataset=token_dataset,
        layertracer_config=quick(diagnose_after=True),
    )
    trainer.train()
    report = trainer.layertracer_report
    before, after = report.diagnoses
    # The first is taken before the model is wrapped, the second after.
    assert after.sensitivity.mean == nearly(before.sensitivity.mean, abs=1e-8)
    assert after.lens.mean_probability == nearly(before.lens.mean_probability)


@pytest.mark.parametrize("arguments", [{}, {"gradient_accumulation_steps": 3}])
def test_tokens_of_all_batches_are_counted(arguments, make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(max_steps=2, **arguments),
        train_dataset=token_dataset,
        layertracer_config=quick(),
    )
    trainer.train()
    # Of 8 batches in an epoch, the second step takes three more.
    training = trainer.layertracer_report.training
    assert training.tokens == 2 * arguments.get("gradient_accumulation_steps", 1) * 2 * 12
    assert training.tokens_per_second > 0


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_reach_tensorboard(make_model, make_args, token_dataset, quick, monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    # No token is likely in a random model, so that a low bar is needed for a task particle.
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(report_to="tensorboard"),
        train_dataset=token_dataset,
        layertracer_config=quick(diagnose_steps=2, min_probability=1e-6, rise=1e-6),
    )
    trainer.train()
    report = trainer.layertracer_report
    folder = next((tmp_path / "events").rglob("events.out.tfevents.*")).parent
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = {
        tag.removeprefix("train/"): [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    means = [diagnosis.sensitivity.mean for diagnosis in report.diagnoses]
    assert scalars["layertracer/sensitivity"] == [
        (0, pytest.approx(sum(means[0]) / 4)),
        (2, pytest.approx(sum(means[1]) / 4)),
    ]
    particles = [(diagnosis.step, diagnosis.task_particle.layer) for diagnosis in report.diagnoses]
    assert report.first.task_particle.layer is not None
    assert scalars["layertracer/task_particle"] == [(s, v) for s, v in particles if v is not None]
    assert scalars["layertracer/trained_layers"] == [(0, 2)]


# -- settings --------------------------------------------------------------------------------------------------------


def test_settings_parse_beside_training_arguments():
    parser = HfArgumentParser((TrainingArguments, LayerTracerConfig))
    line = (
        "--output_dir out --seed 5 --strategy explicit --train_layers 0-3 --train_head false --num_probes 8 "
        "--diagnose_steps 10 --diagnose_after --perturbation skip --diagnosis_seed 3 --report_to none --use_cpu"
    )
    args, config = parser.parse_args_into_dataclasses(line.split())
    assert (args.seed, args.output_dir) == (5, "out")
    assert config == LayerTracerConfig(
        strategy="explicit",
        train_layers="0-3",
        train_head=False,
        num_probes=8,
        diagnose_steps=10,
        diagnose_after=True,
        perturbation="skip",
        diagnosis_seed=3,
    )
    assert config.diagnosis().diagnosis_seed == 3
    assert parser.parse_args_into_dataclasses(["--output_dir", "out", "--use_cpu"])[1] == LayerTracerConfig()


@pytest.mark.parametrize(
    "line",
    [
        "--mask_ratio 2",
        "--freeze_ratio 1.5",
        "--num_probes 0",
        "--diagnose_steps -1",
        "--max_memory 0",
        "--perturbation shake",
    ],
)
def test_values_out_of_range_are_refused_when_they_are_parsed(line):
    name = line.split()[0].removeprefix("--")
    with pytest.raises(LayerTracerError, match=name):
        HfArgumentParser(LayerTracerConfig).parse_args_into_dataclasses(line.split())


def test_values_of_no_known_kind_are_refused_by_the_parser(capsys):
    line = "--num_probes many"
    with pytest.raises(SystemExit):
        HfArgumentParser(LayerTracerConfig).parse_args_into_dataclasses(line.split())
    assert line.split()[1] in capsys.readouterr().err


def test_an_unknown_strategy_lists_the_known_ones(make_model, make_args):
    with pytest.raises(LayerTracerError) as caught:
        LayerTracerTrainer(model=make_model(), args=make_args(), layertracer_config=LayerTracerConfig(strategy="deep"))
    assert all(name in str(caught.value) for name in STRATEGIES)


# -- a full disk -----------------------------------------------------------------------------------------------------


class FullDisk:
    """Lets every write of a report fail while it is full; other files still find room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.full, self.attempts = True, 0
        names = ("fdopen", "fsync", "umask", "chmod", "replace")
        monkeypatch.setattr(
            files, "os", SimpleNamespace(**{name: getattr(os, name) for name in names} | {"fsync": self.fsync})
        )

    def fsync(self, descriptor: int) -> None:
        self.attempts += 1
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        r.getMessage()
        for r in caplog.records
        if r.name.startswith("transformers.hf_layertracer") and r.levelname == "ERROR"
    ]


def test_a_full_disk_ends_no_training_and_logs_one_line_a_report(
    make_model, make_args, token_dataset, quick, monkeypatch, caplog
):
    disk = FullDisk(monkeypatch)
    trainer = LayerTracerTrainer(
        model=make_model(),
        args=make_args(save_strategy="steps", save_steps=3),
        train_dataset=token_dataset,
        layertracer_config=quick(),
    )
    assert trainer.train().global_step == 3
    errors = _errors(caplog)
    assert len(errors) == 3  # at the beginning, in the checkpoint and at the end
    assert disk.attempts == 4  # at the end, in a temporary folder too
    assert all(str(trainer.args.output_dir) in line for line in errors)
    assert all("not saved" in line and "No space left" in line for line in errors)
    assert trainer.layertracer_report.training.steps == 3
    # Neither reports nor halves of them.
    assert [path.name for path in Path(trainer.args.output_dir).rglob("*layertracer*")] == []
    assert (Path(trainer.args.output_dir) / "checkpoint-3" / "model.safetensors").is_file()


def test_a_disk_that_fills_up_leaves_the_earlier_report_whole(
    make_model, make_args, token_dataset, quick, monkeypatch, caplog
):
    disk = FullDisk(monkeypatch)
    disk.full = False
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    monkeypatch.setattr(trainer, "store_flos", lambda: setattr(disk, "full", True))  # runs once the last step is done
    trainer.train()
    assert len(_errors(caplog)) == 1
    saved = LayerTracerReport.load(trainer.args.output_dir)
    assert saved.plan == trainer.layertracer_report.plan
    assert saved.training is None


# -- what is said of a plan ------------------------------------------------------------------------------------------


def test_a_plan_that_freezes_the_most_sensitive_layer_says_so():
    applied = SimpleNamespace(trainable_parameters=100)
    lines = {}
    for vulnerable in (0, 5):
        values = [0.5 if layer == vulnerable else 0.1 for layer in range(6)]
        report = make_report(sensitivity__mean=values, sensitivity__vulnerable_layer=vulnerable)
        lines[vulnerable] = plan_line(report, applied, Path("out"))
    assert "The most sensitive layer, 5 (0.500 ± 0.020 bits), is among the frozen ones. Report: out" in lines[5]
    assert "most sensitive layer" not in lines[0]
