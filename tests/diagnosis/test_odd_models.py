"""Models in which something is not as in most: each measured right, or said to be otherwise."""

from __future__ import annotations

import copy
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BigBirdConfig, Gemma4TextConfig, ReformerConfig

from hf_layertracer.config import DiagnosisConfig
from hf_layertracer.diagnosis.diagnose import diagnose
from hf_layertracer.diagnosis.score import score_probes
from hf_layertracer.errors import UntraceableModelError
from hf_layertracer.probes import Probe


PROBES = [Probe((5, 80, 31, 7, 20, 9), 9), Probe((14, 3, 77, 60), 9), Probe((33, 34, 50, 2, 9, 7), 4)]


def settings(perturbation: str) -> DiagnosisConfig:
    return DiagnosisConfig(perturbation=perturbation, repeats=2, diagnosis_seed=3)


def expected_of(reference, model, path, perturbation, probes=PROBES):
    values = reference.sensitivity(
        model, path, [probe.prompt for probe in probes], settings(perturbation), 1 if perturbation == "skip" else 2
    )
    return np.mean(values, axis=(1, 2))


def build(config) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("perturbation", ["skip", "mask"])
def test_hooks_of_a_user_are_part_of_their_layer(tiny_llama, reference, perturbation):
    model, seen = tiny_llama(), []
    model.model.layers[1].register_forward_hook(lambda module, args, output: seen.append(len(output)) or 1.5 * output)
    if (
        perturbation == "mask"
    ):  # what is left out is the layer with its hooks; the reference's hook comes behind this one
        model.model.layers[2].register_forward_pre_hook(lambda module, args: (args[0] + 0.2, *args[1:]))
    report = diagnose(model, PROBES, config=settings(perturbation))
    assert report.sensitivity.path == "replay"
    assert report.lens.valid
    expected = expected_of(reference, model, "model.layers", perturbation)
    assert report.sensitivity.mean == pytest.approx(expected, abs=2e-5)
    assert len(model.model.layers[1]._forward_hooks) == 1


@pytest.mark.parametrize("perturbation", ["skip", "mask"])
@pytest.mark.parametrize("window", [2, 5, 6])
def test_a_sliding_window_shorter_than_some_prompts(make_model, reference, perturbation, window):
    model = make_model("Mistral", sliding_window=window)
    report = diagnose(model, PROBES, config=settings(perturbation))
    assert (report.sensitivity.path, report.lens.valid) == ("replay", True)
    expected = expected_of(reference, model, "model.layers", perturbation)
    assert report.sensitivity.mean == pytest.approx(expected, abs=2e-5)


def test_a_window_beyond_the_tokens_that_show_the_layout(make_model, reference):
    # No mask at 16 tokens, one at 24.
    model = make_model("Mistral", sliding_window=20)
    probes = [Probe(tuple(range(3, 27)), 9), Probe(tuple(range(40, 64)), 5), *PROBES]
    report = diagnose(model, probes, config=settings("mask"))
    assert (report.sensitivity.path, report.lens.valid) == ("replay", True)
    expected = expected_of(reference, model, "model.layers", "mask", probes)
    assert report.sensitivity.mean == pytest.approx(expected, abs=2e-5)


class Plain(nn.Module):
    """Layers that read all positions before their own."""

    class Layer(nn.Module):
        def __init__(self, in_place: bool = False, capacity: int | None = None):
            super().__init__()
            self.mix, self.in_place, self.capacity = nn.Linear(16, 16), in_place, capacity

        def forward(self, hidden):
            added = torch.tanh(self.mix(hidden.cumsum(1)))
            if self.capacity is not None:  # what comes after the first few rows is dropped
                kept = torch.arange(len(hidden)) < self.capacity
                added = added * kept[:, None, None]
            return hidden.add_(added) if self.in_place else hidden + added

    def __init__(self, layers):
        super().__init__()
        self.embed, self.layers, self.head = nn.Embedding(320, 16), nn.ModuleList(layers), nn.Linear(16, 320)

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return SimpleNamespace(logits=self.head(hidden))


