"""Where a model keeps its layers: the only module that looks into a model's structure.

Nothing here knows an architecture by name. transformers' own interfaces are asked first (`get_decoder`,
`get_input_embeddings`, `get_output_embeddings`), structure next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from accelerate.utils import extract_model_from_parallel
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import is_peft_available

from .errors import LayerTracerError, UntraceableModelError


EMBEDDINGS, NORM, HEAD, OTHER = "embeddings", "norm", "head", "other"


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, out of DDP, FSDP, DeepSpeed and `torch.compile` wrappers and out of PEFT.

    PEFT's adapters stay: they live inside the modules of the model that is returned.
    """
    # Once a layer: of a compiled model inside DDP, accelerate takes off the outer wrapper alone.
    while (inner := extract_model_from_parallel(model, keep_torch_compile=False)) is not model:
        model = inner
    if is_peft_available():
        from peft import PeftMixedModel, PeftModel

        if isinstance(model, PeftModel | PeftMixedModel):
            return model.get_base_model() if isinstance(model, PeftModel) else model.base_model.model
    return model


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
        owner_of = _owner_lookup(self)
        first_name: dict[int, str] = {}
        owners: dict[str, set[int | str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            name_kept = first_name.setdefault(id(parameter), name)
            owners.setdefault(name_kept, set()).add(owner_of(name))
        return {name: frozenset(group) for name, group in owners.items()}

    @property
    def tied(self) -> bool:
        """Whether the embedding matrix and the output head are the same parameter."""
        return any({EMBEDDINGS, HEAD} <= group for group in self.owners.values())

    def kinds(self) -> list[str]:
        """What each layer is (`"full_attention"`, `"mamba"`, ...): from the config, else the layer's class."""
        declared = getattr(_text_config(self.model), "layer_types", None)
        if declared is not None and len(declared) == self.num_layers:
            return [str(kind) for kind in declared]
        return [type(layer).__name__ for layer in self.layers]


def find_parts(model: nn.Module, layers: str | None = None) -> ModelParts:
    """Finds the decoder layers of a causal language model.

    Args:
        model (`nn.Module`): The model, wrapped or not.
        layers (`str`, *optional*): Dotted path of the `ModuleList` of layers, for a model where the search goes wrong.

    Returns:
        [`ModelParts`]: The unwrapped model with its layers.

    Raises:
        UntraceableModelError: No list of layers was found.
        LayerTracerError: `layers` does not name a list of layers.
    """
    model = unwrap(model)
    if layers is not None:
        try:
            found = model.get_submodule(layers)
        except AttributeError as error:
            raise LayerTracerError(f"The model has no module {layers!r}. Its lists: {_lists_of(model)}.") from error
        if not isinstance(found, nn.ModuleList) or len(found) == 0:
            raise LayerTracerError(f"{layers!r} is not a list of layers. The model's lists: {_lists_of(model)}.")
        return ModelParts(model, layers, tuple(found))

    decoder_path = _decoder_path(model)
    decoder = model.get_submodule(decoder_path)
    expected = getattr(_text_config(model), "num_hidden_layers", None)
    candidates = {path: modules for path, modules in _outermost_lists(decoder).items() if len(modules) > 0}
    if not candidates:
        raise UntraceableModelError(
            f"No list of decoder layers was found in {type(model).__name__}. If it has one, name it: "
            'layers_path="path.to.layers".'
        )

    def preference(path: str) -> tuple[bool, bool, int]:
        members = candidates[path]
        checkpointed = all(isinstance(member, GradientCheckpointingLayer) for member in members)
        return checkpointed, len(members) == expected, len(members)

    best = max(candidates, key=preference)
    path = f"{decoder_path}.{best}" if decoder_path else best
    return ModelParts(model, path, tuple(candidates[best]))


def _text_config(model: nn.Module):
    config = getattr(model, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def context_length(model: nn.Module) -> int | None:
    """The longest prompt that the model's config allows, in tokens, or `None` where it sets no limit."""
    limit = getattr(_text_config(model), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _decoder_path(model: nn.Module) -> str:
    """Dotted path of the text decoder inside `model`, empty when the model is its own decoder."""
    if not isinstance(model, PreTrainedModel):
        return ""
    decoder = model.get_decoder()
    for name, module in model.named_modules():
        if module is decoder:
            return name
    return ""


def _outermost_lists(module: nn.Module, prefix: str = "") -> dict[str, nn.ModuleList]:
    """The `ModuleList`s below `module` that lie in no other (experts inside a layer are not layers)."""
    found: dict[str, nn.ModuleList] = {}
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.ModuleList):
            found[path] = child
        else:
            found.update(_outermost_lists(child, f"{path}."))
    return found


def _lists_of(model: nn.Module) -> str:
    return ", ".join(f"{path} ({len(modules)})" for path, modules in _outermost_lists(model).items()) or "none"


def _owner_lookup(parts: ModelParts):
    """A function from a parameter's name to its owner, by the module that holds it."""
    model, layers_prefix = parts.model, parts.layers_path + "."
    decoder_prefix = _prefix(_decoder_path(model))
    base = getattr(model, "base_model_prefix", "")
    base_prefix = _prefix(base if base and hasattr(model, base) else "")
    embeddings = {id(model.get_input_embeddings())} if isinstance(model, PreTrainedModel) else set()
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    paths = dict(model.named_modules(remove_duplicate=False))
    # A head that is a shared module of its own sits where it is registered; a tied weight is found by its alias.
    embedding_paths = [
        path for path, module in paths.items() if id(module) in embeddings or isinstance(module, nn.Embedding)
    ]
    head_paths = [path for path, module in paths.items() if head is not None and module is head]

    def within(name: str, candidates: list[str]) -> bool:
        return any(name.startswith(_prefix(path)) for path in candidates)

    def owner_of(name: str) -> int | str:
        if name.startswith(layers_prefix):
            return int(name[len(layers_prefix) :].split(".", 1)[0])
        if within(name, head_paths):
            return HEAD
        if name.startswith(decoder_prefix):
            return EMBEDDINGS if within(name, embedding_paths) else NORM
        return OTHER if base_prefix and name.startswith(base_prefix) else HEAD

    return owner_of


def _prefix(path: str) -> str:
    return f"{path}." if path else ""
