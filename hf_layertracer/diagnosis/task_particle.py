"""Task Particle: where along the depth the model begins to execute a task (arXiv 2605.11416)."""

from __future__ import annotations

import numpy as np


def task_particle_of(curve: np.ndarray, rise: float, min_probability: float) -> int | None:
    """The layer at which a lens curve first rises by a set fraction of its maximum.

    Args:
        curve (`np.ndarray`): Lens probabilities of shape `(layers + 1,)`; entry 0 belongs to the embedding.
        rise (`float`): The rise that counts, as a fraction of the curve's maximum.
        min_probability (`float`): Below this maximum, the probe is unresolved.

    Returns:
        `int` or `None`: Layer index from 0, or `None` where the probe is unresolved.
    """
    highest = curve.max()
    if not highest >= min_probability:
        return None
    rises = np.flatnonzero(np.diff(curve) >= rise * highest)
    return int(rises[0]) if len(rises) else None


def max_ratio_of(curve: np.ndarray) -> int:
    """The layer at which a lens curve changes most in proportion to its value after the layer (arXiv 2605.11416).

    Args:
        curve (`np.ndarray`):
            Lens probabilities of shape `(layers + 1,)` of the token that the model itself finally predicts.

    Returns:
        `int`: Layer index from 0.
    """
    return int((np.abs(np.diff(curve)) / (curve[1:] + 1e-10)).argmax())
