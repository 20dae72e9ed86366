"""Builds a hybrid: from safetensors to safetensors, one tensor at a time, complete and verified or not at all."""

from __future__ import annotations

from pathlib import Path

import safetensors
import torch
import transformers

from .. import __version__
from ..errors import LayerTracerError
from ..logs import get_logger
from ..modeling import EMBEDDINGS, HEAD, NORM
from .blueprint import Blueprint, blueprint
from .donors import Donor
from .folder import unfinished, write_settings
from .provenance import HYBRID_FILE, RECIPE_FILE, HybridRecord, LayerOrigin, Origin
from .recipe import HybridRecipe
from .verify import verify_layers
from .weights import Digests, in_order, whole_tensors, write_model


logger = get_logger(__name__)

_SHARD_BYTES = 5 * 10**9


def build_hybrid(
    recipe: HybridRecipe | str | Path, out_dir: str | Path, *, max_shard_size: int = _SHARD_BYTES
) -> HybridRecord:
    """Builds a model from a recipe.

    The weights go from file to file tensor by tensor: memory stays flat whatever the model's size. What is built is
    compared with its donors before it gets its name; if anything goes wrong, nothing is left.

    Args:
        recipe ([`HybridRecipe`], `str` or `Path`): The recipe, or its file.
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
    recipe = recipe if isinstance(recipe, HybridRecipe) else HybridRecipe.from_file(recipe)
    out = Path(out_dir)
    _check_free(out)
    plan = blueprint(recipe)
    with unfinished(out) as folder:
        record = _build_whole(plan, folder, max_shard_size)
        recipe.save(folder / RECIPE_FILE)
        (folder / HYBRID_FILE).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    logger.info(f"Built {out}: {len(record.layers)} layers, {record.architecture}.")
    return record


def origin(plan: Blueprint, donor: Donor, part: str, digests: Digests) -> Origin:
    """Where a part outside the layers comes from."""
    return Origin(donor=donor.public_name, revision=donor.revision, sha256=digests.of(part))


def versions() -> dict[str, str]:
    """The libraries that a hybrid is built with."""
    return {
        "hf_layertracer": __version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
    }


def _build_whole(plan: Blueprint, folder: Path, largest: int) -> HybridRecord:
    """Builds a hybrid of layers taken whole, in the base's class."""
    groups = whole_tensors(plan)
    digests = Digests(groups)
    write_model(folder, in_order(groups), digests, largest)
    write_settings(folder, plan.config, type(plan.parts.model).__name__, plan.tokenizer)
    verify_layers(folder, plan.parts.layers_path, plan.stack, range(len(plan.stack)), plan.dtype, folder)
    kinds = plan.parts.kinds()
    return HybridRecord(
        architecture=type(plan.parts.model).__name__,
        base=plan.base.public_name,
        base_revision=plan.base.revision,
        dtype=str(plan.dtype).removeprefix("torch."),
        recipe=plan.recipe.to_dict(),
        layers=[
            LayerOrigin(
                donor=donor.public_name,
                revision=donor.revision,
                sha256=digests.of(index),
                layer=index,
                donor_layer=layer,
                kind=kinds[index],
                verified="output bit-equal to the donor's layer on the same input",
            )
            for index, (donor, layer) in enumerate(plan.stack)
        ],
        embeddings=origin(plan, plan.embeddings, EMBEDDINGS, digests),
        norm=origin(plan, plan.norm, NORM, digests),
        head=origin(plan, plan.head, HEAD, digests) if groups[HEAD] else None,
        tokenizer=plan.tokenizer.public_name,
        versions=versions(),
    )


def _check_free(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise LayerTracerError(f"{out} exists and is not empty. Name another folder.")
    if out.exists() and not out.is_dir():
        raise LayerTracerError(f"{out} is a file. Name a folder.")
