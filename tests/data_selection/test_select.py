from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from support.processes import kill_when

from hf_layertracer.cli.app import main
from hf_layertracer.data_selection import SelectionConfig, select_data
from hf_layertracer.errors import LayerTracerError


WORDS = ["Rome", "is", "the", "capital", "of", "Italy", "a cat", "北京", "one, two", "three"]


@pytest.fixture
def models(tmp_path, tiny_llama, tiny_tokenizer) -> dict[str, str]:
    """Two models that disagree."""
    for name, seed in (("model", 0.25), ("reference", 0.5)):
        tiny_llama(initializer_range=seed).save_pretrained(tmp_path / name)
        tiny_tokenizer.save_pretrained(tmp_path / name)
    return {name: str(tmp_path / name) for name in ("model", "reference")}


@pytest.fixture
def corpus(tmp_path) -> str:
    """150 documents: two chunks and a part of a third."""
    rows = [{"text": " ".join(WORDS[(i * k) % 10] for k in range(1, 3 + i % 4)) + f" {i}."} for i in range(150)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def selected(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "selected.jsonl").read_text(encoding="utf-8").splitlines()]


def bits(folder: str, text: str) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).double()
    ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1)) / math.log(2)


def test_the_pieces_with_the_highest_excess_loss_are_kept(models, corpus, tmp_path):
    record = select_data([corpus], tmp_path / "out", **models, config=SelectionConfig(fraction=0.3))
    rows = selected(tmp_path / "out")
    assert record.pieces == 150
    assert record.kept_pieces == len(rows) > 20
    assert record.kept_bytes == sum(len(row["text"].encode()) for row in rows)
    assert record.kept_bytes / record.bytes == pytest.approx(0.3, abs=0.01)
    assert [row["index"] for row in rows] == sorted(row["index"] for row in rows)
    for row in rows[:3]:
        excess = bits(models["model"], row["text"]) - bits(models["reference"], row["text"])
        assert row["score"] == pytest.approx(excess / len(row["text"].encode()), abs=1e-3)
    assert record.kept_mean_score > record.mean_score
    # What training reads.
    data = load_dataset("json", data_files=str(tmp_path / "out" / "selected.jsonl"), split="train", streaming=True)
    assert next(iter(data))["text"] == rows[0]["text"]


def test_no_model_reads_more_at_once_than_its_context(models, tmp_path):
    text = tmp_path / "long.txt"
    text.write_text(" ".join(WORDS * 12))
    scores = []
    for length in (64, 512):  # the models' context is of 64 tokens
        out = tmp_path / f"out-{length}"
        config = SelectionConfig(score="perplexity-band", fraction=1.0, sequence_length=length)
        select_data([str(text)], out, model=models["model"], config=config)
        scores.append([row["score"] for row in selected(out)])
    assert scores[0] == scores[1]


def test_another_fraction_or_band_does_not_score_again(models, corpus, tmp_path):
    out = tmp_path / "out"
    model = models["model"]
    select_data([corpus], out, model=model, config=SelectionConfig(score="perplexity-band", fraction=0.2))
    before = {path: path.stat().st_mtime_ns for path in (out / "losses").iterdir()}
    first = {row["index"] for row in selected(out)}
    config = SelectionConfig(score="perplexity-band", band="low", fraction=0.2)
    select_data([corpus], out, model=model, config=config)
    assert len(before) == 3
    assert {path: path.stat().st_mtime_ns for path in (out / "losses").iterdir()} == before
    assert {row["index"] for row in selected(out)} != first


def test_a_selection_that_was_killed_goes_on_to_the_same_result(models, corpus, tmp_path):
    many = tmp_path / "many.jsonl"
    many.write_text("".join(f'{{"text": "{word} and {n}"}}\n' for n in range(60) for word in WORDS), encoding="utf-8")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "hf_layertracer.cli", "data", "select", str(many), "--out", str(out)]
    command += ["--model", models["model"], "--reference", models["reference"]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_when(process, (out / "losses" / "00000001.json").exists)
    done = {path: path.stat().st_mtime_ns for path in (out / "losses").glob("0*.json")}
    assert len(done) < 600 / 64
    assert not (out / "selected.jsonl").exists()
    select_data([str(many)], out, **models)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    select_data([str(many)], tmp_path / "whole", **models)
    assert selected(out) == selected(tmp_path / "whole")


def test_scores_of_another_model_are_not_mixed_in(models, corpus, tmp_path, tiny_llama):
    select_data([corpus], tmp_path / "out", **models)
    swapped = {"model": models["reference"], "reference": models["model"]}
    with pytest.raises(LayerTracerError, match="holds scores of another model: choose another folder"):
        select_data([corpus], tmp_path / "out", **swapped)
    tiny_llama(initializer_range=0.1).save_pretrained(models["model"])
    with pytest.raises(LayerTracerError, match="holds scores of another weights"):
        select_data([corpus], tmp_path / "out", **models)


@pytest.mark.parametrize(
    "change", [lambda lines: [*lines[:70], *lines[71:]], lambda lines: lines[:64], lambda lines: lines * 2]
)
def test_a_corpus_that_has_changed_is_noticed(models, corpus, tmp_path, change):
    select_data([corpus], tmp_path / "out", **models)
    before = (tmp_path / "out" / "selected.jsonl").read_bytes()
    lines = Path(corpus).read_text(encoding="utf-8").splitlines(keepends=True)
    Path(corpus).write_text("".join(change(lines)), encoding="utf-8")
    with pytest.raises(LayerTracerError, match="corpus has changed"):
        select_data([corpus], tmp_path / "out", **models)
    assert (tmp_path / "out" / "selected.jsonl").read_bytes() == before


def test_settings_that_contradict_each_other_are_refused(models, corpus, tmp_path):
    with pytest.raises(LayerTracerError, match="compares with a reference model"):
        select_data([corpus], tmp_path / "out", model=models["model"])
    with pytest.raises(LayerTracerError, match="takes no reference model"):
        select_data([corpus], tmp_path / "out", **models, config=SelectionConfig(score="perplexity-band"))
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(LayerTracerError, match="no text to select from"):
        select_data([str(tmp_path / "empty.txt")], tmp_path / "out", **models)


def test_a_file_in_the_place_of_the_folder_is_one_line(models, corpus, tmp_path):
    with pytest.raises(LayerTracerError, match=r"Nothing can be written to .*corpus\.jsonl: Not a directory"):
        select_data([corpus], corpus, **models)


def test_the_command_says_what_was_kept(models, corpus, tmp_path, monkeypatch, capsys):
    arguments = ["data", "select", corpus, "--model", models["model"], "--score", "perplexity-band"]
    monkeypatch.setattr("sys.argv", ["layertracer", *arguments, "--out", str(tmp_path / "out"), "--fraction", "0.25"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    text = capsys.readouterr().out
    assert "of the text kept" in text
    assert "150" in text
    assert json.loads((tmp_path / "out" / "selection.json").read_text())["settings"]["fraction"] == 0.25
