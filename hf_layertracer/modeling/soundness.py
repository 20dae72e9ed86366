"""Whether a model that was loaded is the one in its files: what is measured on made-up weights means nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig

from ..errors import LayerTracerError
from ..logs import get_logger
from .search import outermost_lists


logger = get_logger(__name__)

_NAMED = 3
_FIRST_LOOK = 1024


def check_quantization(config: PreTrainedConfig, name: str) -> None:
    """Refuses a way of quantizing that transformers does not know: it would load the packed numbers as they are.

    Args:
        config (`PreTrainedConfig`): The model's configuration.
        name (`str`): What to call the model in an error.

    Raises:
        LayerTracerError: The method is unknown.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return
    settings = settings if isinstance(settings, dict) else settings.to_dict()
    method = settings.get("quant_method")
    by_bits = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    if not by_bits and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise LayerTracerError(
            f"The weights of {name!r} are quantized by {method!r}, which this transformers does not know: they cannot be "
            "read. Use the model as it was before it was quantized."
        )


def check_loaded(info: dict[str, Any], name: str) -> None:
    """Refuses a model of which a part is not in its files, and was made up while loading.

    Args:
        info (`dict[str, Any]`): What `from_pretrained(..., output_loading_info=True)` says.
        name (`str`): What to call the model in an error.

    Raises:
        LayerTracerError: Tensors are missing or have another shape; the message names them.
    """
    if info["mismatched_keys"]:
        first, found, wanted = sorted(info["mismatched_keys"])[0]
        raise LayerTracerError(
            f"{name!r} does not fit its config.json: {len(info['mismatched_keys'])} tensors have another shape, such as "
            f"{first}: {list(found)} in the file, {list(wanted)} by the configuration."
        )
    if info["missing_keys"]:
        raise LayerTracerError(
            f"{name!r} is not whole: {len(info['missing_keys'])} of its tensors are not in its files "
            f"({_some(info['missing_keys'])}) and would be random. Does config.json belong to these weights?"
        )
    if info["error_msgs"]:
        raise LayerTracerError(f"{name!r} was not loaded whole: {info['error_msgs'][0]!s:.200}")
    if info["unexpected_keys"]:
        logger.warning(
            f"{name} holds {len(info['unexpected_keys'])} tensors that the model does not use "
            f"({_some(info['unexpected_keys'])})."
        )


def check_weights(model: nn.Module, name: str) -> None:
    """Refuses a model whose embeddings, or all matrices of a layer, are zero: such files are placeholders.

    Args:
        model (`nn.Module`): The model.
        name (`str`): What to call it in an error.

    Raises:
        LayerTracerError: It holds nothing.
    """
    embeddings = model.get_input_embeddings()
    groups = {"its embeddings": [] if embeddings is None else list(embeddings.parameters())}
    for path, layers in outermost_lists(model).items():
        groups |= {f"{path}.{i}": [p for p in layer.parameters() if p.ndim > 1] for i, layer in enumerate(layers)}
    empty = [what for what, weights in groups.items() if weights and not any(_holds_something(w) for w in weights)]
    if empty:
        raise LayerTracerError(
            f"{name!r} holds no weights: all are zero in {_some(empty, ordered=True)}. Was its file written whole?"
        )


def _holds_something(weight: Tensor) -> bool:
    # Nearly always the first numbers tell; a look at all of them takes long.
    return weight.is_meta or bool(weight.flatten()[:_FIRST_LOOK].any()) or bool(weight.any())


def _some(names: Collection[str], ordered: bool = False) -> str:
    shown = list(names) if ordered else sorted(names)
    more = len(shown) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {more} more" if more > 0 else "")
