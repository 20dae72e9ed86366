"""How many rows of a batch fit into a memory budget."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from torch import nn

from ..config import DiagnosisConfig
from ..distributed import smallest
from ..errors import LayerTracerError
from .replay import CleanRun


GIB = 1 << 30
# Beyond this many tokens a forward pass is bound by arithmetic: larger batches use memory and gain nothing. A CPU gets
# there sooner, and smaller batches stay in its cache.
_TOKENS_PER_PASS = {"cpu": 1024}
_TOKENS_PER_PASS_ACCELERATOR = 16384


@dataclass(frozen=True)
class BatchPlan:
    """How the diagnosis is cut into forward passes.

    Args:
        budget (`int`): Bytes that may be used beyond the model.
        bytes_per_token (`int`): Bytes of activations that one token of a running batch needs at most.
        bytes_per_row (`int`): Bytes of logits that one row needs.
        state_bytes_per_token (`int`): Bytes of hidden states that one token of a clean run leaves behind.
        tokens_per_pass (`int`): Tokens beyond which a larger batch gains no speed.
    """

    budget: int
    bytes_per_token: int
    bytes_per_row: int
    state_bytes_per_token: int
    tokens_per_pass: int

    def probes(self, length: int) -> int:
        """The most probes of `length` tokens in one clean run, at least 1."""
        cost = length * (self.state_bytes_per_token + self.bytes_per_token) + self.bytes_per_row
        return max(1, min(self.budget // 2 // cost, self.tokens_per_pass // length))

    def rows(self, length: int) -> int:
        """The most disturbed rows of `length` tokens in one forward pass, at least 1."""
        cost = length * self.bytes_per_token + self.bytes_per_row
        return max(1, min(self.budget // 2 // cost, self.tokens_per_pass // length))


def plan_batches(model: nn.Module, sample: CleanRun, config: DiagnosisConfig) -> BatchPlan:
    """Derives batch sizes from the memory budget and from the shapes of one clean run.

    Args:
        model (`nn.Module`): The model that is diagnosed.
        sample ([`CleanRun`]): A clean run over one probe.
        config ([`DiagnosisConfig`]): Holds the budget, if the user sets one.

    Returns:
        [`BatchPlan`]: Batch sizes for prompts of any length.

    Raises:
        LayerTracerError: Not even one probe at a time fits the budget that the user set.
    """
    device = sample.logits.device
    tokens = sample.input_ids.numel()
    state_bytes = sum(state.nbytes for state in sample.states) // tokens
    element = sample.states[0].element_size()
    widest = max(
        (m.weight.shape[0] for m in model.modules() if isinstance(m, nn.Linear) and m.weight.ndim == 2), default=1
    )
    vocabulary = sample.logits.shape[-1]
    hidden = state_bytes // (len(sample.states) * element)
    # Of a layer's temporaries, some four of the width of the widest projection inside a layer and eight of the hidden
    # width live at once; the head is counted per row, as it runs at one position.
    inner = min(widest, 8 * hidden)
    bytes_per_token = (4 * inner + 8 * hidden) * element
    # log p, log q, log m, their exponentials and products, in float32.
    bytes_per_row = 8 * vocabulary * 4
    budget = config.memory_budget or default_budget(device)
    smallest = tokens * (state_bytes + bytes_per_token) + bytes_per_row
    if config.memory_budget is not None and smallest > config.memory_budget:
        raise LayerTracerError(
            f"memory_budget={config.memory_budget} is too small: one probe of {tokens} tokens needs about {smallest} bytes."
        )
    per_pass = _TOKENS_PER_PASS.get(device.type, _TOKENS_PER_PASS_ACCELERATOR)
    return BatchPlan(budget, bytes_per_token, bytes_per_row, state_bytes, per_pass)


def default_budget(device: torch.device) -> int:
    """Half of the memory that is free on `device`, at most 4 GiB.

    In a distributed run every process has to make the same forward passes, so the smallest budget holds for all.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return smallest(min(free // 2, 4 * GIB), device)
