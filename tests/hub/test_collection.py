"""A dataset of reports: one row per layer, from several people."""

from __future__ import annotations

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi, list_datasets
from markdown_it import MarkdownIt
from support import made_reports

from hf_layertracer import LayerTracerReport, push_report
from hf_layertracer.errors import LayerTracerError, ReportNotFoundError
from hf_layertracer.hub.collection import COLUMNS, layer_rows, report_name


REPO = "alice/reports"


def push(report) -> None:
    push_report(report, REPO, repo_type="dataset")


def rows():
    return load_dataset(REPO, split="train", download_mode="force_redownload")


def test_a_row_per_layer_is_loaded(hub, make_report):
    report = make_report(training=True)
    push(report)
    assert len(hub.repo(REPO, "dataset").commits()) == 1
    loaded = rows()
    assert loaded.column_names == list(COLUMNS)
    assert {name: feature.dtype for name, feature in loaded.features.items()} == {
        n: t for n, (t, _) in COLUMNS.items()
    }
    assert loaded["layer"][:] == list(range(report.num_layers))
    assert loaded["layer_sensitivity"][:] == report.sensitivity.mean
    assert loaded["layer_sensitivity_stderr"][:] == report.sensitivity.stderr
    assert loaded["lens_probability"][:] == report.lens.mean_probability[1:]
    assert loaded["block_influence"][:] == report.block_influence
    assert loaded["trained"][:] == [layer in report.plan.trained_layers for layer in range(report.num_layers)]
    assert set(loaded["model"]) == {"alice/tiny"}
    assert {f"{created:%Y-%m-%dT%H:%M:%S}+00:00" for created in loaded["created"]} == {report.created}
    assert set(loaded["eval_loss_after"]) == {2.5}
    assert set(loaded["seed"]) == {1}
    assert sum(loaded["parameters"]) == sum(sum(layer.parameters.values()) for layer in report.model.layers)


def test_many_reports_are_collected_and_none_is_overwritten(hub, make_report):
    reports = [
        make_report("alice/tiny"),
        make_report("alice/tiny", training=True),
        make_report("bob/other", created="2031-01-02T03:04:05+00:00"),
        make_report(None, plan=None, lens={"valid": False}),
    ]
    for report in reports:
        push(report)
    push(reports[0])
    assert len(hub.repo(REPO, "dataset").commits()) == len(reports)
    loaded = rows()
    assert len(loaded) == sum(report.num_layers for report in reports)
    assert set(loaded["report"]) == {report_name(report) for report in reports}
    for report in reports:
        subfolder = f"reports/{report_name(report)}"
        assert LayerTracerReport.load(REPO, repo_type="dataset", subfolder=subfolder) == report
        assert f"{subfolder}/layertracer_report.png" in hub.repo(REPO, "dataset").files
    assert LayerTracerReport.load(REPO, repo_type="dataset") == reports[2], "the newest"


def test_the_dataset_is_found_and_told_what_it_is(hub, report):
    push(report)
    assert [dataset.id for dataset in list_datasets(filter="layertracer")] == [REPO]
    card = DatasetCard(hub.repo(REPO, "dataset").files["README.md"].decode())
    assert card.data.configs[0]["config_name"] == "default"
    assert f'load_dataset("{REPO}", split="train")' in card.text
    table = MarkdownIt("commonmark").enable("table").parse(card.text)
    assert [token.type for token in table].count("tr_open") == 1 + len(COLUMNS)
    for name in COLUMNS:
        assert f"| `{name}` |" in card.text


def test_somebodys_own_words_stay_in_the_card(hub, report):
    api = HfApi()
    api.create_repo(REPO, repo_type="dataset")
    card = "---\nlicense: mit\n---\n# Mine\n\nText.\n"
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=REPO, repo_type="dataset")
    push(report)
    once = hub.repo(REPO, "dataset").files["README.md"].decode()
    assert once.endswith("# Mine\n\nText.\n")
    assert DatasetCard(once).data.license == "mit"
    assert len(rows()) == report.num_layers
    push(report.model_copy(update={"created": "2031-01-02T03:04:05+00:00"}))
    assert hub.repo(REPO, "dataset").files["README.md"].decode() == once


def test_a_dataset_of_other_data_is_left_alone(hub, report):
    api = HfApi()
    api.create_repo(REPO, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"a,b\n1,2\n", path_in_repo="data/a.csv", repo_id=REPO, repo_type="dataset")
    with pytest.raises(LayerTracerError, match=r"holds other data \(data/a\.csv\)"):
        push(report)
    assert set(hub.repo(REPO, "dataset").files) == {"data/a.csv"}


def test_the_type_of_the_repository_need_not_be_said(hub, report):
    push(report)
    assert LayerTracerReport.load(REPO) == report
    with pytest.raises(ReportNotFoundError, match="does not exist"):
        LayerTracerReport.load(REPO, repo_type="model")


@pytest.mark.parametrize("name", ["a/b", "x" * 200, "../../etc", "ü ß", ".", "a\nb", "-"])
def test_no_name_of_a_model_leaves_its_folder(make_report, name):
    made = report_name(make_report(name))
    assert made.isascii()
    assert not {"/", "\\", " ", "\n"} & set(made)
    assert not made.startswith(".")
    assert len(made) < 130


def test_a_trained_model_is_collected_as_it_was_measured_last(make_report):
    later = made_reports.make_later(4, 2, step=9, sensitivity__mean=[0.1, 0.2, 0.4, 0.3], scores__accuracy=1.0)
    found = layer_rows(make_report(training=True, later=[later]))
    assert {row["step"] for row in found} == {9}
    assert [row["layer_sensitivity"] for row in found] == [0.1, 0.2, 0.4, 0.3]
    assert {row["accuracy"] for row in found} == {1.0}


def test_a_time_that_is_none_is_no_obstacle(make_report):
    assert "-19700101T000000Z-" in report_name(make_report(created="some day"))
