"""`layertracer push` and `layertracer list` speak to the Hub: one of each as a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hf_layertracer import DiagnosisConfig, LayerTracerReport, diagnose
from hf_layertracer.cli.app import main


@pytest.fixture
def folder(tmp_path: Path, tiny_llama, tiny_tokenizer, token_probes) -> Path:
    """A model with its report."""
    model = tiny_llama()
    model.save_pretrained(tmp_path / "run")
    tiny_tokenizer.save_pretrained(tmp_path / "run")
    diagnose(model, token_probes, config=DiagnosisConfig(repeats=2)).save(tmp_path / "run")
    return tmp_path / "run"


def start(*arguments: object) -> subprocess.CompletedProcess:
    code = "from hf_layertracer.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_push_and_list(hub, folder, run):
    pushed = start("push", folder, "alice/tiny", "--private", "--commit-message", "Mine")
    assert pushed.returncode == 0, pushed.stderr
    assert f"Pushed: {hub.url}/alice/tiny/commit/" in pushed.stdout
    assert hub.repo("alice/tiny").private
    assert hub.repo("alice/tiny").commits()[0].title == "Mine"
    assert set(hub.repo("alice/tiny").files) == {"README.md", "layertracer_report.json", "layertracer_report.png"}
    assert LayerTracerReport.load("alice/tiny") == LayerTracerReport.load(folder)

    listed = start("list", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [row["repo_id"] for row in json.loads(listed.stdout)] == ["alice/tiny"]
    _, table, _ = run("list", "alice/tiny")
    assert "1 report in alice/tiny" in table
    assert hub.repo("alice/tiny").head.oid[:12] in table


def test_push_with_the_model_and_into_a_dataset(hub, folder, run):
    assert run("push", folder, "alice/tiny", "--model")[0] == 0
    assert len(hub.repo("alice/tiny").commits()) == 1
    assert {"config.json", "model.safetensors"} <= set(hub.repo("alice/tiny").files)
    assert run("push", folder, "alice/reports", "--repo-type", "dataset")[0] == 0
    listed = json.loads(run("list", "alice/reports", "--repo-type", "dataset", "--json")[1])
    assert len(listed) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("push", "none", "alice/tiny"), "No such folder"),
        (("push", ".", "alice/tiny"), "holds no layertracer_report.json"),
        (("push", "run", "alice/tiny", "--token", "hf_wrong"), "wrong or has expired"),
        (("push", "run", "alice/tiny", "--repo-type", "space"), "model or dataset"),
        (("list", "alice/none"), "does not exist"),
    ],
)
def test_what_goes_wrong_is_one_line(hub, folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr("sys.argv", ["layertracer", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not hub.repos


def test_an_empty_list_is_said_to_be_empty(hub, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["layertracer", "list"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == "No reports.\n"
