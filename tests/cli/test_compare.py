"""`layertracer compare`: a table, CSV and figures of reports in folders."""

from __future__ import annotations

import csv

import pytest

from hf_layertracer import LayerTracerReport, diagnose, push_report
from hf_layertracer.report.comparison import FORMATS


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_llama, token_probes):
    made = []
    for name, layers in (("_one$", 4), ("two", 3)):
        folder = tmp_path_factory.mktemp("reports") / name
        diagnose(tiny_llama(num_hidden_layers=layers), token_probes, config={"repeats": 1}).save_json(folder)
        made.append(str(folder))
    return made


def test_reports_stand_side_by_side_in_a_table_and_in_files(run, folders, tmp_path):
    for kind in FORMATS:
        out = tmp_path / "new" / f"figure.{kind}"
        status, text, _ = run("compare", *folders, "--out", out)
        assert status == 0
        assert "_one$" in text
        assert "two" in text
        assert "accuracy" in text
        assert out.stat().st_size > 100
    with (tmp_path / "new" / "figure.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["report"] for row in rows] == ["_one$", "two"]
    assert [row["layers"] for row in rows] == ["4", "3"]
    assert 0 <= float(rows[0]["accuracy"]) <= 1


def test_a_folder_and_a_repository_on_the_hub_compare(run, folders, hub, tmp_path):
    push_report(LayerTracerReport.load(folders[0]), "alice/tiny")
    status, out, _ = run("compare", "alice/tiny", folders[1], "--out", tmp_path / "both.csv")
    assert status == 0
    assert "tiny" in out
    with (tmp_path / "both.csv").open(newline="") as file:
        assert [row["report"] for row in csv.DictReader(file)] == ["tiny", "two"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}"], "needs two reports"),
        (["{a}", "{b}", "--out", "figure.docx"], "must end in .csv, .png, .pdf, .svg"),
        (["{a}", "{b}/nothing"], "nothing"),
    ],
)
def test_what_cannot_be_compared_is_one_line(run, folders, monkeypatch, arguments, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, _, err = run("compare", *(a.format(a=folders[0], b=folders[1]) for a in arguments))
    assert status == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
