from __future__ import annotations

import pytest
from support.profiling import profiled_peak

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.probes import Probe


@pytest.mark.parametrize("name", ["Llama", "Mamba"])
@pytest.mark.parametrize("settings", [{}, {"perturbation": "noise"}], ids=str)
@pytest.mark.parametrize("mebibytes", [2, 8])
def test_a_diagnosis_stays_within_its_budget(make_model, name, settings, mebibytes):
    model = make_model(name)
    probes = [Probe(range(3 + number, 3 + number + length), 5) for number in range(16) for length in (6, 24)]
    budget = mebibytes << 20
    config = DiagnosisConfig(memory_budget=budget, repeats=2, **settings)
    diagnose(model, probes[:2], config=config)  # whatever is made once
    reports = []
    peak = profiled_peak(lambda: reports.append(diagnose(model, probes, config=config)))
    memory = reports[0].first.memory
    assert memory["budget_bytes"] == budget
    assert peak <= budget
    if memory["largest_batch_probes"] < len(probes) // 2:
        assert peak > budget / 6  # and uses it
