"""What the documentation's code finds: a tiny model under the names that it uses on the (local) Hub, a corpus and probes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.hub_repos import File


MODELS = ["HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen3-1.7B-Base"]


@pytest.fixture
def desk(hub, tmp_path: Path, tiny_llama, tiny_tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the pages name."""
    tiny_llama(max_position_embeddings=4096).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    files = {path.name: File(path.read_bytes()) for path in (tmp_path / "model").iterdir()}
    for name in MODELS:
        repo = hub.create("model", name)
        repo.add("main", repo.head, name.split("/")[0], "a tiny model", "", {**repo.head.files, **files})
    desk = tmp_path / "desk"
    desk.mkdir()
    lines = [f"the cat number {number} sat on the mat and the dog ran." for number in range(60)]
    for name in ("corpus.txt", "law.txt", "news.txt"):
        (desk / name).write_text("\n".join(lines))
    probes = [{"prompt": f"{number}, {number + 1},", "target": f" {number + 2}"} for number in range(6)]
    (desk / "my_probes.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    monkeypatch.chdir(desk)
    return desk


@pytest.fixture
def my_report(desk: Path, tiny_llama, tiny_tokenizer) -> Path:
    """A report that lies where the pages say."""
    from hf_layertracer import DiagnosisConfig, diagnose, load_probes

    model = tiny_llama(max_position_embeddings=256)
    diagnose(model, load_probes(max_probes=4), tokenizer=tiny_tokenizer, config=DiagnosisConfig(repeats=1)).save_json(
        desk / "my-report"
    )
    return desk / "my-report"


@pytest.fixture
def at_hand(desk: Path) -> dict[str, Any]:
    """What an example may take for granted: a model with its tokenizer, a dataset and arguments to train with."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODELS[0]), AutoTokenizer.from_pretrained(MODELS[0])
    text = load_dataset("text", data_files="corpus.txt", split="train")
    dataset = text.map(lambda row: dict.fromkeys(("input_ids", "labels"), tokenizer(row["text"])["input_ids"][:16]))
    args = TrainingArguments("out", max_steps=1, per_device_train_batch_size=1, report_to="none", use_cpu=True)
    return {"model": model, "tokenizer": tokenizer, "dataset": dataset, "args": args}
