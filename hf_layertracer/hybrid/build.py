"""Builds a hybrid: from safetensors to safetensors, one tensor at a time, complete and verified or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import LayerTracerError
from ..logs import get_logger
from .blueprint import blueprint
from .folder import unfinished
from .native import build_native
from .provenance import HYBRID_FILE, RECIPE_FILE, HybridRecord
from .recipe import HybridRecipe
from .whole import build_whole


logger = get_logger(__name__)

_SHARD_BYTES = 5 * 10**9


def build_hybrid(
    recipe: HybridRecipe | Mapping[str, Any] | str | Path, out_dir: str | Path, *, max_shard_size: int = _SHARD_BYTES
) -> HybridRecord:
    """Builds a model from a recipe.

    The weights go from file to file tensor by tensor: memory stays flat whatever the model's size. What is built is
    compared with its donors before it gets its name; if anything goes wrong, nothing is left.

    Args:
        recipe ([`HybridRecipe`], `dict`, `str` or `Path`): The recipe, what its file holds, or the file.
        out_dir (`str` or `Path`): Folder for the model; it must not exist, or be empty.
        max_shard_size (`int`, *optional*, defaults to 5 GB): Bytes to a file.

    Returns:
        [`HybridRecord`]: Where each layer comes from and how that was verified, as in `layertracer_hybrid.json`.

    Raises:
        LayerTracerError: The recipe is not valid, the donors do not fit or a file is damaged.

    Example:

    ```python
    from hf_layertracer import build_hybrid

    build_hybrid("recipe.yaml", "my-hybrid")
    ```
    """
    recipe = HybridRecipe.of(recipe)
    out = Path(out_dir)
    _check_free(out)
    plan = blueprint(recipe)
    with unfinished(out) as folder:
        build = build_whole if plan.native is None else build_native
        record = build(plan, folder, max_shard_size)
        recipe.save(folder / RECIPE_FILE)
        (folder / HYBRID_FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    logger.info(f"Built {out}: {len(record.layers)} layers, {record.architecture}.")
    return record


def _check_free(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise LayerTracerError(f"{out} exists and is not empty. Name another folder.")
    if out.exists() and not out.is_dir():
        raise LayerTracerError(f"{out} is a file. Name a folder.")
