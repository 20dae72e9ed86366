"""A model's parts: its decoder layers, and who uses each parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import LayerTracerError
from .kinds import layer_kinds
from .search import decoder_path, outermost_lists, search_layers
from .wrappers import input_embeddings, output_embeddings, unwrap


EMBEDDINGS, NORM, HEAD, OTHER = "embeddings", "norm", "head", "other"


@dataclass(frozen=True)
class ModelParts:
    """A causal language model and where its decoder layers are.

    Args:
        model (`nn.Module`): The unwrapped model; its forward turns `input_ids` into logits.
        layers_path (`str`): Dotted path of the `ModuleList` of decoder layers inside `model`.
        layers (`tuple[nn.Module, ...]`): The decoder layers in the order of execution.
    """

    model: nn.Module
    layers_path: str
    layers: tuple[nn.Module, ...]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @cached_property
    def owners(self) -> dict[str, frozenset[int | str]]:
        """Who uses each parameter: layer indices, `"embeddings"`, `"norm"`, `"head"` or `"other"`.

        Keys are the names that `named_parameters()` gives. A parameter with several owners is shared: tied embeddings
        and head, or a block that stands in several layers.
        """
        first_name: dict[int, str] = {}
        owners: dict[str, set[int | str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            name_kept = first_name.setdefault(id(parameter), name)
            owners.setdefault(name_kept, set()).add(self.owner_of(name))
        return {name: frozenset(group) for name, group in owners.items()}

    @cached_property
    def owner_of(self) -> Callable[[str], int | str]:
        """A function from a parameter's name, also one of several of the same parameter, to who uses it there."""
        return _owner_lookup(self)

    @property
    def tied(self) -> bool:
        """Whether the embedding matrix and the output head are the same parameter."""
        return any({EMBEDDINGS, HEAD} <= group for group in self.owners.values())

    def kinds(self) -> list[str]:
        """The kind of each layer (`"full_attention"`, `"mamba"`, ...)."""
        return layer_kinds(_text_config(self.model), self.layers)


def find_parts(model: nn.Module, layers: str | None = None) -> ModelParts:
    """Finds the decoder layers of a causal language model.

    Args:
        model (`nn.Module`): The model, wrapped or not.
        layers (`str`, *optional*): Dotted path of the `ModuleList` of layers, for a model where the search goes wrong.

    Returns:
        [`ModelParts`]: The unwrapped model with its layers.

    Raises:
        UntraceableModelError: No list of layers was found.
        LayerTracerError: `layers` does not name a list of layers, or `model` is no model.
    """
    if not isinstance(model, nn.Module):
        raise LayerTracerError(f"A model was expected, loaded with from_pretrained, and not {type(model).__name__}.")
    model = unwrap(model)
    if layers is not None:
        try:
            found = model.get_submodule(layers)
        except AttributeError as error:
            raise LayerTracerError(f"The model has no module {layers!r}. Its lists: {_lists_of(model)}.") from error
        if not isinstance(found, nn.ModuleList) or len(found) == 0:
            raise LayerTracerError(f"{layers!r} is not a list of layers. The model's lists: {_lists_of(model)}.")
        return ModelParts(model, layers, tuple(found))

    path = search_layers(model, getattr(_text_config(model), "num_hidden_layers", None))
    return ModelParts(model, path, tuple(model.get_submodule(path)))


def _text_config(model: nn.Module) -> Any:
    config: Any = getattr(model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def context_length(model: nn.Module) -> int | None:
    """The longest prompt that the model's config allows, in tokens, or `None` where it sets no limit."""
    limit = getattr(_text_config(model), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _lists_of(model: nn.Module) -> str:
    return ", ".join(f"{path} ({len(modules)})" for path, modules in outermost_lists(model).items()) or "none"


def _owner_lookup(parts: ModelParts) -> Callable[[str], int | str]:
    """A function from a parameter's name to its owner, by the module that holds it."""
    model, layers_prefix = parts.model, _prefix(parts.layers_path)
    decoder_prefix = _prefix(decoder_path(model))
    base = getattr(model, "base_model_prefix", "")
    base_prefix = _prefix(base if base and hasattr(model, base) else "")
    embeddings, head = input_embeddings(model), output_embeddings(model)
    paths = dict(model.named_modules(remove_duplicate=False))
    # A head that is a shared module of its own sits where it is registered; a tied weight is found by its alias.
    head_paths = [path for path, module in paths.items() if head is not None and module is head]
    matrix = getattr(embeddings, "weight", None)
    input_paths = [
        path
        for path, module in paths.items()
        # The same matrix may stand in a second module, outside the decoder.
        if module is embeddings or (matrix is not None and getattr(module, "weight", None) is matrix)
    ]
    embedding_paths = [path for path, module in paths.items() if isinstance(module, nn.Embedding)]
    # Encoders keep all that embeds in one module: positions, norms, the token that stands for the whole.
    around = [path.rpartition(".")[0] for path in input_paths]
    embedding_paths += [path for path in around if path and not layers_prefix.startswith(_prefix(path))]
    # A classifier on top of a base model is new: it belongs to the task, not to the layers below it. So does whatever
    # else such a model has beside its layers, but for norms.
    has_vocabulary = head is not None or not isinstance(model, PreTrainedModel)
    norm_paths = [path for path, module in paths.items() if "norm" in type(module).__name__.lower()]
    other_lists = [path for path in outermost_lists(model) if path != parts.layers_path]
    # Another stack of layers is no part of a head, whatever lies beside it in its branch: the encoder of T5.
    stacks = [path.split(".")[0] for path in other_lists] if isinstance(model, PreTrainedModel) else []

    def within(name: str, candidates: list[str]) -> bool:
        return any(name.startswith(_prefix(path)) for path in candidates)

    def owner_of(name: str) -> int | str:
        if name.startswith(layers_prefix):
            return int(name[len(layers_prefix) :].split(".", 1)[0])
        if within(name, head_paths):
            return HEAD
        if within(name, input_paths):
            return EMBEDDINGS
        if name.startswith(decoder_prefix):
            if within(name, embedding_paths):
                return EMBEDDINGS
            is_norm = within(name, norm_paths) and not within(name, other_lists)
            return NORM if has_vocabulary or is_norm else OTHER
        if base_prefix and name.startswith(base_prefix):
            return OTHER
        return HEAD if has_vocabulary and not within(name, stacks) else OTHER

    return owner_of


def _prefix(path: str) -> str:
    return f"{path}." if path else ""
