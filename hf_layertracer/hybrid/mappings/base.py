"""What a mapping from one class to another consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ...errors import LayerTracerError
from ..recipe import MixerKind
from ..safetensors_io import NewTensor, StoredTensor


LAYERS = "model.layers."
# What configurations of this shape say alike.
COMMON_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_dropout",
    "dtype",
)


@dataclass(frozen=True)
class MixerInputs:
    """What a new mixer can be made of.

    Args:
        fresh (`dict[str, Tensor]`): The mixer as its class begins, by parameter names.
        attention (`dict[str, Tensor]`): The attention's weights in the donor's own form, in float32.
        scale (`Tensor`): What to multiply each head's output with, of shape `(heads,)`.
        mean_input (`Tensor`): Mean of what went into the attention, of shape `(hidden_size,)`.
        heads (`int`): Query heads.
        groups (`int`): Query heads to each key-value head.
    """

    fresh: dict[str, Tensor]
    attention: dict[str, Tensor]
    scale: Tensor
    mean_input: Tensor
    heads: int
    groups: int


@dataclass(frozen=True)
class NewMixer:
    """A kind of mixer in a class.

    Args:
        name (`str`): Its name inside a layer.
        init (`Callable`): From [`MixerInputs`] to its weights, by parameter names.
    """

    name: str
    init: Callable[[MixerInputs], dict[str, Tensor]]


@dataclass(frozen=True)
class Mapping:
    """How models of some classes are said in another class that also knows other mixers.

    Args:
        donors (`tuple[str, ...]`): Model types that can be said in the other class.
        mixers (`dict[str, NewMixer]`): The mixers that the other class knows, by kind.
        config (`Callable`): From a donor's configuration and the kinds of new mixers by layer to the other class's.
        layer (`Callable`): From one layer's stored tensors, data type and configuration to the other class's tensors.
        outside (`Callable`): From one tensor outside the layers and the data type to the other class's.
        sizes (`dict[str, int]`): Fields that do not touch the mixer, small: to make one at its own size alone.
        code (`tuple[Path, ...]`, *optional*): Files that are written beside the weights, where the class is ours.
    """

    donors: tuple[str, ...]
    mixers: dict[MixerKind, NewMixer]
    config: Callable[[PreTrainedConfig, dict[int, MixerKind]], PreTrainedConfig]
    layer: Callable[[dict[str, StoredTensor], torch.dtype, PreTrainedConfig], Iterator[NewTensor]]
    outside: Callable[[StoredTensor, torch.dtype], NewTensor]
    sizes: dict[str, int] = field(default_factory=dict)
    code: tuple[Path, ...] = ()

    attention = "self_attn"


def copied(name: str, stored: StoredTensor, dtype: torch.dtype) -> NewTensor:
    """A tensor taken over as it is."""
    return NewTensor.copy(name, stored, dtype)


def made(name: str, shape: tuple[int, ...], dtype: torch.dtype, sources: tuple[StoredTensor, ...], make) -> NewTensor:
    """A tensor computed from stored ones that are in the hybrid's data type already when `make` gets them."""
    return NewTensor(name, dtype, shape, sources, lambda *tensors: make(*(tensor.to(dtype) for tensor in tensors)))


def common_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """What a configuration says that the other class says alike."""
    return {name: getattr(config, name) for name in COMMON_FIELDS}


def kinds_by_layer(depth: int, replaced: dict[int, MixerKind]) -> list[str]:
    """`layer_types`, as classes with two kinds of mixers name them."""
    return ["linear_attention" if index in replaced else "full_attention" for index in range(depth)]


def canonical(name: str) -> str:
    """A tensor outside the layers under the name that classes of this shape give it."""
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def refuse_unknown(tensors: dict[str, StoredTensor], known: set[str]) -> None:
    """Fails for a tensor that a mapping has no place for.

    Args:
        tensors (`dict[str, StoredTensor]`): One layer's.
        known (`set[str]`): Names that have a place.

    Raises:
        LayerTracerError: There is one.
    """
    for name, tensor in tensors.items():
        if name not in known:
            raise LayerTracerError(
                f"{tensor.name} has no place in the other class; {name} was not expected in a layer."
            )


def weights_of(*modules: str) -> set[str]:
    """The weight of each module."""
    return {f"{name}.weight" for name in modules}


def biases_of(*modules: str) -> set[str]:
    """The bias of each module."""
    return {f"{name}.bias" for name in modules}