@pytest.mark.parametrize("perturbation", ["skip", "mask"])
def test_layers_that_write_to_their_input(reference, perturbation):
    torch.manual_seed(0)
    model = Plain([Plain.Layer(in_place=True) for _ in range(3)]).eval()
    report = diagnose(model, PROBES, config=settings(perturbation))
    for layer in model.layers:
        layer.in_place = False
    expected = diagnose(model, PROBES, config=settings(perturbation))
    assert min(expected.sensitivity.mean) > 1e-3
    assert report.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=1e-6)
    assert report.block_influence == pytest.approx(expected.block_influence, abs=1e-6)
    assert report.lens.mean_probability == pytest.approx(expected.lens.mean_probability, abs=1e-6)
    assert expected.sensitivity.mean == pytest.approx(expected_of(reference, model, "layers", perturbation), abs=2e-5)


@pytest.mark.parametrize("perturbation", ["skip", "mask"])
def test_a_module_that_stands_in_the_list_twice(perturbation):
    torch.manual_seed(0)
    one, two = Plain.Layer(), Plain.Layer()
    shared = Plain([one, two, one]).eval()
    third = Plain.Layer()
    third.load_state_dict(one.state_dict())
    apart = Plain([one, two, third]).eval()
    apart.embed, apart.head = shared.embed, shared.head
    found, expected = (diagnose(model, PROBES, config=settings(perturbation)) for model in (shared, apart))
    assert found.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=1e-6)
    assert found.lens.mean_probability == pytest.approx(expected.lens.mean_probability, abs=1e-6)
    assert "forward" not in vars(one)


def test_an_output_that_depends_on_the_batch_is_measured_row_by_row(reference):
    torch.manual_seed(0)
    model = Plain([Plain.Layer(capacity=2) for _ in range(3)]).eval()
    report = diagnose(model, PROBES, config=settings("mask"))
    assert report.sensitivity.path == "full-forward"
    assert "depends on the others in its batch" in report.sensitivity.path_reason
    assert report.first.memory["largest_batch_probes"] == 1
    assert report.sensitivity.mean == pytest.approx(expected_of(reference, model, "layers", "mask"), abs=2e-5)


@pytest.mark.parametrize("perturbation", ["skip", "mask"])
def test_gemma_4_whose_last_layers_share_keys_and_values(reference, perturbation):
    config = Gemma4TextConfig(
        vocab_size=320,
        vocab_size_per_layer_input=320,
        hidden_size_per_layer_input=8,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=8,
        sliding_window=4,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        initializer_range=0.25,
    )
    model = build(config)
    report = diagnose(model, PROBES, config=settings(perturbation))
    assert report.lens.valid
    expected = expected_of(reference, model, report.model.layers_path, perturbation)
    assert report.sensitivity.mean == pytest.approx(expected, abs=2e-5)
    states, _ = reference.run(model, list(model.get_submodule(report.model.layers_path)), PROBES[1].prompt)
    alone = diagnose(model, PROBES[1:2], config=settings("skip"))
    for layer, value in enumerate(alone.block_influence):
        turned = 1 - torch.cosine_similarity(states[layer][0], states[layer + 1][0], dim=-1).mean()
        assert value == pytest.approx(float(turned), abs=1e-4)


@pytest.fixture(scope="module")
def big_bird():
    config = BigBirdConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=256,
        block_size=4,
        num_random_blocks=1,
        attention_type="block_sparse",
        is_decoder=True,
        initializer_range=0.25,
    )
    return build(config)


def random_probe(length: int) -> Probe:
    tokens = torch.randint(3, 300, (length,), generator=torch.Generator().manual_seed(length))
    return Probe(tuple(tokens.tolist()), 7)


