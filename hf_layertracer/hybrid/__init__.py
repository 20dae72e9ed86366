"""Models made of layers of several donors, and of attention replaced by state-space mixers."""

from .build import build_hybrid
from .propose import propose_hybrid
from .provenance import HybridRecord
from .push import push_hybrid
from .recipe import HybridRecipe


__all__ = ["HybridRecipe", "HybridRecord", "build_hybrid", "propose_hybrid", "push_hybrid"]
