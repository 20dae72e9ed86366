from .estimate import TrainingEstimate, estimate_training


__all__ = ["TrainingEstimate", "estimate_training"]
