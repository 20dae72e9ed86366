"""Diagnosing for a visitor: only small public models, in a process that can be stopped, with nobody's token."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from transformers.utils import logging

from hf_layertracer import DiagnosisConfig, LayerTracerReport, diagnose, progress
from hf_layertracer.errors import LayerTracerError
from hf_layertracer.viewer import live
from hf_layertracer.viewer.live import SWITCH, anonymous_environment, check_size, diagnose_live, is_offered


@pytest.fixture
def model(hub, tmp_path, tiny_llama, tiny_tokenizer):
    """`model("alice/tiny", private=False)`: a tiny model on the Hub."""

    def push(repo_id: str, private: bool = False, safetensors: bool = True, **config) -> str:
        from huggingface_hub import HfApi

        folder = tmp_path / repo_id.replace("/", "-")
        tiny_llama(**config).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        if not safetensors:
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        HfApi().create_repo(repo_id, private=private)
        HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
        return repo_id

    return push


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_it_is_off_unless_the_owner_turns_it_on(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    assert not is_offered()
    for value, offered in (("0", False), ("", False), ("false", False), ("1", True), ("true", True), (" ON ", True)):
        monkeypatch.setenv(SWITCH, value)
        assert is_offered() == offered


def test_a_public_model_is_diagnosed_and_nothing_is_kept(model, scratch):
    *fractions, report = diagnose_live(model("alice/tiny"), probes=4)
    assert isinstance(report, LayerTracerReport)
    assert report.model.id == "alice/tiny"
    assert report.probes.count == 4
    assert report.settings.perturbation == "skip"
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert os.listdir(scratch) == []


def test_the_fraction_done_is_what_the_command_says(tiny_llama, token_probes, monkeypatch, capsys):
    logging.enable_progress_bar()
    monkeypatch.setattr(progress, "_LINE_EVERY", 0)  # the command says it every 10 seconds
    diagnose(tiny_llama(), token_probes, config=DiagnosisConfig(perturbation="skip"))
    seen = [int(percent) for percent in live._PROGRESS.findall(capsys.readouterr().err.encode())]
    assert seen == sorted(seen)
    assert seen[0] < 50
    assert seen[-1] == 100


def test_closing_it_ends_the_process_at_once(model, scratch, monkeypatch):
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(live.subprocess, "Popen", Watched)
    before = children()
    running = diagnose_live(model("alice/tiny"), probes=64, quick=False)
    next(running)
    assert children() - before
    running.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert children() == before
    assert os.listdir(scratch) == []


def test_what_takes_too_long_is_stopped(model, scratch, monkeypatch):
    monkeypatch.setattr(live, "_MAX_SECONDS", 0)
    before = children()
    with pytest.raises(LayerTracerError, match="was stopped"):
        list(diagnose_live(model("alice/tiny"), probes=4))
    assert children() == before


def test_the_owner_s_token_opens_no_private_model(model):
    model("alice/secret", private=True)
    from huggingface_hub import HfApi

    assert HfApi().model_info("alice/secret"), "the token would have opened it"
    with pytest.raises(LayerTracerError, match="no public model alice/secret"):
        check_size("alice/secret")


def test_no_question_carries_the_owner_s_token(model, monkeypatch):
    name = model("alice/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")  # which the Hub refuses wherever it sees it
    assert check_size(name) == name


def test_the_process_has_no_token_and_takes_no_folder_of_the_page_even_where_the_check_is_passed(
    model, tmp_path, monkeypatch, tiny_llama, tiny_tokenizer
):
    model("alice/secret", private=True)  # which a token would open
    tiny_llama().save_pretrained(tmp_path / "here" / "alice/secret")  # which the page's own folder would have
    tiny_tokenizer.save_pretrained(tmp_path / "here" / "alice/secret")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(live, "check_size", lambda model_id: model_id)
    with pytest.raises(LayerTracerError) as caught:
        list(diagnose_live("alice/secret", probes=4))
    assert "\n" not in str(caught.value)


def test_no_secret_is_handed_on(monkeypatch, tmp_path):
    secrets = (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "OPENAI_API_KEY",
        "MY_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN_PATH",
    )
    for name in secrets:
        monkeypatch.setenv(name, "s3cret")
    environment = anonymous_environment(str(tmp_path))
    assert "s3cret" not in environment.values()
    assert environment["HF_HOME"].startswith(str(tmp_path))
    assert environment["HOME"] == str(tmp_path)


@pytest.mark.parametrize(
    "name", ["", "../../etc", "/etc/passwd", "gpt2", "datasets/alice/x", "a/b/c", "--help", "alice/no-such"]
)
def test_what_is_no_public_model_is_refused(hub, name):
    with pytest.raises(LayerTracerError) as caught:
        check_size(name)
    assert "\n" not in str(caught.value)


def test_weights_that_could_run_code_are_refused(model):
    with pytest.raises(LayerTracerError, match="no safetensors weights"):
        check_size(model("alice/pickled", safetensors=False))


def test_a_large_model_is_refused_before_anything_is_fetched(model, monkeypatch):
    name = model("alice/tiny")
    monkeypatch.setattr(live, "MAX_MODEL_BYTES", 1000)
    monkeypatch.setattr(live.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(LayerTracerError, match="too large for this page"):
        next(diagnose_live(name))


def test_a_model_that_claims_to_be_huge_does_not_take_the_page_with_it(model, monkeypatch):
    """Small weights, but a configuration for which the library would allocate without end."""
    name = model("alice/liar")
    from huggingface_hub import HfApi, hf_hub_download

    config = (
        Path(hf_hub_download(name, "config.json")).read_text().replace('"vocab_size": 320', '"vocab_size": 300000000')
    )
    HfApi().upload_file(path_or_fileobj=config.encode(), path_in_repo="config.json", repo_id=name)
    monkeypatch.setattr(live, "_MAX_MEMORY", 8 * 2**30)
    used = [0]

    def watch() -> None:
        for _ in diagnose_live(name, probes=4):
            used.append(sum(process.memory_info().rss for process in psutil.Process().children(recursive=True)))

    with pytest.raises(LayerTracerError) as caught:
        watch()
    assert max(used) < 8 * 2**30
    assert "\n" not in str(caught.value)
