"""Tiny random models, and reports of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import model_facts
from hf_layertracer.records import ModelFacts
from hf_layertracer.report import LayerTracerReport


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Threads cost tiny models more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def llama() -> Callable[..., LlamaForCausalLM]:
    """`llama(num_layers=4, tied=False, device="cpu", **config)`: a random Llama of 9 thousand parameters a layer."""

    def make(num_layers: int = 4, tied: bool = False, device: str = "cpu", **changes: Any) -> LlamaForCausalLM:
        torch.manual_seed(0)
        settings = {
            "vocab_size": 96,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
        config = LlamaConfig(num_hidden_layers=num_layers, tie_word_embeddings=tied, **(settings | changes))
        with torch.device(device):
            return LlamaForCausalLM(config)

    return make


@pytest.fixture(scope="session")
def facts_of() -> Callable[..., ModelFacts]:
    """`facts_of(model)`: what a plan has to know of it."""
    return lambda model: model_facts(find_parts(model))


@pytest.fixture(scope="session")
def that_train() -> Callable[[nn.Module], set[str]]:
    """`that_train(model)`: names of the parameters that require a gradient."""
    return lambda model: {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(scope="session")
def report_of() -> Callable[..., LayerTracerReport]:
    """`report_of(model, sensitivity=..., block_influence=..., task_particle=..., stderr=...)`: an invented diagnosis."""
    return _report_of


def _report_of(
    model: nn.Module | ModelFacts,
    sensitivity: Sequence[float] | None = None,
    block_influence: Sequence[float] | None = None,
    task_particle: float | None = 2.0,
    stderr: float = 0.01,
) -> LayerTracerReport:
    facts = model if isinstance(model, ModelFacts) else model_facts(find_parts(model))
    layers = facts.num_layers
    falling = [0.9 - 0.8 * layer / layers for layer in range(layers)]
    found = task_particle is not None
    task_particle = min(task_particle, layers - 1) if found else None
    return LayerTracerReport.model_validate(
        {
            "created": "2026-01-02T03:04:05+00:00",
            "versions": {},
            "model": facts.model_dump(),
            "config": {},
            "probes": {
                "count": 1,
                "sha256": "0",
                "tasks": {"task": 1},
                "accuracy": 1.0,
                "mean_log_probability": -0.1,
                "accuracy_by_task": {"task": 1.0},
                "items": [
                    {"prompt": "a", "target": "b", "task": "task", "tokens": 1, "probability": 0.9, "correct": True}
                ],
            },
            "lens": {"valid": False, "reason": "invented"},
            "task_particle": {
                "layer": task_particle,
                "quartiles": (task_particle, task_particle) if found else None,
                "interval": (task_particle, task_particle) if found else None,
                "mean_curve_layer": None,
                "unresolved": 0 if found else 1,
                "per_probe": [int(task_particle) if found else None],
                "by_task": {},
            },
            "sensitivity": {
                "estimate": False,
                "mean": list(sensitivity if sensitivity is not None else falling),
                "stderr": [stderr] * layers,
                "vulnerable_layer": 0,
                "contenders": [0],
                "shallow_minus_deep": 0.4,
                "shallow_minus_deep_stderr": stderr,
                "rank_stability": None,
                "by_task": {},
                "draws": 1,
                "repeats": 1,
                "path": "replay",
            },
            "block_influence": list(block_influence if block_influence is not None else falling),
        }
    )
