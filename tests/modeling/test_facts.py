from __future__ import annotations

import pytest
import torch
import transformers

from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import model_facts, public_model_id


def test_every_parameter_is_counted_exactly_once(any_model):
    facts = model_facts(find_parts(any_model))
    groups = [facts.embeddings, facts.norm, facts.head, facts.other, *(layer.parameters for layer in facts.layers)]
    counted = sum(sum(group.values()) for group in groups)
    assert counted == sum(parameter.numel() for parameter in any_model.parameters())
    assert facts.num_layers == 4
    assert all(layer.parameters for layer in facts.layers)
    assert facts.architecture == type(any_model).__name__
    assert facts.model_type == any_model.config.model_type


def test_the_facts_of_a_llama_are_these(tiny_llama):
    facts = model_facts(find_parts(tiny_llama()))
    assert facts.embeddings == {"model.embed_tokens.weight": 320 * 32}
    assert facts.head == {"lm_head.weight": 320 * 32}
    assert facts.norm == {"model.norm.weight": 32}
    assert facts.other == facts.shared == {}
    assert facts.layers[3].parameters == {
        "self_attn.q_proj.weight": 32 * 32,
        "self_attn.k_proj.weight": 16 * 32,
        "self_attn.v_proj.weight": 16 * 32,
        "self_attn.o_proj.weight": 32 * 32,
        "mlp.gate_proj.weight": 32 * 48,
        "mlp.up_proj.weight": 32 * 48,
        "mlp.down_proj.weight": 32 * 48,
        "input_layernorm.weight": 32,
        "post_attention_layernorm.weight": 32,
    }
    assert (facts.dtype, facts.layers_path, facts.tied) == ("float32", "model.layers", False)


def test_the_width_is_that_of_the_hidden_state_and_not_of_the_embeddings(make_model):
    model = make_model("OPT", word_embed_proj_dim=16)
    assert model.get_input_embeddings().weight.shape[1] == 16
    assert model_facts(find_parts(model)).hidden_size == 32


def test_the_width_is_that_of_the_embeddings_where_the_config_does_not_say(tiny_llama):
    model = tiny_llama()
    model.config = transformers.PreTrainedConfig()
    assert not hasattr(model.config, "hidden_size")
    assert model_facts(find_parts(model, "model.layers")).hidden_size == 32


def test_the_width_of_a_model_of_several_parts_is_that_of_its_text_part(tiny_llama):
    model = tiny_llama()
    whole = transformers.PreTrainedConfig()
    whole.hidden_size, whole.text_config = 99, model.config
    model.config = whole
    assert model_facts(find_parts(model, "model.layers")).hidden_size == 32


def test_a_tied_matrix_stands_in_the_embeddings_alone(tiny_llama):
    facts = model_facts(find_parts(tiny_llama(tie_word_embeddings=True)))
    assert facts.tied
    assert list(facts.embeddings) == ["model.embed_tokens.weight"]
    assert facts.head == {}


def test_a_shared_matrix_is_counted_in_the_first_layer_that_has_it(tiny_llama):
    model = tiny_llama()
    model.model.layers[3].mlp.up_proj.weight = model.model.layers[1].mlp.up_proj.weight
    facts = model_facts(find_parts(model))
    assert facts.shared == {"model.layers.1.mlp.up_proj.weight": [1, 3]}
    assert "mlp.up_proj.weight" in facts.layers[1].parameters
    assert "mlp.up_proj.weight" not in facts.layers[3].parameters


def test_what_was_frozen_before_is_known(tiny_llama):
    model = tiny_llama()
    model.model.norm.requires_grad_(False)
    model.model.layers[2].mlp.down_proj.requires_grad_(False)
    facts = model_facts(find_parts(model))
    assert facts.frozen == ["model.norm.weight"]
    assert [layer.frozen for layer in facts.layers] == [[], [], ["mlp.down_proj.weight"], []]


def test_a_model_without_weights_in_memory_has_the_same_facts(tiny_llama):
    model = tiny_llama()
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(model.config)
    assert model_facts(find_parts(empty)) == model_facts(find_parts(model))


def test_mixed_data_types_are_both_named(tiny_llama):
    model = tiny_llama().to(torch.bfloat16)
    model.model.norm.float()
    assert model_facts(find_parts(model)).dtype == "bfloat16/float32"


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("", None),
        ("gpt2", "gpt2"),
        ("someone/model", "someone/model"),
        ("/home/someone/secret/model", "model"),
        ("./runs/model", "model"),
        ("../model", "model"),
        ("~/model", "model"),
        ("runs/of/mine", "mine"),
    ],
)
def test_a_local_path_is_not_published(name, public):
    assert public_model_id(name) == public


def test_a_local_folder_that_looks_like_a_hub_id_is_not_published(tmp_path, monkeypatch):
    (tmp_path / "clients" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_model_id("clients/model") == "model"


def test_the_commit_that_was_loaded_from_the_hub_is_known_unless_there_are_several(hub, tiny_llama):
    def load(**kwargs):
        return model_facts(find_parts(transformers.AutoModelForCausalLM.from_pretrained("alice/tiny", **kwargs)))

    tiny_llama().push_to_hub("alice/tiny")
    first = hub.repo("alice/tiny").commits()[-1].oid
    assert load().revision == load(revision=first).revision == first
    tiny_llama(num_hidden_layers=2).push_to_hub("alice/tiny")
    assert load().num_layers == 2
    assert load().revision is None
    assert model_facts(find_parts(tiny_llama())).revision is None
