"""How many rows of a batch fit into a memory budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..config import DiagnosisConfig
from ..distributed import largest, smallest
from ..errors import LayerTracerError
from ..modeling.accounting import peak_bytes
from ..modeling.devices import free_bytes
from ..modeling.weights import can_be_watched
from .clean_run import CleanRun
from .layer_stack import LayerStack


GIB = 1 << 30
# Beyond this many tokens a forward pass is bound by arithmetic: larger batches use memory and gain nothing. A CPU gets
# there sooner, and smaller batches stay in its cache.
_TOKENS_PER_PASS = {"cpu": 1024}
_TOKENS_PER_PASS_ACCELERATOR = 16384
# Where the bytes of a pass cannot be counted: what a layer with a wide feed-forward part holds at once, in hidden states.
_STATES_RUNNING = 24


@dataclass(frozen=True)
class BatchPlan:
    """How the diagnosis is cut into forward passes.

    Args:
        budget (`int`): Bytes that may be used beyond the model.
        bytes_per_token (`int`): Bytes that one token of a running batch needs at most.
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
        # The states of two runs, where the clean one is compared with another that is perturbed in its embeddings.
        cost = length * (2 * self.state_bytes_per_token + self.bytes_per_token) + self.bytes_per_row
        return max(1, min(self.budget // 2 // cost, self.tokens_per_pass // length))

    def rows(self, length: int) -> int:
        """The most perturbed rows of `length` tokens in one forward pass, at least 1."""
        cost = length * self.bytes_per_token + self.bytes_per_row
        return max(1, min(self.budget // 2 // cost, self.tokens_per_pass // length))


def plan_batches(stack: LayerStack, sample: CleanRun, config: DiagnosisConfig) -> BatchPlan:
    """Derives batch sizes from the memory budget and from what passes over one probe are seen to need.

    Args:
        stack ([`LayerStack`]): The layers of the model that is diagnosed.
        sample ([`CleanRun`]): A clean run over the longest probe alone.
        config ([`DiagnosisConfig`]): Holds the budget, if the user sets one.

    Returns:
        [`BatchPlan`]: Batch sizes for prompts of any length up to that of the sample.

    Raises:
        LayerTracerError: Not even one probe at a time fits the budget that the user set.
    """
    device = sample.logits.device
    tokens = sample.input_ids.numel()
    states = sum(state.nbytes for state in sample.states)
    if can_be_watched(stack.model):
        running = largest(peak_bytes(lambda: stack.run(sample.input_ids, sample.layout)) - states, device)
    else:
        running = _STATES_RUNNING * max(state.nbytes for state in sample.states)
    # Beside what runs: the states that answer for layers, the same perturbed, and in one batch.
    answers = 3 * max(state.nbytes for state in sample.states)
    # log p, log q, log m, their exponentials and products, in float64.
    row = 8 * sample.logits.shape[-1] * 8
    budget = config.memory_budget or default_budget(device)
    needed = 2 * states + running + answers + row
    if config.memory_budget is not None and needed > config.memory_budget:
        raise LayerTracerError(
            f"memory_budget={config.memory_budget} is too small: one probe of {tokens} tokens needs about {needed} bytes."
        )
    per_pass = _TOKENS_PER_PASS.get(device.type, _TOKENS_PER_PASS_ACCELERATOR)
    per_token = [-(-total // tokens) for total in (running + answers, states)]
    return BatchPlan(budget, per_token[0], row, per_token[1], per_pass)


def default_budget(device: torch.device) -> int:
    """Half of the memory that is free on `device`, at most 4 GiB.

    In a distributed run every process has to make the same forward passes, so the smallest budget holds for all.
    """
    return smallest(min(free_bytes(device) // 2, 4 * GIB), device)
