"""LayerTracerCallback in a Trainer whose class stays as it is: by its events alone, and attached."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from support.tolerance import assert_close_weights, nearly
from transformers import Trainer, TrainerCallback

from hf_layertracer import (
    LayerTracerCallback,
    LayerTracerError,
    LayerTracerReport,
    LayerTracerTrainer,
    Probe,
    make_plan,
)


PROBES = [Probe((5, 6, 7, 8), 9), Probe((10, 11), 12), Probe((13, 14, 15), 16)]
SHALLOW_HALF = ("model.embed_tokens", "model.layers.0.", "model.layers.1.")


@pytest.mark.parametrize("attached", [False, True], ids=["events alone", "attached"])
def test_the_callback_freezes_and_trains_what_the_trainer_class_does(
    attached, make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    callback = LayerTracerCallback(quick(), PROBES)
    trainer = Trainer(
        model=model,
        args=make_args("callback", save_strategy="steps", save_steps=2, weight_decay=0.1),
        train_dataset=token_dataset,
        callbacks=[callback],
    )
    if attached:
        callback.attach(trainer)
    trainer.train()
    assert callback.report.plan.trained_layers == [0, 1]
    assert_trained_only(model, before, SHALLOW_HALF)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == (trained if attached else {id(p) for p in model.parameters()})
    assert {id(p) for p in trainer.optimizer.state} == trained, "what is frozen has no state"

    other = LayerTracerTrainer(
        model=make_model(),
        args=make_args(weight_decay=0.1),
        train_dataset=token_dataset,
        probes=PROBES,
        layertracer_config=quick(),
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


def test_a_callback_that_is_added_later_traces_too(
    make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model, callback = make_model(), LayerTracerCallback(quick(), PROBES)
    before = weights_of(model)
    trainer = Trainer(model=model, args=make_args(), train_dataset=token_dataset)
    trainer.add_callback(callback)
    trainer.train()
    assert_trained_only(model, before, SHALLOW_HALF)
    assert callback.report.training.steps == 3


@pytest.mark.parametrize("attached", [False, True], ids=["events alone", "attached"])
def test_with_a_model_init_each_run_has_a_model_that_is_traced(attached, make_model, make_args, token_dataset, quick):
    callback = LayerTracerCallback(quick(), PROBES)
    trainer = Trainer(
        model_init=lambda: make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback]
    )
    if attached:
        callback.attach(trainer)
    for _ in range(2):
        trainer.train()
        assert [p.requires_grad for p in trainer.model.model.layers[3].parameters()] == [False] * 9
        assert callback.report.training.steps == 3


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
    callback.attach(trainer)
    trainer.train()
    ours = [(step, logs) for step, logs in tracker.seen if "layertracer/sensitivity" in logs]
    assert [step for step, _ in ours] == [0, 2]
    first, later = (diagnosis.sensitivity.mean for diagnosis in callback.report.diagnoses)
    assert ours[0][1]["layertracer/trained_layers"] == 2
    assert ours[0][1]["layertracer/sensitivity"] == pytest.approx(sum(first) / 4)
    assert ours[1][1]["layertracer/sensitivity"] == pytest.approx(sum(later) / 4)
    log = [(entry["step"], "loss" in entry) for entry in trainer.state.log_history]
    assert log == [(1, True), (2, True), (3, True), (3, False)], "log_history is the trainer's alone"


def test_an_optimizer_made_before_the_callback_keeps_no_state_of_what_is_frozen(
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


# -- events alone ----------------------------------------------------------------------------------------------------


def test_with_full_it_is_trainer_to_the_bit(make_model, make_args, token_dataset, quick, assert_same_weights):
    settings = {"train_dataset": token_dataset, "eval_dataset": token_dataset}
    args = {"logging_strategy": "steps", "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
    plain = Trainer(model=make_model(), args=make_args("plain", **args), **settings)
    plain.train()
    callback = LayerTracerCallback(quick(strategy="full", diagnose_steps=1, diagnose_after=True))
    trainer = Trainer(model=make_model(), args=make_args(**args), callbacks=[callback], **settings)
    trainer.train()
    assert_same_weights(trainer.model, plain.model)
    assert [sorted(entry) for entry in trainer.state.log_history] == [sorted(e) for e in plain.state.log_history]
    assert [diagnosis.step for diagnosis in callback.report.diagnoses] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [("adamw_torch", None), ("adafactor", None), ("sgd", "momentum=0.9"), ("rmsprop", None), ("adagrad", None)],
)
def test_optimizers_pass_over_what_is_frozen(
    optimizer, arguments, make_model, make_args, token_dataset, quick, weights_of, assert_trained_only
):
    model = make_model()
    before = weights_of(model)
    Trainer(
        model=model,
        args=make_args(optim=optimizer, optim_args=arguments, weight_decay=0.3),
        train_dataset=token_dataset,
        callbacks=[LayerTracerCallback(quick(), PROBES)],
    ).train()
    assert_trained_only(model, before, SHALLOW_HALF)


def test_the_first_diagnosis_is_not_counted_as_training(make_model, make_args, token_dataset, quick, monkeypatch):
    from hf_layertracer.training import alone as module

    def slowly(*args: Any, **kwargs: Any) -> None:
        time.sleep(1)
        begin(*args, **kwargs)

    begin = module.begin_alone
    monkeypatch.setattr("hf_layertracer.training.callback.begin_alone", slowly)
    trainer = Trainer(
        model=make_model(),
        args=make_args(),
        train_dataset=token_dataset,
        callbacks=[LayerTracerCallback(quick(), PROBES)],
    )
    began = time.perf_counter()
    metrics = trainer.train().metrics
    assert 0 < metrics["train_runtime"] <= time.perf_counter() - began - 1


@pytest.mark.parametrize("of_datasets", [False, True], ids=["of torch", "of datasets"])
def test_of_a_stream_nothing_is_read_that_training_would_miss(
    of_datasets, make_model, make_args, token_rows, quick, tokenizer, assert_same_weights
):
    class Source(torch.utils.data.IterableDataset):
        def __init__(self):
            self._rows = iter(token_rows)

        def __iter__(self):
            return self._rows

    def stream() -> Any:
        return Dataset.from_list(token_rows).to_iterable_dataset() if of_datasets else Source()

    plain = Trainer(model=make_model(), args=make_args("plain", max_steps=6), train_dataset=stream())
    plain.train()
    callback = LayerTracerCallback(quick(strategy="full", num_probes=5))
    trainer = Trainer(
        model=make_model(),
        args=make_args(max_steps=6),
        train_dataset=stream(),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train()
    assert_same_weights(trainer.model, plain.model)
    assert (callback.report.probes.count == 5) is of_datasets, "others get the probes of the package"


def test_its_checkpoints_go_on_as_if_nothing_had_been(make_model, make_args, token_dataset, quick):
    """The optimizer's state is loaded before the plan is in force, and fits."""
    args = make_args(max_steps=5, save_strategy="steps", save_steps=3, weight_decay=0.1, lr_scheduler_type="cosine")

    def run(**going_on: Any) -> tuple[Trainer, LayerTracerReport]:
        callback = LayerTracerCallback(quick(diagnose_steps=2), PROBES)
        trainer = Trainer(model=make_model(), args=args, train_dataset=token_dataset, callbacks=[callback])
        trainer.train(**going_on)
        return trainer, callback.report

    whole, report = run()
    shutil.rmtree(Path(args.output_dir) / "checkpoint-5")
    resumed, again = run(resume_from_checkpoint=True)
    assert_close_weights(resumed.model, whole.model)
    assert again.plan == report.plan
    assert [diagnosis.step for diagnosis in again.diagnoses] == [0, 2, 4]
    assert again.training.steps == 2
    assert {len(state) for state in resumed.optimizer.state.values()} == {3}
    assert len(resumed.optimizer.state) == sum(p.requires_grad for p in resumed.model.parameters())


