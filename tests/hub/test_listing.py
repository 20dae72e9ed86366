"""Reports of one model over time, of a dataset and of all models, side by side."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from huggingface_hub import HfApi
from support import made_reports

from hf_layertracer import compare_reports, list_reports, push_report
from hf_layertracer.errors import HubError, LayerTracerError


def test_a_model_over_time(hub, make_report):
    push_report(make_report(), "alice/tiny")
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="other.txt", repo_id="alice/tiny")
    push_report(make_report(training=True), "alice/tiny")
    hub.page_size = 2
    try:
        found = list_reports("alice/tiny")
    finally:
        hub.page_size = 50
    commits = hub.repo("alice/tiny").commits()
    assert [entry.revision for entry in found] == [commits[0].oid, commits[2].oid]
    assert [entry.report.training is None for entry in found] == [True, False]
    assert [row["eval_loss_after"] for row in compare_reports(found)] == [None, 2.5]
    assert list_reports("alice/tiny", limit=1) == found[1:]
    assert list_reports("alice/tiny", revision=commits[1].oid) == found[:1]


def test_all_models_with_the_tag_that_have_a_report(hub, make_report, caplog):
    for name in ("alice/one", "lab/two", "alice/three"):
        push_report(make_report(name), name, private=name == "alice/three")
    api = HfApi()
    api.create_repo("alice/tag-only")
    card = b"---\ntags:\n- layertracer\n---\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/tag-only")
    api.create_repo("alice/broken")
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/broken")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="layertracer_report.json", repo_id="alice/broken")
    assert [entry.repo_id for entry in list_reports()] == ["alice/three", "lab/two", "alice/one"]
    assert {r.getMessage().split(":")[0] for r in caplog.records if "Left out" in r.getMessage()} == {"Left out"}
    assert [entry.repo_id for entry in list_reports(author="lab")] == ["lab/two"]
    assert [entry.repo_id for entry in list_reports(search="one")] == ["alice/one"]
    assert {entry.repo_id for entry in list_reports(token=hub.other_token)} == {"alice/one", "lab/two"}


def test_a_dataset_of_reports(hub, make_report):
    times = ["2030-01-01T00:00:00+00:00", "2029-01-01T00:00:00+00:00"]
    for name, created in zip(("b/later", "a/earlier"), times, strict=True):
        push_report(make_report(name, created=created), "alice/reports", repo_type="dataset")
    found = list_reports("alice/reports", repo_type="dataset")
    assert [entry.report.model.id for entry in found] == ["a/earlier", "b/later"]
    assert all(entry.subfolder.startswith("reports/") for entry in found)
    assert list_reports("alice/reports", repo_type="dataset", limit=1) == found[1:]


def test_rows_make_a_data_frame(make_report):
    later = made_reports.make_later(
        4, 2, step=9, task_particle__layer=3.0, task_particle__interval=None, sensitivity__mean=[0.1, 0.2, 0.4, 0.1]
    )
    first, second = make_report(), make_report(training=True, later=[later])
    frame = pd.DataFrame(compare_reports([first, second]))
    assert frame["vulnerable_layer"].tolist() == [first.sensitivity.vulnerable_layer, 2]
    assert frame["shallow_minus_deep"].tolist() == pytest.approx([first.sensitivity.shallow_minus_deep, -0.1])
    assert frame["task_particle_depth"].tolist()[1] == 1.0
    assert frame["vulnerable_layer_depth"].tolist()[1] == 0.75
    assert frame["step"].tolist() == [0, 9]
    assert "choice_accuracy" in frame
    assert frame["model"].tolist() == ["alice/tiny"] * 2
    json.dumps(compare_reports([first, second]))


def test_what_cannot_be_listed_is_told(hub, monkeypatch):
    with pytest.raises(HubError, match="'alice/none' does not exist"):
        list_reports("alice/none")
    with pytest.raises(HubError, match="does not exist"):
        list_reports("alice/none", repo_type="dataset")
    with pytest.raises(LayerTracerError, match="model or dataset"):
        list_reports("alice/none", repo_type="space")
    with pytest.raises(LayerTracerError, match="need a repo_id"):
        list_reports(repo_type="dataset")
    with pytest.raises(LayerTracerError, match="without a repo_id"):
        list_reports("alice/none", author="alice")
    assert list_reports() == []
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="wrong or has expired"):
        list_reports()


def test_a_model_without_a_report_has_none(hub):
    HfApi().create_repo("alice/tiny")
    assert list_reports("alice/tiny") == []


def test_a_hub_that_breaks_in_the_middle_is_not_taken_for_an_empty_one(hub, report):
    push_report(report, "alice/tiny")
    hub.fail("/resolve/", times=100, status=400)
    with pytest.raises(HubError, match="HTTP 400"):
        list_reports()


def test_a_dataset_of_reports_needs_no_type(hub, make_report):
    push_report(make_report(), "alice/reports", repo_type="dataset")
    assert [found.repo_type for found in list_reports("alice/reports")] == ["dataset"]


def test_in_80_columns_nothing_is_cut(make_report):
    from rich.console import Console

    from hf_layertracer.cli.printing import reports_table

    rows = compare_reports([make_report("organization/a-model-with-a-long-name", training=True)] * 2)
    for row in rows:
        row["repo_id"], row["revision"] = "organization/a-model-with-a-long-name", "0123456789abcdef"
    rows[1]["repo_id"] = "organization/another-model-with-a-long-name"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(reports_table(rows))
    said = console.export_text()
    assert "…" not in said
    assert said.count(rows[0]["date"][:10]) == 2
