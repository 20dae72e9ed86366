"""`layertracer compare`: a table, CSV and figures of reports in folders."""

from __future__ import annotations

import csv

import pytest

from hf_layertracer import diagnose
from hf_layertracer.report.comparison import FORMATS


@pytest.fixture
def folders(tmp_path, tiny_llama, token_probes):
    for name, layers in (("_one$", 4), ("two", 3)):
        diagnose(tiny_llama(num_hidden_layers=layers), token_probes).save_json(tmp_path / name)
    return [str(tmp_path / "_one$"), str(tmp_path / "two")]


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