def test_a_checkpoint_from_elsewhere_is_refused(make_model, make_args, token_dataset, quick):
    def make(name: str) -> Trainer:
        return Trainer(
            model=make_model(),
            args=make_args(name, max_steps=5, save_strategy="steps", save_steps=3),
            train_dataset=token_dataset,
            callbacks=[LayerTracerCallback(quick(), PROBES)],
        )

    first = make("first")
    first.train()
    with pytest.raises(LayerTracerError, match=r"no .*second/checkpoint-3 to take its plan from.*callback\.attach"):
        make("second").train(resume_from_checkpoint=f"{first.args.output_dir}/checkpoint-3")


AT_EVERY_STEP = {"change_steps": 1, "thaw_warmup_steps": 1}
REFUSED = {
    **{
        name: ({"strategy": name, **AT_EVERY_STEP}, f"{name!r} changes what trains")
        for name in ("adaptive", "grass", "lisa", "schedule")
    },
    "max_memory": ({"max_memory": "1GB"}, "max_memory is compared"),
    "prefix_cache": ({"strategy": "freeze-shallow", "prefix_cache": "cache"}, "prefix_cache stands between"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_trainer_is_refused_in_one_line_and_works_once_attached(
    name, make_model, make_args, token_dataset, quick, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings, said = REFUSED[name]
    callback = LayerTracerCallback(quick(**settings), PROBES)
    model = make_model(attention_dropout=0.0)  # which a prefix on disk cannot have
    trainer = Trainer(model=model, args=make_args(), train_dataset=token_dataset, callbacks=[callback])
    with pytest.raises(LayerTracerError, match=rf"{said}.*callback\.attach\(trainer\)") as error:
        trainer.train()
    assert "\n" not in str(error.value)
    assert callback.report is None
    callback.attach(trainer)
    assert trainer.train().global_step == 3
    assert callback.report.training.steps == 3


def test_a_plan_of_file_or_checkpoint_that_changes_is_refused_too(
    make_model, make_args, token_dataset, quick, tmp_path
):
    def run(config: Any, **going_on: Any) -> LayerTracerReport:
        callback = LayerTracerCallback(config, PROBES)
        args = make_args(save_strategy="steps", save_steps=2)
        trainer = Trainer(model=make_model(), args=args, train_dataset=token_dataset, callbacks=[callback])
        trainer.train(**going_on)
        return callback.report

    changing = make_plan(make_model(), "lisa")
    (tmp_path / "plan.json").write_text(changing.model_dump_json())
    with pytest.raises(LayerTracerError, match=r"'lisa' changes what trains.*callback\.attach"):
        run(quick(plan=str(tmp_path / "plan.json")))

    report = run(quick())
    report.set_plan(changing)
    report.save_json(tmp_path / "run" / "checkpoint-2")
    for _ in range(2):
        with pytest.raises(LayerTracerError, match=r"'lisa' changes what trains.*callback\.attach"):
            run(quick(), resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


@pytest.mark.parametrize("kind", ["MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED"])
def test_launches_that_wrap_the_model_are_refused(kind, make_model, make_args, token_dataset, quick, monkeypatch):
    """As accelerate names them; `test_distributed.py` has processes."""
    state = SimpleNamespace(distributed_type=DistributedType(kind))
    monkeypatch.setattr("hf_layertracer.training.alone.AcceleratorState", lambda: state)
    trainer = Trainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[LayerTracerCallback(quick())]
    )
    with pytest.raises(LayerTracerError, match=rf"runs under {kind}, .*callback\.attach\(trainer\)"):
        trainer.train()


# -- attached --------------------------------------------------------------------------------------------------------


def test_attaching_puts_the_callback_among_those_of_the_trainer(make_model, make_args, token_dataset, quick):
    for given in (True, False):
        callback = LayerTracerCallback(quick(), PROBES)
        trainer = Trainer(
            model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback] if given else None
        )
        callback.attach(trainer)
        assert trainer.callback_handler.callbacks.count(callback) == 1
        assert trainer.train().global_step == 3
        assert trainer.layertracer_report is callback.report
        assert callback.report.training.tokens == 3 * 2 * 12


def test_the_trainer_keeps_its_class_and_name(make_model, make_args, quick):
    class Own(Trainer):
        def greet(self) -> str:
            return "hello"

    trainer = Own(model=make_model(), args=make_args())
    LayerTracerCallback(quick()).attach(trainer)
    assert isinstance(trainer, Own)
    assert type(trainer).__name__ == "Own"
    assert trainer.greet() == "hello"


def test_a_trainer_that_traces_already_takes_no_callback_besides(make_model, make_args, token_dataset, quick):
    settings = {"model": make_model(), "args": make_args(), "train_dataset": token_dataset}
    with pytest.raises(LayerTracerError, match="LayerTracerTrainer traces already"):
        LayerTracerTrainer(callbacks=[LayerTracerCallback(quick())], **settings)
    trainer = LayerTracerTrainer(**settings)
    with pytest.raises(LayerTracerError, match="LayerTracerTrainer traces already"):
        LayerTracerCallback(quick()).attach(trainer)
    trainer.add_callback(LayerTracerCallback(quick()))
    with pytest.raises(LayerTracerError, match="LayerTracerTrainer traces already"):
        trainer.train()


def test_a_callback_is_attached_once(make_model, make_args, token_dataset, quick):
    callback, other = LayerTracerCallback(quick()), LayerTracerCallback(quick())
    trainer, second = (
        Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[other]) for _ in range(2)
    )
    with pytest.raises(LayerTracerError, match="Trainer traces already"):
        callback.attach(trainer)
    assert type(trainer) is Trainer
    other.attach(trainer)
    with pytest.raises(LayerTracerError, match="This Trainer traces already"):
        other.attach(trainer)
    with pytest.raises(LayerTracerError, match="attached to another trainer"):
        other.attach(second)


def test_attaching_comes_before_training(make_model, make_args, token_dataset, quick):
    callback = LayerTracerCallback(quick(), PROBES)
    trainer = Trainer(model=make_model(), args=make_args(), train_dataset=token_dataset, callbacks=[callback])
    trainer.train()
    with pytest.raises(LayerTracerError, match=r"Training has begun.*before trainer\.train"):
        callback.attach(trainer)
