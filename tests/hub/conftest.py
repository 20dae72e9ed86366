"""Reports to push, measured on tiny models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import made_reports

from hf_layertracer import DiagnosisConfig, LayerTracerReport, Probe, diagnose


PROBES = [Probe((5, 80, 31, 7, 200, 9), 10, "even"), Probe((14, 3, 77, 60), 17, "odd")]
TRAINING = {
    "steps": 7,
    "seconds": 1.0,
    "peak_memory_bytes": 1,
    "peak_memory_of": "process",
    "trainable_parameters": 1,
    "eval_loss_before": 3.0,
    "eval_loss_after": 2.5,
}


@pytest.fixture(scope="session")
def measured(tiny_llama) -> LayerTracerReport:
    return diagnose(tiny_llama(), PROBES, config=DiagnosisConfig(repeats=2, diagnosis_seed=1))


@pytest.fixture
def make_report(measured) -> Callable[..., LayerTracerReport]:
    """`make_report(model="alice/tiny", **changes)`: a measured report; `training=True` makes it one of a training run."""

    def make(model: str | None = "alice/tiny", training: bool = False, **changes) -> LayerTracerReport:
        content = measured.model_dump(mode="json")
        content["model"]["id"] = model
        content["training"] = dict(TRAINING) if training else None
        return LayerTracerReport.from_dict(made_reports.changed(content, **changes))

    return make


@pytest.fixture
def report(make_report) -> LayerTracerReport:
    return make_report()
