"""The Hub that the other tests talk to: it serves huggingface_hub as the real one does, and refuses what that refuses."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, list_models, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


CARD = "---\nlicense: mit\ntags:\n- layertracer\n---\n# A model\n"
RESULT = """---
model-index:
- name: m
  results:
  - task: {type: text-generation}
    dataset: {type: d, name: D}
    metrics: [{type: loss, value: VALUE}]
---
"""


@pytest.fixture
def api(hub):
    return HfApi()


def _status(error: pytest.ExceptionInfo) -> int:
    return error.value.response.status_code


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_files_of_both_sizes_come_back(hub, api, kind, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("small ü")
    (tmp_path / "sub" / "b.safetensors").write_bytes(b"\1" * (11 * 2**20))
    repo = api.create_repo("alice/x", repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    assert (repo.repo_type, repo.repo_id) == (kind, "alice/x")
    commit = api.upload_folder(repo_id="alice/x", folder_path=tmp_path, repo_type=kind)
    assert api.repo_info("alice/x", repo_type=kind).sha == commit.oid
    assert api.list_repo_commits("alice/x", repo_type=kind)[0].commit_id == commit.oid
    folder = Path(snapshot_download("alice/x", repo_type=kind))
    assert (folder / "a.txt").read_text(encoding="utf-8") == "small ü"
    assert (folder / "sub/b.safetensors").read_bytes() == b"\1" * (11 * 2**20)
    assert hub.repo("alice/x", kind).head.files["sub/b.safetensors"].lfs
    assert not hub.repo("alice/x", kind).head.files["a.txt"].lfs
    tree = {entry.path for entry in api.list_repo_tree("alice/x", recursive=True, repo_type=kind)}
    assert tree == {".gitattributes", "a.txt", "sub", "sub/b.safetensors"}


def test_the_same_files_again_are_no_commit(hub, api):
    api.create_repo("alice/x")
    for _ in range(2):
        operations = [CommitOperationAdd("a.txt", b"text"), CommitOperationAdd("a.bin", b"\0\1")]
        api.create_commit("alice/x", operations, commit_message="c")
    assert len(hub.repo("alice/x").commits()) == 1


def test_public_repositories_are_found_by_their_tags(hub, api):
    for name, private in (("one", False), ("two", False), ("hidden", True)):
        api.create_repo(f"alice/{name}", private=private)
        api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id=f"alice/{name}")
    api.create_repo("alice/untagged")
    hub.page_size = 1
    try:
        assert {m.id for m in list_models(filter="layertracer", token=False)} == {"alice/one", "alice/two"}
        assert {m.id for m in list_models(filter=["layertracer", "license:mit"])} == {
            "alice/one",
            "alice/two",
            "alice/hidden",
        }
        assert not list(list_models(filter=["layertracer", "license:gpl"]))
        assert not list(list_models(filter="layertracer", author="bob"))
    finally:
        hub.page_size = 50


def test_a_pull_request_leaves_main_alone(hub, api):
    api.create_repo("alice/x")
    made = HfApi(token=hub.other_token).create_commit(
        "alice/x", [CommitOperationAdd("a.txt", b"text")], commit_message="c", create_pr=True
    )
    assert made.pr_num == 1
    assert "a.txt" not in hub.repo("alice/x").files
    assert Path(hf_hub_download("alice/x", "a.txt", revision="refs/pr/1")).read_text() == "text"


def test_a_branch_is_written_and_read(hub, api):
    api.create_repo("alice/x")
    with pytest.raises(RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"t", path_in_repo="a.txt", repo_id="alice/x", revision="a/b")
    api.create_branch("alice/x", branch="a/b")
    api.create_branch("alice/x", branch="a/b", exist_ok=True)
    api.upload_file(path_or_fileobj=b"t", path_in_repo="a.txt", repo_id="alice/x", revision="a/b")
    assert {branch.name for branch in api.list_repo_refs("alice/x").branches} == {"main", "a/b"}
    assert api.file_exists("alice/x", "a.txt", revision="a/b")
    assert not api.file_exists("alice/x", "a.txt")


def test_what_others_may_not(hub):
    mine, reading, other, nobody = (HfApi(token=t) for t in (hub.token, hub.read_token, hub.other_token, False))
    mine.create_repo("alice/x", private=True)
    mine.create_repo("alice/public")
    assert reading.repo_info("alice/x").private
    for api, status in ((other, 404), (nobody, 401)):
        with pytest.raises(RepositoryNotFoundError) as error:
            api.repo_info("alice/x")
        assert _status(error) == status
    for api, status in ((other, 403), (nobody, 401), (reading, 403)):
        with pytest.raises(HfHubHTTPError) as error:
            api.upload_file(path_or_fileobj=b"t", path_in_repo="a.txt", repo_id="alice/public")
        assert _status(error) == status
        with pytest.raises(HfHubHTTPError) as error:
            api.create_repo("alice/new")
        assert _status(error) == status
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(token="hf_wrong").whoami()
    assert _status(error) == 401
    with pytest.raises(HfHubHTTPError) as error:
        mine.create_repo("alice/x")
    assert _status(error) == 409
    assert reading.whoami()["auth"]["accessToken"]["role"] == "read"


def test_a_stale_parent_is_refused(hub, api):
    api.create_repo("alice/x")
    parent = api.repo_info("alice/x").sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id="alice/x", parent_commit=parent)
    with pytest.raises(HfHubHTTPError) as error:
        api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="alice/x", parent_commit=parent)
    assert _status(error) == 412


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        ("---\nlicense: [mit\n---\n", "model"),
        ("---\ntags: layertracer\n---\n", "model"),
        ("---\nbase_model: /home/me/model\n---\n", "model"),
        (RESULT.replace("VALUE", ".nan"), "model"),
        (RESULT.replace("name: D", "config: c"), "model"),
        ("---\nconfigs:\n- data_files: x\n---\n", "dataset"),
        ("---\nsize_categories:\n- big\n---\n", "dataset"),
        ("---\nsdk: gradio\ncolorFrom: violet\n---\n", "space"),
    ],
)
def test_wrong_metadata_is_refused_by_validation_and_by_commit(hub, api, card, kind):
    api.create_repo("alice/x", repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="alice/x", repo_type=kind)
    # Past the client's own check.
    hub.fail("validate-yaml", status=404)
    with pytest.raises((BadRequestError, HfHubHTTPError)):
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="alice/x", repo_type=kind)
    assert not hub.repo("alice/x", kind).files


def test_valid_results_are_accepted(hub, api):
    api.create_repo("alice/x")
    content = RESULT.replace("VALUE", "1.5").encode()
    api.upload_file(path_or_fileobj=content, path_in_repo="README.md", repo_id="alice/x")
    assert api.model_info("alice/x").card_data.eval_results[0].metric_value == 1.5


def test_uploads_that_are_not_what_was_announced_are_refused(hub, api):
    api.create_repo("alice/x")
    operation = CommitOperationAdd("a.bin", io.BytesIO(b"\0" * 100))
    operation.path_or_fileobj = io.BytesIO(b"\1" * 100)
    with pytest.raises((HfHubHTTPError, RuntimeError)):
        api.create_commit("alice/x", [operation], commit_message="c")
    assert not hub.repo("alice/x").objects


def test_faults_happen_as_often_as_they_were_ordered(hub, api):
    api.create_repo("alice/x")
    hub.fail("/commit/", status=500)
    with pytest.raises(HfHubHTTPError) as error:
        api.upload_file(path_or_fileobj=b"t", path_in_repo="a.txt", repo_id="alice/x")
    assert _status(error) == 500
    hub.fail("/commit/")
    with pytest.raises(Exception, match=r"(?i)disconnected|reset|closed"):
        api.upload_file(path_or_fileobj=b"t", path_in_repo="a.txt", repo_id="alice/x")
    assert not hub.repo("alice/x").files
    hub.fail("/commit/", after=True)
    with pytest.raises(Exception, match=r"(?i)disconnected|reset|closed"):
        api.upload_file(path_or_fileobj=b"t", path_in_repo="a.txt", repo_id="alice/x")
    assert hub.repo("alice/x").files == {"a.txt": b"t"}
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("alice/x", "b.txt")
