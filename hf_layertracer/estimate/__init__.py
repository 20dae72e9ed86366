"""Memory and time of a training run before it starts."""

from ..lazy import lazy_names


# The command line reads the settings here, and must not wait for torch.
__getattr__ = lazy_names(__name__, {"estimate": ["TrainingEstimate", "estimate_training"]})
