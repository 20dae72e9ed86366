"""A new perturbation is one class, a new measurement one class and an entry in a list."""

from __future__ import annotations

import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import measurements
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.measurements import Measurement
from hf_layertracer.diagnosis.perturbations import PERTURBATIONS, Perturbation
from hf_layertracer.errors import LayerTracerError


def test_the_perturbations_are_the_classes_in_the_folder():
    assert {"mask", "noise", "skip"} <= PERTURBATIONS.keys()
    for name, kind in PERTURBATIONS.items():
        assert kind.name == name
        assert kind.__module__ == f"hf_layertracer.diagnosis.perturbations.{name}"
        assert kind.summary
        assert kind.__doc__


def test_a_new_perturbation_is_one_class(tiny_llama, token_probes, monkeypatch):
    class Halve(Perturbation):
        """Half of what the layer adds."""

        name = "halve"
        summary = "halves what the layer adds"
        random = False

        def on(self, draws, width):
            return lambda layer, before, after: (before + after) / 2

    with pytest.raises(LayerTracerError, match="must be one of"):
        DiagnosisConfig(perturbation="halve")
    monkeypatch.setitem(PERTURBATIONS, "halve", Halve)
    model = tiny_llama()
    halved, skipped = (
        diagnose(model, token_probes, config=DiagnosisConfig(perturbation=p)) for p in ("halve", "skip")
    )
    assert halved.sensitivity.repeats == 1
    for half, whole in zip(halved.sensitivity.mean, skipped.sensitivity.mean, strict=True):
        assert 0 < half < whole


def test_a_new_measurement_is_one_class_and_an_entry_in_the_list(tiny_llama, token_probes, monkeypatch):
    seen = []

    class Norms(Measurement):
        """The mean length of the hidden states behind each layer."""

        name = "norms"

        def start(self, subject):
            self.total = torch.zeros(subject.num_layers)
            return super().start(subject)

        def observe(self, batch):
            seen.extend(batch.members)
            for layer, state in enumerate(batch.clean.states[1:]):
                self.total[layer] += state.norm(dim=-1).mean(1).sum()

        def result(self):
            return {"memory": {f"norm_{layer}": int(value) for layer, value in enumerate(self.total)}}

    monkeypatch.setattr(measurements, "MEASUREMENTS", [*measurements.MEASUREMENTS, Norms])
    report = diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(repeats=1))
    assert sorted(seen) == list(range(5))
    assert report.first.memory["norm_3"] > report.first.memory["norm_0"] > 0
    assert report.first.durations["norms"] >= 0
    assert report.first.memory["largest_batch_probes"] > 0
