"""A limit on memory, compared with what a step of the run takes."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, TrainingArguments

from ..planning.fitting import MemoryOfPlans
from ..records import LayerPlan
from .estimate import RunEstimator, proposal, with_margin


# Of a plan, all that says what trains: with patterns, the options do so too, for what the user asked for trains in full.
_WHAT_TRAINS = {"trained_layers", "train_embeddings", "train_norm", "train_head", "patterns", "options"}


def traced_memory(
    model: nn.Module | PreTrainedConfig | str, args: TrainingArguments | None = None, **options: Any
) -> MemoryOfPlans:
    """What plans take in a run, by [`estimate_training`]: for `make_plan(..., max_memory=..., memory=...)`.

    Each plan that is asked about is traced once, which takes seconds for a deep model.

    Args:
        model (`nn.Module`, `PreTrainedConfig` or `str`): As for [`estimate_training`].
        args (`TrainingArguments`, *optional*): The run's; transformers' defaults otherwise.
        options: Its other arguments, such as `sequence_length=1024`.

    Returns:
        [`~hf_layertracer.planning.fitting.MemoryOfPlans`]: The fullest moment of a step, with a tenth on top.

    Raises:
        LayerTracerError: A step of the model cannot be traced, or an option cannot be used.

    Example:

    ```python
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from hf_layertracer import make_plan
    >>> from hf_layertracer.estimate import traced_memory
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> memory = traced_memory(config, sequence_length=32)
    >>> make_plan(LlamaForCausalLM(config), "freeze-deep", max_memory="1GB", memory=memory).trained_layers
    [0, 1]
    ```
    """
    run = RunEstimator(model, args, **options)
    whole = run.estimate(None)
    known: dict[str, int] = {}

    def takes(plan: LayerPlan) -> int:
        if plan.savings.trainable_parameters == 0:  # such a step has no backward pass
            return with_margin(whole.weights_bytes)
        key = plan.model_dump_json(include=_WHAT_TRAINS)
        if key not in known:
            known[key] = with_margin(run.estimate(plan).total_bytes)
        return known[key]

    def proposed(plan: LayerPlan, limit: int) -> str | None:
        return proposal(run.args, lambda smaller: with_margin(run.estimate(plan, smaller).total_bytes) <= limit)

    said = whole.assumptions
    shape = f"{said['batch_size']} x {said['sequence_length']} tokens, {said['optimizer']}"
    what = f"memory at the fullest moment of a step, a tenth on top (traced: {shape})"
    return MemoryOfPlans(takes, what, proposed, whole.weights_bytes)
