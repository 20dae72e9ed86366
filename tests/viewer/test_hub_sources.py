"""Reports of the Hub, over HTTP: what a text names, what is opened, and that no token opens more."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_layertracer.errors import LayerTracerError, ReportNotFoundError
from hf_layertracer.report import REPORT_FILE
from hf_layertracer.viewer import hub_sources
from hf_layertracer.viewer.hub_places import HubPlace, hub_place
from hf_layertracer.viewer.hub_sources import hub_report, search_hub


SITE = "https://huggingface.co"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (" alice/m ", HubPlace(None, "alice/m")),
        ("alice/m@v1.0", HubPlace(None, "alice/m", "v1.0")),
        ("alice/m@refs/pr/1", HubPlace(None, "alice/m", "refs/pr/1")),
        ("datasets/alice/r/reports/x@main", HubPlace("dataset", "alice/r", "main", "reports/x")),
        (f"{SITE}/alice/m", HubPlace(None, "alice/m")),
        (f"{SITE}/alice/m/", HubPlace(None, "alice/m")),
        ("hf.co/alice/m", HubPlace(None, "alice/m")),
        (f"{SITE}/alice/m/tree/main", HubPlace(None, "alice/m", "main")),
        (f"{SITE}/alice/m/tree/refs%2Fpr%2F1", HubPlace(None, "alice/m", "refs/pr/1")),
        (f"{SITE}/alice/m/blob/main/layertracer_report.json?x=1#L3", HubPlace(None, "alice/m", "main")),
        (f"{SITE}/alice/m/discussions/4", HubPlace(None, "alice/m")),
        (f"{SITE}/datasets/alice/r/tree/main/reports/x", HubPlace("dataset", "alice/r", "main", "reports/x")),
    ],
)
def test_ids_and_addresses_are_understood(text, place):
    assert hub_place(text) == place
    assert hub_place(str(place)) == place, "it can be written down and read again"


@given(
    st.text(max_size=40)
    | st.sampled_from(["https://[", "http://huggingface.co", "hf.co/a", "datasets/a", "a/b@", "a/b@..", "a/b@ "])
)
def test_any_text_names_a_place_or_is_refused(text):
    with contextlib.suppress(ReportNotFoundError):
        place = hub_place(text)
        assert hub_place(str(place)) == place


@pytest.fixture
def uploaded(hub, make_report):
    """`uploaded(repo_id, content=..., repo_type=..., private=...)` puts a report, or something else, on the Hub."""
    from huggingface_hub import HfApi

    def upload(repo_id, content=None, repo_type="model", private=False, name=REPORT_FILE, tag="layertracer"):
        api = HfApi()
        api.create_repo(repo_id, repo_type=repo_type, private=private)
        card = f"---\nlicense: mit\ntags:\n- {tag}\n---\n# A card\n".encode()
        api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=repo_id, repo_type=repo_type)
        content = make_report().model_dump_json().encode() if content is None else content
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo_id, repo_type=repo_type)

    return upload


def test_reports_of_models_and_datasets_are_opened(uploaded, make_report):
    uploaded("alice/model")
    uploaded("alice/reports", repo_type="dataset")
    assert hub_report("alice/model") == make_report()
    assert hub_report("datasets/alice/reports") == hub_report("alice/reports") == make_report()


def test_of_a_dataset_the_newest_report_is_opened_unless_a_folder_is_named(hub, make_report):
    from hf_layertracer.hub import push_report

    first, second = make_report(), make_report(8)
    second.created = "2027-01-02T03:04:05+00:00"
    for report in (second, first):
        push_report(report, "alice/reports", repo_type="dataset")
    assert hub_report("datasets/alice/reports") == second
    folders = [
        path.rsplit("/", 1)[0] for path in hub.repo("alice/reports", "dataset").files if path.endswith(REPORT_FILE)
    ]
    assert sorted(hub_report(f"datasets/alice/reports/{folder}").num_layers for folder in folders) == [6, 8]


def test_a_token_of_this_machine_opens_nothing(hub, uploaded):
    uploaded("alice/secret", private=True)
    from huggingface_hub import hf_hub_download

    assert Path(hf_hub_download("alice/secret", REPORT_FILE)).is_file(), "the token would have opened it"
    with pytest.raises(ReportNotFoundError, match="no public repository alice/secret"):
        hub_report("alice/secret")
    assert search_hub() == []


def test_no_request_carries_a_token_of_this_machine(hub, uploaded, monkeypatch, make_report):
    """The Hub refuses a token that it does not know: whatever is answered was asked for without it."""
    uploaded("alice/model")
    uploaded("alice/reports", repo_type="dataset")
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError):
        HfApi().model_info("alice/model")
    assert hub_report("alice/model") == hub_report("datasets/alice/reports") == make_report()
    assert search_hub() == ["alice/model", "datasets/alice/reports"]


def test_only_tagged_public_repositories_are_found(uploaded):
    uploaded("alice/first")
    uploaded("alice/second", repo_type="dataset")
    uploaded("alice/other", tag="something")
    uploaded("alice/hidden", private=True)
    assert search_hub() == ["alice/first", "datasets/alice/second"]
    assert search_hub("first") == ["alice/first"]
    assert search_hub("nothing like it") == []


def test_a_repository_without_a_report_is_refused(uploaded):
    uploaded("alice/model", name="config.json")
    for repo in ("alice/model", "alice/no-such", "datasets/alice/model"):
        with pytest.raises(ReportNotFoundError, match="There is no public repository"):
            hub_report(repo)


@pytest.mark.parametrize(
    "repo", ["../../etc/passwd", "/etc/passwd", "a/b/../c", "a/b//c", "a", "", " ", "a/..", "\0/x", "alice/m?x=1"]
)
def test_what_is_no_id_is_never_asked_for(hub, monkeypatch, tmp_path, repo):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_sources, "HfApi", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ReportNotFoundError):
        hub_report(repo)


def test_an_id_is_never_taken_for_a_folder_here(hub, tmp_path, monkeypatch, make_report, write_report):
    write_report(make_report(), "alice/model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReportNotFoundError):
        hub_report("alice/model")


def test_a_large_file_is_refused_before_it_is_fetched(uploaded, monkeypatch):
    uploaded("alice/huge", content=b" " * (hub_sources.MAX_BYTES + 1))
    monkeypatch.setattr(hub_sources.HfApi, "hf_hub_download", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(LayerTracerError, match="too large"):
        hub_report("alice/huge")


def test_a_hostile_file_on_the_hub_is_refused_and_nothing_stays(uploaded, tmp_path, monkeypatch):
    uploaded("alice/bad", content=b"[" * 100_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(LayerTracerError, match="alice/bad is not a LayerTracer report"):
        hub_report("alice/bad")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("status", [500, 503, 429, None])
def test_a_hub_that_does_not_answer_is_one_line(hub, uploaded, monkeypatch, status):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries
    uploaded("alice/model")
    for call in (lambda: hub_report("alice/model"), search_hub):
        hub.fail("/", status=status, times=1000)
        with pytest.raises(LayerTracerError, match=r"Hub (had|refused|broke|could)|to the Hub broke") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_revision_is_opened_as_it_was(hub, make_report):
    from hf_layertracer.hub import push_report

    push_report(make_report(5), "alice/model")
    first = hub.repo("alice/model").commits()[0].oid
    push_report(make_report(7), "alice/model")
    old = [hub_report(f"alice/model@{first}").num_layers, hub_report(f"{SITE}/alice/model/tree/{first}").num_layers]
    assert [*old, hub_report("alice/model@main").num_layers] == [5, 5, 7]
    with pytest.raises(ReportNotFoundError, match="alice/model@gone"):
        hub_report("alice/model@gone")


def test_an_owner_may_open_what_is_private(uploaded, make_report):
    uploaded("alice/secret", private=True)
    assert hub_report("alice/secret", token=True) == make_report()
    assert search_hub(token=True) == ["alice/secret"]
