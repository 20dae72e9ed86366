from __future__ import annotations

import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_layertracer.errors import LayerTracerError, UntraceableModelError
from hf_layertracer.modeling import EMBEDDINGS, HEAD, NORM, OTHER, context_length, find_parts, unwrap
from hf_layertracer.modeling.wrappers import without_autocast


PATHS = {
    "Llama": "model.layers",
    "GPT2": "transformer.h",
    "Gemma2": "model.layers",
    "OPT": "model.decoder.layers",
    "Mixtral": "model.layers",
    "Mamba": "backbone.layers",
}


@pytest.fixture(scope="module")
def vision_model():
    text = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=5, num_attention_heads=2, image_size=28, patch_size=14
    )
    return transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(vision_config=vision, text_config=text))


class Nested(nn.Module):
    """Layers with experts inside, and a longer list of something else elsewhere."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        experts = [nn.ModuleList(nn.Linear(4, 4) for _ in range(9)) for _ in "abc"]
        self.blocks = nn.ModuleList(nn.ModuleDict({"experts": own}) for own in experts)
        self.extra = nn.ModuleList(nn.Linear(4, 4) for _ in "ab")
        self.out = nn.Linear(4, 10)


@pytest.mark.parametrize("name", PATHS)
def test_the_decoder_layers_are_found_in_order(make_model, name):
    model = make_model(name)
    parts = find_parts(model)
    assert parts.layers_path == PATHS[name]
    assert parts.model is model
    assert parts.num_layers == 4
    assert all(a is b for a, b in zip(parts.layers, model.get_submodule(PATHS[name]), strict=True))


def test_experts_inside_a_layer_are_not_layers():
    assert find_parts(Nested()).layers_path == "blocks"


def test_the_layers_of_a_vision_tower_are_not_those_of_the_decoder(vision_model):
    # There are more of them.
    parts = find_parts(vision_model)
    assert parts.layers_path == "model.language_model.layers"
    assert parts.num_layers == 2
    groups = {owner for group in parts.owners.values() for owner in group}
    assert groups == {0, 1, EMBEDDINGS, NORM, HEAD, OTHER}
    for name, group in parts.owners.items():
        assert (OTHER in group) == ("vision" in name or "projector" in name), name


def test_a_named_list_of_layers_is_taken():
    parts = find_parts(Nested(), "extra")
    assert (parts.layers_path, parts.num_layers) == ("extra", 2)


@pytest.mark.parametrize(("path", "message"), [("nowhere", "no module 'nowhere'"), ("out", "'out' is not a list")])
def test_a_wrong_name_is_refused_with_the_lists_that_there_are(path, message):
    with pytest.raises(LayerTracerError, match=rf"{message}.*blocks \(3\), extra \(2\)"):
        find_parts(Nested(), path)


def test_a_model_without_layers_is_refused():
    with pytest.raises(UntraceableModelError, match=r"No list of decoder layers.*layers_path"):
        find_parts(nn.Sequential(nn.Linear(2, 2)))


# -- wrappers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: nn.DataParallel(torch.compile(m))])
def test_wrappers_are_looked_through(tiny_llama, wrap):
    model = tiny_llama()
    assert unwrap(wrap(model)) is model
    assert find_parts(wrap(model)).layers_path == "model.layers"


def test_peft_is_looked_through_and_its_adapters_belong_to_their_layers(tiny_llama):
    model = tiny_llama()
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    parts = find_parts(wrapped)
    assert parts.model is model
    adapters = {name: group for name, group in parts.owners.items() if "lora" in name}
    assert sorted(next(iter(group)) for group in adapters.values()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_mixed_peft_model_is_looked_through(tiny_llama):
    model = tiny_llama()
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]), mixed=True)
    assert unwrap(wrapped) is model


def test_autocast_is_taken_off_and_all_else_of_a_forward_pass_stays(tiny_llama):
    model = tiny_llama()
    own = model.forward
    assert without_autocast(model).forward == own
    # One for all of a process: an earlier test's goes before ours, and ours after it.
    AcceleratorState._reset_state(reset_partial_state=True)
    prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model)
    AcceleratorState._reset_state(reset_partial_state=True)
    ids = torch.ones(1, 2, dtype=torch.long)
    assert not torch.equal(prepared(input_ids=ids).logits, own(input_ids=ids).logits)
    assert without_autocast(unwrap(prepared)) is model
    assert model.forward == own
    assert torch.equal(model(input_ids=ids).logits, own(input_ids=ids).logits)


# -- owners ----------------------------------------------------------------------------------------------------------


def test_every_parameter_of_a_llama_has_its_owner(tiny_llama):
    model = tiny_llama()
    parts = find_parts(model)
    assert list(parts.owners) == [name for name, _ in model.named_parameters()]
    for name, group in parts.owners.items():
        if name.startswith("model.layers."):
            assert group == {int(name.split(".")[2])}
        else:
            outside = {"model.embed_tokens.weight": EMBEDDINGS, "model.norm.weight": NORM, "lm_head.weight": HEAD}
            assert group == {outside[name]}
    assert not parts.tied


def test_a_tied_matrix_belongs_to_embeddings_and_head(tiny_llama):
    parts = find_parts(tiny_llama(tie_word_embeddings=True))
    assert parts.owners["model.embed_tokens.weight"] == {EMBEDDINGS, HEAD}
    assert "lm_head.weight" not in parts.owners
    assert parts.tied


def test_every_architecture_has_embeddings_norm_and_all_layers(any_model):
    parts = find_parts(any_model)
    groups = {owner for group in parts.owners.values() for owner in group}
    assert groups == {0, 1, 2, 3, EMBEDDINGS, NORM, HEAD}
    embedding = any_model.get_input_embeddings().weight
    names = {id(parameter): name for name, parameter in any_model.named_parameters()}
    assert EMBEDDINGS in parts.owners[names[id(embedding)]]
    assert HEAD in parts.owners[names[id(any_model.get_output_embeddings().weight)]]


def test_learned_positions_are_embeddings(make_model):
    assert find_parts(make_model("GPT2")).owners["transformer.wpe.weight"] == {EMBEDDINGS}


def test_a_matrix_shared_by_layers_belongs_to_all_of_them(tiny_llama):
    model = tiny_llama()
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    owners = find_parts(model).owners
    assert owners["model.layers.0.mlp.up_proj.weight"] == {0, 2}
    assert "model.layers.2.mlp.up_proj.weight" not in owners


# -- facts from the config -------------------------------------------------------------------------------------------


def test_kinds_come_from_the_config_or_else_from_the_class(make_model):
    assert find_parts(make_model("Gemma2")).kinds() == ["sliding_attention", "full_attention"] * 2
    assert find_parts(make_model("GPT2")).kinds() == ["full_attention"] * 4


def test_the_context_length_comes_from_the_text_config(make_model, vision_model):
    assert context_length(make_model("Llama")) == 64
    assert context_length(make_model("GPT2")) == 64
    assert context_length(make_model("Mamba")) in (None, 64)
    assert context_length(vision_model) == vision_model.config.text_config.max_position_embeddings
    assert context_length(nn.Linear(2, 2)) is None
