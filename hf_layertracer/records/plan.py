"""A plan: which layers train, and what that saves."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from .base import Count, Real, Record


class Savings(Record):
    """What a plan saves against training every parameter that could be trained.

    FLOPs are those of matrix products with parameters (2 per parameter and token forwards, 2 for the gradient of the
    input, 2 for that of the weight); attention scores, norms and the embedding look-up are left out, and so is what lies
    outside the text decoder. All experts of a layer count, though a token goes to few.

    Args:
        trainable_parameters, trainable_parameters_full (`int`): Parameters that train.
        total_parameters (`int`): All parameters.
        optimizer_bytes, optimizer_bytes_full (`int`): Adam's two moments in float32.
        gradient_bytes, gradient_bytes_full (`int`): Gradients in the parameters' data type.
        flops_per_token, flops_per_token_full (`int`): Of one training step, forward and backward.
    """

    trainable_parameters: Count
    trainable_parameters_full: Count
    total_parameters: Count
    optimizer_bytes: Count
    optimizer_bytes_full: Count
    gradient_bytes: Count
    gradient_bytes_full: Count
    flops_per_token: Count
    flops_per_token_full: Count


class LayerPlan(Record):
    """For every layer, train or freeze; likewise for embeddings, final norm and head.

    Args:
        strategy (`str`): Name of the strategy that made it.
        options (`dict[str, Any]`): The strategy's options.
        num_layers (`int`): Number of decoder layers of the model it is for.
        layers_path (`str`): Dotted path of their list in that model.
        trained_layers, frozen_layers (`list[int]`): Sorted layer indices; together they are all layers.
        train_embeddings, train_norm, train_head (`bool`): The parts outside the layers.
        patterns (`list[str]`):
            Regular expressions on parameter names. If there are any, only parameters that match one train; outside the
            layers too, unless an option asks for the whole part.
        reason (`str`): Why, in words.
        savings ([`Savings`]): What it saves.

    Example:

    ```python
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from hf_layertracer import make_plan
    >>> config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    >>> model = LlamaForCausalLM(config)
    >>> plan = make_plan(model, "freeze-shallow")
    >>> plan.trained_layers, plan.frozen_layers, plan.train_head
    ([2, 3], [0, 1], True)
    ```
    """

    strategy: str
    options: dict[str, Any] = {}
    num_layers: Annotated[int, Field(ge=1)]
    layers_path: str
    trained_layers: list[Count]
    frozen_layers: list[Count]
    train_embeddings: bool
    train_norm: bool
    train_head: bool
    patterns: list[str] = []
    reason: str
    savings: Savings

    @model_validator(mode="after")
    def _layers_are_complete(self) -> LayerPlan:
        if sorted(self.trained_layers + self.frozen_layers) != list(range(self.num_layers)):
            raise ValueError(f"trained and frozen layers are not the {self.num_layers} layers of the model, each once")
        return self


class PlanRecord(Record):
    """A plan and when it came into force.

    Args:
        step (`int`): The optimizer step from which it holds.
        plan ([`LayerPlan`]): The plan.
        seen (`list[float | None]`):
            What the strategy chose it by, one value a layer: norms of gradients, or sensitivity. Empty where it looked at
            nothing. Of the first plan, the sensitivity that is compared with later, on the probes that are measured again.
    """

    step: Count
    plan: LayerPlan
    seen: list[Real | None] = []
