"""What of a folder goes to the Hub as a model, and what stays."""

from __future__ import annotations

import json

import pytest

from hf_layertracer.errors import LayerTracerError
from hf_layertracer.hub.model_files import model_files


MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "merges.txt")
OTHER = (
    "train.py",
    "my_secret_keys.py",
    "tokenizer_secret.json",
    "optimizer.safetensors",
    "adapter_model.safetensors.bak",
    "secret.model",
    "vocab.secrets",
    "chat_template.bak",
    ".env",
)


def fill(folder, *names, content=b"{}"):
    for name in names:
        (folder / name).write_bytes(content)


def test_only_what_a_model_is_made_of_is_taken(tmp_path):
    fill(tmp_path, *MODEL, *OTHER)
    assert set(model_files(tmp_path)) == set(MODEL)


def test_weights_in_parts_are_taken(tmp_path):
    parts = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
    fill(tmp_path, *parts, "model-backup-of-mine.safetensors")
    assert set(model_files(tmp_path)) == set(parts)


def test_of_code_only_what_the_configuration_names_and_imports_is_taken(tmp_path):
    fill(tmp_path, *MODEL, *OTHER)
    (tmp_path / "config.json").write_text(
        json.dumps({"auto_map": {"AutoModel": "modeling_x.Model", "AutoConfig": "other/repo--configuration_y.Config"}})
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["tok.Slow", None]}}))
    (tmp_path / "modeling_x.py").write_text("from .helper import f\n")
    fill(tmp_path, "helper.py", "tok.py", content=b"f = 1\n")
    assert {name for name in model_files(tmp_path) if name.endswith(".py")} == {"modeling_x.py", "helper.py", "tok.py"}


def test_code_that_is_named_and_missing_is_told(tmp_path):
    fill(tmp_path, *MODEL)
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_x.Model"}}))
    with pytest.raises(LayerTracerError, match=r"names modeling_x\.py, which is not there"):
        model_files(tmp_path)


def test_a_folder_with_other_tensors_alone_is_no_model(tmp_path):
    fill(tmp_path, "optimizer.safetensors")
    with pytest.raises(LayerTracerError, match="holds no model"):
        model_files(tmp_path)
