from __future__ import annotations

import numpy as np
import pytest

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.estimation import estimate_means
from hf_layertracer.diagnosis.stopping import stopping_rule


def estimate(means, error, draws=100):
    """Means of layers with independent draws of about this standard error."""
    noise = np.random.default_rng(0).normal(size=(len(means), draws))
    noise = (noise - noise.mean(1, keepdims=True)) / noise.std(1, ddof=1, keepdims=True)
    values = np.array(means)[:, None] + noise * error * draws**0.5
    return estimate_means(values, np.zeros(draws, dtype=int), np.arange(draws))


def decide(means, error, at_the_end=False, **settings):
    return stopping_rule(DiagnosisConfig(**settings), len(means))(estimate(means, error), at_the_end=at_the_end)


def test_without_a_rule_the_number_of_draws_is_fixed():
    assert stopping_rule(DiagnosisConfig(), 4) is None


def test_it_stops_when_no_error_is_above_the_wanted_one_and_says_so():
    assert decide([0.5, 0.2], 0.011, until_stderr=0.01) is None
    assert decide([0.5, 0.2], 0.009, until_stderr=0.01) == (
        "after 100 draws: the largest standard error is 0.009, not above 0.01"
    )


def test_at_the_limit_it_says_what_was_not_reached():
    said = decide([0.5, 0.2], 0.02, at_the_end=True, until_stderr=0.01)
    assert said == "at the limit of 100 draws: the largest standard error is 0.02, above 0.01"


def test_a_single_draw_reaches_nothing_as_its_error_is_not_known():
    rule = stopping_rule(DiagnosisConfig(until_stderr=0.01, until_boundary=0.5), 2)
    single = estimate_means(np.array([[0.5], [0.2]]), np.zeros(1, dtype=int), np.zeros(1, dtype=int))
    assert rule(single, at_the_end=False) is None
    assert rule(single, at_the_end=True) == "at the limit of 1 draw, whose standard error is not known"


def test_it_stops_when_the_layers_on_both_sides_of_a_boundary_can_be_told_apart():
    means = [0.5, 0.3, 0.3, 0.3]
    assert decide(means, 0.1, until_boundary=0.25) is None
    assert "the layers before and from 1 on differ by +0.200" in decide(means, 0.01, until_boundary=0.25)
    assert decide(means, 0.1, until_boundary=0.25, until_stderr=0.2) is None
    assert decide([0.3] * 4, 0.01, until_boundary=0.5) is None
    assert "within three standard errors" in decide([0.3] * 4, 0.01, at_the_end=True, until_boundary=0.5)


def test_a_diagnosis_draws_until_it_knows_enough_and_the_report_says_why_it_stopped(tiny_llama, token_probes):
    def measured(**settings):
        report = diagnose(
            tiny_llama(num_hidden_layers=2), token_probes, config=DiagnosisConfig(perturbation="mask,skip", **settings)
        )
        return report, report.first.sensitivities["mask"]

    report, enough = measured(until_stderr=0.03)
    assert max(enough.stderr) <= 0.03
    assert enough.draws % (5 * 13) == 0  # looks of 13 masks for each of the 5 probes
    assert enough.stopped in next(note for note in report.notes if "stopped" in note)
    assert report.first.sensitivities["skip"].stopped is None
    _, limited = measured(until_stderr=1e-6, repeats=15)
    assert (limited.draws, limited.stopped[:29]) == (75, "at the limit of 75 draws: the")
    # The draws are those of a diagnosis that measures as many from the start.
    _, fixed = measured(repeats=15)
    assert limited.mean == pytest.approx(fixed.mean, abs=1e-6)
    assert fixed.stopped is None
