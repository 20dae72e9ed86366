"""An allocation from measured Layer Sensitivity."""

from __future__ import annotations

from ...text import with_error
from .base import Choice, PlanInputs, Strategy
from .ratio import MeasureOptions


def choose(inputs: PlanInputs, options: MeasureOptions) -> Choice:
    """Trains the most sensitive layers."""
    measure, scores = inputs.scores(options.measure)
    trained = options.highest(scores)
    return Choice(
        trained,
        f"The layers whose perturbation ({measure}) moves the output most train (sensitivity at least "
        f"{with_error(min(scores[layer] for layer in trained))} bits); the {options.freeze_ratio:.0%} least sensitive "
        "are frozen.",
    )


STRATEGY = Strategy(
    "sensitivity", "Train the most sensitive layers.", choose, MeasureOptions, frozenset({"measurements"})
)
