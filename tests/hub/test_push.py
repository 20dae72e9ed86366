"""A report beside weights and in a dataset: one commit, all or nothing, and the same call again finishes the job."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, list_models, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from support.hub_repos import File
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_layertracer import DiagnosisConfig, LayerTracerReport, diagnose, push_report
from hf_layertracer.errors import HubError, LayerTracerError
from hf_layertracer.report.card_section import END, START


FILES = {"README.md", "layertracer_report.json", "layertracer_report.png"}
CARD = """---
# a comment
license: apache-2.0
tags:
- mine
model-index:
- name: Mine
  results:
  - task:
      type: text-generation
    dataset:
      type: wikitext
      name: WikiText
    metrics:
    - type: perplexity
      value: 12.5
---

# My model

Words of mine, with  two spaces,\ttabs and `code`.
"""


@pytest.fixture
def repo_with_card(hub):
    """`alice/tiny` with somebody's card and a file."""
    api = HfApi()
    api.create_repo("alice/tiny")
    api.upload_file(path_or_fileobj=CARD.encode(), path_in_repo="README.md", repo_id="alice/tiny")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="alice/tiny")
    return hub.repo("alice/tiny")


def test_a_report_alone_makes_a_repository_with_a_card(hub, report):
    commit = push_report(report, "alice/tiny")
    repo = hub.repo("alice/tiny")
    assert [made.oid for made in repo.commits()] == [commit.oid]
    assert set(repo.files) == FILES
    assert not repo.private
    card = ModelCard(repo.files["README.md"].decode())
    assert card.data.tags == ["layertracer"]
    assert card.text.lstrip().startswith("# tiny\n")
    assert START in card.text
    assert {result.metric_type for result in card.data.eval_results} >= {"accuracy", "vulnerable_layer"}
    assert LayerTracerReport.load("alice/tiny") == report
    assert [model.id for model in list_models(filter="layertracer")] == ["alice/tiny"]
    assert list(list_models(filter="arxiv:2605.11416")), "the papers are linked"


def test_the_picture_is_the_reports_own(hub, report, real_picture, tmp_path):
    push_report(report, "alice/tiny")
    report.save(tmp_path)
    assert hub.repo("alice/tiny").files["layertracer_report.png"] == (tmp_path / "layertracer_report.png").read_bytes()


def test_of_an_existing_card_all_else_stays(repo_with_card, report):
    push_report(report, "alice/tiny")
    text = repo_with_card.files["README.md"].decode()
    before, after = ModelCard(CARD), ModelCard(text)
    assert text.startswith(
        "---\n# a comment\nlicense: apache-2.0\ntags:\n- mine\n- layertracer\nmodel-index:\n- name: Mine\n"
    )
    assert after.text.split(START)[0].rstrip("\n") == before.text.rstrip("\n")
    assert after.text.endswith(f"{END}\n")
    assert after.data.license == "apache-2.0"
    assert after.data.tags == ["mine", "layertracer"]
    assert after.data.model_name == "Mine"
    assert after.data.eval_results[0] == before.data.eval_results[0]
    assert len(after.data.eval_results) > 1
    assert repo_with_card.files["config.json"] == b"{}"


def test_a_later_report_takes_the_place_of_the_earlier(repo_with_card, make_report):
    push_report(make_report(), "alice/tiny")
    once = ModelCard(repo_with_card.files["README.md"].decode())
    push_report(make_report(training=True), "alice/tiny")
    twice = ModelCard(repo_with_card.files["README.md"].decode())
    assert twice.text.count(START) == 1
    assert twice.data.tags == once.data.tags
    assert [r.metric_type for r in twice.data.eval_results] == ["perplexity", "loss"], "of the trained model"
    assert LayerTracerReport.load("alice/tiny").training.steps == 7
    assert LayerTracerReport.load("alice/tiny", revision=repo_with_card.commits()[2].oid).training is None


