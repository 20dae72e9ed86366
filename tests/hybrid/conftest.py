"""Donors of one family on disk, and recipes that name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_layertracer import build_hybrid
from hf_layertracer.hybrid.recipe import HybridRecipe
from tests.support.hybrids import DONORS, REMOTE, REPLACED


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


@pytest.fixture(scope="session")
def built(make_model, tmp_path_factory):
    """`built("Qwen3", "fresh")`: folders of a donor and of its hybrid, built once; with "remote", in our class."""
    made: dict[tuple, tuple[Path, Path]] = {}

    def get(architecture: str, init: str = "from_attention", where: str = "native") -> tuple[Path, Path]:
        key = (architecture, init, where)
        if key not in made:
            place = tmp_path_factory.mktemp("-".join(key))
            make_model(architecture).save_pretrained(place / "donor")
            kinds = REMOTE[architecture] if where == "remote" else (DONORS[architecture],) * 2
            mixers = [{"layers": [i], "kind": kind, "init": init} for i, kind in zip(REPLACED, kinds, strict=True)]
            recipe = HybridRecipe.from_dict({"base": str(place / "donor"), "mixers": mixers, "remote_code": True})
            build_hybrid(recipe, place / "hybrid")
            made[key] = (place / "donor", place / "hybrid")
        return made[key]

    return get
