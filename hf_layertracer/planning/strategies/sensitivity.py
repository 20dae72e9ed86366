"""An allocation from measured Layer Sensitivity."""

from __future__ import annotations

from .base import Choice, PlanInputs, Strategy
from .ratio import RatioOptions


def choose(inputs: PlanInputs, options: RatioOptions) -> Choice:
    """Trains the most sensitive layers."""
    scores = inputs.measured.sensitivity
    trained = options.highest(scores.mean)
    kind = "estimated" if scores.estimate else "measured"
    return Choice(
        trained,
        f"The layers whose perturbation moves the output most train ({kind} sensitivity at least "
        f"{min(scores.mean[layer] for layer in trained):.3f} bits); the {options.freeze_ratio:.0%} least sensitive are "
        "frozen.",
    )


STRATEGY = Strategy(
    "sensitivity", "Train the most sensitive layers.", choose, RatioOptions, frozenset({"measurements"})
)
