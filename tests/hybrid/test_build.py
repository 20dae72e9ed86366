from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_layertracer import build_hybrid
from hf_layertracer.hybrid.provenance import HybridRecord
from hf_layertracer.modeling import find_parts


ARCHITECTURES = ["Llama", "GPT2", "Gemma2", "Cohere", "Granite", "Qwen3", "OPT", "Mixtral", "Mamba"]


def load_model(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """A file's tensors in their own memory, as the file may be written over."""
    return load(file.read_bytes())


def same(ours, theirs) -> bool:
    ours, theirs = dict(ours.named_parameters()), dict(theirs.named_parameters())
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_layer_is_its_donors_and_the_rest_is_the_bases(save_donor, recipe, tmp_path, architecture):
    a, b = (save_donor(name, architecture, seed=seed) for name, seed in (("a", 1), ("b", 2)))
    stack = [(a, 0), (a, 1), (b, 0), (b, 1), (b, 2), (b, 3)]
    record = build_hybrid(recipe(base=a, layers=[(a, 0, 2), (b, 0, 4)]), tmp_path / "h")
    models = {name: find_parts(load_model(name)) for name in (a, b)}
    built = find_parts(load_model(tmp_path / "h"))
    assert built.num_layers == built.model.config.num_hidden_layers == 6
    for layer, (donor, index) in zip(built.layers, stack, strict=True):
        assert same(layer, models[donor].layers[index])
    ours, theirs = dict(built.model.named_parameters()), dict(models[a].model.named_parameters())
    outside = [name for name in ours if not name.startswith(f"{built.layers_path}.")]
    assert outside
    assert all(torch.equal(ours[name], theirs[name]) for name in outside)
    assert [(entry.donor, entry.donor_layer) for entry in record.layers] == [
        (name[-1], index) for name, index in stack
    ]
    assert HybridRecord.load(tmp_path / "h") == record


def test_a_recipe_of_the_base_alone_gives_the_base(donors, recipe, tmp_path):
    build_hybrid(recipe(base=donors[0]), tmp_path / "h")
    tokens = torch.arange(12).reshape(2, 6) + 20
    ours, theirs = load_model(tmp_path / "h"), load_model(donors[0])
    assert same(ours, theirs)
    # Weights from another file lie elsewhere in memory, and products of matrices may round otherwise.
    torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def test_layers_may_be_left_out_repeated_and_turned_round(donors, recipe, tmp_path):
    a, _ = donors
    build_hybrid(recipe(base=a, layers=[(a, 3, 4), (a, 1, 2), (a, 1, 2)]), tmp_path / "h")
    model, donor = load_model(tmp_path / "h"), load_model(a)
    assert len(model.model.layers) == 3
    for layer, index in zip(model.model.layers, [3, 1, 1], strict=True):
        assert same(layer, donor.model.layers[index])


def test_kinds_by_layer_are_cut_and_joined_as_the_layers_are(save_donor, recipe, tmp_path):
    a, b = (save_donor(name, "Gemma2", seed=seed) for name, seed in (("a", 1), ("b", 2)))
    kinds = load_model(a).config.layer_types
    build_hybrid(recipe(base=a, layers=[(a, 1, 4), (b, 1, 2)]), tmp_path / "h")
    assert load_model(tmp_path / "h").config.layer_types == [kinds[1], kinds[2], kinds[3], kinds[1]]


def test_layers_that_rotate_and_layers_that_do_not_stay_what_they_are(save_donor, recipe, tmp_path):
    a = save_donor("a", "SmolLM3", no_rope_layers=[1, 0, 1, 0], seed=1)
    record = build_hybrid(recipe(base=a, layers=[(a, 1, 2), (a, 3, 4), (a, 0, 1)]), tmp_path / "h")
    assert load_model(tmp_path / "h").config.no_rope_layers == [0, 0, 1]
    assert all("bit-equal" in entry.verified for entry in record.layers)


def test_several_files_have_an_index(donors, recipe, tmp_path):
    a, b = donors
    build_hybrid(recipe(base=a, layers=[(a, 0, 2), (b, 2, 4)]), tmp_path / "h", max_shard_size=20_000)
    files = sorted((tmp_path / "h").glob("*.safetensors"))
    index = json.loads((tmp_path / "h" / "model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert all(file.name.endswith(f"-of-{len(files):05d}.safetensors") for file in files)
    assert {name: file.name for file in files for name in tensors_of(file)} == index["weight_map"]
    tensors = [tensor for file in files for tensor in tensors_of(file).values()]
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors)
    assert same(load_model(tmp_path / "h").model.layers[3], load_model(b).model.layers[3])


def test_of_one_file_and_shards_the_weights_are_those_that_transformers_loads(donors, recipe, tmp_path):
    a, b = donors
    load_model(b).save_pretrained(a, max_shard_size="20KB")  # leaves the single file there
    assert (Path(a) / "model.safetensors").is_file()
    assert (Path(a) / "model.safetensors.index.json").is_file()
    loaded = load_model(a)
    assert not same(loaded, load_model(b))
    build_hybrid(recipe(base=a, layers=[(a, 0, 4)]), tmp_path / "h")
    assert same(load_model(tmp_path / "h"), loaded)


def test_donors_in_several_files_are_read(donors, recipe, tmp_path):
    a, _ = donors
    load_model(a).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    build_hybrid(recipe(base=str(tmp_path / "sharded")), tmp_path / "h")
    assert same(load_model(tmp_path / "h"), load_model(a))


@pytest.mark.parametrize("tied", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("slots", [{}, {"embeddings": 1}, {"head": 1}, {"embeddings": 1, "head": 1, "norm": 1}])
def test_embeddings_norm_and_head_come_from_who_is_named(save_donor, recipe, tmp_path, tied, slots):
    folders = [save_donor(str(i), seed=i + 1, tie_word_embeddings=tie) for i, tie in enumerate(tied)]
    record = build_hybrid(
        recipe(base=folders[0], **{slot: folders[number] for slot, number in slots.items()}), tmp_path / "h"
    )
    model, models = load_model(tmp_path / "h"), [load_model(folder) for folder in folders]
    from_embeddings, from_head = (models[slots.get(slot, 0)] for slot in ("embeddings", "head"))
    assert torch.equal(model.get_input_embeddings().weight, from_embeddings.get_input_embeddings().weight)
    assert torch.equal(model.get_output_embeddings().weight, from_head.get_output_embeddings().weight)
    assert torch.equal(model.model.norm.weight, models[slots.get("norm", 0)].model.norm.weight)
    is_tied = from_embeddings is from_head and from_head.config.tie_word_embeddings
    assert model.config.tie_word_embeddings == is_tied
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == is_tied
    assert (record.head is None) == is_tied


def test_tokenizer_chat_template_and_generation_settings_are_the_tokenizers_donors(donors, recipe, tmp_path):
    a, b = donors
    for folder, template in ((a, "A {{ messages }}"), (b, "B {{ messages }}")):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(b)
    model.config.eos_token_id = 3
    model.generation_config.eos_token_id = [2, 3]
    model.save_pretrained(b)
    build_hybrid(recipe(base=a), tmp_path / "plain")
    build_hybrid(recipe(base=a, tokenizer=b), tmp_path / "other")
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").chat_template.startswith("A")
    assert AutoTokenizer.from_pretrained(tmp_path / "other").chat_template.startswith("B")
    assert load_model(tmp_path / "plain").generation_config.eos_token_id == 2
    other = load_model(tmp_path / "other")
    assert (other.generation_config.eos_token_id, other.config.eos_token_id) == ([2, 3], 3)


def test_the_data_type_is_the_one_that_is_asked_for(donors, recipe, tmp_path):
    a, b = donors
    record = build_hybrid(recipe(base=a, layers=[(a, 0, 1), (b, 0, 1)], dtype="bfloat16"), tmp_path / "h")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "h")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert record.dtype == "bfloat16"
    assert same(model.model.layers[1], load_model(b).bfloat16().model.layers[0])


def test_names_without_the_base_models_prefix_are_understood(donors, recipe, tmp_path):
    a, b = donors
    file = Path(b) / "model.safetensors"
    save_file(
        {name.removeprefix("model."): tensor for name, tensor in tensors_of(file).items()}, file, {"format": "pt"}
    )
    build_hybrid(recipe(base=a, layers=[(a, 0, 1), (b, 0, 1)], norm=b), tmp_path / "h")
    assert set(tensors_of(tmp_path / "h" / "model.safetensors")) >= {
        "model.layers.1.mlp.up_proj.weight",
        "model.norm.weight",
    }
    assert same(load_model(tmp_path / "h").model.layers[1], load_model(b).model.layers[0])


def test_a_tensor_that_the_class_does_not_know_lands_in_the_hybrid(donors, recipe, tmp_path):
    a, _ = donors
    file = Path(a) / "model.safetensors"
    extra = {"model.layers.2.self_attn.rotary_emb.inv_freq": torch.arange(4.0)}
    save_file(tensors_of(file) | extra, file, {"format": "pt"})
    build_hybrid(recipe(base=a, layers=[(a, 2, 4)]), tmp_path / "h")
    found = tensors_of(tmp_path / "h" / "model.safetensors")
    assert torch.equal(found["model.layers.0.self_attn.rotary_emb.inv_freq"], torch.arange(4.0))


def test_layers_for_prediction_behind_the_last_one_keep_their_place(donors, recipe, tmp_path):
    a, _ = donors
    file = Path(a) / "model.safetensors"
    save_file(tensors_of(file) | {"model.layers.4.enorm.weight": torch.ones(3)}, file, {"format": "pt"})
    build_hybrid(recipe(base=a, layers=[(a, 0, 2)]), tmp_path / "h")
    names = set(tensors_of(tmp_path / "h" / "model.safetensors"))
    assert "model.layers.2.enorm.weight" in names
    assert not any(name.startswith("model.layers.3.") for name in names)


def test_digests_are_those_of_the_tensors_in_the_files(donors, recipe, tmp_path):
    import hashlib

    a, b = donors
    record = build_hybrid(recipe(base=a, layers=[(a, 0, 2), (b, 2, 4)]), tmp_path / "h")
    tensors = tensors_of(tmp_path / "h" / "model.safetensors")
    for entry in record.layers:
        digest = hashlib.sha256()
        for name in sorted(name for name in tensors if name.startswith(f"model.layers.{entry.layer}.")):
            digest.update(name.encode() + b"\0" + hashlib.sha256(tensors[name].numpy().tobytes()).digest())
        assert entry.sha256 == digest.hexdigest()


def test_a_donor_on_the_hub_is_pinned_to_its_commit(hub, donors, recipe, tmp_path):
    from huggingface_hub import HfApi

    a, b = donors
    HfApi().create_repo("alice/b")
    commit = HfApi().upload_folder(repo_id="alice/b", folder_path=b)
    record = build_hybrid(recipe(base=a, layers=[(a, 0, 2), ("alice/b", 2, 4)]), tmp_path / "h")
    assert (record.layers[3].donor, record.layers[3].revision) == ("alice/b", commit.oid)
    assert (record.layers[0].donor, record.layers[0].revision) == ("a", None)
    named = build_hybrid(recipe(base=f"alice/b@{commit.oid}"), tmp_path / "h2")
    assert named.base_revision == commit.oid
    assert same(load_model(tmp_path / "h2"), load_model(b))


def test_of_a_donor_on_the_hub_only_the_files_that_hold_its_layers_are_fetched(hub, donors, recipe, tmp_path):
    from huggingface_hub import HfApi, try_to_load_from_cache

    a, b = donors
    # One layer to a file, at the least.
    load_model(b).save_pretrained(tmp_path / "split", max_shard_size="30KB")
    places = json.loads((tmp_path / "split" / "model.safetensors.index.json").read_text())["weight_map"]
    HfApi().create_repo("alice/split")
    HfApi().upload_folder(repo_id="alice/split", folder_path=tmp_path / "split")
    build_hybrid(recipe(base=a, layers=[(a, 0, 3), ("alice/split", 3, 4)]), tmp_path / "h")
    wanted = {file for name, file in places.items() if name.startswith("model.layers.3.")}
    fetched = {file for file in set(places.values()) if try_to_load_from_cache("alice/split", file)}
    assert fetched == wanted != set(places.values())
    assert same(load_model(tmp_path / "h").model.layers[3], load_model(b).model.layers[3])
