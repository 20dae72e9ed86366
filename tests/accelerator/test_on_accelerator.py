"""What only an accelerator can answer: `make test-gpu`. With LAYERTRACER_TEST_DEVICE=cpu, a CPU runs what it can of it."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from hf_layertracer import DiagnosisConfig, LayerTracerConfig, LayerTracerTrainer, Probe, diagnose, estimate_training
from hf_layertracer.diagnosis.memory import default_budget
from hf_layertracer.modeling.devices import default_device, free_bytes, peak_bytes, random_states


pytestmark = pytest.mark.gpu
ON_CPU = os.environ.get("LAYERTRACER_TEST_DEVICE") == "cpu"
PROBES = [Probe(tuple(range(3 + i, 3 + i + n)), 7 + i) for i in range(6) for n in (9, 14)]


@pytest.fixture
def device() -> torch.device:
    if ON_CPU:
        return torch.device("cpu")
    if not torch.accelerator.is_available():
        pytest.skip("there is no accelerator")
    return default_device()


@pytest.fixture
def dataset() -> list[dict[str, list[int]]]:
    rows = np.random.default_rng(0).integers(3, 300, (32, 16)).tolist()
    return [{"input_ids": row, "labels": row} for row in rows]


@pytest.fixture
def arguments(tmp_path, device):
    def make(**settings) -> TrainingArguments:
        settings = {"max_steps": 4, "per_device_train_batch_size": 4, "report_to": "none", **settings}
        return TrainingArguments(output_dir=str(tmp_path), use_cpu=device.type == "cpu", **settings)

    return make


@pytest.mark.parametrize("perturbation", ["mask", "skip", "noise"])
def test_the_device_changes_no_draw_and_no_result(make_model, device, perturbation):
    config = DiagnosisConfig(perturbation=perturbation, repeats=4)
    here, there = (
        diagnose(make_model("Llama").to(where), PROBES, config=config) for where in (torch.device("cpu"), device)
    )
    # float32 on an accelerator rounds otherwise, TF32 more coarsely still.
    np.testing.assert_allclose(there.sensitivity.mean, here.sensitivity.mean, atol=2e-3)
    np.testing.assert_allclose(there.lens.mean_probability, here.lens.mean_probability, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_measures_nearly_the_same(make_model, device, dtype):
    config = DiagnosisConfig(repeats=4)
    whole = diagnose(make_model("Llama").to(device), PROBES, config=config)
    half = diagnose(make_model("Llama").to(device, dtype), PROBES, config=config)
    assert half.lens.valid
    np.testing.assert_allclose(half.sensitivity.mean, whole.sensitivity.mean, atol=3e-2)


def test_random_states_are_as_they_were(make_model, device):
    model = make_model("Llama").to(device)
    torch.rand(1, device=device)
    before = [state.clone() for state in random_states()]
    diagnose(model, PROBES, config=DiagnosisConfig(perturbation="noise", repeats=2))
    after = random_states()
    assert len(before) == len(after) == (0 if ON_CPU else torch.accelerator.device_count())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_budget_follows_the_free_memory_of_the_device(device):
    assert default_budget(device) <= free_bytes(device) // 2 + (1 << 28)


def test_a_diagnosis_stays_within_its_budget(make_model, device):
    model, budget = make_model("Llama").to(device), 8 << 20
    diagnose(model, PROBES[:2], config=DiagnosisConfig(repeats=1))  # whatever is made once
    if not ON_CPU:
        torch.get_device_module(device).reset_peak_memory_stats(device)
    before = 0 if ON_CPU else torch.get_device_module(device).memory_allocated(device)
    diagnose(model, PROBES, config=DiagnosisConfig(memory_budget=budget, repeats=8))
    if not ON_CPU:
        assert peak_bytes(device)[0] - before <= 1.1 * budget


@pytest.mark.parametrize(
    "settings", [{}, {"bf16": True}, {"optim": "adamw_torch_fused"}, {"torch_compile": True}], ids=str
)
def test_training_reports_the_memory_of_the_device(make_model, dataset, arguments, device, settings):
    if ON_CPU and settings.get("torch_compile"):
        pytest.skip("compiling for a CPU takes minutes")
    args = arguments(**settings)
    trainer = LayerTracerTrainer(
        make_model("Llama"), args, train_dataset=dataset, layertracer_config=LayerTracerConfig(num_probes=8, repeats=2)
    )
    trainer.train()
    outcome = trainer.layertracer_report.training
    assert outcome.steps == 4
    assert outcome.peak_memory_of == ("process" if ON_CPU else device.type)
    assert outcome.peak_memory_bytes > 0


@pytest.mark.skipif(ON_CPU, reason="a CPU's allocator keeps no peak")
@pytest.mark.parametrize("settings", [{}, {"bf16": True}, {"activation_checkpointing": True}], ids=str)
def test_the_estimate_is_what_the_device_allocates(make_model, dataset, arguments, device, settings):
    """Large enough that the device's own granularity does not show."""
    args = arguments(**settings)
    model = make_model("Llama", hidden_size=512, intermediate_size=1024, vocab_size=4096)
    config = LayerTracerConfig(num_probes=8, repeats=1)
    trainer = LayerTracerTrainer(model, args, train_dataset=dataset, layertracer_config=config)
    trainer.train()
    estimate = estimate_training(make_model("Llama", hidden_size=512, intermediate_size=1024, vocab_size=4096),
                                 trainer.layertracer_report.plan, args, sequence_length=16)  # fmt: skip
    assert trainer.layertracer_report.training.peak_memory_bytes == pytest.approx(estimate.total_bytes, rel=0.1)
