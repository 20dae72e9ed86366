"""What the numbers of a diagnosis do not say by themselves is said in its notes."""

from __future__ import annotations

import pytest
from support.made_reports import make_report, with_further

from hf_layertracer import DiagnosisConfig, diagnose
from hf_layertracer.diagnosis.notes import notes_of


TOO_STRONG = "changes the output beyond recognition"


def test_a_perturbation_that_saturates_everywhere_is_named():
    (note,) = [
        n for n in notes_of(make_report(sensitivity__mean=[0.96, 1.0, 0.97, 0.98, 0.99, 0.96]), []) if TOO_STRONG in n
    ]
    assert "(at least 0.96 of at most 1 bit)" in note
    assert not any(TOO_STRONG in n for n in notes_of(make_report(sensitivity__mean=[0.96] * 5 + [0.3]), []))


def test_of_several_perturbations_the_one_that_saturates_is_named():
    report = with_further(make_report())
    report.first.sensitivities["noise"] = report.sensitivity.model_copy(update={"mean": [0.97] * 6})
    assert [n.split(":")[0] for n in notes_of(report, []) if TOO_STRONG in n] == ["Perturbation noise"]


def test_a_single_draw_does_not_say_what_is_beyond_chance():
    level = {"sensitivity__mean": [0.3] * 6, "sensitivity__shallow_minus_deep_stderr": 0.0}
    assert any("do not differ in sensitivity beyond chance" in note for note in notes_of(make_report(**level), []))
    notes = notes_of(make_report(**level, sensitivity__draws=1, sensitivity__stderr=[0.0] * 6), [])
    assert not any("beyond chance" in note for note in notes)
    assert any("its standard error is not known, not zero" in note for note in notes)


@pytest.mark.parametrize(("scale", "saturates"), [(1000.0, True), (0.01, False)])
def test_noise_that_drowns_every_layer_is_noticed_in_a_diagnosis(tiny_llama, token_probes, scale, saturates):
    model = tiny_llama(num_hidden_layers=2)
    model.lm_head.weight.data *= 200  # a model that is sure of its answers, whatever they are
    config = DiagnosisConfig(perturbation="noise", noise_scale=scale, repeats=8)
    report = diagnose(model, token_probes, config=config)
    assert any(TOO_STRONG in note for note in report.notes) == saturates, report.sensitivity.mean