def test_the_same_report_again_is_no_commit(hub, report):
    push_report(report, "alice/tiny")
    push_report(report, "alice/tiny")
    assert len(hub.repo("alice/tiny").commits()) == 1


def test_the_model_goes_along_in_the_same_commit(hub, report, tiny_llama, tiny_tokenizer, tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    report.save(tmp_path)
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", ".env", "notes.txt", "secrets.json"):
        (tmp_path / name).write_bytes(b"not the model")
    (tmp_path / "checkpoint-2").mkdir()
    push_report(report, "alice/tiny", model_dir=tmp_path)
    repo = hub.repo("alice/tiny")
    assert len(repo.commits()) == 1
    assert set(repo.files) >= FILES | {"config.json", "model.safetensors", "tokenizer.json"}
    assert not [path for path, content in repo.files.items() if content == b"not the model"]
    assert AutoModelForCausalLM.from_pretrained("alice/tiny").config.num_hidden_layers == report.num_layers
    assert len(AutoTokenizer.from_pretrained("alice/tiny")) == len(tiny_tokenizer)
    card = ModelCard.load("alice/tiny")  # the folder's own held no more than the report's tag and section
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-generation")
    assert 'AutoModelForCausalLM.from_pretrained("alice/tiny")' in card.text


def test_a_new_card_takes_the_licence_from_the_base_model_on_the_hub(hub, make_report):
    api = HfApi()
    card = b"---\nlicense: other\nlicense_name: mine\nlicense_link: https://example.org/terms\n---\n"
    api.create_repo("alice/base")
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="alice/base")
    push_report(make_report("alice/base", training=True), "alice/tiny")
    data = ModelCard.load("alice/tiny").data
    assert (data.license, data.license_name, data.license_link) == ("other", "mine", "https://example.org/terms")
    push_report(make_report("alice/gone", training=True), "alice/other")
    assert ModelCard.load("alice/other").data.license is None


def test_a_folder_without_a_model_is_refused_before_anything_is_made(hub, report, tmp_path):
    with pytest.raises(LayerTracerError, match="holds no model"):
        push_report(report, "alice/tiny", model_dir=tmp_path)
    assert not hub.repos


def test_private_branch_and_message(hub, report):
    push_report(report, "alice/tiny", private=True, revision="v2", commit_message="Mine")
    repo = hub.repo("alice/tiny")
    assert repo.private
    assert not repo.commits()
    assert [commit.title for commit in repo.commits("v2")] == ["Mine"]
    assert LayerTracerReport.load("alice/tiny", revision="v2") == report
    with pytest.raises(LayerTracerError, match="has no such file"):
        LayerTracerReport.load("alice/tiny")


