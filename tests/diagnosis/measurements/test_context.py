from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.task_particle import max_ratio_of
from hf_layertracer.probes import Probe


@pytest.mark.parametrize("name", ["Llama", "Mamba"])
def test_context_sensitivity_agrees_with_whole_passes_on_blanked_embeddings(make_model, token_probes, reference, name):
    model = make_model(name)
    probes = [Probe(probe.prompt[:2], probe.target) for probe in token_probes]  # one position to blank: no choice
    report = diagnose(model, probes, config=DiagnosisConfig(repeats=1))
    exact = copy.deepcopy(model).double()
    base = exact.model if name == "Llama" else exact.backbone
    norm = base.norm if name == "Llama" else base.norm_f
    embeddings = exact.get_input_embeddings().weight
    expected = np.zeros((len(probes), 5))
    for row, probe in enumerate(probes):
        vectors = embeddings[list(probe.prompt)].detach().clone()
        vectors[0] = vectors.mean(0)
        seen = []
        for replaced in (False, True):
            handle = exact.get_input_embeddings().register_forward_hook(
                lambda _, args, output, vectors=vectors, replaced=replaced: vectors[None] if replaced else output
            )
            states, _ = reference.run(exact, base.layers, probe.prompt)
            handle.remove()
            with torch.no_grad():
                seen.append([exact.lm_head(norm(state[0, -1].double())).tolist() for state in states])
        expected[row] = [reference.jensen_shannon(p, q) for p, q in zip(*seen, strict=True)]
    found = report.first.context
    assert found.mean == pytest.approx(expected.mean(0), abs=2e-5)
    assert found.delta == pytest.approx(np.diff(expected, axis=1).mean(0), abs=2e-5)
    assert found.stderr == pytest.approx(expected.std(0, ddof=1) / len(probes) ** 0.5, abs=2e-5)
    # The last position keeps its own embedding.
    assert found.mean[0] == pytest.approx(0, abs=1e-9)
    assert found.mean[-1] > 1e-4
    assert found.draws == len(probes)


def test_a_prompt_of_one_token_has_no_context(tiny_llama):
    report = diagnose(tiny_llama(), [Probe((7,), 9)], config=DiagnosisConfig(repeats=1))
    assert report.first.context is None


def test_both_rules_of_the_task_particle_come_from_the_same_lens(tiny_llama, token_probes, reference):
    model = tiny_llama()
    report = diagnose(model, token_probes, config=DiagnosisConfig(repeats=1))
    exact = copy.deepcopy(model).double()
    expected = []
    for probe in token_probes:
        states, logits = reference.run(exact, exact.model.layers, probe.prompt)
        own = int(np.argmax(logits))
        with torch.no_grad():
            curve = [float(exact.lm_head(exact.model.norm(s[0, -1].double())).softmax(-1)[own]) for s in states]
        ratios = [abs(after - before) / (after + 1e-10) for before, after in pairwise(curve)]
        expected.append(ratios.index(max(ratios)))
    rule = report.first.task_particle.max_ratio
    assert rule.per_probe == expected
    assert rule.layer == np.median(expected)
    assert rule.unresolved == 0


def test_the_largest_ratio_is_to_the_value_after_the_layer():
    assert max_ratio_of(np.array([0.5, 0.1, 0.2, 0.9])) == 0  # 4.0, against 0.5 and 0.78
    assert max_ratio_of(np.array([0.1, 0.1, 0.8, 0.9])) == 1
    assert max_ratio_of(np.array([0.1, 0.2, 0.0])) == 1
