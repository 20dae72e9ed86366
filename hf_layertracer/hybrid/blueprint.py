"""A recipe with its donors found, and checked against each other before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ..errors import LayerTracerError
from ..modeling import EMBEDDINGS, HEAD, NORM, ModelParts, find_parts
from ..modeling.weights import main_dtype
from ..text import dtype_name
from .check import check_compatible, check_ranges, check_structure
from .configs import joined_config
from .donors import Donor, open_donor
from .mappings import Mapping, find_mapping
from .recipe import HybridRecipe
from .safetensors_io import StoredTensor


@dataclass(frozen=True)
class NativeClass:
    """The class in which some token mixers are replaced.

    Args:
        mapping ([`Mapping`]): How the donors' class is said in it.
        unmodified (`PreTrainedConfig`): Of the model with all its attention.
        config (`PreTrainedConfig`): Of the hybrid.
        parts ([`ModelParts`]): The hybrid's structure.
    """

    mapping: Mapping
    unmodified: PreTrainedConfig
    config: PreTrainedConfig
    parts: ModelParts


@dataclass(frozen=True)
class Blueprint:
    """A recipe with its donors found and checked against each other.

    Args:
        recipe ([`HybridRecipe`]): The recipe.
        base, embeddings, norm, head, tokenizer ([`Donor`]): Who gives what.
        stack (`tuple[tuple[Donor, int], ...]`): Donor and layer, from the first layer to the last.
        dtype (`torch.dtype`): Of the weights.
        config (`PreTrainedConfig`): Of the stack in the base's class.
        parts ([`ModelParts`]): The structure in the base's class.
        native ([`NativeClass`], *optional*): The class of the hybrid where token mixers are replaced.
    """

    recipe: HybridRecipe
    base: Donor
    embeddings: Donor
    norm: Donor
    head: Donor
    tokenizer: Donor
    stack: tuple[tuple[Donor, int], ...]
    dtype: torch.dtype
    config: PreTrainedConfig
    parts: ModelParts
    native: NativeClass | None = None

    @property
    def is_base_alone(self) -> bool:
        """Whether all weights are the base's as they are stored, each in its place."""
        in_place = [layer for _, layer in self.stack] == list(range(self.base.parts.num_layers))
        if self.donors != [self.base] or not in_place:
            return False
        return self.dtype == main_dtype(self.base.tensors(self.base.files).values())

    @property
    def donors(self) -> list[Donor]:
        """Everyone who gives weights, the base first."""
        given = [self.base, *(donor for donor, _ in self.stack), self.embeddings, self.norm, self.head]
        return list(dict.fromkeys(given))


def blueprint(recipe: HybridRecipe) -> Blueprint:
    """Finds a recipe's donors and checks that they fit, without writing anything.

    Args:
        recipe ([`HybridRecipe`]): The recipe.

    Returns:
        [`Blueprint`]: All that is needed to build.

    Raises:
        LayerTracerError: There is no such donor, or they do not fit.
    """
    names = [recipe.base, *(source.donor for source in recipe.layers or ())]
    names += [name for name in (recipe.embeddings, recipe.norm, recipe.head, recipe.tokenizer) if name is not None]
    opened = {name: open_donor(name) for name in dict.fromkeys(names)}
    # The same place under two names is one donor.
    by_place: dict[Path, Donor] = {}
    donors = {name: by_place.setdefault(donor.folder.resolve(), donor) for name, donor in opened.items()}
    base = donors[recipe.base]
    embeddings, norm, head = (donors[name or recipe.base] for name in (recipe.embeddings, recipe.norm, recipe.head))
    tokenizer = donors[recipe.tokenizer] if recipe.tokenizer is not None else embeddings
    stack = check_ranges(recipe, donors)
    check_compatible(base, stack, embeddings, norm, head, tokenizer)
    dtype = _dtype(recipe, stack, {EMBEDDINGS: embeddings, NORM: norm, HEAD: head})
    changes: dict[str, Any] = {
        "vocab_size": embeddings.text_config.vocab_size,
        "tie_word_embeddings": embeddings is head and head.tied,
        "dtype": dtype,
    }
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        changes[name] = getattr(tokenizer.text_config, name, None)
    config = joined_config(base, stack, changes)
    parts = skeleton(config)
    check_structure(parts, stack)
    native = _native_class(recipe, config) if recipe.mixers else None
    return Blueprint(recipe, base, embeddings, norm, head, tokenizer, tuple(stack), dtype, config, parts, native)


def _native_class(recipe: HybridRecipe, config: PreTrainedConfig) -> NativeClass:
    replaced = {index: mixer.kind for mixer in recipe.mixers for index in mixer.layers}
    if len(replaced) == config.num_hidden_layers:
        raise LayerTracerError(
            "mixers: all layers are named. Keep the attention of one: transformers' cache counts the tokens there."
        )
    mapping = find_mapping(config.model_type, set(replaced.values()), recipe.remote_code)
    try:
        unmodified, hybrid = mapping.config(config, {}), mapping.config(config, replaced)
    except LayerTracerError as error:
        raise LayerTracerError(f"mixers: {error}") from error
    return NativeClass(mapping, unmodified, hybrid, skeleton(hybrid))


def skeleton(config: PreTrainedConfig) -> ModelParts:
    """A configuration's structure, without weights."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise LayerTracerError(f"No model can be made of the joined configuration: {error}") from error
    model.tie_weights()
    return find_parts(model)


def _dtype(recipe: HybridRecipe, stack: Sequence[tuple[Donor, int]], outside: dict[str, Donor]) -> torch.dtype:
    """The recipe's data type, or the one that all have who give weights."""
    if recipe.dtype is not None:
        return getattr(torch, recipe.dtype)
    given: dict[Donor, list[StoredTensor]] = {}
    for donor, layer in stack:
        given.setdefault(donor, []).extend(donor.layer_tensors(layer).values())
    for part, donor in outside.items():
        given.setdefault(donor, []).extend(donor.outside(part))
    found = {donor: main_dtype(tensors) for donor, tensors in given.items() if tensors}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{donor.name}: {dtype_name(dtype)}" for donor, dtype in found.items())
        raise LayerTracerError(f"The donors have different data types ({listed}). Name the hybrid's with `dtype:`.")
    return next(iter(found.values()))