def test_a_pull_request_to_somebody_elses_model(repo_with_card, hub, report, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    commit = push_report(report, "alice/tiny", create_pr=True)
    assert commit.pr_url == f"{hub.url}/alice/tiny/discussions/1"
    assert "layertracer_report.json" not in repo_with_card.files
    assert repo_with_card.refs["refs/pr/1"].author == "bob"
    assert LayerTracerReport.load("alice/tiny", revision="refs/pr/1") == report


def test_a_name_without_an_owner_is_the_users_own(hub, report):
    push_report(report, "tiny")
    assert ("model", "alice/tiny") in hub.repos


def test_a_token_that_is_passed_is_used_and_read(hub, report, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    push_report(report, "alice/tiny", token=hub.token, private=True)
    with pytest.raises(LayerTracerError, match="needs a login"):
        LayerTracerReport.load("alice/tiny")
    assert LayerTracerReport.load("alice/tiny", token=hub.token) == report


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_what_others_write_into_the_card_meanwhile_is_not_overwritten(hub, report, kind):
    repo = hub.create(kind, "alice/x")

    def write() -> None:
        files = {**repo.head.files, "README.md": File(b"---\nlicense: mit\n---\n# Meanwhile\n")}
        repo.add("main", repo.head, "bob", "mine", "", files)

    hub.meanwhile("/commit/", write)
    push_report(report, "alice/x", repo_type=kind)
    assert [commit.author for commit in repo.commits()] == ["bob", "alice"]
    card = ModelCard(repo.files["README.md"].decode())
    assert card.text.lstrip().startswith("# Meanwhile")
    assert card.data.to_dict()["license"] == "mit"
    assert "layertracer" in card.data.tags


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_others_who_push_at_the_same_time_lose_nothing(hub, make_report, kind):
    """Every thread reads the card, and all but one find at their commit that it has changed since."""
    names = [f"alice/model-{number}" for number in range(4)]
    HfApi().create_repo("alice/shared", repo_type=kind)
    barrier, problems = threading.Barrier(len(names)), []

    def push(name: str) -> None:
        barrier.wait()
        try:
            push_report(make_report(name), "alice/shared", repo_type=kind)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=push, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    repo = hub.repo("alice/shared", kind)
    assert len(repo.commits()) == len(names)
    if kind == "dataset":
        assert len([path for path in repo.files if path.endswith(".json")]) == len(names)


def test_a_large_file_whose_connection_drops_once_arrives_all_the_same(hub, report):
    hub.fail("/lfs/upload/")
    push_report(report, "alice/tiny")
    assert len(hub.repo("alice/tiny").commits()) == 1
    assert len([path for _, path in hub.requests if "/lfs/upload/" in path]) == 2
    assert LayerTracerReport.load("alice/tiny") == report


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"path": "/commit/", "status": 500}, "HTTP 500"),
        ({"path": "/commit/", "status": 503}, "HTTP 503"),
        ({"path": "/commit/"}, "connection to the Hub broke"),
        ({"path": "/commit/", "after": True}, "connection to the Hub broke"),
        ({"path": "/repos/create"}, "connection to the Hub broke"),
        ({"path": "/repos/create", "status": 502}, "HTTP 502"),
        ({"path": "/commit/", "status": 502}, "HTTP 502"),
        ({"path": "/validate-yaml", "status": 502}, "did not answer as it should"),
        ({"path": "/lfs/upload/", "status": 400}, "HTTP 400"),
    ],
)
def test_what_breaks_is_one_line_and_the_same_call_finishes_the_job(hub, report, kind, fault, message):
    hub.fail(**fault)
    with pytest.raises(HubError, match=message) as caught:
        push_report(report, "alice/x", repo_type=kind)
    assert "\n" not in str(caught.value)
    if ("dataset" if kind == "dataset" else "model", "alice/x") in hub.repos and not fault.get("after"):
        assert not hub.repo("alice/x", kind).files, "all or nothing"
    push_report(report, "alice/x", repo_type=kind)
    assert len(hub.repo("alice/x", kind).commits()) == 1
    assert LayerTracerReport.load("alice/x", repo_type=kind) == report


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        ("none", "alice/x", r"Log in with `hf auth login`"),
        ("wrong", "alice/x", "wrong or has expired"),
        ("reading", "alice/x", "may not do this to 'alice/x'"),
        ("other", "alice/x", "may not do this to 'alice/x'"),
        ("other", "alice/there", "may not do this to 'alice/there'"),
        ("other", "alice/private", "may not do this"),
        ("mine", "not a name", "is no name of a repository"),
        ("mine", "a/b/c", "is no name of a repository"),
    ],
)
def test_who_may_not_push_is_told_why(hub, report, monkeypatch, token, repo_id, message):
    HfApi().create_repo("alice/there")
    HfApi().create_repo("alice/private", private=True)
    tokens = {"wrong": "hf_wrong", "reading": hub.read_token, "other": hub.other_token, "mine": hub.token}
    monkeypatch.delenv("HF_TOKEN")
    if token != "none":
        monkeypatch.setenv("HF_TOKEN", tokens[token])
    with pytest.raises(HubError, match=message) as caught:
        push_report(report, repo_id)
    assert "\n" not in str(caught.value)
    assert not hub.repo("alice/there").files


