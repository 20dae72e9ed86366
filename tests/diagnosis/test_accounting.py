from __future__ import annotations

import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import diagnose
from hf_layertracer.diagnosis.accounting import peak_bytes
from hf_layertracer.probes import Probe


def profiled_peak(work) -> int:
    """The most bytes that torch's own allocator had given out at once, from its profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def test_what_lives_at_once_is_counted_and_what_is_gone_is_not():
    given = torch.zeros(1000)

    def work():
        a = given + 1  # 4000 bytes
        b = a.view(10, 100)[:5]  # none
        b = (b * 2).double()  # 2000, then 4000 more
        del a, b
        return given.clone()  # 4000

    assert peak_bytes(work) == 4000 + 2000 + 4000


def test_writing_into_what_there_was_costs_nothing():
    given = torch.zeros(1000)
    assert peak_bytes(lambda: given.add_(1).view(-1)[3:].zero_()) == 0


@pytest.mark.parametrize("name", ["Llama", "Mamba", "Mixtral"])
def test_a_forward_pass_is_counted_as_the_profiler_counts_it(make_model, name):
    model, ids = make_model(name), torch.arange(3, 43)[None]

    def work():
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)

    work()
    assert peak_bytes(work) == pytest.approx(profiled_peak(work), rel=0.02)


@pytest.mark.parametrize("name", ["Llama", "Mamba"])
@pytest.mark.parametrize("settings", [{}, {"estimator": "gradient"}, {"perturbation": "noise"}], ids=str)
@pytest.mark.parametrize("mebibytes", [2, 8])
def test_a_diagnosis_stays_within_its_budget(make_model, name, settings, mebibytes):
    model = make_model(name)
    probes = [Probe(range(3 + number, 3 + number + length), 5) for number in range(16) for length in (6, 24)]
    budget = mebibytes << 20
    config = DiagnosisConfig(memory_budget=budget, repeats=2, **settings)
    diagnose(model, probes[:2], config=config)  # whatever is made once
    reports = []
    peak = profiled_peak(lambda: reports.append(diagnose(model, probes, config=config)))
    memory = reports[0].memory
    assert memory["budget_bytes"] == budget
    assert peak <= budget
    if memory["largest_batch_probes"] < len(probes) // 2:
        assert peak > budget / 6  # and uses it
