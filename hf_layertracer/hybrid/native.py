"""Hybrids with new token mixers, in a class that knows them: transformers' own where there is one."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ..errors import LayerTracerError
from ..modeling import EMBEDDINGS, HEAD, NORM, OTHER
from .blueprint import Blueprint, NativeClass
from .describe import hybrid_record
from .donors import Donor
from .folder import write_settings
from .mappings.base import LAYERS
from .new_mixers import new_mixer, watch_attention
from .provenance import HybridRecord
from .safetensors_io import INDEX_FILE, NewTensor, write_index
from .streaming import streamed
from .verify import logits, verify_class, verify_layers_of_class
from .weights import Digests, in_order, name_files, write_tensors
from .whole import build_whole


_TOKENS = 64
_TEXT = (
    "The river rises in the hills north of the town and reaches the sea after ninety miles. In 1862 a bridge was built "
    "where the old road crosses it, and 27 people worked on it for two years. Why did they choose stone? Because wood, "
    "said the engineer, would have to be replaced every ten years. def area(width, height): return width * height"
)


def build_native(plan: Blueprint, folder: Path, largest: int) -> HybridRecord:
    """Builds a hybrid with new mixers.

    The model with all its attention is written in the other class first and must compute what its donor does; only then
    the attention of the layers that are named gives way to new mixers. All other tensors are written once.

    Args:
        plan ([`Blueprint`]): What to build.
        folder (`Path`): An empty folder.
        largest (`int`): Bytes to a file.

    Returns:
        [`HybridRecord`]: What was built.

    Raises:
        LayerTracerError: The unmodified model computes something else in the other class.
    """
    native = plan.native
    assert native is not None  # a blueprint with mixers has one
    source = _source(plan, folder, largest)
    replaced = {index: mixer for mixer in plan.recipe.mixers for index in mixer.layers}
    groups = _mapped(source, native, plan.dtype)
    attention = {index: [tensor for tensor in groups[index] if _is_attention(tensor, native)] for index in replaced}
    for index in replaced:
        groups[index] = [tensor for tensor in groups[index] if not _is_attention(tensor, native)]
    digests = Digests()
    written = write_tensors(folder, in_order(groups), largest, digests)

    unmodified = folder / ".unmodified"
    unmodified.mkdir()
    own = write_tensors(unmodified, [tensor for index in sorted(attention) for tensor in attention[index]], largest)
    _link(unmodified, own, folder, written)
    native.unmodified.save_pretrained(unmodified)
    tokens = _tokens(plan)
    watched = watch_attention(source, sorted(replaced), tokens, plan.dtype, folder)
    other = Donor("the model in the other class", unmodified)
    class_verified = verify_class(source, other, tokens, plan.dtype, folder)
    whole = verify_layers_of_class(source, other, native.parts.layers_path, plan.dtype, folder)
    shutil.rmtree(unmodified)

    new = {
        index: new_mixer(index, mixer, native, source, watched[index], plan)
        for index, mixer in sorted(replaced.items())
    }
    written |= write_tensors(folder, [tensor for index in new for tensor in new[index]], largest, digests)
    for index, tensors in new.items():
        groups[index] += tensors
    name_files(folder, written)
    write_settings(folder, native.config, type(native.parts.model).__name__, plan.tokenizer, native.mapping.code)
    if source is not plan.base:
        shutil.rmtree(source.folder)
    with streamed(Donor("the hybrid", folder), plan.dtype, folder) as model:
        if not logits(model, tokens).isfinite().all():
            raise LayerTracerError("The hybrid's logits are not finite with these mixers.")
    verified = [
        f"before its token mixer was replaced: {what}" if index in replaced else what
        for index, what in enumerate(whole)
    ]
    notes = [f"{len(replaced)} token mixers are new and untrained: the model needs healing before it is of use."]
    return hybrid_record(plan, native.parts, groups, digests, verified, class_verified, notes)


def _source(plan: Blueprint, folder: Path, largest: int) -> Donor:
    """One model in the donors' class that holds all layers: the base itself, or the stack built in full beforehand."""
    if plan.is_base_alone:
        return plan.base
    place = folder / ".whole"
    place.mkdir()
    build_whole(plan, place, largest)
    return Donor("the stack", place)


def _mapped(source: Donor, native: NativeClass, dtype: torch.dtype) -> dict[int | str, list[NewTensor]]:
    """All tensors of the unmodified model in the other class, by part."""
    mapping = native.mapping
    groups: dict[int | str, list[NewTensor]] = {
        part: [mapping.outside(stored, dtype) for stored in source.outside(part)] for part in (EMBEDDINGS, NORM, HEAD)
    }
    others = [*source.outside(OTHER), *(t for rest in source.extra_layers.values() for t in rest.values())]
    if others:
        raise LayerTracerError(f"{others[0].name} has no place in {native.config.model_type}.")
    for index in range(source.parts.num_layers):
        groups[index] = [
            NewTensor(f"{LAYERS}{index}.{tensor.name}", tensor.dtype, tensor.shape, tensor.sources, tensor.make)
            for tensor in mapping.layer(source.layer_tensors(index), dtype, native.config)
        ]
    return groups


def _is_attention(tensor: NewTensor, native: NativeClass) -> bool:
    return f".{native.mapping.attention}." in tensor.name


def _link(unmodified: Path, own: dict[str, list[str]], folder: Path, written: dict[str, list[str]]) -> None:
    """Gives the unmodified model the files that it shares with the hybrid, and an index."""
    places = dict.fromkeys((name for names in own.values() for name in names), "")
    for file, names in own.items():
        places.update(dict.fromkeys(names, file))
    for file, names in written.items():
        (unmodified / f"shared-{file}").symlink_to((folder / file).resolve())
        places.update(dict.fromkeys(names, f"shared-{file}"))
    write_index(unmodified / INDEX_FILE, places, 0)


def _tokens(plan: Blueprint) -> Tensor:
    """A short text in the tokenizer's tokens; without a tokenizer, tokens drawn from the vocabulary."""
    size = plan.config.vocab_size
    if plan.tokenizer.tokenizer_files():
        ids = AutoTokenizer.from_pretrained(plan.tokenizer.folder)(_TEXT, return_tensors="pt").input_ids[:, :_TOKENS]
        if ids.shape[1] and ids.max() < size:
            return ids
    return torch.randint(size, (1, _TOKENS), generator=torch.Generator().manual_seed(plan.recipe.seed))