@pytest.mark.parametrize(("there", "wanted"), [("dataset", "model"), ("model", "dataset"), ("space", "model")])
def test_a_repository_of_another_type_is_not_mistaken(hub, report, there, wanted):
    hub.create(there, "alice/x")
    with pytest.raises(HubError, match=f"'alice/x' is a {there} repository"):
        push_report(report, "alice/x", repo_type=wanted)
    assert len(hub.repos) == 1


def test_a_type_that_holds_no_reports_is_refused(hub, report, tmp_path):
    with pytest.raises(LayerTracerError, match="model or dataset"):
        push_report(report, "alice/x", repo_type="space")
    with pytest.raises(LayerTracerError, match="model_dir needs"):
        push_report(report, "alice/x", repo_type="dataset", model_dir=tmp_path)


def test_a_card_that_cannot_be_read_is_left_alone(hub, report):
    hub.create("model", "alice/tiny")
    repo = hub.repo("alice/tiny")
    files = {**repo.head.files, "README.md": File(b"---\nlicense: [mit\n---\n# Card\n")}
    repo.add("main", repo.head, "alice", "by git", "", files)
    with pytest.raises(LayerTracerError, match=r"front matter of README\.md cannot be read") as caught:
        push_report(report, "alice/tiny")
    assert "\n" not in str(caught.value)
    assert "layertracer_report.json" not in repo.files


def test_a_card_that_the_hub_does_not_accept_is_one_line(hub, report):
    repo = hub.create("model", "alice/tiny")
    files = {**repo.head.files, "README.md": File(b"---\nbase_model: /home/me\n---\n# Card\n")}
    repo.add("main", repo.head, "alice", "by git", "", files)
    with pytest.raises(HubError, match=r"does not accept the card: .*base_model") as caught:
        push_report(report, "alice/tiny")
    assert "\n" not in str(caught.value)
    assert "layertracer_report.json" not in repo.files


def test_a_pushed_repository_is_a_report_folder(hub, report):
    push_report(report, "alice/tiny")
    assert LayerTracerReport.load(snapshot_download("alice/tiny")) == report


def test_nothing_of_the_machine_leaves_it(hub, tiny_llama, token_probes, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "s3cret-value-of-a-variable")
    for name in ("socket.gethostname", "platform.node", "getpass.getuser"):
        monkeypatch.setattr(name, lambda: "private-user-name")
    folder = tmp_path / "private-user-name" / "my-base-model"
    tiny_llama().save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    report = diagnose(model, token_probes, config=DiagnosisConfig(repeats=1))
    push_report(report, "alice/tiny", model_dir=folder)
    push_report(report, "alice/reports", repo_type="dataset")
    words = [str(tmp_path), "private-user-name", "s3cret", str(Path.cwd()), hub.token]
    contents = {**hub.repo("alice/tiny").files, **hub.repo("alice/reports", "dataset").files}
    assert b"my-base-model" in contents["layertracer_report.json"]
    assert [(path, word) for path, content in contents.items() for word in words if word.encode() in content] == []


def test_explanations_lose_their_paths_on_the_way(hub, make_report):
    notes = [
        "No default plan: could not open /home/private-user/models/x.json.",
        r"C:\Users\private-user\model failed; see https://example.org/a/b and 1/2 or and/or.",
        "~/private-user/secret and '/opt/private-user/b'.",
    ]
    report = make_report(notes=notes, lens__reason="in /home/private-user/modeling.py, line 3")
    push_report(report, "alice/tiny")
    content = hub.repo("alice/tiny").files
    assert all(b"private-user" not in file for file in content.values())
    pushed = json.loads(content["layertracer_report.json"])
    assert pushed["notes"][0] == "No default plan: could not open x.json."
    assert pushed["notes"][1] == "model failed; see https://example.org/a/b and 1/2 or and/or."
    assert pushed["diagnoses"][0]["lens"]["reason"] == "in modeling.py, line 3"
    assert report.notes == notes, "the report itself is not changed"


