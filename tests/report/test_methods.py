"""What a report can do by itself: name itself, become a table or a picture, go to the Hub and come back."""

from __future__ import annotations

import pytest

from hf_layertracer import LayerTracerError, LayerTracerReport


def test_its_name_fits_on_a_line(make_report, make_later):
    assert repr(make_report()) == (
        "LayerTracerReport(someone/tiny-llama: 6 layers, 4 probes, 1 diagnosis, plan freeze-deep)"
    )
    report = make_report(1, 1, model__id=None, plan=None, later=[make_later(1, 1)])
    assert str(report) == "LayerTracerReport(LlamaForCausalLM: 1 layer, 1 probe, 2 diagnoses, no plan)"
    assert "\n" not in repr(make_report(model__id="a\nb"))


def test_a_table_has_a_row_a_layer(make_report, make_later):
    report = make_report(later=[make_later(6)])
    table = report.to_pandas()
    assert table["layer"].tolist() == list(range(6))
    assert table["layer_sensitivity"].tolist() == report.latest.sensitivity.mean
    assert table["trained"].tolist() == [True] * 3 + [False] * 3
    first = report.to_pandas(report.first)
    assert first["lens_probability"].tolist() == report.first.lens.mean_probability[1:]
    assert first["relative_depth"].iloc[-1] == 1


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("b.pdf", b"%PDF"), ("c.svg", b"<?xml")])
@pytest.mark.usefixtures("real_picture")
def test_a_picture_is_drawn_and_written(make_report, tmp_path, name, start):
    figure = make_report().plot(tmp_path / "deep" / name)
    assert len(figure.axes) == 2
    assert (tmp_path / "deep" / name).read_bytes().startswith(start)


@pytest.mark.usefixtures("real_picture")
def test_a_picture_without_a_place_is_only_returned(make_report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(make_report().plot().axes) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_is_none_is_refused(make_report, tmp_path):
    with pytest.raises(LayerTracerError, match="no picture that can be drawn") as caught:
        make_report().plot(tmp_path / "a.docx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_is_pushed_comes_back(hub, make_report, kind):
    report = make_report()
    commit = report.push_to_hub("alice/tiny", repo_type=kind, commit_message="Mine")
    assert commit.commit_message == "Mine"
    assert LayerTracerReport.from_pretrained("alice/tiny", repo_type=kind) == report


def test_a_folder_is_read_by_the_same_name(make_report, tmp_path):
    report = make_report()
    report.save_json(tmp_path)
    assert LayerTracerReport.from_pretrained(tmp_path) == report
