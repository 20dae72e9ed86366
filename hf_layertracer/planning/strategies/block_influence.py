"""A control that measures something else: ShortGPT's block influence (arXiv 2403.03853)."""

from __future__ import annotations

from .base import Choice, PlanInputs, Strategy
from .ratio import RatioOptions


def choose(inputs: PlanInputs, options: RatioOptions) -> Choice:
    """Trains the layers that change the hidden state most."""
    return Choice(
        options.highest(inputs.measured.block_influence),
        "As a control, the layers that turn the hidden state most train (block influence, arXiv 2403.03853); the "
        f"{options.freeze_ratio:.0%} with the least influence are frozen.",
    )


STRATEGY = Strategy(
    "block-influence",
    "Train the layers that turn the hidden state most (ShortGPT, a control).",
    choose,
    RatioOptions,
    frozenset({"measurements"}),
)
