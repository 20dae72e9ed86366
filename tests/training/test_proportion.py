"""A short training gets a quick look at its model, and says so; a long one, or whoever asks, gets a full diagnosis."""

from __future__ import annotations

import pytest

from hf_layertracer import LayerTracerConfig, LayerTracerReport, LayerTracerTrainer, Probe
from hf_layertracer.training.proportion import settle, share_of_training, tokens_to_train, wants_quick_look


PROBES = [Probe(tuple(range(5, 21)), 9)] * 64


def test_the_share_is_that_of_the_arithmetic():
    # 160 masks and 64 skips of 16 tokens run half of 30 layers behind each of 30; a trained token costs three passes.
    assert share_of_training(PROBES, 30, 10_000) == pytest.approx(224 * 16 * 30 * 15 / (3 * 30 * 10_000))
    assert share_of_training(PROBES, 30, 20_000) == pytest.approx(share_of_training(PROBES, 30, 10_000) / 2)
    text = [Probe("x" * 64, " y")] * 64
    assert share_of_training(text, 30, 10_000) == share_of_training(PROBES, 30, 10_000)


@pytest.mark.parametrize(
    ("settings", "tokens", "quick"),
    [
        ({}, 1_000, True),
        ({}, 10_000_000, False),
        ({}, None, False),
        ({"quick_look": False}, 1_000, False),
        ({"quick_look": True}, 10_000_000, True),
        ({"repeats": 3}, 1_000, False),
        ({"report": "measured-before"}, 1_000, False),
        ({"perturbation": "mask"}, 1_000, False),
        ({"strategy": "sensitivity"}, 1_000, True),
        ({"strategy": "sensitivity", "measure": "mask"}, 1_000, False),
        ({"strategy": "sensitivity", "measure": "context"}, 1_000, True),
    ],
)
def test_who_gets_a_quick_look(settings, tokens, quick):
    config = LayerTracerConfig(**settings)
    wanted, line = wants_quick_look(config, PROBES, 30, tokens)
    assert wanted == quick
    assert (line is not None) == (quick and "quick_look" not in settings)
    chosen, probes, _ = settle(config, PROBES, 30, tokens)
    assert (chosen.perturbations, len(probes)) == ((("skip",), 24) if quick else (config.perturbations, 64))


def test_tokens_are_those_of_typical_rows():
    rows = [{"input_ids": [1] * 10}, {"input_ids": [1] * 20}]
    assert tokens_to_train(rows, 100) == 1500
    assert tokens_to_train(rows, None) is None
    assert tokens_to_train([{"text": "a"}], 100) is None


def test_a_short_run_says_so_in_one_line_and_a_resumed_one_measures_alike(
    make_model, make_args, token_dataset, caplog
):
    def train(resume=None, **settings):
        trainer = LayerTracerTrainer(
            make_model(),
            make_args(save_strategy="steps", save_steps=2),
            train_dataset=token_dataset,
            layertracer_config=LayerTracerConfig(diagnose_after=True, **settings),
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    trainer = train()
    report = LayerTracerReport.load(trainer.args.output_dir)
    lines = [r.getMessage() for r in caplog.records if "quick look" in r.getMessage()]
    assert len(lines) == 1
    assert "times as long as this training. quick_look=False" in lines[0]
    assert lines[0] in report.notes
    assert [list(diagnosis.sensitivities) for diagnosis in report.diagnoses] == [["skip"], ["skip"]]
    assert report.plan.trained_layers == [0, 1]
    assert len(report.sensitivity.mean) == len(report.sensitivity.stderr) == 4
    again = train(resume=f"{trainer.args.output_dir}/checkpoint-2").layertracer_report
    assert [list(diagnosis.sensitivities) for diagnosis in again.diagnoses] == [["skip"], ["skip"]]
    assert again.latest.sensitivity.mean == pytest.approx(report.latest.sensitivity.mean, abs=1e-5)
