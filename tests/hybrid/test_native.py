"""New token mixers in classes of transformers: where their weights come from, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from hf_layertracer import LayerTracerError, build_hybrid
from hf_layertracer.hybrid.provenance import HybridRecord
from hf_layertracer.hybrid.recipe import HybridRecipe
from tests.support.hybrids import CLASSES, DONORS, REPLACED, load_model


@pytest.mark.parametrize("architecture", DONORS)
def test_the_class_is_transformers_own_and_the_record_says_what_was_verified(built, architecture):
    _, folder = built(architecture)
    record = HybridRecord.load(folder)
    assert type(load_model(folder)).__name__ == record.architecture == CLASSES[DONORS[architecture]]
    assert "largest difference" in record.class_verified
    assert [entry.mixer for entry in record.layers] == [None, DONORS[architecture], DONORS[architecture], None]
    assert all(
        entry.verified.startswith("before its token mixer was replaced: " if entry.mixer else "output")
        for entry in record.layers
    )
    assert "need" in record.notes[0]
    assert not list(folder.glob(".*"))


def test_mamba2_takes_the_attentions_projections_over(built):
    donor, folder = built("Llama")
    attention, mixer = load_model(donor).model.layers[1].self_attn, load_model(folder).model.layers[1].mamba
    z, x, b, c, dt = mixer.in_proj.weight.split([32, 32, 32, 32, 4])
    assert not z.any()
    assert not dt.any()
    for part, projection in ((x, attention.v_proj), (b, attention.k_proj)):
        by_head, shared = part.view(4, 8, 32), projection.weight.view(2, 8, 32)
        for head in range(4):
            assert torch.equal(by_head[head], shared[head // 2])
    assert torch.equal(c, attention.q_proj.weight)
    assert torch.equal(mixer.out_proj.weight, attention.o_proj.weight)
    hidden = torch.randn(1, 5, 32)
    gate = mixer.in_proj(hidden)[..., :32]
    torch.testing.assert_close(torch.nn.functional.silu(gate), torch.ones_like(gate))
    states = torch.randn(1, mixer.conv_dim, 5)
    assert torch.equal(mixer.conv1d(states)[..., :5], states)


def test_the_biases_of_qwen2_go_with_their_projections(built):
    donor, folder = built("Qwen2")
    attention, mixer = load_model(donor).model.layers[1].self_attn, load_model(folder).model.layers[1].mamba
    _, x, _, c, _ = mixer.in_proj.bias.split([32, 32, 32, 32, 4])
    assert attention.q_proj.bias.any()
    assert torch.equal(c, attention.q_proj.bias)
    assert torch.equal(x.view(4, 8)[2], attention.v_proj.bias.view(2, 8)[1])


def test_gated_delta_net_takes_the_attentions_projections_over(built):
    donor, folder = built("Qwen3")
    attention, mixer = load_model(donor).model.layers[1].self_attn, load_model(folder).model.layers[1].linear_attn
    query, key, value = mixer.in_proj_qkv.weight.split([32, 32, 32])
    assert torch.equal(query, attention.q_proj.weight)
    assert torch.equal(key.view(4, 8, 32)[3], attention.k_proj.weight.view(2, 8, 32)[1])
    assert torch.equal(value.view(4, 8, 32)[0], attention.v_proj.weight.view(2, 8, 32)[0])
    by_head = (mixer.out_proj.weight / attention.o_proj.weight).view(32, 4, 8)
    torch.testing.assert_close(by_head, by_head[:1, :, :1].expand_as(by_head), rtol=1e-4, atol=1e-5)


def test_a_fresh_mixer_is_what_the_class_draws_and_the_seed_decides(built, make_model, tmp_path):
    mixer = load_model(built("Llama", "fresh")[1]).model.layers[1].mamba
    torch.testing.assert_close(mixer.A_log, torch.log(torch.arange(1.0, 5.0)))
    assert torch.equal(mixer.D, torch.ones(4))
    donor = str(built("Llama", "fresh")[0])
    mixers = [{"layers": REPLACED, "kind": "mamba2", "init": "fresh"}]
    for seed in (0, 1):
        build_hybrid(HybridRecipe.from_dict({"base": donor, "mixers": mixers, "seed": seed}), tmp_path / str(seed))
    drawn = [load_model(tmp_path / str(seed)).model.layers for seed in (0, 1)]
    assert torch.equal(drawn[0][1].mamba.in_proj.weight, mixer.in_proj.weight)
    assert not torch.equal(drawn[1][1].mamba.in_proj.weight, mixer.in_proj.weight)
    assert not torch.equal(drawn[0][1].mamba.in_proj.weight, drawn[0][2].mamba.in_proj.weight)


def test_layers_of_several_donors_get_new_mixers_too(save_donor, recipe, tmp_path):
    a, b = save_donor("a", seed=1), save_donor("b", seed=2)
    record = build_hybrid(
        recipe(base=a, layers=[(a, 0, 2), (b, 1, 4)], mixers=[{"layers": [4], "kind": "mamba2"}]), tmp_path / "h"
    )
    model, donor = load_model(tmp_path / "h"), load_model(b)
    assert len(model.model.layers) == 5
    assert torch.equal(model.model.layers[2].self_attn.q_proj.weight, donor.model.layers[1].self_attn.q_proj.weight)
    assert torch.equal(model.model.layers[4].mamba.out_proj.weight, donor.model.layers[3].self_attn.o_proj.weight)
    assert [(entry.donor, entry.donor_layer) for entry in record.layers][-1] == ("b", 3)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_a_smaller_data_type_is_verified_in_itself(save_donor, recipe, tmp_path, architecture):
    donor = save_donor("a", architecture)
    mixers = [{"layers": REPLACED, "kind": DONORS[architecture]}]
    record = build_hybrid(recipe(base=donor, dtype="bfloat16", mixers=mixers), tmp_path / "h")
    assert "in bfloat16" in record.class_verified
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "h")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_norm_weights_that_bfloat16_cannot_centre_are_refused_and_float32_can(save_donor, recipe, tmp_path):
    donor = Path(save_donor("a", "Qwen3"))
    content = load((donor / "model.safetensors").read_bytes())
    content["model.layers.0.input_layernorm.weight"][3] = 0.1
    save_file(content, donor / "model.safetensors", {"format": "pt"})
    mixers = [{"layers": [1], "kind": "gated_deltanet"}]
    with pytest.raises(LayerTracerError, match=r"input_layernorm.weight has weights below one half.*`dtype: float32`"):
        build_hybrid(recipe(base=str(donor), dtype="bfloat16", mixers=mixers), tmp_path / "h")
    assert not (tmp_path / "h").exists()
    build_hybrid(recipe(base=str(donor), mixers=mixers), tmp_path / "h")


@pytest.mark.parametrize(
    ("architecture", "changes", "kind", "message"),
    [
        (
            "Llama",
            {},
            "gated_deltanet",
            "holds gated_deltanet in a llama model. Possible: mamba2 in llama, mistral, qwen2",
        ),
        ("Qwen3", {}, "mamba2", "holds mamba2 in a qwen3 model. Possible: .*gated_deltanet in qwen3"),
        ("Olmo2", {}, "gated_deltanet", "in a olmo2 model"),
        ("Mistral", {"sliding_window": 8}, "mamba2", "looks back 8 tokens"),
        ("Llama", {"mlp_bias": True}, "mamba2", "has biases"),
        ("Llama", {"head_dim": 6}, "mamba2", "no multiple of the hidden size"),
        ("Qwen3", {"attention_bias": True}, "gated_deltanet", "attention has biases"),
    ],
)
def test_what_no_class_can_say_is_refused_in_one_line(
    save_donor, recipe, tmp_path, architecture, changes, kind, message
):
    donor = save_donor("a", architecture, **changes)
    with pytest.raises(LayerTracerError, match=message) as caught:
        build_hybrid(recipe(base=donor, mixers=[{"layers": [1], "kind": kind}]), tmp_path / "h")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "h").exists()


def test_two_kinds_in_one_model_and_layers_that_are_none_are_refused(save_donor, recipe, tmp_path):
    donor = save_donor("a")
    both = [{"layers": [1], "kind": "mamba2"}, {"layers": [2], "kind": "gated_deltanet"}]
    with pytest.raises(LayerTracerError, match="holds gated_deltanet with mamba2 in a llama"):
        build_hybrid(recipe(base=donor, mixers=both), tmp_path / "h")
    with pytest.raises(LayerTracerError, match="all layers are named"):
        build_hybrid(recipe(base=donor, mixers=[{"layers": [0, 1, 2, 3], "kind": "mamba2"}]), tmp_path / "h")
    with pytest.raises(LayerTracerError, match=r"mixers\[0\].layers: there is no layer 4; the hybrid has 4 layers"):
        build_hybrid(recipe(base=donor, mixers=[{"layers": [4], "kind": "mamba2"}]), tmp_path / "h")


def test_olmo_hybrid_does_not_fit_olmo2(make_model):
    """Its linear layers norm what goes into a block, OLMo-2 what comes out: the feed-forward blocks could not stay."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import OlmoHybridConfig

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = OlmoHybridConfig(
        **sizes, vocab_size=64, pad_token_id=0, layer_types=["linear_attention", "full_attention"]
    )
    linear, full = AutoModelForCausalLM.from_config(config).model.layers
    assert {name for name, _ in make_model("Olmo2").model.layers[0].named_children()} == {
        name for name, _ in full.named_children()
    }
    assert hasattr(linear, "input_layernorm")
    assert not hasattr(linear, "post_feedforward_layernorm")
    with pytest.raises(StrictDataclassError, match="at least one"):
        OlmoHybridConfig(**sizes, layer_types=["full_attention"] * 2)


