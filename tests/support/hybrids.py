"""Which donors become which hybrids, and what the tests of all of them share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel


REPLACED = [1, 2]
DONORS = {
    "Llama": "mamba2",
    "Mistral": "mamba2",
    "Qwen2": "mamba2",
    "Granite": "mamba2",
    "Qwen3": "gated_deltanet",
}
CLASSES = {"mamba2": "GraniteMoeHybridForCausalLM", "gated_deltanet": "Qwen3_5ForCausalLM"}
# What only our class can hold; the last one has both kinds.
REMOTE = {
    "Llama": ("gated_deltanet", "gated_deltanet"),
    "Qwen3": ("mamba2", "mamba2"),
    "Qwen2": ("mamba2", "gated_deltanet"),
}
OURS = "LayerTracerHybridForCausalLM"


def load_model(folder: Path | str) -> PreTrainedModel:
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def tokens(rows: int = 1, length: int = 9) -> Tensor:
    return torch.randint(5, 300, (rows, length), generator=torch.Generator().manual_seed(3))
