"""What a plan has to know of a model, taken from the model itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name
from torch import nn

from ..records import LayerFacts, ModelFacts
from ..records.model import base_parameters
from ..text import dtype_name
from . import EMBEDDINGS, HEAD, NORM, OTHER, ModelParts
from .in_force import trainable_before_plan
from .wrappers import input_embeddings


def model_facts(parts: ModelParts) -> ModelFacts:
    """Counts a model's parameters layer by layer; a model on the meta device serves as well as a loaded one.

    Args:
        parts ([`ModelParts`]): The model and its layers.

    Returns:
        [`ModelFacts`]: Names and sizes of all parameters, by owner.
    """
    config = getattr(parts.model, "config", None)
    parameters = dict(parts.model.named_parameters())
    trainable = trainable_before_plan(parts.model)
    layers = [LayerFacts(kind=kind, parameters={}) for kind in parts.kinds()]
    outside: dict[str, dict[str, int]] = {EMBEDDINGS: {}, NORM: {}, HEAD: {}, OTHER: {}}
    shared: dict[str, list[int]] = {}
    frozen: list[str] = []
    for name, owners in parts.owners.items():
        parameter = parameters[name]
        in_layers = sorted(owner for owner in owners if isinstance(owner, int))
        prefixes = [f"{parts.layers_path}.{index}." for index in in_layers]
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is not None:
            layer = layers[in_layers[0]]
            layer.parameters[name.removeprefix(prefix)] = elements(parameter)
            if not trainable[name]:
                layer.frozen.append(name.removeprefix(prefix))
            if len(in_layers) > 1:
                shared[name] = in_layers
        else:
            # A parameter that a module outside shares with a layer is named, and counted, where it stands first.
            group = next((group for group in outside if group in owners), NORM)
            outside[group][name] = elements(parameter)
            if not trainable[name]:
                frozen.append(name)
    name_or_path = getattr(config, "name_or_path", None) or getattr(parts.model, "name_or_path", None) or ""
    widths = {name: _element_bytes(parameter) for name, parameter in parameters.items()}
    dtypes = {dtype_name(parameter.dtype) for parameter in parameters.values()}
    return ModelFacts(
        id=public_model_id(name_or_path),
        revision=loaded_commit(name_or_path),
        architecture=type(parts.model).__name__,
        model_type=getattr(config, "model_type", None),
        dtype="/".join(sorted(dtypes)),
        layers_path=parts.layers_path,
        layers=layers,
        embeddings=outside[EMBEDDINGS],
        norm=outside[NORM],
        head=outside[HEAD],
        other=outside[OTHER],
        tied=parts.tied,
        shared=shared,
        frozen=frozen,
        element_bytes=widths if len(set(widths.values())) > 1 else {},
        hidden_size=_hidden_size(parts),
        shapes_sha256=_shapes_hash(parts, parameters),
    )


def shape_of(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape that a parameter stands for, also where it holds its numbers packed or only a part of them."""
    packed = getattr(parameter, "quant_state", None)
    return tuple(packed.shape if packed is not None else getattr(parameter, "ds_shape", parameter.shape))


def _hidden_size(parts: ModelParts) -> int | None:
    config = getattr(parts.model, "config", None)
    config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    said = getattr(config, "hidden_size", None)
    if isinstance(said, int):
        return said
    # Second best: some models project their embeddings to another width, as OPT 350M does.
    embeddings = input_embeddings(parts.model)
    weight = next((p for p in embeddings.parameters() if p.ndim == 2), None) if embeddings is not None else None
    return shape_of(weight)[-1] if weight is not None else None


def _shapes_hash(parts: ModelParts, parameters: Mapping[str, nn.Parameter]) -> str:
    """Hash of the shapes in each layer and in the final norm. The vocabulary may grow, so what holds it stays out."""
    inside: dict[str, list[tuple[int, ...]]] = {}
    for name, parameter in base_parameters(parameters).items():
        owners = parts.owners.get(name, frozenset())
        layer = next(
            (index for index in range(parts.num_layers) if name.startswith(f"{parts.layers_path}.{index}.")), None
        )
        if layer is not None or owners == {NORM}:
            inside.setdefault(NORM if layer is None else str(layer), []).append(shape_of(parameter))
    return hashlib.sha256(repr(sorted((key, sorted(shapes)) for key, shapes in inside.items())).encode()).hexdigest()


def elements(parameter: nn.Parameter) -> int:
    """How many numbers a parameter stands for, also where it holds them packed or holds only a part of them."""
    packed = getattr(parameter, "quant_state", None)  # bitsandbytes keeps two 4-bit numbers in a byte
    if packed is not None:
        return packed.shape.numel()
    # DeepSpeed ZeRO-3 leaves an empty shell behind and keeps the size beside it.
    return getattr(parameter, "ds_numel", parameter.numel())


def _element_bytes(parameter: nn.Parameter) -> float:
    is_packed = getattr(parameter, "quant_state", None) is not None
    return parameter.nbytes / elements(parameter) if is_packed else parameter.element_size()


def public_model_id(name_or_path: str) -> str | None:
    """A model's name as it may be published: a Hub id as it is, of a local path only the last folder."""
    if not name_or_path:
        return None
    is_local = Path(name_or_path).is_absolute() or Path(name_or_path).exists() or name_or_path.startswith((".", "~"))
    return Path(name_or_path).name if is_local or name_or_path.count("/") > 1 else name_or_path


def loaded_commit(name_or_path: str) -> str | None:
    """The commit of a model from the Hub, where there is no doubt which one was loaded.

    transformers does not keep it. What is in the cache does tell, unless several commits of the model are there.

    Args:
        name_or_path (`str`): The model's Hub id, or a local path.

    Returns:
        `str`: The commit, or `None` where it is not known.
    """
    if not name_or_path or Path(name_or_path).exists():
        return None
    snapshots = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name_or_path, repo_type="model") / "snapshots"
    commits = [path.parent.name for path in snapshots.glob("*/config.json")]
    return commits[0] if len(commits) == 1 else None
