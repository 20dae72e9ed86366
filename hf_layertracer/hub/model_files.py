"""Which files of a folder are a model: an allow-list, since folders of models hold much else."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

from ..errors import LayerTracerError


# Weights, configuration, tokenizer and processor, by the names that save_pretrained gives them.
_MODEL_FILES = (
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "*.tiktoken",
    "preprocessor_config.json",
    "processor_config.json",
)
# Files that may name classes in the model's own code.
_CONFIGS = ("config.json", "tokenizer_config.json", "processor_config.json")


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model: weights, configuration, tokenizer, and the code that its configuration names.

    Args:
        folder (`Path`): Where they lie, maybe among others.

    Returns:
        `dict[str, Path]`: By name.

    Raises:
        LayerTracerError: There are no weights, or code that the configuration names is missing.
    """
    files = {
        path.name: path
        for path in sorted(folder.glob("*"))
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in _MODEL_FILES)
    }
    if not any(name.endswith(".safetensors") for name in files):
        raise LayerTracerError(
            f"{folder} holds no model: there is no model.safetensors or adapter_model.safetensors in it."
        )
    return {**files, **_code(folder)}


def _code(folder: Path) -> dict[str, Path]:
    """The modules that `auto_map` names, with those that they import from beside them."""
    from transformers.dynamic_module_utils import get_relative_import_files

    named: set[str] = set()
    for config in _CONFIGS:
        path = folder / config
        try:
            content = json.loads(path.read_bytes()) if path.is_file() else {}
        except ValueError as error:
            raise LayerTracerError(f"{path} is not JSON: {error}.") from error
        named.update(_modules(content.get("auto_map", {}) if isinstance(content, dict) else {}))
    found: dict[str, Path] = {}
    for module in sorted(named):
        path = folder / f"{module}.py"
        if not path.is_file():
            raise LayerTracerError(f"The configuration in {folder} names {path.name}, which is not there.")
        for needed in [path, *map(Path, get_relative_import_files(path))]:
            found[needed.name] = folder / needed.name
    return found


def _modules(auto_map: object) -> set[str]:
    """`{"AutoModel": "modeling_x.Model"}` names `modeling_x`; `"user/repo--modeling_x.Model"` lies elsewhere."""
    names = [auto_map] if not isinstance(auto_map, dict) else list(auto_map.values())
    flat = [name for entry in names for name in (entry if isinstance(entry, list | tuple) else [entry])]
    return {name.split(".")[0] for name in flat if isinstance(name, str) and "--" not in name and name.count(".") == 1}
