"""A run says before its first step what memory it will take, and its report compares that with what it took."""

from __future__ import annotations

import pytest

from hf_layertracer import LayerTracerError, LayerTracerReport, LayerTracerTrainer, Probe, estimate_training, make_plan
from hf_layertracer.report.markdown import report_section
from hf_layertracer.training import estimating


PROBES = [Probe((5, 6, 7, 8), 9)]


def test_a_run_is_estimated_with_what_its_plan_freezes(
    make_model, make_args, token_dataset, quick, monkeypatch, caplog
):
    monkeypatch.setattr(estimating, "_FEWEST_STEPS", 3)
    seen, ask = [], estimating.RunEstimator.estimate

    def watched(*asked):
        seen.append(ask(*asked))
        return seen[-1]

    monkeypatch.setattr(estimating.RunEstimator, "estimate", watched)
    for settings in ({"freeze_ratio": 0.75}, {"strategy": "lisa", "change_steps": 1, "thaw_warmup_steps": 1}):
        seen.clear()
        trainer = LayerTracerTrainer(
            make_model(), make_args(), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick(**settings)
        )
        trainer.train()
        report = trainer.layertracer_report
        (found,) = seen
        first = report.plans[0].plan.savings
        assert found.gradient_bytes == first.gradient_bytes
        assert first.optimizer_bytes <= found.optimizer_bytes < 1.02 * first.optimizer_bytes
        # What trains later may take more: then there is nothing to compare with the measured peak.
        changes = "strategy" in settings
        assert (report.training.expected_memory_bytes is None) == changes
        assert ("at its peak, with what trains at first (" in caplog.text) == changes


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


def test_a_limit_of_a_run_counts_the_activations_of_its_batches(make_model, make_args, token_dataset, quick):
    def trainer(**settings):
        return LayerTracerTrainer(
            make_model(), make_args(), train_dataset=token_dataset, probes=PROBES, layertracer_config=quick(**settings)
        )

    plan = make_plan(make_model(), "freeze-deep")
    need = int(1.1 * estimate_training(make_model(), plan, make_args(), sequence_length=12).total_bytes)
    roomy = trainer(max_memory=str(need + 1))
    roomy.train()
    assert roomy.layertracer_report.plan.trained_layers == plan.trained_layers
    with pytest.raises(LayerTracerError, match="2 x 12 tokens") as refused:
        trainer(max_memory=str(need - 1000)).train()
    assert "\n" not in str(refused.value)
    budget = trainer(strategy="budget", max_memory=str(need - 1000), perturbation="skip")
    budget.train()
    assert budget.layertracer_report.plan.trained_layers
    taken = estimate_training(make_model(), budget.layertracer_report.plan, make_args(), sequence_length=12)
    assert 1.1 * taken.total_bytes <= need - 1000
