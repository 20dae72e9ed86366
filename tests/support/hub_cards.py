"""The rules by which the Hub judges a card's metadata, as far as they are known."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import model_index_to_eval_results


REPO_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[\w.-]{1,96})?", re.ASCII)
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "unknown")
TEXT = ("library_name", "pipeline_tag", "title", "sdk", "license_name", "emoji", "app_file", "pretty_name")
TEXTS = ("tags", "metrics", "language", "task_categories", "license")
REPOS = ("base_model", "datasets", "models")


def front_matter(text: str) -> Any:
    """What stands between the dashes at the beginning of a card; `None` where nothing does."""
    match = REGEX_YAML_BLOCK.search(text)
    return yaml.safe_load(match.group(2)) if match else None


def card_errors(text: str, kind: str) -> list[str]:
    """What the Hub would not accept in a card.

    Args:
        text: The card.
        kind: `"model"`, `"dataset"` or `"space"`.

    Returns:
        The complaints; none of an empty or missing front matter, which is only warned of.
    """
    try:
        data = front_matter(text)
    except yaml.YAMLError as error:
        return [f"invalid YAML: {' '.join(str(error).split())}"]
    if data is None:
        return ['"sdk" is required'] if kind == "space" else []
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    errors = [f'"{name}" must be a string' for name in TEXT if not isinstance(data.get(name, ""), str)]
    for name in (*TEXTS, *REPOS):
        values = data.get(name, [])
        values = [values] if isinstance(values, str) and name != "tags" else values
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            errors.append(f'"{name}" must be a list of strings')
        elif name in REPOS:
            errors += [f'"{name}" with value "{v}" is not valid' for v in values if not REPO_ID.fullmatch(v)]
    if "model-index" in data:
        errors += _model_index_errors(data["model-index"])
    if kind == "dataset":
        errors += _dataset_errors(data)
    if kind == "space":
        errors += _space_errors(data)
    return errors


def _model_index_errors(index: Any) -> list[str]:
    try:
        if not isinstance(index[0]["name"], str):
            return ["model-index: name must be a string"]
        results = model_index_to_eval_results(index)[1]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return [f"model-index: {type(error).__name__} {error}"]
    errors = []
    for result in results:
        for name in ("task_type", "dataset_type", "dataset_name", "metric_type"):
            if not isinstance(getattr(result, name), str) or not getattr(result, name):
                errors.append(f"model-index: {name} must be a string")
        value = result.metric_value
        if isinstance(value, float) and not math.isfinite(value):
            errors.append("model-index: a metric's value must be finite")
        if value is None or isinstance(value, bool):
            errors.append("model-index: a metric needs a value")
    return errors


def _dataset_errors(data: dict[str, Any]) -> list[str]:
    errors = []
    configs = data.get("configs", [])
    if not isinstance(configs, list) or not all(isinstance(c, dict) and c.get("config_name") for c in configs):
        return ['"configs" must be a list of mappings with config_name']
    names = [config["config_name"] for config in configs]
    if len(set(names)) < len(names):
        errors.append('"configs" has a config_name twice')
    if not all("data_files" in config or "data_dir" in config for config in configs):
        errors.append('"configs" must say data_files or data_dir')
    sizes = data.get("size_categories", [])
    if not set([sizes] if isinstance(sizes, str) else sizes) <= set(SIZES):
        errors.append(f'"size_categories" must be of {SIZES}')
    return errors


def _space_errors(data: dict[str, Any]) -> list[str]:
    errors = [] if data.get("sdk") in ("gradio", "streamlit", "docker", "static") else ['"sdk" is not valid']
    errors += [f'"{n}" must be one of {COLORS}' for n in ("colorFrom", "colorTo") if data.get(n, "red") not in COLORS]
    if not isinstance(data.get("sdk_version", ""), str):
        errors.append('"sdk_version" must be a string')
    if len(data.get("short_description", "")) > 60:
        errors.append('"short_description" has more than 60 characters')
    return errors
