"""Memory and time of a training run before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names


if TYPE_CHECKING:
    from .estimate import TrainingEstimate, estimate_training
    from .limits import traced_memory

__all__ = ["TrainingEstimate", "estimate_training", "traced_memory"]

# The command line reads the settings here, and must not wait for torch.
__getattr__ = lazy_names(
    __name__, {"estimate": ["TrainingEstimate", "estimate_training"], "limits": ["traced_memory"]}
)
