"""What the output of the frozen layers at the bottom depends on, as hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ..errors import LayerTracerError
from ..modeling import HEAD, NORM, ModelParts


# What the layers do not see of a batch.
_APART = ("labels", "num_items_in_batch", "return_dict", "use_cache", "logits_to_keep")
# A model that is asked for these hands on what each of its layers computes.
_ASKED = ("output_hidden_states", "output_attentions", "output_router_logits")


def weights_below(model: nn.Module, parts: ModelParts, depth: int) -> list[Tensor]:
    """All weights and buffers but those of the layers from some depth on, of the final norm and of the head.

    Args:
        model (`nn.Module`): The model with the wrappers that hold parameters of their own.
        parts ([`ModelParts`]): Its layers.
        depth (`int`): The first layer that trains.

    Returns:
        `list[Tensor]`: The tensors.

    Raises:
        LayerTracerError: Nothing is frozen below what trains, or frozen layers do more than hand on a hidden state.
    """
    if depth == 0:
        raise LayerTracerError(
            "prefix_cache keeps the output of layers that are frozen with all below them, and there are none. It is for "
            "strategies such as 'freeze-shallow' and for adapters on deep layers."
        )
    layers = parts.layers[:depth]
    modules = [module for layer in layers for module in layer.modules()]
    if any(hasattr(module, "active_adapters") and hasattr(module, "set_adapter") for module in modules):
        raise LayerTracerError(
            "prefix_cache is not for adapters in frozen layers, which PEFT may switch off and on: put them on the layers "
            f"that train, LoraConfig(layers_to_transform=range({depth}, {parts.num_layers}))."
        )
    config = getattr(parts.model, "config", None)
    asked = [name for name in _ASKED if getattr(config, name, False)]
    if asked or len(set(parts.layers)) < parts.num_layers:
        what = f"{asked[0]}=True asks for what each layer computes" if asked else "layers of this model are used twice"
        raise LayerTracerError(f"prefix_cache cannot be used: {what}.")
    above = {
        name for name, owners in parts.owners.items() if not owners - {NORM, HEAD, *range(depth, parts.num_layers)}
    }
    apart = {id(parameter) for name, parameter in parts.model.named_parameters() if name in above}
    apart |= {id(buffer) for layer in parts.layers[depth:] for buffer in layer.buffers()}
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in apart]


def space_of(parts: ModelParts, depth: int, below: list[Tensor], precision: str) -> str:
    """A hash of frozen layers and of how they are run.

    Args:
        parts ([`ModelParts`]): The model.
        depth (`int`): How many layers are frozen.
        below (`list[Tensor]`): As [`weights_below`] gives them.
        precision (`str`): Mixed precision, as accelerate names it.

    Returns:
        `str`: A hexadecimal number.
    """
    config = getattr(parts.model, "config", None)
    run = {
        "versions": (torch.__version__, transformers.__version__),
        "model": (type(parts.model).__name__, parts.layers_path, depth),
        "config": config.to_dict() if config is not None else None,
        "attention": getattr(config, "_attn_implementation", None),
        "run": (precision, below[0].device.type),
    }
    whole = hashlib.sha256(json.dumps(run, sort_keys=True, default=str).encode())
    for tensor in below:
        whole.update(_bytes_of(tensor))
    return whole.hexdigest()


def row_keys(space: str, inputs: Mapping[str, Any]) -> list[str] | None:
    """A hash for each row of a batch.

    Args:
        space (`str`): As [`space_of`] gives it.
        inputs (`Mapping[str, Any]`): What the model is called with, by name or place.

    Returns:
        `list[str]`: Hexadecimal numbers, or `None` where there is more in the batch than tensors and plain values.
    """
    seen = {name: value for name, value in inputs.items() if name not in _APART and value is not None}
    ids = seen.get("input_ids", seen.get("0"))
    if not isinstance(ids, Tensor) or ids.ndim != 2 or any(seen.get(name) for name in _ASKED):
        return None
    if not all(isinstance(value, Tensor | str | int | float | bool) for value in seen.values()):
        return None
    shared = hashlib.sha256(space.encode())
    by_row = {}
    for name in sorted(seen):
        value = seen[name]
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == ids.shape[0]:
            by_row[name] = value.detach().cpu()
        else:
            shared.update(f"{name}:".encode())
            shared.update(_bytes_of(value) if isinstance(value, Tensor) else repr(value).encode())
    keys = []
    for row in range(ids.shape[0]):
        own = shared.copy()
        for name, value in by_row.items():
            own.update(f"{name}:".encode())
            own.update(_bytes_of(value[row]))
        keys.append(own.hexdigest())
    return keys


def _bytes_of(tensor: Tensor) -> bytes:
    """A tensor's type, shape and values."""
    head = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    raw = tensor.detach().cpu().contiguous().reshape(-1)
    return head + (raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