def test_local_files_are_never_touched(hub, report, tmp_path):
    report.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    hub.fail("/commit/", status=500)
    with pytest.raises(HubError):
        push_report(LayerTracerReport.load(tmp_path), "alice/tiny")
    push_report(LayerTracerReport.load(tmp_path), "alice/tiny")
    assert {path.name: path.read_bytes() for path in Path(tmp_path).iterdir()} == before


def test_a_conflict_that_never_ends_is_told(hub, report):
    HfApi().create_repo("alice/tiny")
    hub.fail("/commit/", status=412, times=100)
    with pytest.raises(HubError, match="at the same time"):
        push_report(report, "alice/tiny")
    assert len([request for request in hub.requests if "/commit/" in request[1]]) == 5
    with pytest.raises(HfHubHTTPError):
        HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id="alice/tiny")


def test_a_dry_run_lists_what_would_go_and_pushes_nothing(hub, report, tmp_path, monkeypatch, capsys):
    from hf_layertracer.cli import app as cli

    report.save(tmp_path)
    for name in ("model.safetensors", "config.json", "train.py"):
        (tmp_path / name).write_bytes(b"{}")
    monkeypatch.setattr("sys.argv", ["layertracer", "push", str(tmp_path), "alice/tiny", "--model", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    said = capsys.readouterr().out
    listed = [line.split(" (")[0] for line in said.splitlines()]
    assert listed == ["config.json", "model.safetensors", *sorted(FILES - {"README.md"}), "README.md"]
    assert not hub.repos


def test_a_second_pull_request_is_not_opened_but_added_to(repo_with_card, hub, make_report, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    first = push_report(make_report(), "alice/tiny", create_pr=True)
    second = push_report(make_report(training=True), "alice/tiny", create_pr=True)
    assert second.pr_url == first.pr_url
    assert [ref for ref in repo_with_card.refs if "/pr/" in ref] == ["refs/pr/1"]
    assert LayerTracerReport.load("alice/tiny", revision="refs/pr/1").training is not None
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert push_report(make_report(), "alice/tiny", create_pr=True).pr_url != first.pr_url, "of somebody else"


def test_private_is_not_promised_for_a_repository_that_is_public(repo_with_card, report):
    with pytest.raises(HubError, match="exists and is public, so nothing was pushed"):
        push_report(report, "alice/tiny", private=True)
    assert "layertracer_report.json" not in repo_with_card.files


def test_what_was_just_tried_is_not_advised(hub, report, monkeypatch):
    HfApi().create_repo("alice/there")
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    with pytest.raises(HubError, match="create_pr=True"):
        push_report(report, "alice/there")
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    with pytest.raises(HubError) as caught:
        push_report(report, "alice/there", create_pr=True)
    assert "create_pr" not in str(caught.value)


def test_one_filter_for_paths_wherever_they_stand(hub, make_report):
    report = make_report(notes=["see file:///home/private-user/log.txt"])
    report.settings = dataclasses.replace(report.settings, layers_path="/home/private-user/model.layers")
    report.plan.options = {
        **report.plan.options,
        "file": "file:///home/private-user/plan.json",
        "more": ["~/private-user/x"],
    }
    push_report(report, "alice/tiny")
    push_report(report, "alice/reports", repo_type="dataset")
    contents = {**hub.repo("alice/tiny").files, **hub.repo("alice/reports", "dataset").files}
    assert [path for path, content in contents.items() if b"private-user" in content] == []
    pushed = LayerTracerReport.load("alice/tiny")
    assert pushed.plan.options["file"] == "plan.json"
    assert pushed.probes == report.probes
