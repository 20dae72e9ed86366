"""The papers' rule (arXiv 2605.11416)."""

from __future__ import annotations

from .base import Choice, PlanInputs, Strategy
from .ratio import RatioOptions, what_was_measured


def choose(inputs: PlanInputs, options: RatioOptions) -> Choice:
    """Trains the shallow layers."""
    trained = set(range(inputs.num_layers - options.number_frozen(inputs.num_layers)))
    return Choice(
        trained,
        "Deep layers execute the task and are stable, shallow layers are sensitive: train shallow, freeze deep "
        f"(arXiv 2605.11416), {options.freeze_ratio:.0%} of the depth frozen. {what_was_measured(inputs, trained)}",
    )


STRATEGY = Strategy(
    "freeze-deep", "Train the shallow layers, freeze the deep ones (the papers' rule).", choose, RatioOptions
)
