"""Full training."""

from __future__ import annotations

from .base import Choice, NoOptions, PlanInputs, Strategy


def choose(inputs: PlanInputs, options: NoOptions) -> Choice:
    """Trains every layer."""
    reason = "Every parameter that could train before does: full training."
    if inputs.never_trained:  # by the user's wish: what is frozen then, the plan says behind this
        reason = "Every layer trains."
    return Choice(set(range(inputs.num_layers)), reason)


STRATEGY = Strategy("full", "Train everything.", choose)
