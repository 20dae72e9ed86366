"""Tiny random models: the one place that makes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


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
# For tests that train: the initialisation is the usual one, and dropout shows in the weights if a random state was lost.
TRAINED = {
    "vocab_size": 80,
    "max_position_embeddings": 128,
    "initializer_range": 0.02,
    "attention_dropout": 0.1,
    "bos_token_id": None,
}


def tiny_config(architecture: str = "Llama", **changes: Any) -> PreTrainedConfig:
    """A configuration of four layers and a width of 32; `changes` replace its fields."""
    cls = getattr(transformers, f"{architecture}Config")
    return cls(**{**COMMON, **ARCHITECTURES.get(architecture, {}), **changes})


def tiny_model(
    architecture: str = "Llama", *, seed: int = 0, scatter: bool = True, device: str = "cpu", **changes: Any
) -> PreTrainedModel:
    """A seeded model in float32 and evaluation mode; the random state stays as it is.

    Args:
        architecture: One of `ARCHITECTURES`, or any other prefix of a configuration's name.
        seed: Of its weights.
        scatter: Move norm weights from 1 and biases from 0, where they would hide one that is left out.
        device: Where it is made.
        changes: Fields of its configuration.
    """
    config = tiny_config(architecture, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if hasattr(config, "num_local_experts"):
        model.set_experts_implementation("eager")  # the grouped one knows no float64, which the reference needs
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in model.parameters() if scatter else ():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


class StatePassing(nn.Module):
    """A plain module whose layers hand on more than the hidden state: as a return value, or behind its back."""

    class Layer(nn.Module):
        def __init__(self, owner: StatePassing, index: int):
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
