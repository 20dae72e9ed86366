"""Memory and time of a training run before it starts."""

from .estimate import TrainingEstimate, estimate_training


__all__ = ["TrainingEstimate", "estimate_training"]
