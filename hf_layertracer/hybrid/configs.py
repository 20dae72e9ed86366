"""Configurations cut and joined like the layers they describe, and compared before they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from ..errors import LayerTracerError
from .donors import Donor


# Lists and mappings that may happen to be as long as the model is deep.
_NEVER_BY_LAYER = re.compile(r"token_ids?$|^(architectures|id2label|label2id|time_step_\w+|rope_\w+|mrope_\w+)$")
# Fields that list numbers of layers.
_NUMBERS = re.compile(r"layers$|layer_(ids|idx|indices|indexes)$|_idxs?$")
# Fields that change nothing of what a layer computes, or that are decided otherwise.
_FREE = re.compile(
    r"token_ids?$|dropout|pdrop$|^(_name_or_path|transformers_version|architectures|dtype|torch_dtype|use_cache|vocab_size|"
    r"initializer_range|tie_word_embeddings|max_position_embeddings|n_positions|id2label|label2id|problem_type|output_\w+|"
    r"return_dict|pretraining_tp|max_window_layers|use_sliding_window|is_encoder_decoder|chunk_size_feed_forward|model_type|"
    r"layer_norm_init\w*|summary_\w+|task_specific_params|router_aux_loss_coef|\w*layers_pattern|sliding_window_pattern)$"
)


def joined_config(base: Donor, stack: Sequence[tuple[Donor, int]], changes: dict[str, Any]) -> PreTrainedConfig:
    """The base's configuration for a stack of layers of several donors.

    Args:
        base ([`Donor`]): Whose configuration is taken for all that does not depend on the layer.
        stack (`Sequence[tuple[Donor, int]]`): Donor and layer, from the first layer to the last.
        changes (`dict`): Fields of the whole that come out otherwise: token ids, vocabulary, ties, data type.

    Returns:
        `PreTrainedConfig`: The configuration.

    Raises:
        LayerTracerError: A field by layer is given by some donors only.
    """
    text = base.text_config
    described = {donor: donor.text_config.to_dict() for donor, _ in stack}
    content = text.to_dict()
    for name in sorted(set(content).union(*described.values())):
        values = [described[donor].get(name) for donor in described]
        by_layer = [_by_layer(name, value, donor) for donor, value in zip(described, values, strict=True)]
        if any(by_layer):
            if not all(by_layer):
                given = next(donor.name for donor, is_given in zip(described, by_layer, strict=True) if is_given)
                missing = next(donor.name for donor, is_given in zip(described, by_layer, strict=True) if not is_given)
                raise LayerTracerError(f"{given} sets {name} for each layer and {missing} does not: they do not join.")
            kept = [_of_layer(described[donor][name], layer) for donor, layer in stack]
            is_mapping = isinstance(values[0], dict)
            content[name] = {str(i): value for i, value in enumerate(kept)} if is_mapping else kept
        elif _NUMBERS.search(name) and any(
            _is_numbers(value, donor) for donor, value in zip(described, values, strict=True)
        ):
            content[name] = [
                i for i, (donor, layer) in enumerate(stack) if layer in (described[donor].get(name) or [])
            ]
    content[_key(text, "num_hidden_layers")] = len(stack)
    content |= {_key(text, name): value for name, value in changes.items()}
    whole = base.config.to_dict()
    part = next((name for name in whole if getattr(base.config, name, None) is text and text is not base.config), None)
    if part is not None:
        outer = {name: value for name, value in changes.items() if name in whole}
        content = {**whole, **outer, part: content}
    content.pop("_name_or_path", None)
    try:
        return type(base.config).from_dict(content)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise LayerTracerError(
            f"The joined configuration is not valid: {' '.join(str(error).split())[:300]}"
        ) from error


def differing_fields(base: Donor, donor: Donor) -> list[tuple[str, Any, Any]]:
    """What makes a layer of one model compute otherwise in the other.

    Args:
        base ([`Donor`]): The model whose configuration is taken.
        donor ([`Donor`]): A model that gives layers.

    Returns:
        `list[tuple[str, Any, Any]]`: Field, the base's value, the donor's value.
    """
    if type(base.text_config) is not type(donor.text_config):
        return [("model_type", base.text_config.model_type, donor.text_config.model_type)]
    ours, theirs = base.text_config.to_dict(), donor.text_config.to_dict()
    depth = _key(base.text_config, "num_hidden_layers")
    rows = []
    for name in sorted(set(ours) | set(theirs)):
        if name == depth or _FREE.search(name):
            continue
        pairs = [(base, ours.get(name)), (donor, theirs.get(name))]
        if any(
            _by_layer(name, value, owner) or (_NUMBERS.search(name) and _is_numbers(value, owner))
            for owner, value in pairs
        ):
            continue
        if _plain(ours.get(name)) != _plain(theirs.get(name)):
            rows.append((name, ours.get(name), theirs.get(name)))
    return rows


def _by_layer(name: str, value: Any, donor: Donor) -> bool:
    depth = donor.text_config.num_hidden_layers
    if _NEVER_BY_LAYER.search(name):
        return False
    if isinstance(value, list | tuple):
        return len(value) == depth
    return isinstance(value, dict) and {str(key) for key in value} == {str(i) for i in range(depth)}


def _of_layer(value: Any, layer: int) -> Any:
    if isinstance(value, dict):
        return value[layer] if layer in value else value[str(layer)]
    return value[layer]


def _is_numbers(value: Any, donor: Donor) -> bool:
    depth = donor.text_config.num_hidden_layers
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < depth for item in value)
        and len(set(value)) == len(value)
    )


def _key(config: PreTrainedConfig, name: str) -> str:
    """A field under the name that the class gives it (GPT-2's depth is `n_layer`)."""
    return config.attribute_map.get(name, name)


def _plain(value: Any) -> Any:
    """Tuples as lists and whole floats as integers, as JSON makes them."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
