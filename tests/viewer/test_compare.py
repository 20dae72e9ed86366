"""Reports beside each other."""

from __future__ import annotations

import math

import pytest

from hf_layertracer.viewer.compare import (
    after_training,
    before_and_after,
    cautions,
    depth_table,
    difference_table,
    lens_curves,
    sensitivity_curves,
    suggested,
)


def row(table, label) -> list[str]:
    return next(cells[1:] for cells in table[1] if cells[0] == label)


def test_models_of_different_depth_lie_over_each_other(make_report):
    shallow, deep = make_report(6), make_report(30)
    figure = sensitivity_curves({"a": shallow, "b": deep})
    assert [(len(trace.x), trace.x[-1]) for trace in figure.data] == [(6, 1.0), (30, 1.0)]
    assert [trace.x[0] for trace in figure.data] == [pytest.approx(1 / 6), pytest.approx(1 / 30)]
    assert list(figure.data[1].y) == deep.sensitivity.mean
    curves = [trace for trace in lens_curves({"a": shallow, "b": deep}).data if trace.mode == "lines"]
    assert [(trace.x[0], trace.x[-1]) for trace in curves] == [(0, 1), (0, 1)]


def test_the_task_particle_is_marked_on_its_curve(make_report):
    report = make_report(11)
    (mark,) = [trace for trace in lens_curves({"a": report}).data if trace.mode == "markers"]
    assert mark.x[0] == pytest.approx(8 / 11)
    assert mark.y[0] == report.lens.mean_probability[8]


def test_reports_without_a_lens_are_left_out_and_none_at_all_is_said(make_report):
    invalid = make_report(lens={"valid": False, "reason": "x"})
    assert len(lens_curves({"a": invalid, "b": make_report()}).data) == 2
    assert "None of these" in lens_curves({"a": invalid}).layout.annotations[0].text


def test_differences_are_against_the_first(make_report):
    a = make_report(sensitivity__mean=[0.5] * 3 + [0.3] * 3, scores__accuracy=0.5)
    b = make_report(12, sensitivity__mean=[0.5] * 6 + [0.2] * 6, scores__accuracy=0.25)
    table = difference_table({"a": a, "b": b})
    assert table[0] == ["quantity", "a", "b"]
    assert row(table, "layers") == ["6", "12 (+6)"]
    assert row(table, "shallow minus deep (bits)") == ["0.200", "0.300 (+0.100)"]
    assert row(table, "accuracy on the probes") == ["0.500", "0.250 (-0.250)"]
    assert all(cells[0] != "held-out loss after training" for cells in table[1])
    trained = difference_table({"a": a, "b": make_report(history=True)})
    assert row(trained, "held-out loss after training") == ["–", "3.0000"]


@pytest.mark.parametrize("num_layers", [1, 3, 10, 30, 37])
def test_tenths_of_the_depth_are_means_of_their_layers(make_report, num_layers):
    report = make_report(num_layers)
    _, rows = depth_table({"a": report})
    assert len(rows) == 10
    if num_layers == 30:
        for part, cells in enumerate(rows):
            mean = sum(report.sensitivity.mean[3 * part : 3 * part + 3]) / 3
            assert cells[1] == f"{mean:.3f} ± 0.020"
    if num_layers == 1:
        assert {cells[1] for cells in rows} == {f"{report.sensitivity.mean[0]:.3f} ± 0.020"}


def test_only_differences_beyond_two_errors_are_marked(make_report):
    base = make_report(10, sensitivity__mean=[0.5] * 10, sensitivity__stderr=[0.02] * 10)
    limit = 2 * math.hypot(0.02, 0.02)
    for gap, marked in ((limit * 0.98, False), (limit * 1.02, True), (-limit * 1.02, True)):
        other = make_report(10, sensitivity__mean=[0.5 + gap] * 10, sensitivity__stderr=[0.02] * 10)
        _, rows = depth_table({"a": base, "b": other})
        assert all(("beyond error" in cells[2]) == marked for cells in rows)


def test_an_error_that_is_not_known_is_neither_shown_nor_used(make_report):
    known = make_report(10, sensitivity__mean=[0.5] * 10)
    alone = make_report(10, sensitivity__mean=[0.9] * 10, sensitivity__draws=1, sensitivity__stderr=[0.0] * 10)
    assert {cells[1] for cells in depth_table({"a": alone})[1]} == {"0.900"}
    assert {tuple(cells[1:]) for cells in depth_table({"a": known, "b": alone})[1]} == {
        ("0.500 ± 0.020", "0.900 (+0.400)")
    }
    assert {tuple(cells[1:]) for cells in depth_table({"a": alone, "b": known})[1]} == {
        ("0.900", "0.500 ± 0.020 (-0.400)")
    }


def test_what_makes_reports_incomparable_is_said(make_report):
    a = make_report()
    assert cautions({"a": a, "b": make_report()}) == []
    probes = make_report(probes__sha256="other")
    assert "probes are not the same" in cautions({"a": a, "b": probes})[0]
    settings = make_report(settings__mask_ratio=0.1)
    assert "mask_ratio 0.1, 0.3" in cautions({"a": a, "b": settings})[0]


def test_before_and_after_one_training(make_report):
    report = make_report(history=True)
    run = before_and_after("run", report)
    assert list(run) == ["run, before", "run, after step 20"]
    before, after = sensitivity_curves(run).data
    assert (list(before.y), list(after.y)) == (report.first.sensitivity.mean, report.latest.sensitivity.mean)
    assert row(difference_table(run), "accuracy on the probes") == ["0.500", "0.750 (+0.250)"]
    assert cautions(run) == []


def test_a_run_is_compared_with_itself_first_else_with_its_model(make_report):
    run, one, same, other = (
        make_report(history=True),
        make_report(),
        make_report(7),
        make_report(model__id="someone/else"),
    )
    assert suggested({"run": run, "one": one}) == ["run"]
    assert suggested({"one": one, "other": other, "same": same}) == ["one", "same"]
    assert suggested({"one": one, "other": other}) == ["one", "other"]
    assert suggested({"one": one}) == ["one"]
    assert suggested({}) == []


def test_what_cannot_be_compared_has_no_differences(make_report):
    reports = {"a": make_report(12), "b": make_report(12, probes__sha256="other", sensitivity__mean=[0.9] * 12)}
    assert cautions(reports)
    for table in (difference_table(reports, comparable=False), depth_table(reports, comparable=False)):
        assert not [cell for cells in table[1] for cell in cells[1:] if "+" in cell or "beyond" in cell]


def test_a_report_after_training_holds_the_last_diagnosis(make_report):
    report = make_report(history=True)
    after, last = after_training(report), report.latest
    assert after.first == after.latest == last
    assert after.sensitivity.vulnerable_layer == 5
    assert after.sensitivity.shallow_minus_deep == pytest.approx(0.3 - (0.3 + 0.3 + 0.4) / 3)
    assert after.task_particle.layer == 1.0
    assert after.first.scores.accuracy == 0.75
    assert after_training(make_report()) == make_report()
    assert report.first != last, "the report itself must stay as it is"


def test_names_of_reports_are_text(make_report, markup):
    for figure in (sensitivity_curves({markup: make_report()}), lens_curves({markup: make_report()})):
        assert "<" not in figure.data[0].name
        assert "<" not in figure.data[0].hovertext[0].replace("<b>", "").replace("</b>", "").split(",")[0]
