"""Tiny random models, and reports of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import made_reports
from support.models import tiny_model
from torch import nn
from transformers import PreTrainedModel

from hf_layertracer.modeling import find_parts
from hf_layertracer.modeling.facts import model_facts
from hf_layertracer.records import ModelFacts
from hf_layertracer.report import LayerTracerReport


LLAMA = {"vocab_size": 96, "intermediate_size": 64, "initializer_range": 0.02}


@pytest.fixture(scope="session")
def llama() -> Callable[..., PreTrainedModel]:
    """`llama(num_layers=4, tied=False, device="cpu", **config)`: a random Llama of 9 thousand parameters a layer."""

    def make(num_layers: int = 4, tied: bool = False, **changes: Any) -> PreTrainedModel:
        settings = {"num_hidden_layers": num_layers, "tie_word_embeddings": tied} | LLAMA | changes
        return tiny_model(scatter=False, **settings)

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

    def make(model: nn.Module | ModelFacts, **measured: Any) -> LayerTracerReport:
        facts = model if isinstance(model, ModelFacts) else model_facts(find_parts(model))
        return made_reports.report_of(facts, **measured)

    return make
