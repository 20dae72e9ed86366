"""A report as a whole: which diagnosis and plan count, and what changed between them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from support.made_reports import make_later, make_plan, make_report, with_further

from hf_layertracer import DiagnosisConfig
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.report import LayerTracerReport


@pytest.fixture
def trained():
    return make_report(later=[make_later(6, step=50), make_later(6, step=100, sensitivity__mean=[0.1] * 5 + [0.7])])


def test_shortcuts_are_those_of_the_latest_diagnosis(trained):
    assert [diagnosis.step for diagnosis in trained.diagnoses] == [0, 50, 100]
    assert trained.first is trained.diagnoses[0]
    assert trained.latest is trained.diagnoses[2]
    assert trained.sensitivity is trained.latest.sensitivity
    assert trained.lens is trained.latest.lens
    assert trained.task_particle is trained.latest.task_particle
    assert trained.is_repeated
    single = make_report()
    assert single.first is single.latest
    assert not single.is_repeated


def test_before_and_after_are_the_first_and_the_latest(trained):
    changes = trained.changes()
    assert changes["accuracy"].difference == pytest.approx(0.25)
    assert (changes["vulnerable_layer"].before, changes["vulnerable_layer"].after) == (0, 5)
    assert changes["highest_sensitivity"].difference == pytest.approx(0.7 - 0.6)
    assert changes["shallow_minus_deep"].after == pytest.approx(0.1 - 0.9 / 3)
    assert make_report(task_particle__layer=None).changes()["task_particle"].difference is None
    assert {change.difference for change in make_report().changes().values()} == {0}


def test_the_latest_plan_counts_and_a_plan_replaces_those_that_come_after_it():
    report = make_report(plan=None)
    assert report.plan is None
    plans = [make_plan(6, strategy=name) for name in ("one", "two", "three")]
    for step, plan in zip((0, 10, 20), plans, strict=True):
        report.set_plan(plan, step)
    assert [(record.step, record.plan.strategy) for record in report.plans] == [(0, "one"), (10, "two"), (20, "three")]
    assert report.plan == plans[2]
    report.set_plan(plans[0], 10)
    assert [(record.step, record.plan.strategy) for record in report.plans] == [(0, "one"), (10, "one")]


def test_several_perturbations_stand_beside_each_other():
    report = make_report()
    skip = report.sensitivity.model_copy(update={"mean": [0.5] * 6})
    report.first.sensitivities["skip"] = skip
    read = LayerTracerReport.from_dict(report.model_dump(mode="json"))
    assert list(read.first.sensitivities) == ["mask", "skip"]
    assert read.sensitivity == report.first.sensitivities["mask"]
    assert read.first.perturbation == "mask"
    assert [row["layer_sensitivity_skip"] for row in read.layer_rows()] == [0.5] * 6


def test_a_layer_of_the_table_holds_all_that_is_known_of_it(trained):
    row = trained.layer_rows()[5]
    assert row["layer_sensitivity"] == 0.7
    assert row["lens_probability"] == 0.9
    assert row["relative_depth"] == 1.0
    assert row["trained"] is False
    assert trained.layer_rows(trained.first)[5]["layer_sensitivity"] == trained.first.sensitivity.mean[5]
    bare = make_report(plan=None, lens={"valid": False, "reason": "x"}).layer_rows()[0]
    assert bare["lens_probability"] is bare["trained"] is None


def test_an_error_that_is_not_known_is_none_in_the_table_and_not_zero():
    single = {"lens__stderr": [0.0] * 7, "sensitivity__draws": 1, "sensitivity__stderr": [0.0] * 6}
    report = with_further(make_report(**single))
    assert not report.lens.stderr_known
    assert report.first.context.stderr_known
    row = report.layer_rows()[0]
    stderrs = [name for name in row if "stderr" in name]
    assert stderrs == ["layer_sensitivity_stderr", "layer_sensitivity_stderr_skip", "lens_probability_stderr"]
    assert [row[name] for name in stderrs] == [None] * 3
    report.first.context.delta_stderr = [0.0] * 6
    assert not report.first.context.stderr_known


def test_settings_are_checked_as_everywhere_else():
    report = make_report(settings={"perturbation": "skip", "diagnosis_seed": 3})
    assert report.settings == DiagnosisConfig(perturbation="skip", diagnosis_seed=3)
    with pytest.raises(ValidationError, match="mask_ratio must lie above 0"):
        make_report(settings__mask_ratio=-1)
    content = make_report().model_dump(mode="json")
    content["settings"]["perturbation"] = "magic"
    with pytest.raises(LayerTracerError, match="settings") as caught:
        LayerTracerReport.from_dict(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["diagnoses", "plans"])
def test_what_is_not_in_the_order_of_its_steps_is_refused(trained, what):
    content = trained.model_dump(mode="json")
    content["plans"] += [{"step": 10, "plan": make_plan(6).model_dump()}]
    content[what].reverse()
    with pytest.raises(LayerTracerError, match=f"the {what} are not in the order of their steps"):
        LayerTracerReport.from_dict(content)


def test_a_report_without_a_diagnosis_is_one_of_a_model_that_could_not_be_measured():
    report = LayerTracerReport.from_dict(make_report().model_dump(mode="json") | {"diagnoses": []})
    assert not report.is_measured
    assert report.latest is report.first is report.sensitivity is None
    assert {(change.before, change.after) for change in report.changes().values()} == {(None, None)}
    with pytest.raises(LayerTracerError, match="diagnoses"):
        LayerTracerReport.from_dict(
            {name: value for name, value in make_report().model_dump(mode="json").items() if name != "diagnoses"}
        )


def test_the_first_diagnosis_must_be_whole():
    for place, nothing in (
        ("scores__probability", []),
        ("block_influence", []),
        ("task_particle__per_probe", []),
        ("task_particle__unresolved", None),
        ("sensitivity__contenders", None),
        ("sensitivity__shallow_minus_deep_stderr", None),
        ("lens__stderr", []),
    ):
        make_report(later=[make_later(6, **{place: nothing})])
        with pytest.raises(ValidationError, match="diagnosis 0"):
            make_report(**{place: nothing})
