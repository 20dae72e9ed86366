"""Models by name: loaded whole or as a skeleton, with one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hf_layertracer import LayerTracerError, make_plan
from hf_layertracer.modeling.loading import load_model, load_skeleton


@pytest.fixture
def saved(tmp_path: Path, tiny_llama, tiny_tokenizer) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_local_folder_loads_with_its_tokenizer(saved: Path):
    model, tokenizer = load_model(str(saved))
    assert not model.training
    assert tokenizer("a")["input_ids"]


def test_a_skeleton_has_no_weights_and_gives_the_same_plan(saved: Path):
    skeleton = load_skeleton(str(saved))
    assert all(parameter.device.type == "meta" for parameter in skeleton.parameters())
    assert make_plan(skeleton) == make_plan(load_model(str(saved))[0])


def test_a_tied_skeleton_is_still_tied(tmp_path: Path, tiny_llama):
    tiny_llama(tie_word_embeddings=True).save_pretrained(tmp_path)
    skeleton = load_skeleton(str(tmp_path))
    assert skeleton.get_output_embeddings().weight is skeleton.get_input_embeddings().weight


@pytest.mark.parametrize("load", [load_model, load_skeleton])
def test_a_name_without_a_model_is_refused_in_one_line(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LayerTracerError, match="Could not load") as error:
        load(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused_unless_they_are_allowed(saved: Path):
    weights = load_model(str(saved))[0].state_dict()
    (saved / "model.safetensors").unlink()
    torch.save(weights, saved / "pytorch_model.bin")
    with pytest.raises(LayerTracerError, match="Could not load"):
        load_model(str(saved))
    model, _ = load_model(str(saved), allow_pickle=True)
    assert torch.equal(model.state_dict()["model.norm.weight"], weights["model.norm.weight"])


def test_a_model_that_is_no_causal_lm_is_refused(saved: Path):
    (saved / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    with pytest.raises(LayerTracerError, match="Could not load"):
        load_skeleton(str(saved))
