"""Donors of one family on disk, and recipes that name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_layertracer.hybrid.recipe import HybridRecipe


@pytest.fixture
def save_donor(tmp_path: Path, make_model, tiny_tokenizer) -> Callable[..., str]:
    """`save_donor("b", "Llama", seed=1, **config_changes)`: the folder of a tiny model whose weights the seed moves."""

    def save(name: str, architecture: str = "Llama", *, seed: int = 0, tokenizer: bool = True, **changes: Any) -> str:
        model = make_model(architecture, **changes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * seed * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(tmp_path / name)
        if tokenizer:
            tiny_tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.fixture
def donors(save_donor) -> tuple[str, str]:
    """Two tiny Llamas of the same shape with other weights."""
    return save_donor("a", seed=1), save_donor("b", seed=2)


@pytest.fixture
def recipe() -> Callable[..., HybridRecipe]:
    """`recipe(base=a, layers=[(a, 0, 2), (b, 2, 4)])`: a recipe, with layers in short."""

    def make(*, layers: list[tuple[str, int, int]] | None = None, **fields: Any) -> HybridRecipe:
        if layers is not None:
            fields["layers"] = [{"from": donor, "layer_range": [start, end]} for donor, start, end in layers]
        return HybridRecipe.from_dict(fields)

    return make
