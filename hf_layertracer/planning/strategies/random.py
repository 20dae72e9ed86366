"""A control that looks at nothing: one draw of LISA (arXiv 2403.17919)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...checks import whole_number
from .base import Choice, PlanInputs, Strategy, option
from .ratio import RatioOptions


@dataclass(frozen=True)
class RandomOptions(RatioOptions):
    """How many layers to freeze, and which draw.

    Args:
        plan_seed (`int`, *optional*, defaults to `0`): Seed of the draw.
    """

    plan_seed: int = option(0, "Seed of a strategy that draws layers at random.")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("plan_seed", self.plan_seed, least=0)


def choose(inputs: PlanInputs, options: RandomOptions) -> Choice:
    """Trains random layers."""
    count = options.number_frozen(inputs.num_layers)
    chosen = np.random.default_rng(options.plan_seed).permutation(inputs.num_layers)[count:]
    return Choice(
        {int(layer) for layer in chosen},
        f"As a control, random layers train (seed {options.plan_seed}) and {options.freeze_ratio:.0%} of the depth is "
        "frozen.",
    )


STRATEGY = Strategy("random", "Train random layers (a control).", choose, RandomOptions)
