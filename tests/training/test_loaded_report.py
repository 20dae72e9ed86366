"""A run that begins with a saved report is measured again as the report was, or not at all."""

from __future__ import annotations

import pytest
from support.tolerance import nearly

from hf_layertracer import DiagnosisConfig, LayerTracerError, LayerTracerReport, LayerTracerTrainer, Probe, diagnose


PROBES = [Probe((5, 6, 7), 8), Probe((9, 4, 11, 3), 12), Probe((3, 14), 15), Probe((20, 21, 22), 7)]
MASKS = DiagnosisConfig(perturbation="mask,skip", repeats=2, mask_ratio=0.5, diagnosis_seed=3)


@pytest.fixture
def start(make_model, make_args, token_dataset, quick, tmp_path):
    """`start(probes, **settings)`: trains for two steps that change nothing, with a report that was measured before."""
    diagnose(make_model(), PROBES, config=MASKS).save_json(tmp_path / "report")

    def run(probes=None, **settings) -> LayerTracerReport:
        trainer = LayerTracerTrainer(
            model=make_model(),
            args=make_args(max_steps=2, learning_rate=0.0, weight_decay=0.0),
            train_dataset=token_dataset,
            probes=probes,
            layertracer_config=quick(report=str(tmp_path / "report"), **settings),
        )
        trainer.train()
        return trainer.layertracer_report

    return run


@pytest.mark.parametrize("settings", [{"diagnose_after": True}, {"diagnose_steps": 2}])
def test_where_nothing_was_learned_nothing_changes(start, settings, make_args):
    report = start(PROBES, **settings)
    before, after = report.diagnoses
    assert list(after.sensitivities) == list(before.sensitivities)
    for perturbation, sensitivity in after.sensitivities.items():
        assert sensitivity.mean == nearly(before.sensitivities[perturbation].mean, abs=1e-7)
    assert after.scores.mean_log_probability == nearly(before.scores.mean_log_probability)
    assert LayerTracerReport.load(make_args().output_dir) == report


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({"diagnose_after": True}, "diagnose_after=True"),
        ({"diagnose_steps": 2}, "diagnose_steps=2"),
        ({"strategy": "adaptive", "change_steps": 1, "thaw_warmup_steps": 1}, "The strategy 'adaptive'"),
    ],
)
@pytest.mark.parametrize("probes", [None, PROBES[:3], [*PROBES[:3], Probe((1, 2), 9)]])
def test_other_probes_are_refused_before_anything_is_measured(start, settings, asks, probes, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("measured")

    for module in ("measuring", "tracer"):
        monkeypatch.setattr(f"hf_layertracer.training.{module}.diagnose", fail)
    with pytest.raises(LayerTracerError, match=f"^{asks} measures the model again.*or leave report out") as error:
        start(probes, **settings)
    assert "\n" not in str(error.value)


def test_what_is_measured_once_needs_no_probes(start):
    assert len(start().diagnoses) == 1


def test_a_boundary_that_follows_measurements_may_ask_some_of_the_probes(start):
    options = {"change_steps": 1, "thaw_warmup_steps": 1, "hysteresis": 0, "change_probes": 2}
    assert start(PROBES, strategy="adaptive", **options).plan.strategy == "adaptive"


def test_the_report_of_a_quick_look_is_compared_with_one(make_model, make_args, token_dataset, quick, tmp_path):
    probes = [Probe((token, token + 1), token + 2) for token in range(3, 60)]
    reports = []
    for name, settings in (("first", {"quick_look": True}), ("second", {"report": str(tmp_path / "first")})):
        trainer = LayerTracerTrainer(
            model=make_model(),
            args=make_args(name, max_steps=1, learning_rate=0.0, weight_decay=0.0),
            train_dataset=token_dataset,
            probes=probes,
            layertracer_config=quick(diagnose_after=True, **settings),
        )
        trainer.train()
        reports.append(trainer.layertracer_report)
    before, after = reports[1].diagnoses
    assert reports[1].probes.count < len(probes)
    assert list(after.sensitivities) == ["skip"]
    assert after.sensitivity.mean == nearly(before.sensitivity.mean, abs=1e-7)
