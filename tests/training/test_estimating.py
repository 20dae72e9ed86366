"""A run says before its first step what memory it will take, and its report compares that with what it took."""

from __future__ import annotations

import pytest

from hf_layertracer import LayerTracerReport, LayerTracerTrainer, Probe, estimate_training
from hf_layertracer.report.markdown import report_section
from hf_layertracer.training import estimating


PROBES = [Probe((5, 6, 7, 8), 9)]


@pytest.mark.parametrize("arguments", [{}, {"bf16": True}, {"activation_checkpointing": True}], ids=str)
def test_the_first_batch_gives_the_estimate_of_the_run(
    arguments, make_model, make_args, token_dataset, quick, monkeypatch, caplog
):
    monkeypatch.setattr(estimating, "_FEWEST_STEPS", 3)
    trainer = LayerTracerTrainer(
        make_model(), make_args(**arguments), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick()
    )
    trainer.train()
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Training takes")]
    assert "traced" in line
    outcome = LayerTracerReport.load(trainer.args.output_dir).training
    wanted = estimate_training(make_model(), trainer.layertracer_report.plan, trainer.args, sequence_length=12)
    # Resident memory of the process, and what training adds to the weights that are there already.
    added = wanted.total_bytes - wanted.weights_bytes
    assert outcome.expected_memory_bytes > added > 0
    assert "Estimated before" in report_section(trainer.layertracer_report)


def test_a_short_run_is_not_estimated(make_model, make_args, token_dataset, quick, caplog):
    trainer = LayerTracerTrainer(
        make_model(), make_args(), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick()
    )
    trainer.train()
    assert trainer.layertracer_report.training.expected_memory_bytes is None
    assert "Training takes" not in caplog.text
