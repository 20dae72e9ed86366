from __future__ import annotations

import pytest

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis import engine
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.quick import QUICK_PROBES, quick_look
from hf_layertracer.probes import Probe


PROBES = [Probe((5 + number, 80, 31, 7 + number), number) for number in range(QUICK_PROBES)]


def tokens_through_layers(model, config):
    """How many tokens all layers together ran on in a diagnosis, and its report."""
    counted = []
    for layer in model.model.layers:
        layer.input_layernorm.register_forward_pre_hook(
            lambda _, args: counted.append(args[0].shape[0] * args[0].shape[1])
        )
    report = diagnose(model, PROBES, config=config)
    return report, sum(counted)


def test_a_quick_look_grows_with_the_depth_and_not_with_its_square(tiny_llama):
    work = {}
    for depth in (8, 64):
        small = {"num_hidden_layers": depth, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        config = quick_look(DiagnosisConfig(), depth)
        report, work[depth] = tokens_through_layers(tiny_llama(**small), config)
        assert report.first.context is not None
        assert list(report.first.sensitivities) == ["skip"]
        assert report.sensitivity.draws == config.skip_probes
    assert work[64] / work[8] < 9
    # A loop that masks each layer once for each probe in whole passes would take these.
    full = {depth: depth * depth * len(PROBES) * 4 for depth in work}
    assert work[64] < full[64] / 3


def test_a_sample_of_probes_is_what_they_give_alone(tiny_llama, token_probes):
    model, probes = tiny_llama(num_hidden_layers=2), token_probes[:2]

    def measured(probes, **settings):
        return diagnose(model, probes, config=DiagnosisConfig(perturbation="skip", **settings)).sensitivity

    sampled = measured(probes, skip_probes=1)
    assert (sampled.draws, len(sampled.by_task)) == (1, 1)
    assert any(sampled.mean == pytest.approx(measured([probe]).mean, abs=1e-6) for probe in probes)
    assert measured(probes, skip_probes=9).draws == 2


def test_replay_is_checked_where_it_is_used(tiny_llama, monkeypatch):
    probes = [Probe(tuple(range(5, 5 + length)), 9) for length in range(3, 12)]
    checked: set[int] = set()

    def check(stack, clean, *_):
        checked.add(clean.input_ids.shape[1])

    monkeypatch.setattr(engine, "check_replay", check)
    diagnose(tiny_llama(), probes, config=DiagnosisConfig(perturbation="skip", skip_probes=2))
    assert max(checked) == 11  # the longest, before anything is measured
    assert 2 <= len(checked) <= 3
    diagnose(tiny_llama(), probes, config=DiagnosisConfig(perturbation="skip"))
    assert checked == set(range(3, 12))


def test_a_quick_look_keeps_all_other_settings():
    config = quick_look(DiagnosisConfig(diagnosis_seed=7, until_stderr=0.1, perturbation="mask,noise"), 30)
    assert (config.perturbation, config.repeats, config.skip_probes, config.until_stderr) == ("skip", 1, 6, None)
    assert config.diagnosis_seed == 7
    assert quick_look(config, 1000).skip_probes == 3
