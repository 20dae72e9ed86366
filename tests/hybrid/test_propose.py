from __future__ import annotations

import pytest
from support.made_reports import independent, make_later, make_report

from hf_layertracer import HybridRecipe, LayerTracerError, propose_hybrid


def measured(**changes):
    """A made-up report of a Llama, whose perturbation goes by the name that decides."""
    report = make_report(**changes)
    report.model.model_type = "llama"
    diagnosis = report.latest
    diagnosis.sensitivities = {"mixer": next(iter(diagnosis.sensitivities.values()))}
    diagnosis.sensitivity.mean[:] = [0.5, 0.02, 0.3, 0.01, 0.4, 0.2]
    give_errors(diagnosis.sensitivity, 0.01)
    return report


def give_errors(sensitivity, error: float) -> None:
    """Layers that err by so much each, and independently."""
    sensitivity.stderr[:] = [error] * 6
    sensitivity.covariance = independent(sensitivity.stderr)


def trained(**changes):
    """The same with a diagnosis after training, in which other mixers matter least."""
    report = measured(later=[make_later(6, **changes)])
    report.first.sensitivities = {"mixer": report.first.sensitivity}
    report.first.sensitivity.mean[:] = [0.5, 0.02, 0.3, 0.01, 0.4, 0.2]
    report.latest.sensitivity.mean[:] = [0.01, 0.2, 0.3, 0.5, 0.02, 0.4]
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
    give_errors(report.latest.sensitivity, 0.1)
    assert "within two standard errors (0.283)." in propose_hybrid(report, n_mixers=2).reason


def test_layers_that_err_together_are_told_apart():
    report = measured()
    sensitivity = report.latest.sensitivity
    sensitivity.stderr[:] = [0.1] * 6
    sensitivity.covariance = [[0.0099] * layer + [0.01] for layer in range(6)]  # their differences err by 0.014
    assert "beyond two standard errors (0.028)." in propose_hybrid(report, n_mixers=2).reason


def test_an_error_that_is_not_known_decides_nothing():
    report = measured()
    sensitivity = report.latest.sensitivity
    sensitivity.draws, sensitivity.stderr[:], sensitivity.covariance = 1, [0.0] * 6, None
    reason = propose_hybrid(report, n_mixers=2).reason
    assert "the standard error of the difference from layer 1 is not known." in reason
    assert "two standard errors" not in reason


def test_of_a_training_run_the_model_that_is_named_decides():
    report = trained()
    for base in (None, "someone/tiny-llama", "someone/tiny-llama@0123abc"):
        recipe = propose_hybrid(report, n_mixers=2, base=base)
        assert (recipe.base, recipe.mixers[0].layers) == (base or "someone/tiny-llama@0123abc", (1, 3))
        assert recipe.reason.endswith(f" The values of {recipe.base} were measured before training.")
    recipe = propose_hybrid(report, n_mixers=2, base="./trained")
    assert (recipe.base, recipe.mixers[0].layers) == ("./trained", (0, 4))
    assert recipe.reason.endswith(" The values of ./trained were measured after step 100.")
    assert "measured before" not in propose_hybrid(measured(), n_mixers=2).reason


def test_of_two_training_runs_the_models_that_are_named_decide():
    a, b = trained(scores__accuracy=0.9, task_particle__layer=1.0), measured()
    b.model.id = "someone/other"
    b.latest.scores.accuracy, b.latest.task_particle.layer = 0.75, 2.5
    recipe = propose_hybrid(a, b)
    assert (recipe.base, recipe.norm, recipe.layers[0].layer_range) == (
        "someone/tiny-llama@0123abc",
        "someone/other@0123abc",
        (0, 3),
    )
    assert "answers more of the 4 probes (75.0% against 50.0%)" in recipe.reason
    assert "The values of someone/tiny-llama@0123abc were measured before training." in recipe.reason
    recipe = propose_hybrid(a, b, base="./trained")
    assert (recipe.base, recipe.norm, recipe.layers[0].layer_range) == ("someone/other@0123abc", "./trained", (0, 1))
    assert "The values of ./trained were measured after step 100." in recipe.reason


def test_a_tie_in_accuracy_is_not_called_more_answers():
    a, b = measured(), measured()
    b.model.id = "someone/better"
    a.latest.task_particle.layer = b.latest.task_particle.layer = 2.0
    b.latest.scores.mean_log_probability = -1.0
    for first, second in ((a, b), (b, a)):
        reason = propose_hybrid(first, second).reason
        assert (
            "Both models answer 50.0% of the 4 probes, and someone/better@0123abc gives the targets a higher mean "
            "log-probability (-1.0000 against -1.2500)."
        ) in reason
        assert "answers more" not in reason
    b.latest.scores.mean_log_probability = -1.25
    reason = propose_hybrid(b, a).reason
    assert (
        "with one mean log-probability (-1.2500), so someone/better@0123abc, which was named first, is taken" in reason
    )


def test_a_report_without_measurement_or_name_is_refused():
    report = measured()
    report.model.id = None
    with pytest.raises(LayerTracerError, match="does not name its model: pass base"):
        propose_hybrid(report, n_mixers=1)
    assert propose_hybrid(report, n_mixers=1, base="./here").base == "./here"
    report.diagnoses = []
    with pytest.raises(LayerTracerError, match="holds no measurement"):
        propose_hybrid(report, n_mixers=1, base="./here")


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
