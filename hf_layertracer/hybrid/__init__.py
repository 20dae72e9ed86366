"""Models made of layers of several donors, and of attention replaced by state-space mixers."""

from .build import build_hybrid
from .provenance import HybridRecord
from .recipe import HybridRecipe


__all__ = ["HybridRecipe", "HybridRecord", "build_hybrid"]
