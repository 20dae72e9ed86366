"""Reports of schema version 1: real ones, cut to a few probes, are read without a number lost."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.report import LayerTracerReport


FOLDER = Path(__file__).parent / "version1"
FILES = sorted(FOLDER.glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def old(request) -> dict:
    return json.loads(request.param.read_text(encoding="utf-8"))


@pytest.fixture
def trained() -> dict:
    return json.loads((FOLDER / "smollm2-135m-freeze-deep.json").read_text(encoding="utf-8"))


def assert_kept(now: dict, before: dict) -> None:
    """All that version 1 held is there, and what came later says nothing."""
    assert {name: now[name] for name in before} == before
    assert not any(value for name, value in now.items() if name not in before)


def test_the_first_diagnosis_is_the_one_that_lay_in_the_report(old):
    report = LayerTracerReport.from_dict(old)
    first = report.first.model_dump(mode="json")
    sensitivity = first["sensitivities"]["mask"]
    assert sensitivity.pop("covariance") is None
    # Derived now, from means of seven digits.
    assert report.first.sensitivity.shallow_minus_deep == pytest.approx(
        old["sensitivity"].pop("shallow_minus_deep"), abs=1e-7
    )
    for name in ("estimate", "calibration_draws"):
        del old["sensitivity"][name]
    assert_kept(sensitivity, old["sensitivity"])
    for part in ("lens", "task_particle", "memory"):
        assert_kept(first[part], old[part])
    for part in ("block_influence", "durations"):
        assert first[part] == old[part], part
    for name in ("accuracy", "mean_log_probability", "accuracy_by_task"):
        assert first["scores"][name] == old["probes"][name]
    assert first["scores"]["probability"] == [item["probability"] for item in old["probes"]["items"]]
    assert first["scores"]["correct"] == [item["correct"] for item in old["probes"]["items"]]
    assert first["step"] == 0


def test_the_rest_of_the_report_is_as_it_was(old):
    report = LayerTracerReport.from_dict(old)
    new = report.model_dump(mode="json")
    assert new["schema_version"] == 2
    assert_kept(new["model"], old["model"])
    assert (new["training"] is None) == (old["training"] is None)
    assert_kept(new["training"] or {}, old["training"] or {})
    for part in ("created", "versions", "notes"):
        assert new[part] == old[part], part
    assert report.plan.model_dump(mode="json") == old["plan"]
    assert [record.step for record in report.plans] == [0]
    for name in ("count", "sha256", "tasks"):
        assert new["probes"][name] == old["probes"][name]
    for now, before in zip(new["probes"]["items"], old["probes"]["items"], strict=True):
        assert now == {name: before[name] for name in ("prompt", "target", "task", "tokens")}


def test_later_diagnoses_keep_what_version_1_kept(trained):
    report = LayerTracerReport.from_dict(trained)
    assert len(trained["history"]) == len(report.diagnoses) - 1 == 4
    for now, before in zip(report.diagnoses[1:], trained["history"], strict=True):
        assert now.step == before["step"]
        assert now.lens.valid
        assert now.lens.mean_probability == before["lens_mean_probability"]
        assert now.task_particle.layer == before["task_particle"]
        assert list(now.task_particle.interval) == before["task_particle_interval"]
        assert now.sensitivity.mean == before["sensitivity"]
        assert now.sensitivity.stderr == before["sensitivity_stderr"]
        assert now.sensitivity.draws == trained["sensitivity"]["draws"]
        assert now.scores.accuracy == before["accuracy"]
        assert now.scores.mean_log_probability == before["mean_log_probability"]
        assert now.sensitivity.contenders is now.sensitivity.covariance is None


def test_the_table_of_a_later_diagnosis_has_gaps_where_version_1_kept_nothing(trained):
    row = LayerTracerReport.from_dict(trained).layer_rows()[0]
    assert row["lens_probability"] == trained["history"][-1]["lens_mean_probability"][1]
    assert row["lens_probability_stderr"] is row["block_influence"] is None


def test_settings_and_options_go_by_their_new_names(trained):
    trained["config"] |= {"seed": 7, "batch_size": 3, "perturbation": "noise"}
    trained["plan"]["options"] = {"layers": [0, 1], "seed": 5, "train_norm": True}
    report = LayerTracerReport.from_dict(trained)
    assert (report.settings.diagnosis_seed, report.settings.diagnosis_batch_size) == (7, 3)
    assert list(report.first.sensitivities) == list(report.latest.sensitivities) == ["noise"]
    assert report.plan.options == {"train_layers": [0, 1], "plan_seed": 5, "train_norm": True}


def test_a_lens_that_was_not_valid_is_not_valid_later_either(trained):
    trained["lens"] = {"valid": False, "reason": "the head is scaled"}
    trained["history"][-1]["lens_mean_probability"] = []
    report = LayerTracerReport.from_dict(trained)
    assert not report.latest.lens.valid
    assert report.latest.lens.reason == "the head is scaled"


def test_what_is_read_is_saved_in_version_2_and_everything_is_drawn_from_it(old, tmp_path):
    report = LayerTracerReport.from_dict(old)
    report.save(tmp_path)
    assert json.loads((tmp_path / "layertracer_report.json").read_text(encoding="utf-8"))["schema_version"] == 2
    assert LayerTracerReport.load(tmp_path) == report


def test_a_plan_from_an_old_report_does_not_claim_an_error_that_it_does_not_know(old):
    from hf_layertracer import make_plan

    reason = make_plan(LayerTracerReport.from_dict(old), "freeze-deep", freeze_ratio=0.25).reason
    assert "the report does not hold the error of this difference" in reason


@pytest.mark.parametrize("field", ["created", "model", "config", "probes", "lens", "sensitivity", "block_influence"])
def test_a_missing_part_is_named(trained, field):
    del trained[field]
    with pytest.raises(LayerTracerError, match=rf"{field}: Field required") as caught:
        LayerTracerReport.from_dict(trained)
    assert "\n" not in str(caught.value)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CONTENT = json.loads((FOLDER / "smollm2-135m-freeze-deep.json").read_text(encoding="utf-8"))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), value=junk)
def test_whatever_stands_in_a_field_the_report_is_read_or_refused(data, value):
    content = copy.deepcopy(CONTENT)
    holder, key = content, None
    while key is None or (isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans())):
        holder = holder if key is None else holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    holder[key] = value
    try:
        LayerTracerReport.from_dict(content).model_dump_json()
    except LayerTracerError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_that_never_was_is_refused(trained, version):
    with pytest.raises(LayerTracerError, match=f"schema version {version}, which never was: the first is 1"):
        LayerTracerReport.from_dict(trained | {"schema_version": version})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("probes", "accuracy"), "0.5"),
        (("probes", "count"), "8"),
        (("probes", "items", 0, "correct"), 1),
        (("history", 0, "step"), True),
        (("sensitivity", "draws"), "64"),
    ],
)
def test_texts_and_booleans_are_no_numbers(trained, place, value):
    *parents, last = place
    part = trained
    for parent in parents:
        part = part[parent]
    part[last] = value
    with pytest.raises(LayerTracerError, match="not a valid LayerTracer report"):
        LayerTracerReport.from_dict(trained)


def test_an_estimate_from_gradients_is_noted_as_one(old):
    old["sensitivity"]["estimate"] = True
    assert any("estimated from gradients" in note for note in LayerTracerReport.from_dict(old).notes)
