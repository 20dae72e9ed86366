"""Reads mergekit's passthrough files (`slices:` with one source each) as recipes of ours."""

from __future__ import annotations

from typing import Any

from ..errors import LayerTracerError


_KEYS = {"slices", "merge_method", "base_model", "dtype", "out_dtype", "tokenizer_source"}


def is_mergekit(content: dict[str, Any]) -> bool:
    """Whether a file is mergekit's rather than ours."""
    return "slices" in content or "merge_method" in content


def from_mergekit(content: dict[str, Any], place: str) -> dict[str, Any]:
    """Says in our words what a passthrough file of mergekit says.

    As mergekit does, the embeddings come from the first slice's model, norm and head from the last one's.

    Args:
        content (`dict`): The file's content.
        place (`str`): What to call the file in messages.

    Returns:
        `dict`: A recipe for [`HybridRecipe.from_dict`].

    Raises:
        LayerTracerError: It asks for something other than whole layers, one source to a slice.
    """
    method = content.get("merge_method", "passthrough")
    if method != "passthrough":
        raise LayerTracerError(
            f"{place}: merge_method: {method!r} mixes weights. Only passthrough, which takes layers whole, is read."
        )
    unknown = sorted(map(str, set(content) - _KEYS))
    if unknown:
        raise LayerTracerError(f"{place}: {unknown[0]}: unknown key in a passthrough file.")
    slices = content.get("slices")
    if not isinstance(slices, list) or not slices:
        raise LayerTracerError(f"{place}: slices: a list of slices was expected.")
    layers = [_source(entry, f"{place}: slices[{number}]") for number, entry in enumerate(slices)]
    first, last = layers[0]["from"], layers[-1]["from"]
    recipe: dict[str, Any] = {"base": first, "layers": layers}
    if "base_model" in content:
        recipe["base"] = _model(content["base_model"], f"{place}: base_model")
    recipe |= {"embeddings": first, "norm": last, "head": last, "tokenizer": recipe["base"]}
    source = content.get("tokenizer_source", "base")
    if source == "union":
        raise LayerTracerError(f"{place}: tokenizer_source: a union of vocabularies is not built; name one model.")
    if source != "base":
        recipe["tokenizer"] = _model(source, f"{place}: tokenizer_source")
    dtype = content.get("out_dtype", content.get("dtype"))
    return recipe if dtype is None else {**recipe, "dtype": dtype}


def _source(entry: Any, place: str) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("sources"), list) or len(entry["sources"]) != 1:
        raise LayerTracerError(f"{place}: a slice has exactly one source under `sources:`.")
    if unknown := sorted(map(str, set(entry) - {"sources"})):
        raise LayerTracerError(f"{place}.{unknown[0]}: unknown key.")
    source, place = entry["sources"][0], f"{place}.sources[0]"
    if not isinstance(source, dict) or "model" not in source:
        raise LayerTracerError(f"{place}: `model:` is missing.")
    if unknown := sorted(map(str, set(source) - {"model", "layer_range"})):
        raise LayerTracerError(f"{place}.{unknown[0]}: unknown key; layers are taken as they are.")
    if "layer_range" not in source:
        raise LayerTracerError(f"{place}: `layer_range:` is missing.")
    return {"from": _model(source["model"], f"{place}.model"), "layer_range": source["layer_range"]}


def _model(value: Any, place: str) -> str:
    """mergekit names a model as text or as a mapping of path and revision."""
    if isinstance(value, dict):
        inner = value.get("model", value)
        if not isinstance(inner, dict) or "path" not in inner or value.get("lora"):
            raise LayerTracerError(f"{place}: a model without adapters was expected, as text or with `path:`.")
        revision = inner.get("revision")
        value = f"{inner['path']}@{revision}" if revision else inner["path"]
    if not isinstance(value, str) or "+" in value:
        raise LayerTracerError(f"{place}: {value!r} is no model without adapters. Merge the adapter first.")
    return value
