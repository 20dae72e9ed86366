"""Models that cannot be diagnosed train with the plan of their structure, and the report says what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from torch import nn
from transformers import Trainer

from hf_layertracer import LayerTracerError, LayerTracerReport, LayerTracerTrainer, make_plan
from hf_layertracer.report.markdown import report_section


SIZES = {
    "vocab_size": 80,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
BOTH = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 4, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip
PIXELS = {"image_size": 8, "patch_size": 4}


def ids(length: int = 12) -> list[int]:
    return torch.randint(3, 80, (length,)).tolist()


def tokens(label: Any = None) -> dict[str, Any]:
    row = ids()
    return {"input_ids": row, "attention_mask": [1] * 12, "labels": row if label is None else label}


def bert(head: str, **changes: Any) -> nn.Module:
    return getattr(tf, f"BertFor{head}")(tf.BertConfig(**SIZES, **changes))


def t5() -> nn.Module:
    config = {"vocab_size": 80, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 4, "num_heads": 2}
    return tf.T5ForConditionalGeneration(tf.T5Config(**config, decoder_start_token_id=0))


def clip() -> nn.Module:
    text = {**SIZES, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "projection_dim": 8}
    return tf.CLIPModel(
        tf.CLIPConfig(text_config=text, vision_config={**SMALL, "num_hidden_layers": 3, **PIXELS}, projection_dim=8)
    )


def wav2vec2() -> nn.Module:
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (3, 3), "conv_stride": (2, 2)}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = tf.Wav2Vec2Config(**SIZES, **convolutions, **positions, mask_time_prob=0.0, layerdrop=0.0)
    return tf.Wav2Vec2ForSequenceClassification(config)


def whisper() -> nn.Module:
    specials = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = tf.WhisperConfig(vocab_size=80, **BOTH, **specials, num_mel_bins=8, max_source_positions=8)
    return tf.WhisperForConditionalGeneration(config)


def time_series() -> nn.Module:
    sizes = {**BOTH, "encoder_layers": 2, "decoder_layers": 4, "lags_sequence": [1, 2]}
    return tf.TimeSeriesTransformerForPrediction(
        tf.TimeSeriesTransformerConfig(prediction_length=2, context_length=4, num_time_features=1, **sizes)
    )


def series() -> dict[str, Any]:
    return {
        "past_values": torch.rand(6),
        "past_time_features": torch.rand(6, 1),
        "past_observed_mask": torch.ones(6),
        "future_values": torch.rand(2),
        "future_time_features": torch.rand(2, 1),
    }


# What is made, a row of its data, and what the report says of it.
KINDS = {
    "masked words": (lambda: bert("MaskedLM"), tokens, "a later token changes"),
    "a class for each token": (lambda: bert("TokenClassification", num_labels=3), lambda: tokens([1] * 12), "3 values"),
    "a class for each text": (lambda: bert("SequenceClassification"), lambda: tokens(1), "no logits for each position"),
    "a class of a decoder": (
        lambda: tf.LlamaForSequenceClassification(tf.LlamaConfig(**SIZES, pad_token_id=0)),
        lambda: tokens(1),
        "no logits for each position",
    ),
    "one of several texts": (
        lambda: bert("MultipleChoice"),
        lambda: {"input_ids": [ids(), ids()], "labels": 1},
        "No probes could be drawn",
    ),
    "summaries": (lambda: tf.BartForConditionalGeneration(tf.BartConfig(vocab_size=80, **BOTH)), tokens, "later token"),
    "translations": (t5, tokens, "could not be run on token ids alone"),
    "pictures": (
        lambda: tf.ViTForImageClassification(tf.ViTConfig(**SMALL, **PIXELS)),
        lambda: {"pixel_values": torch.rand(3, 8, 8), "labels": 1},
        "No probes could be drawn",
    ),
    "sound": (wav2vec2, lambda: {"input_values": torch.rand(64), "labels": 1}, "No probes could be drawn"),
    "speech": (
        whisper,
        lambda: {"input_features": torch.rand(8, 16), "labels": torch.tensor(ids(6))},
        "No probes could be drawn",
    ),
    "pictures and texts": (
        clip,
        lambda: {**{k: v for k, v in tokens().items() if k != "labels"}, "pixel_values": torch.rand(3, 8, 8)},
        "could not be run on token ids alone",
    ),
    "time": (time_series, series, "No probes could be drawn"),
    "embeddings": (
        lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES)),
        lambda: {"inputs_embeds": torch.rand(12, 16), "labels": torch.tensor(ids())},
        "No probes could be drawn",
    ),
    "rows of one token": (
        lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES)),
        lambda: {"input_ids": [5], "labels": [5]},
        "No probes could be drawn",
    ),
}  # fmt: skip


def collate_pairs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {**tf.default_data_collator(rows), "return_loss": True}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_can_be_found_are_frozen_whatever_the_model_does(
    kind, make_args, quick, weights_of, plan_lines_of, warnings_of
):
    torch.manual_seed(0)
    make, row, reason = KINDS[kind]
    model = make()
    before = weights_of(model)
    trainer = LayerTracerTrainer(
        model=model,
        args=make_args(save_strategy="steps", save_steps=2, remove_unused_columns=kind != "pictures and texts"),
        train_dataset=[row() for _ in range(8)],
        data_collator=collate_pairs if kind == "pictures and texts" else None,
        layertracer_config=quick(diagnose_steps=2, diagnose_after=True),
    )
    trainer.train()
    report = trainer.layertracer_report
    path = f"{report.model.layers_path}."
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    in_layers = {int(name.removeprefix(path).split(".")[0]) for name in changed if name.startswith(path)}
    assert report.plan.frozen_layers == [2, 3]
    assert in_layers == (set() if kind == "rows of one token" else {0, 1})  # there, nothing is left to predict
    # What is new in such a model, its head, trains; so does what the plan knows nothing of.
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "classifier" in name)
    assert report.latest is None
    assert reason in report.notes[0]
    (line,) = plan_lines_of()
    for said in ("freezes layers 2-3 of 4", "train shallow, freeze deep", reason, "layertracer_report.json"):
        assert said in line
    assert "\n" not in line
    assert warnings_of() == []
    saved = Path(trainer.args.output_dir)
    assert LayerTracerReport.load(saved) == report
    assert LayerTracerReport.load(saved / "checkpoint-2").plan == report.plan
    assert "Nothing was measured" in (saved / "README.md").read_text()


@pytest.mark.parametrize("kind", ["masked words", "summaries", "pictures"])
def test_full_trains_them_as_trainer_does_bit_for_bit(kind, make_args, quick, assert_same_weights):
    make, row, _ = KINDS[kind]
    torch.manual_seed(0)
    rows, models = [row() for _ in range(8)], []
    for trainer_class in (Trainer, LayerTracerTrainer):
        torch.manual_seed(1)
        ours = {} if trainer_class is Trainer else {"layertracer_config": quick(strategy="full")}
        trainer = trainer_class(model=make(), args=make_args(trainer_class.__name__), train_dataset=rows, **ours)
        trainer.train()
        models.append(trainer.model)
    assert_same_weights(*models)


def test_an_image_processor_is_no_tokenizer(make_args, quick):
    processor = tf.ViTImageProcessor(size={"height": 8, "width": 8})
    picture = Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8))
    rows = [{"pixel_values": processor(picture, return_tensors="pt")["pixel_values"][0], "labels": 1}] * 8
    trainer = LayerTracerTrainer(
        model=KINDS["pictures"][0](),
        args=make_args(),
        train_dataset=rows,
        processing_class=processor,
        layertracer_config=quick(),
    )
    trainer.train()
    assert trainer.layertracer_report.plan.frozen_layers == [2, 3]


def test_a_strategy_that_needs_measurements_says_why_there_are_none(make_args, quick):
    make, row, _ = KINDS["masked words"]
    trainer = LayerTracerTrainer(
        model=make(),
        args=make_args(),
        train_dataset=[row() for _ in range(8)],
        layertracer_config=quick(strategy="task-particle"),
    )
    with pytest.raises(LayerTracerError, match=r"'task-particle' needs measurements.*later token.*'freeze-deep'"):
        trainer.train()
    assert trainer.layertracer_report is None


def test_rows_of_unknown_columns_and_no_data_at_all_are_planned_by_structure(make_model, make_args, quick):
    rows = [{"input_x": float(index), "labels": float(index)} for index in range(8)]
    for dataset in (rows, None, {}):
        trainer = LayerTracerTrainer(
            model=make_model(), args=make_args(), train_dataset=dataset or None, layertracer_config=quick()
        )
        trainer.create_optimizer()
        assert trainer.layertracer_report.plan.frozen_layers == [2, 3]
        held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in trainer.model.parameters() if p.requires_grad}
        assert trainer.layertracer_report.notes[0].startswith("Nothing was measured.")


def test_an_empty_dictionary_of_evaluation_sets_leaves_the_training_set(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, eval_dataset={}, layertracer_config=quick()
    )
    trainer.train()
    assert trainer.layertracer_report.probes.tasks == {"text": 4}


def test_a_model_that_is_nan_before_it_starts_trains_with_one_line(
    make_model, make_args, token_dataset, quick, plan_lines_of
):
    model = make_model()
    model.lm_head.weight.data.fill_(float("nan"))
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    assert trainer.train().global_step == 3
    (line,) = plan_lines_of()
    assert "NaN before anything is perturbed" in line


def test_a_diagnosis_that_fails_in_an_unknown_way_costs_no_run(
    make_model, make_args, token_dataset, quick, monkeypatch, plan_lines_of
):
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("somewhere inside")

    monkeypatch.setattr("hf_layertracer.training.measuring.diagnose", fail)
    trainer = LayerTracerTrainer(
        model=make_model(), args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    trainer.train()
    assert trainer.layertracer_report.plan.frozen_layers == [2, 3]
    assert "ZeroDivisionError: somewhere inside" in plan_lines_of()[0]


def test_a_model_of_one_layer_trains_whole_and_says_so(make_model, make_args, token_dataset, quick):
    trainer = LayerTracerTrainer(
        model=make_model(num_hidden_layers=1),
        args=make_args(),
        train_dataset=token_dataset,
        layertracer_config=quick(),
    )
    trainer.train()
    assert trainer.layertracer_report.plan.strategy == "full"
    assert any("single layer" in note for note in trainer.layertracer_report.notes)


def test_what_the_user_and_the_plan_froze_together_is_said(make_model, make_args, token_dataset, quick):
    model = make_model()
    model.requires_grad_(False)
    model.model.layers[3].requires_grad_(True)
    model.lm_head.requires_grad_(True)
    trainer = LayerTracerTrainer(
        model=model, args=make_args(), train_dataset=token_dataset, layertracer_config=quick()
    )
    with pytest.raises(
        LayerTracerError,
        match=r"layers 0-2 and 2 parameters outside .* frozen before, and the plan freezes layers 2-3.*'full'",
    ):
        trainer.train()


def test_a_report_without_measurements_is_a_report(make_model, make_args, token_dataset, quick, tmp_path):
    trainer = LayerTracerTrainer(model=make_model(), args=make_args(), layertracer_config=quick())
    trainer.create_optimizer()
    report = trainer.layertracer_report
    assert (report.first, report.latest, report.sensitivity, report.lens, report.task_particle) == (None,) * 5
    assert set(report.headline().values()) == {None}
    assert [row["layer_sensitivity"] for row in report.layer_rows()] == [None] * 4
    assert [row["trained"] for row in report.layer_rows()] == [True, True, False, False]
    assert "Nothing was measured" in report_section(report)
    assert make_plan(report, "freeze-shallow").frozen_layers == [0, 1]
    with pytest.raises(LayerTracerError, match="needs measurements"):
        make_plan(report, "sensitivity")
    report.save(tmp_path / "saved")
    assert LayerTracerReport.load(tmp_path / "saved") == report


@pytest.mark.usefixtures("real_picture")
def test_the_picture_of_a_report_without_measurements_shows_the_plan(make_model, make_args, quick):
    trainer = LayerTracerTrainer(model=make_model(), args=make_args(), layertracer_config=quick())
    trainer.create_optimizer()
    (axes,) = trainer.layertracer_report.plot().axes
    assert "nothing was measured" in axes.get_title(loc="left")
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"parameters", "trained", "frozen"}
