"""Full training."""

from __future__ import annotations

from .base import Choice, NoOptions, PlanInputs, Strategy


def choose(inputs: PlanInputs, options: NoOptions) -> Choice:
    """Trains every layer."""
    return Choice(set(range(inputs.num_layers)), "Every parameter that could train before does: full training.")


STRATEGY = Strategy("full", "Train everything.", choose)
