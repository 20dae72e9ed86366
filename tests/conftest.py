"""Tiny models, a tokenizer trained in memory, a Hub on loopback and a slow float64 reference."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import support.hub_environment as hub_environment  # before anything that imports huggingface_hub
import torch
import transformers
from huggingface_hub.constants import HF_HUB_CACHE
from hypothesis import settings
from support import reference as slow_reference
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from hf_layertracer.probes import Probe


if TYPE_CHECKING:
    from support.hub_server import Hub


# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

VOCABULARY = 320
# Small enough that hundreds of forward passes take a second; an initialisation wide enough that layers matter.
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.25,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# What makes each of them worth a test stands behind it.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "GPT2": {"n_layer": 4, "n_embd": 32, "n_head": 4, "n_positions": 64},  # learned positions, Conv1D, tied head
    "Gemma2": {"head_dim": 8, "sliding_window": 3, "final_logit_softcapping": 5.0},  # soft cap, two kinds of mask
    "Cohere": {"logit_scale": 0.25},  # scaled logits, parallel block
    "Granite": {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},  # divided logits
    "Qwen3": {"head_dim": 8},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},  # positions from the mask, layers below model.decoder
    "Mixtral": {"num_local_experts": 4},  # a router inside the layer
    "Mamba": {"state_size": 4},  # no attention at all
}
SENTENCES = [
    "The capital city of France is Paris.",
    "Rome is the capital city of Italy, and Berlin is the capital of Germany.",
    "One, two, three, four, five, six, seven, eight.",
    "A cat is an animal, and a rose is a flower; what is the thing called?",
    "def add(a, b):\n    return a + b\n",
    "中国的首都是北京。",
]


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable_progress_bar()
    # transformers' loggers keep their records from pytest's, and the command line turns them down.
    logging.set_verbosity_warning()
    logging.enable_propagation()
    with warnings.catch_warnings():
        yield
    logging.enable_progress_bar()


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
    return _make_model


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., PreTrainedModel]:
    """`tiny_llama(**config_changes)`: a fresh `LlamaForCausalLM` each time."""
    return lambda **changes: _make_model("Llama", **changes)


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny model of each architecture in turn."""
    return _make_model(request.param)


@pytest.fixture(params=["returned", "kept"])
def state_passing_model(request: pytest.FixtureRequest) -> nn.Module:
    """A plain module whose layers hand on more than the hidden state: as a return value, or behind its back."""
    torch.manual_seed(0)
    return _StatePassing(returned=request.param == "returned").eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that adds no special tokens."""
    return _make_tokenizer()


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer(template="<s> $A </s>")`: the same with special tokens around each text."""
    return _make_tokenizer


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


def _make_model(name: str, **changes: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")(**{**COMMON, **ARCHITECTURES.get(name, {}), **changes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if hasattr(config, "num_local_experts"):
        model.set_experts_implementation("eager")  # the grouped one knows no float64, which the reference needs
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        # Norm weights of exactly 1 and biases of exactly 0 would hide a norm or bias that is left out.
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


class _StatePassing(nn.Module):
    class Layer(nn.Module):
        def __init__(self, owner: _StatePassing, index: int):
            super().__init__()
            self.mix, self.index, self.memory, self.returned = nn.Linear(16, 16), index, owner.memory, owner.returned

        def forward(self, hidden_states: Tensor, carried: Tensor | None = None) -> Any:
            carried = carried if self.returned else self.memory.get("carried")
            if self.index == 0:
                carried = hidden_states.cumsum(1)
            hidden_states = hidden_states + torch.tanh(self.mix(hidden_states + carried))
            if self.returned:
                return hidden_states, carried
            self.memory["carried"] = carried
            return hidden_states

    def __init__(self, returned: bool):
        super().__init__()
        self.returned, self.memory = returned, {}
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.layers = nn.ModuleList(self.Layer(self, index) for index in range(3))
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        hidden, carried = self.embed(input_ids), None
        for layer in self.layers:
            output = layer(hidden, carried)
            hidden, carried = output if self.returned else (output, None)
        return SimpleNamespace(logits=self.head(hidden))


def _make_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<pad>", "<s>", "</s>", "<|answer|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    if template is not None:
        ids = [(token, tokenizer.token_to_id(token)) for token in specials]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|answer|>"],
    )
