"""What a plan has to know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from .base import Count, Record


Value = TypeVar("Value")
# Where PEFT keeps what it put an adapter around.
_WRAPPED = (".base_layer.", ".original_module.")
_MOST_PARAMETERS = 10**16


class LayerFacts(Record):
    """What one decoder layer is made of.

    Args:
        kind (`str`):
            `"full_attention"`, `"linear_attention"`, `"mamba"`, ...: from the config, else from the classes inside the
            layer; with `"+moe"` behind it where the layer routes to experts.
        parameters (`dict[str, int]`): Number of elements of each parameter, by its name inside the layer.
        frozen (`list[str]`): Those that did not require a gradient before any plan.
    """

    kind: str
    parameters: dict[str, Count]
    frozen: list[str] = []

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(self.parameters.values())


class ModelFacts(Record):
    """What a plan has to know of a model, so that none has to be loaded to make one.

    Args:
        id (`str`, *optional*): Hub id, or the name of a local folder.
        revision (`str`, *optional*): Commit on the Hub.
        architecture (`str`): Class of the model.
        model_type (`str`, *optional*): transformers' model type.
        dtype (`str`): Data type of the parameters.
        layers_path (`str`): Dotted path of the list of decoder layers.
        layers (`list[LayerFacts]`): The decoder layers.
        embeddings, norm, head, other (`dict[str, int]`):
            Number of elements of each parameter outside the layers, by its full name; `other` holds what lies outside
            the text decoder and is never frozen or unfrozen.
        tied (`bool`): Whether embeddings and head share their matrix, which then stands in `embeddings`.
        shared (`dict[str, list[int]]`):
            Parameters that stand in several layers, by full name with the indices of these layers. They are counted in
            the first.
        frozen (`list[str]`): Parameters outside the layers that did not require a gradient before any plan.
        element_bytes (`dict[str, float]`):
            Bytes of one element of each parameter, by full name, where they differ; none in reports of earlier versions.
        hidden_size (`int`, *optional*): Width of the hidden state; `None` in reports of earlier versions.
        shapes_sha256 (`str`, *optional*): Hash of the shapes of all weights in layers and final norm, adapters apart.
    """

    id: str | None = None
    revision: str | None = None
    architecture: str
    model_type: str | None = None
    dtype: str
    layers_path: str
    layers: Annotated[list[LayerFacts], Field(min_length=1)]
    embeddings: dict[str, Count]
    norm: dict[str, Count]
    head: dict[str, Count]
    other: dict[str, Count] = {}
    tied: bool
    shared: dict[str, list[Count]] = {}
    frozen: list[str] = []
    element_bytes: dict[str, Annotated[float, Field(gt=0, le=16)]] = {}
    hidden_size: Count | None = None
    shapes_sha256: str | None = None

    @model_validator(mode="after")
    def _has_a_possible_size(self) -> ModelFacts:
        if self.size > _MOST_PARAMETERS:  # costs are multiples of it and have to stay integers of 64 bits
            raise ValueError(f"no model has {self.size:.1e} parameters")
        return self

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def name(self) -> str:
        """The id, or the class where there is none."""
        return self.id or self.architecture

    @property
    def has_experts(self) -> bool:
        """Whether layers route to experts."""
        return any(layer.kind.endswith("moe") for layer in self.layers)

    @property
    def counted(self) -> str:
        """What FLOPs of a plan count, where that is not what a token goes through: to be added to their label."""
        # An encoder reads other tokens than those that are counted, a vision tower none.
        parts = {"text decoder alone": bool(self.other), "all experts": self.has_experts}
        return "".join(f", {part}" for part, is_so in parts.items() if is_so)

    @property
    def size(self) -> int:
        """Number of parameters."""
        outside = (self.embeddings, self.norm, self.head, self.other)
        return sum(sum(group.values()) for group in outside) + sum(layer.size for layer in self.layers)

    def base_sizes(self) -> list[int]:
        """Parameters of each layer, without those of adapters."""
        return [sum(base_parameters(layer.parameters).values()) for layer in self.layers]


def base_parameters(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """The parameters of a model below its adapters, by the names that they have without.

    Args:
        parameters (`Mapping[str, Any]`): Anything by name of the parameter.

    Returns:
        `dict[str, Any]`: The same without the adapters' own.

    Example:

    ```python
    >>> from hf_layertracer.records.model import base_parameters
    >>> base_parameters({"q.base_layer.weight": 4, "q.lora_A.default.weight": 1, "norm.weight": 2})
    {'q.weight': 4, 'norm.weight': 2}

    ```
    """
    around = {f"{name.split(mark)[0]}." for name in parameters for mark in _WRAPPED if mark in name}
    found = {}
    for name, value in parameters.items():
        mark = next((mark for mark in _WRAPPED if mark in name), None)
        if mark is not None:
            found[name.replace(mark, ".")] = value
        elif not name.startswith(tuple(around)):
            found[name] = value
    return found
