from __future__ import annotations

import pytest
from support.made_reports import make_report

from hf_layertracer import HybridRecipe, LayerTracerError, propose_hybrid


def measured(**changes):
    """A made-up report of a Llama, whose perturbation goes by the name that decides."""
    report = make_report(**changes)
    report.model.model_type = "llama"
    diagnosis = report.latest
    diagnosis.sensitivities = {"mixer": next(iter(diagnosis.sensitivities.values()))}
    diagnosis.sensitivity.mean[:] = [0.5, 0.02, 0.3, 0.01, 0.4, 0.2]
    diagnosis.sensitivity.stderr[:] = [0.01] * 6
    return report


def test_the_mixers_that_matter_least_go(tmp_path):
    recipe = propose_hybrid(measured(), n_mixers=2)
    assert recipe.mixers[0].layers == (1, 3)
    assert (recipe.mixers[0].kind, recipe.base) == ("mamba2", "someone/tiny-llama@0123abc")
    assert "layers 1, 3 move the output least: 0.010 to 0.020 bits" in recipe.reason
    assert (
        "Layer 5 comes next with 0.200; the difference from layer 1 lies beyond two standard errors" in recipe.reason
    )
    recipe.save(tmp_path / "r.yaml")
    assert HybridRecipe.from_file(tmp_path / "r.yaml") == recipe


def test_a_choice_within_the_error_says_so():
    report = measured()
    report.latest.sensitivity.stderr[:] = [0.1] * 6
    assert "within two standard errors" in propose_hybrid(report, n_mixers=2).reason


def test_all_mixers_but_one_may_go_and_the_place_may_be_named():
    recipe = propose_hybrid(measured(), n_mixers=5, base="./here")
    assert len(recipe.mixers[0].layers) == 5
    assert recipe.base == "./here"


def test_what_a_proposal_lacks_is_named():
    report = measured()
    with pytest.raises(LayerTracerError, match="between 1 and 5, as one layer keeps its attention, not be 6"):
        propose_hybrid(report, n_mixers=6)
    with pytest.raises(LayerTracerError, match="no sensitivity to 'skip', only to mixer"):
        propose_hybrid(report, n_mixers=1, by="skip")
    with pytest.raises(LayerTracerError, match="Pass n_mixers"):
        propose_hybrid(report)
    with pytest.raises(LayerTracerError, match="Pass n_mixers"):
        propose_hybrid(report, measured(), n_mixers=1)
    report.model.model_type = "gpt2"
    with pytest.raises(LayerTracerError, match="No class of transformers holds gpt2 with other mixers"):
        propose_hybrid(report, n_mixers=1)


def test_the_better_donor_gives_the_layers_from_its_task_particle_on():
    a, b = measured(), measured()
    b.model.id = "someone/better"
    b.latest.scores.accuracy = min(1.0, a.latest.scores.accuracy + 0.1)
    b.latest.task_particle.layer = 2.5
    for first, second in ((a, b), (b, a)):
        recipe = propose_hybrid(first, second)
        assert [(source.donor, source.layer_range) for source in recipe.layers] == [
            ("someone/tiny-llama@0123abc", (0, 3)),
            ("someone/better@0123abc", (3, 6)),
        ]
        assert recipe.norm == recipe.head == "someone/better@0123abc"
        assert recipe.base == "someone/tiny-llama@0123abc"
        assert "begins to execute the task at layer 2.5: it gives layers 3-5, norm and head" in recipe.reason


def test_donors_that_cannot_be_compared_are_refused():
    a, b = measured(), measured()
    b.probes.sha256 = "0" * 64
    with pytest.raises(LayerTracerError, match="different probes"):
        propose_hybrid(a, b)
    with pytest.raises(LayerTracerError, match="one class and depth"):
        propose_hybrid(a, make_report(num_layers=8))
    for report in (a, c := measured()):
        report.latest.task_particle.layer = 0
    with pytest.raises(LayerTracerError, match="one model would give all layers"):
        propose_hybrid(a, c)
    for report in (a, c):
        report.latest.task_particle.layer = None
    with pytest.raises(LayerTracerError, match="is unresolved"):
        propose_hybrid(a, c)
