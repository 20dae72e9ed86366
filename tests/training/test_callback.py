"""LayerTracerCallback in a Trainer whose class stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tolerance import assert_close_weights, nearly
from transformers import Trainer, TrainerCallback

from hf_layertracer import LayerTracerCallback, LayerTracerError, LayerTracerReport, LayerTracerTrainer, Probe


PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12), Probe((13, 14, 15), 16)]
SHALLOW_HALF = ("model.embed_tokens", "model.layers.0.", "model.layers.1.")


def test_the_callback_freezes_and_trains_what_the_trainer_class_does(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    callback = LayerTracerCallback(quick(), PROBES)
    trainer = Trainer(
        model=model,
        args=make_args("callback", save_strategy="steps", save_steps=2),
        train_dataset=token_dataset,
        callbacks=[callback],
    )
    trainer.train()
    assert callback.report.plan.trained_layers == [0, 1]
    assert_trained_only(model, before, SHALLOW_HALF)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in trainer.optimizer.param_groups for p in group["params"]} == trained

    other = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick()
    )
    other.train()
    assert_close_weights(trainer.model, other.model)
    assert callback.report.sensitivity.model_dump() == nearly(other.layertracer_report.sensitivity)
    assert callback.report.plan == other.layertracer_report.plan

    run = Path(trainer.args.output_dir)
    assert LayerTracerReport.load(run) == callback.report
    assert (run / "layertracer_report.png").is_file()
    assert LayerTracerReport.load(run / "checkpoint-2").plan == callback.report.plan
    assert callback.report.training.steps == 3


def test_the_callback_draws_its_probes_from_the_data(make_model, make_args, token_dataset, quick):
    callback = LayerTracerCallback(quick(strategy="sensitivity", freeze_ratio=0.5))
    Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback]).train()
    assert callback.report.is_measured
    assert callback.report.probes.count == 4


def test_a_callback_that_is_added_later_is_refused(make_model, make_args, token_dataset, quick):
    trainer = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset)
    trainer.add_callback(LayerTracerCallback(quick(), PROBES))
    with pytest.raises(LayerTracerError, match=r"too late.*callbacks=\[LayerTracerCallback\(\)\].*LayerTracerTrainer"):
        trainer.train()


def test_with_a_model_init_each_run_has_a_model_that_is_traced(make_model, make_args, token_dataset, quick):
    callback = LayerTracerCallback(quick(), PROBES)
    trainer = Trainer(
        model_init=lambda: make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback]
    )
    for _ in range(2):
        trainer.train()
        assert [p.requires_grad for p in trainer.model.model.layers[3].parameters()] == [False] * 9
        assert callback.report.training.steps == 3


def test_a_trainer_that_traces_already_takes_no_callback_besides(make_model, make_args, token_dataset, quick):
    with pytest.raises(LayerTracerError, match="traces already"):
        LayerTracerTrainer(
            model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[LayerTracerCallback(quick())]
        )


def test_the_trainer_keeps_its_class_and_name(make_model, make_args, token_dataset, quick):
    class Own(Trainer):
        def greet(self) -> str:
            return "hello"

    trainer = Own(model=make_model(), args=make_args(), callbacks=[LayerTracerCallback(quick())])
    assert isinstance(trainer, Own)
    assert type(trainer).__name__ == "Own"
    assert trainer.greet() == "hello"


def test_the_callback_shows_its_metrics_to_the_trackers(make_model, make_args, token_dataset, quick):
    class Tracker(TrainerCallback):
        def __init__(self):
            self.seen: list[tuple[int, dict[str, float]]] = []

        def on_log(self, args, state, control, logs, **_):
            self.seen.append((state.global_step, dict(logs)))

    tracker, callback = Tracker(), LayerTracerCallback(quick(diagnose_steps=2), PROBES)
    trainer = Trainer(
        model=make_model(),
        args=make_args(logging_strategy="steps", logging_steps=1),
        train_dataset=token_dataset,
        callbacks=[callback, tracker],
    )
    trainer.train()
    ours = [(step, logs) for step, logs in tracker.seen if "layertracer/sensitivity" in logs]
    assert [step for step, _ in ours] == [0, 2]
    first, later = (diagnosis.sensitivity.mean for diagnosis in callback.report.diagnoses)
    assert ours[0][1]["layertracer/trained_layers"] == 2
    assert ours[0][1]["layertracer/sensitivity"] == pytest.approx(sum(first) / 4)
    assert ours[1][1]["layertracer/sensitivity"] == pytest.approx(sum(later) / 4)
    log = [(entry["step"], "loss" in entry) for entry in trainer.state.log_history]
    assert log == [(1, True), (2, True), (3, True), (3, False)], "log_history is the trainer's alone"


def test_frozen_parameters_drop_out_of_an_optimizer_made_before_the_callback(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    Trainer(
        model=model,
        args=make_args(),
        train_dataset=token_dataset,
        optimizers=(optimizer, None),
        callbacks=[LayerTracerCallback(quick(), PROBES)],
    ).train()
    assert_trained_only(model, before, SHALLOW_HALF)
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.parameters() if p.requires_grad}


def test_in_mixed_precision_later_diagnoses_of_the_callback_compare_with_the_first(
    make_model, make_args, token_dataset, quick
):
    callback = LayerTracerCallback(quick(diagnose_after=True), PROBES)
    Trainer(
        model=make_model(),
        args=make_args(bf16=True, learning_rate=0.0),  # so that nothing changes between the two
        train_dataset=token_dataset,
        callbacks=[callback],
    ).train()
    before, after = callback.report.diagnoses
    # The first is taken before the model is wrapped, the second after.
    assert after.sensitivity.mean == nearly(before.sensitivity.mean, abs=1e-8)
    assert after.lens.mean_probability == nearly(before.lens.mean_probability)


def test_a_model_that_cannot_be_measured_is_planned_under_the_callback(
    make_args, token_dataset, quick, weights_of, plan_lines_of
):
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(
        BertConfig(vocab_size=80, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    )
    before = weights_of(model)
    dataset = token_dataset.remove_columns("labels").add_column("labels", [0, 1] * 8)
    callback = LayerTracerCallback(quick(diagnose_steps=1, diagnose_after=True), PROBES)
    trainer = Trainer(
        model=model,
        args=make_args(save_strategy="steps", save_steps=2),
        train_dataset=dataset,
        callbacks=[callback],
    )
    assert trainer.train().global_step == 3
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not any("encoder.layer.1." in name for name in changed)
    assert "classifier.weight" in changed
    assert callback.report.latest is None
    assert LayerTracerReport.load(trainer.args.output_dir) == callback.report
    assert LayerTracerReport.load(Path(trainer.args.output_dir) / "checkpoint-2").plan == callback.report.plan
    assert len(plan_lines_of()) == 1
