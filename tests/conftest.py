"""What all tests share: tiny models, tokenizers, a Hub on loopback and a slow float64 reference."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch


os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for one another take longer than these models

import pytest
import support.hub_environment as hub_environment  # before anything that imports huggingface_hub
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from hypothesis import settings
from matplotlib.figure import Figure
from support import models, tokenizers
from support import reference as slow_reference
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from hf_layertracer.probes import Probe
from hf_layertracer.report.figure import draw_report


if TYPE_CHECKING:
    from support.hub_server import Hub


# How long an example takes says something of the machine, and nothing of the code. By default the same examples are tried
# on every machine, so that a commit that passes here passes there; `--hypothesis-profile explore` looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=3000)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    # transformers' loggers keep their records from pytest's, and the command line turns them down.
    logging.set_verbosity_warning()
    logging.enable_propagation()
    # It also says so in the environment, for its own process, and not for those that later tests start.
    with warnings.catch_warnings(), patch.dict(os.environ):
        yield
    logging.enable_progress_bar()


@pytest.fixture(scope="session", autouse=True)
def _plain_picture() -> Iterator[pytest.MonkeyPatch]:
    """A report's picture takes a second to draw: an empty one will do where it is not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_layertracer.report.figure.draw_report", lambda report: Figure((1, 1)))
        yield patch


@pytest.fixture
def real_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that wants the picture as it is."""
    monkeypatch.setattr("hf_layertracer.report.figure.draw_report", draw_report)


@pytest.fixture(scope="session")
def _running_hub() -> Iterator[Hub]:
    import huggingface_hub
    from support.hub_server import Hub

    assert huggingface_hub.constants.ENDPOINT == hub_environment.URL, "huggingface_hub was imported too early"
    server = Hub()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def hub(_running_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub on loopback, and a client logged in as alice, who may write to `alice/...` and `lab/...`.

    huggingface_hub, transformers and datasets speak to it without further ado, in this process and in those that a test
    starts, as `HF_ENDPOINT` was set before they were imported (`hub_environment.py`). Look into it with
    `hub.repo("alice/model").files` and `hub.repo("alice/reports", "dataset").commits()`, let it fail with `hub.fail(...)`,
    become somebody else with `monkeypatch.setenv("HF_TOKEN", hub.other_token)`.
    """
    _running_hub.reset()
    monkeypatch.setenv("HF_TOKEN", _running_hub.token)
    yield _running_hub
    _running_hub.reset()
    shutil.rmtree(HF_HUB_CACHE, ignore_errors=True)  # the next Hub may have other repositories of the same names


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """`make_model("GPT2", **config_changes)`: a tiny seeded model in float32 and evaluation mode."""
    return models.tiny_model


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., PreTrainedModel]:
    """`tiny_llama(**config_changes)`: a fresh `LlamaForCausalLM` each time."""
    return partial(models.tiny_model, "Llama")


@pytest.fixture(params=models.ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny model of each architecture in turn."""
    return models.tiny_model(request.param)


@pytest.fixture(params=["returned", "kept"])
def state_passing_model(request: pytest.FixtureRequest) -> nn.Module:
    """A plain module whose layers hand on more than the hidden state: as a return value, or behind its back."""
    torch.manual_seed(0)
    return models.StatePassing(returned=request.param == "returned").eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that adds no special tokens."""
    return tokenizers.byte_level()


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer(template="<s> $A </s>")`: the same with special tokens around each text."""
    return tokenizers.byte_level


@pytest.fixture(scope="session")
def token_probes() -> list[Probe]:
    """Probes of three lengths and two tasks, as token ids."""
    prompts = [(5, 80, 31, 7, 200, 9), (14, 3, 77, 60), (90, 91, 92, 93, 5, 6), (300, 12, 4, 17), (33, 34)]
    return [Probe(prompt, 10 + 7 * i, "even" if i % 2 == 0 else "odd") for i, prompt in enumerate(prompts)]


@pytest.fixture(scope="session")
def reference() -> SimpleNamespace:
    """`.run`, `.jensen_shannon` and `.sensitivity`: one prompt, one layer, one draw and one whole pass at a time."""
    return SimpleNamespace(
        run=slow_reference.whole_pass, jensen_shannon=slow_reference.divergence, sensitivity=slow_reference.sensitivity
    )