def test_a_model_that_is_not_the_same_in_the_other_class_is_refused(save_donor, recipe, tmp_path, monkeypatch):
    from transformers import GraniteMoeHybridConfig

    donor, real = save_donor("a"), GraniteMoeHybridConfig.__init__

    def wrong(self, **fields):
        real(self, **{**fields, "logits_scaling": 1.001})

    monkeypatch.setattr(GraniteMoeHybridConfig, "__init__", wrong)
    with pytest.raises(LayerTracerError, match="Refused, logits of the model with all its attention"):
        build_hybrid(recipe(base=donor, mixers=[{"layers": [1], "kind": "mamba2"}]), tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_a_tensor_without_a_place_in_the_other_class_fails_the_build(save_donor, recipe, tmp_path):
    donor = Path(save_donor("a"))
    content = load((donor / "model.safetensors").read_bytes()) | {"model.layers.0.extra.weight": torch.ones(2)}
    save_file(content, donor / "model.safetensors", {"format": "pt"})
    with pytest.raises(LayerTracerError, match=r"model\.layers\.0\.extra\.weight has no place"):
        build_hybrid(recipe(base=str(donor), mixers=[{"layers": [1], "kind": "mamba2"}]), tmp_path / "h")


def test_a_gate_that_is_open_is_one():
    from hf_layertracer.hybrid.mixers.common import OPEN_GATE

    assert OPEN_GATE / (1 + math.exp(-OPEN_GATE)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_each_head_begins_with_the_size_that_comes_closest_to_the_attentions(built, architecture):
    """No other multiple of a head's output is closer to what the attention put out."""
    from hf_layertracer.hybrid.new_mixers import Watched, _closest_scale

    donor, folder = built(architecture)
    attention = load_model(donor).model.layers[1].self_attn
    layer = load_model(folder).model.layers[1]
    mixer = layer.mamba if architecture == "Llama" else layer.linear_attn
    generator = torch.Generator().manual_seed(2)
    watched = Watched(torch.randn(6, 32, generator=generator), torch.randn(6, 32, generator=generator))
    scale = _closest_scale(mixer, watched, 4)
    seen = []
    mixer.out_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].view(6, 4, 8)))
    with torch.no_grad():
        mixer(hidden_states=watched.given[None])
    wanted = watched.made.view(6, 4, 8)

    def error(factor: Tensor) -> Tensor:
        return (factor[:, None] * seen[0] - wanted).square().sum((0, 2))

    for other in (0.9, 1.1):
        assert (error(scale) < error(scale * other)).all()
    assert attention.o_proj.in_features == 32