def test_big_bird_is_refused_for_long_prompts_in_which_its_sparse_attention_looks_ahead(big_bird):
    with pytest.raises(UntraceableModelError, match=r"in prompts of 64 tokens.*at earlier positions") as caught:
        diagnose(big_bird, [random_probe(8), random_probe(64)], config=settings("skip"))
    assert "\n" not in str(caught.value)
    # Up to 28 tokens its attention is full, and causal.
    assert diagnose(big_bird, [random_probe(8), random_probe(24)], config=settings("skip")).lens.valid
    assert big_bird.bert.attention_type == "block_sparse"


def test_big_bird_keeps_its_sparse_attention_for_long_prompts_after_short_ones(big_bird):
    probes = [random_probe(8), random_probe(64)]
    scores = score_probes(big_bird, probes)
    assert big_bird.bert.attention_type == "block_sparse"
    with torch.no_grad():
        own = [
            copy.deepcopy(big_bird)(input_ids=torch.tensor([probe.prompt])).logits[0, -1].log_softmax(-1)[7]
            for probe in probes
        ]
    assert scores.log_probabilities == pytest.approx([float(value) for value in own], abs=1e-5)


def test_a_model_that_is_random_in_long_prompts_alone_says_so(tiny_llama):
    model = tiny_llama()

    def noise(module, args, output):
        return output * (1 + 0.3 * torch.randn(output.shape)) if output.shape[1] > 12 else output

    model.model.layers[0].mlp.register_forward_hook(noise)
    short = [random_probe(length) for length in (5, 6, 7, 8, 9, 10) * 3]
    report = diagnose(model, [*short, random_probe(14)], config=settings("skip"))
    assert report.first.noise_floor > 1e-4
    assert diagnose(model, short, config=settings("skip")).first.noise_floor < 1e-9


def test_a_model_that_is_random_says_so(tiny_llama):
    model = tiny_llama()
    model.model.layers[0].mlp.register_forward_hook(
        lambda module, args, output: output * (1 + 0.3 * torch.randn(output.shape))
    )
    report = diagnose(model, PROBES, config=settings("mask"))
    assert report.first.noise_floor > 1e-4
    assert any("or it is random" in note for note in report.notes)
    quiet = diagnose(tiny_llama(), PROBES, config=settings("mask"))
    assert quiet.first.noise_floor < 1e-9
    assert not any("or it is random" in note for note in quiet.notes)


def test_reformer_hashes_where_a_rounding_error_decides():
    model = build(
        ReformerConfig(
            vocab_size=320,
            hidden_size=32,
            num_attention_heads=2,
            attention_head_size=16,
            feed_forward_size=48,
            attn_layers=["lsh", "lsh"],
            num_buckets=4,
            lsh_attn_chunk_length=4,
            axial_pos_embds=False,
            max_position_embeddings=64,
            is_decoder=True,
        )
    )
    with torch.no_grad():
        model.lm_head.decoder.weight *= 30
    probes = [Probe(tuple(range(3 + start, 35 + start)), 7) for start in range(4)]
    report = diagnose(model, probes, config=settings("skip"))
    assert report.first.noise_floor > 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="flex attention compiles itself, which takes a C++ compiler")
def test_flex_attention_is_replayed_with_a_mask_of_as_many_rows_as_run(tiny_llama):
    model = tiny_llama(num_hidden_layers=2, hidden_size=64)  # its kernel takes heads of 16 and more
    expected = diagnose(model, PROBES, config=settings("skip"))
    model.set_attn_implementation("flex_attention")
    report = diagnose(model, PROBES, config=settings("skip"))
    assert report.sensitivity.path == "replay"
    assert report.sensitivity.mean == pytest.approx(expected.sensitivity.mean, abs=2e-5)
    assert report.lens.mean_probability == pytest.approx(expected.lens.mean_probability, abs=2e-5)
