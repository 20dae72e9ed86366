"""`Trainer` and ours with `full`, side by side: the same weights, log, events, files and predictions, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainer_settings import SETTINGS, trainer_arguments
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
)

from hf_layertracer import (
    DiagnosisConfig,
    LayerTracerCallback,
    LayerTracerConfig,
    LayerTracerMixin,
    LayerTracerTrainer,
    Probe,
    diagnose,
)


TIMES = ("runtime", "per_second")
OURS = {"layertracer_report.json", "layertracer_report.png", "README.md"}


class Diary(TrainerCallback):
    """Every event, with the step and what is about to happen."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, bool, bool, bool]] = []


def _noting(event: str) -> Any:
    def note(self: Diary, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not any(name.startswith("layertracer/") for name in kwargs.get("logs") or ()):
            wishes = control.should_log, control.should_evaluate, control.should_save
            self.events.append((event, state.global_step, *wishes))

    return note


for _event in [name for name in vars(TrainerCallback) if name.startswith("on_")]:
    setattr(Diary, _event, _noting(_event))


def without_times(entries: dict[str, Any] | list[dict[str, Any]]) -> Any:
    if isinstance(entries, list):
        return [without_times(entry) for entry in entries]
    return {name: value for name, value in entries.items() if not any(time in name for time in TIMES)}


@pytest.fixture(scope="module")
def measured(make_model, tmp_path_factory) -> LayerTracerConfig:
    """Settings with a report, so that each run need not be diagnosed."""
    folder = tmp_path_factory.mktemp("report")
    diagnose(make_model(), [Probe((5, 6, 7), 8)], config=DiagnosisConfig(repeats=1)).save_json(folder)
    return LayerTracerConfig(strategy="full", report=str(folder))


def run(trainer: Trainer, diary: Diary, dataset: Any) -> dict[str, Any]:
    """Trains, evaluates and predicts; all that can be seen of it."""
    output = trainer.train()
    seen = {
        "log": without_times(trainer.state.log_history),
        "output": (output.global_step, output.training_loss, without_times(output.metrics)),
        "best": trainer.state.best_metric,
        "tokens": trainer.state.num_input_tokens_seen,
    }
    predictions = trainer.predict(dataset)
    trainer.save_model()
    folder = Path(trainer.args.output_dir)
    return seen | {
        "predicted": torch.tensor(predictions.predictions) if predictions.predictions is not None else None,
        "prediction metrics": without_times(predictions.metrics),
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name not in OURS),
        "events": diary.events,
        "weights": {name: p.detach().clone() for name, p in trainer.model.named_parameters()},
    }


def assert_alike(one: Any, other: Any, path: str = "") -> None:
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_alike(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


@pytest.mark.parametrize("name", SETTINGS)
def test_ours_with_full_is_trainer(name, make_model, make_args, token_dataset, measured):
    seen = []
    for kind in (Trainer, LayerTracerTrainer):
        model, diary = make_model(), Diary()
        arguments = trainer_arguments(name, model, token_dataset)
        arguments["callbacks"] = [*arguments.get("callbacks", []), diary]
        ours = {"layertracer_config": measured} if kind is LayerTracerTrainer else {}
        args = make_args(kind.__name__, **{"per_device_eval_batch_size": 8, **SETTINGS[name][0]})
        trainer = kind(model=model, args=args, train_dataset=token_dataset, **arguments, **ours)
        seen.append(run(trainer, diary, token_dataset))
    assert_alike(*seen)


def test_hooks_that_a_user_overrides_are_called_as_often_and_in_the_same_order(
    make_model, make_args, token_dataset, measured
):
    """Every method that Trainer's page names for overriding, under the mixin and the callback, attached or not."""
    hooks = (
        "get_train_dataloader", "get_eval_dataloader", "create_optimizer", "create_scheduler", "compute_loss",
        "training_step", "prediction_step", "evaluate", "log", "save_model",
    )  # fmt: skip
    calls: list[str] = []

    def noting(name: str) -> Any:
        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return getattr(super(Own, self), name)(*args, **kwargs)

        return hook

    Own = type("Own", (Trainer,), {name: noting(name) for name in hooks})  # noqa: N806
    seen = []
    for way in ("plain", "mixin", "attached", "events alone"):
        calls.clear()
        extra: dict[str, Any] = {}
        kind = Own
        if way == "mixin":
            kind, extra = type("Mine", (LayerTracerMixin, Own), {}), {"layertracer_config": measured}
        elif way != "plain":
            extra = {"callbacks": [LayerTracerCallback(measured)]}
        args = make_args(
            way, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2,
            logging_strategy="steps", logging_steps=1,
        )  # fmt: skip
        trainer = kind(model=make_model(), args=args, train_dataset=token_dataset, eval_dataset=token_dataset, **extra)
        if way == "attached":
            extra["callbacks"][0].attach(trainer)
        trainer.train()
        seen.append(list(calls))
    assert seen == [seen[0]] * 4
    assert set(seen[0]) == set(hooks)


def test_generation_under_a_seq2seq_trainer_is_the_same(make_args, token_dataset):
    class Traced(LayerTracerMixin, Seq2SeqTrainer):
        pass

    config = BartConfig(
        vocab_size=80, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    seen = []
    for kind, extra in ((Seq2SeqTrainer, {}), (Traced, {"layertracer_config": LayerTracerConfig(strategy="full")})):
        torch.manual_seed(3)
        trainer = kind(
            model=BartForConditionalGeneration(config),
            args=make_args(kind.__name__, kind=Seq2SeqTrainingArguments, predict_with_generate=True),
            train_dataset=token_dataset,
            **extra,
        )
        trainer.train()
        found = trainer.predict(token_dataset.select(range(4)))
        seen.append({"ids": torch.tensor(found.predictions), "metrics": without_times(found.metrics)})
    assert_alike(*seen)
    assert seen[0]["ids"].shape[0] == 4
