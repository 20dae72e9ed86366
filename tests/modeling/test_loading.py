"""Models by name: loaded whole or as a skeleton, with one clear line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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
    with pytest.raises(LayerTracerError, match="There is no such folder") as error:
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


# -- files that do not hold the model that config.json promises -----------------------------------------------------


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_a_missing_tensor_is_named(saved: Path):
    edit_weights(saved, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(LayerTracerError, match=r"1 of its tensors .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(saved))


def test_more_layers_in_the_configuration_than_in_the_weights_are_refused(saved: Path):
    depth = json.loads((saved / "config.json").read_text())["num_hidden_layers"]
    edit_config(saved, num_hidden_layers=depth + 3, layer_types=None)
    with pytest.raises(LayerTracerError, match=rf"tensors are not in its files \(model\.layers\.{depth}\."):
        load_model(str(saved))


def test_more_layers_in_the_weights_than_in_the_configuration_are_warned_of(saved: Path, caplog):
    depth = json.loads((saved / "config.json").read_text())["num_hidden_layers"]
    edit_config(saved, num_hidden_layers=depth - 1, layer_types=None)
    load_model(str(saved))
    assert f"tensors that the model does not use (model.layers.{depth - 1}." in caplog.text


def test_a_tensor_of_another_shape_is_named(saved: Path):
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(saved, lambda weights: weights.update({name: weights[name][:-1].clone()}))
    with pytest.raises(LayerTracerError, match=r"1 tensors have another shape, such as .*up_proj") as error:
        load_model(str(saved))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["model.embed_tokens.", "model.layers.1."])
def test_weights_that_are_all_zero_are_refused(saved: Path, part: str):
    edit_weights(saved, lambda weights: [w.zero_() for name, w in weights.items() if name.startswith(part)])
    with pytest.raises(LayerTracerError, match="holds no weights: all are zero in"):
        load_model(str(saved))


def test_a_bias_or_a_single_matrix_of_zeros_is_none_of_our_business(saved: Path):
    edit_weights(saved, lambda weights: weights["model.layers.1.self_attn.o_proj.weight"].zero_())
    load_model(str(saved))


def test_an_unknown_way_of_quantizing_is_refused(saved: Path):
    edit_config(saved, quantization_config={"quant_method": "magic4"})
    with pytest.raises(LayerTracerError, match="quantized by 'magic4'"):
        load_model(str(saved))


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64])
def test_broken_weight_files_are_one_line(saved: Path, content: bytes):
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(LayerTracerError, match="Could not load") as error:
        load_model(str(saved))
    assert "\n" not in str(error.value)


def test_a_truncated_weight_file_is_one_line(saved: Path):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LayerTracerError, match="Could not load"):
        load_model(str(saved))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": "six"},
        {"num_attention_heads": 0},
        {"hidden_size": -3},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"model_type": "no_such_type"},
    ],
)
def test_a_broken_configuration_is_one_line(saved: Path, changes: dict):
    edit_config(saved, **changes)
    with pytest.raises(LayerTracerError) as error:
        load_model(str(saved))
    assert "\n" not in str(error.value)


def test_a_configuration_that_is_a_list_is_one_line(saved: Path):
    (saved / "config.json").write_text("[1, 2]")
    with pytest.raises(LayerTracerError, match="Could not load"):
        load_skeleton(str(saved))


@pytest.mark.parametrize("dtype", ["foo", "float8_e4m3fn", "int8"])
def test_a_data_type_that_no_model_runs_in_is_refused(saved: Path, dtype: str):
    with pytest.raises(LayerTracerError, match="dtype must be one of auto, float32"):
        load_model(str(saved), dtype=dtype)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "There is no such folder"),
        ("/no/such/place", "There is no such folder"),
        ("config.json", "There is no such file"),
        ("a b", "neither a folder on this machine nor the id"),
        ("", "neither a folder on this machine nor the id"),
    ],
)
def test_a_wrong_name_is_called_what_it_is(name: str, message: str):
    with pytest.raises(LayerTracerError, match=message):
        load_model(name)


def test_an_empty_folder_is_not_explained_with_tokenizers(tmp_path: Path):
    with pytest.raises(LayerTracerError, match=r"holds no model: there is no config\.json in it"):
        load_model(str(tmp_path))


def test_a_skeleton_of_an_adapter_is_that_of_its_base(saved: Path, tmp_path: Path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(saved)}))
    assert make_plan(load_skeleton(str(folder))) == make_plan(load_skeleton(str(saved)))
