"""The opposite of the papers' rule."""

from __future__ import annotations

from .base import Choice, PlanInputs, Strategy
from .ratio import RatioOptions, what_was_measured


def choose(inputs: PlanInputs, options: RatioOptions) -> Choice:
    """Trains the deep layers."""
    trained = set(range(options.number_frozen(inputs.num_layers), inputs.num_layers))
    return Choice(
        trained,
        f"The opposite of the papers' rule, as a control: {options.freeze_ratio:.0%} of the depth frozen from the "
        f"embedding up. {what_was_measured(inputs, trained)}",
    )


STRATEGY = Strategy(
    "freeze-shallow", "Train the deep layers, freeze the shallow ones (the opposite, a control).", choose, RatioOptions
)
