"""A control that looks at no data: Spectrum's signal-to-noise ratio of weights (arXiv 2406.06623)."""

from __future__ import annotations

from .base import Choice, PlanInputs, Strategy
from .ratio import RatioOptions


def choose(inputs: PlanInputs, options: RatioOptions) -> Choice:
    """Trains the layers whose weights have the highest signal-to-noise ratio."""
    from ..weight_snr import layer_snr  # takes torch, which looking up a strategy must not wait for

    return Choice(
        options.highest(layer_snr(inputs.model, inputs.facts)),
        "As a control that looks at no data, the layers whose weight matrices have the highest signal-to-noise ratio "
        f"train (Spectrum, arXiv 2406.06623); the {options.freeze_ratio:.0%} with the lowest are frozen.",
    )


STRATEGY = Strategy(
    "weight-snr",
    "Train the layers whose weights have the highest signal-to-noise ratio (Spectrum, a control).",
    choose,
    RatioOptions,
    frozenset({"weights"}),
)
