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
    assert callback.report.plan.trained_layers == [0, 1]  # while the trainer is constructed
    trainer.train()
    assert_trained_only(model, before, SHALLOW_HALF)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in trainer.optimizer.param_groups for p in group["params"]} == trained

    other = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick()
    )
    other.train()
    # The callback measures while the trainer is made, the trainer when training begins.
    assert_close_weights(trainer.model, other.model)
    assert callback.report.sensitivity.model_dump() == nearly(other.layertracer_report.sensitivity)
    assert callback.report.plan == other.layertracer_report.plan

    run = Path(trainer.args.output_dir)
    assert LayerTracerReport.load(run) == callback.report
    assert (run / "layertracer_report.png").is_file()
    assert LayerTracerReport.load(run / "checkpoint-2").plan == callback.report.plan
    assert callback.report.training.steps == 3


def test_the_callback_asks_the_probes_of_the_package_with_the_tokenizer(
    make_model, make_args, token_dataset, tokenizer, quick
):
    callback = LayerTracerCallback(quick(repeats=1))
    Trainer(
        model=make_model(),
        args=make_args(),
        train_dataset=token_dataset,
        processing_class=tokenizer,
        callbacks=[callback],
    )
    assert len(callback.report.probes.tasks) > 1


def test_without_tokenizer_and_probes_the_callback_plans_by_structure(
    make_model, make_args, token_dataset, quick, plan_lines_of
):
    callback = LayerTracerCallback(quick())
    Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback]).train()
    assert callback.report.plan.frozen_layers == [2, 3]
    assert not callback.report.is_measured
    (line,) = plan_lines_of()
    assert "needs a tokenizer" in line
    needy = LayerTracerCallback(quick(strategy="sensitivity"))
    with pytest.raises(LayerTracerError, match=r"'sensitivity' needs measurements.*needs a tokenizer: pass probes="):
        Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[needy])


def test_a_callback_that_is_added_later_is_refused(make_model, make_args, token_dataset, quick):
    trainer = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset)
    trainer.add_callback(LayerTracerCallback(quick(), PROBES))
    with pytest.raises(LayerTracerError, match=r"too late.*callbacks=\[LayerTracerCallback\(\)\].*LayerTracerTrainer"):
        trainer.train()


def test_a_callback_with_a_model_init_is_refused(make_model, make_args, token_dataset, quick):
    trainer = Trainer(
        model_init=lambda: make_model(),
        args=make_args(),
        train_dataset=token_dataset,
        callbacks=[LayerTracerCallback(quick(), PROBES)],
    )
    with pytest.raises(LayerTracerError, match=r"model_init.*LayerTracerTrainer"):
        trainer.train()


def test_a_callback_that_is_attached_shows_its_metrics_to_the_trackers(make_model, make_args, token_dataset, quick):
    class Tracker(TrainerCallback):
        def __init__(self):
            self.seen: list[tuple[int, dict[str, float]]] = []

        def on_log(self, args, state, control, logs, **_):
            self.seen.append((state.global_step, dict(logs)))

    histories = []
    for attached in (True, False):
        tracker, callback = Tracker(), LayerTracerCallback(quick(diagnose_steps=2), PROBES)
        trainer = Trainer(
            model=make_model(),
            args=make_args(logging_strategy="steps", logging_steps=1),
            train_dataset=token_dataset,
            callbacks=[callback, tracker],
        )
        if attached:
            callback.attach(trainer)
        trainer.train()
        ours = [(step, logs) for step, logs in tracker.seen if "layertracer/sensitivity" in logs]
        assert [step for step, _ in ours] == ([0, 2] if attached else [])
        if attached:
            report = callback.report
            assert ours[0][1]["layertracer/trained_layers"] == 2
            assert ours[0][1]["layertracer/sensitivity"] == pytest.approx(sum(report.first.sensitivity.mean) / 4)
            assert ours[1][1]["layertracer/sensitivity"] == pytest.approx(
                sum(report.diagnoses[1].sensitivity.mean) / 4
            )
        histories.append([(entry["step"], sorted(entry)) for entry in trainer.state.log_history])
    assert [step for step, names in histories[0] if "loss" in names] == [1, 2, 3]
    assert histories[0] == histories[1], "log_history is the trainer's alone"


def test_a_callback_is_attached_to_no_trainer_that_does_not_have_it(make_model, make_args, token_dataset, quick):
    trainer = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset)
    with pytest.raises(LayerTracerError, match=r"not one of the trainer's.*callbacks=\[callback\]"):
        LayerTracerCallback(quick(), PROBES).attach(trainer)


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
    callback.attach(trainer)
    assert trainer.train().global_step == 3
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not any("encoder.layer.1." in name for name in changed)
    assert "classifier.weight" in changed
    assert callback.report.latest is None
    assert LayerTracerReport.load(trainer.args.output_dir) == callback.report
    assert LayerTracerReport.load(Path(trainer.args.output_dir) / "checkpoint-2").plan == callback.report.plan
    assert len(plan_lines_of()) == 1
